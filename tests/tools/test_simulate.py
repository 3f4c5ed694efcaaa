"""The simulator against a run's log made by its own arithmetic, and what it says of more ranks."""
import json
import re

import pytest
from running import refused, run_tool
from simulate import H100

CONFIG = {"hidden_size": 256, "intermediate_size": 640, "num_attention_heads": 4, "num_key_value_heads": 2}
PHASES = ("setup", "read", "forward", "covariance", "all_reduce", "factor", "columns", "figures", "exchange", "write")


def write_run(folder, ranks, phases, *, layers=6, done=True):
    (folder.parent / "model").mkdir(exist_ok=True)
    (folder.parent / "model/config.json").write_text(json.dumps(CONFIG))
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"format": "fairgptq-run", "fingerprint": "f", "settings": {
        "model": {"path": str(folder.parent / "model")}, "calibration": {}, "layers": layers, "quantization": {"alpha": 0.1, "bits": 4}}}))
    phases = {**dict.fromkeys(PHASES, 0.0), **phases}
    events = [{"event": "start", "ranks": ranks, "threads": 1, "forward_tokens": 12000, "hessian_tokens": 12000, "pair_columns": 2500,
               "chunks": 12, "squared_lengths": 1e6},
              {"event": "done", "seconds": sum(phases.values()), "phases": phases,
               "ranks": {phase: [seconds] * ranks for phase, seconds in phases.items()}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events[:2 if done else 1]))
    return folder


ONE = {"setup": 0.5, "read": 0.1, "forward": 8.0, "covariance": 4.0, "factor": 1.0, "columns": 0.6, "figures": 0.2, "exchange": 0.05}


@pytest.fixture
def rates(tmp_path):
    one = write_run(tmp_path / "one", 1, ONE)
    file = tmp_path / "rates.json"
    done = run_tool("simulate.py", "rates", one, "--cores", 4, "--out", file)
    assert done.returncode == 0, done.stderr
    return file


def test_the_run_that_the_rates_are_of_is_predicted(tmp_path, rates):
    done = run_tool("simulate.py", "check", "--rates", rates, "--tolerance", "0.02", tmp_path / "one")
    assert done.returncode == 0, done.stdout + done.stderr


def test_twelve_chunks_on_more_ranks(tmp_path, rates):
    """Tokens and rows are shared, of factorizations the large ones, but for their smallest halves (320 of 640 columns; 256 are not
    shared); five ranks have three chunks at most, as four have."""
    whole, small = 640 ** 3, 3 * 256 ** 3
    factor = (small + whole / 4 + (whole - whole / 4) / 2) / (small + whole)
    halved = {"forward": 4.0, "covariance": 2.0, "factor": factor, "columns": 0.3, "figures": 0.1, "exchange": 0.15, "setup": 0.25}
    done = run_tool("simulate.py", "check", "--rates", rates, write_run(tmp_path / "two", 2, halved))
    assert done.returncode == 0, done.stdout
    found = dict(re.findall(r"(forward|factor) +([0-9.]+)", done.stdout))
    assert found == {"forward": "4.00", "factor": f"{factor:.2f}"}
    times = [re.search(r"forward +([0-9.]+)", run_tool("simulate.py", "check", "--rates", rates, "--tolerance", "99",
                                                       write_run(tmp_path / f"r{ranks}", ranks, ONE)).stdout)[1] for ranks in (3, 4, 12)]
    assert times == ["2.67", "2.00", "2.00"]  # four cores: twelve ranks have a third of one each
    off = run_tool("simulate.py", "check", "--rates", rates, write_run(tmp_path / "off", 2, ONE))
    assert off.returncode == 1 and "more than 20 %" in off.stdout


def test_the_table(rates):
    for source in ("h100", rates):
        done = run_tool("simulate.py", "predict", "--rates", source, "--shape", "8b,70b", "--ranks", "1,8,1024")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("100%") >= 2 and len(done.stdout.splitlines()) == 2 + 6 and "predicted" in done.stdout


def test_factorizations_are_shared():
    """By hand, 70B on 8 GPUs: 2/3·28672³ / 7.9e13 = 0.199 s of products for down_proj, an eighth of it and each rank's own blocks;
    and 28672 · 1.2e-6 = 0.034 s that steps wait for each other."""
    done = run_tool("simulate.py", "predict", "--shape", "70b", "--ranks", "8", "--disk", "1000")
    assert done.returncode == 0, done.stderr
    total = float(re.search(r"^70b +8 +([0-9.]+) s", done.stdout, re.M)[1])
    factor = total * float(re.search(r"factor ([0-9]+) %", done.stdout)[1]) / 100
    latency = 80 * (28672 + 3 * 8192) * 1.2e-6
    products = 80 * 2 / 3 * (28672 ** 3 + 3 * 8192 ** 3) / 7.9e13
    assert latency + products / 8 < factor < latency + products / 3


def test_gpus_read_a_model_once_and_nodes_of_cpus_each_for_themselves(tmp_path):
    """140 GB at 1 GB/s: more than all else takes."""
    def seconds(source, ranks):
        done = run_tool("simulate.py", "predict", "--rates", source, "--shape", "70b", "--ranks", str(ranks), "--disk", "1")
        number, unit = re.search(rf"^70b +{ranks} +([0-9.]+) (s|min|h)", done.stdout, re.M).groups()
        return float(number) * {"s": 1, "min": 60, "h": 3600}[unit]

    assert 130 < seconds("h100", 8) < 150 and seconds("h100", 512) == pytest.approx(seconds("h100", 8), rel=0.1)
    (tmp_path / "each.json").write_text(json.dumps(H100 | {"shared_reading": False}))
    assert seconds(tmp_path / "each.json", 512) > 50 * seconds("h100", 512)


def test_torn_lines_of_a_log_are_passed_over(tmp_path, rates):
    """As fairgptq status reads it; a run whose last line is torn is not known to have ended."""
    log = tmp_path / "one/log.jsonl"
    first, last = log.read_text().splitlines(keepends=True)
    log.write_text(first + '{"event": "lay\n[1]\n' + last + '{"event"')
    assert run_tool("simulate.py", "check", "--rates", rates, tmp_path / "one").returncode == 0
    log.write_text(first + last[:-10])
    assert "from start to end" in refused(run_tool("simulate.py", "check", "--rates", rates, tmp_path / "one"))


def test_what_is_no_run_is_refused(tmp_path):
    def sentence(out="x.json"):
        return refused(run_tool("simulate.py", "rates", tmp_path / "one", "--cores", 4, "--out", tmp_path / out))
    one = write_run(tmp_path / "one", 1, ONE)
    assert "is a folder" in sentence(".")
    log = (one / "log.jsonl").read_text()
    for field in "pair_columns", "seconds", "figures":
        (one / "log.jsonl").write_text(log.replace(f'"{field}"', '"other"'))
        assert f"lacks '{field}'" in sentence()
    (one / "run.json").write_text('{"name": "of something else"}')
    assert "is not the run.json of a fairgptq run" in sentence()
    assert not (tmp_path / "x.json").exists()


def test_what_cannot_be_simulated_is_refused(tmp_path, rates):
    assert "9b" in refused(run_tool("simulate.py", "predict", "--shape", "9b"))
    for option in ("--ranks", "--tokens", "--chunk-tokens", "--sequence", "--disk"):
        done = run_tool("simulate.py", "predict", option, "0")
        assert option in refused(done) and not done.stdout
    half = write_run(tmp_path / "half", 1, ONE, done=False)
    assert "half" in refused(run_tool("simulate.py", "check", "--rates", rates, half))
    two = write_run(tmp_path / "two", 2, ONE)
    assert "single rank" in refused(run_tool("simulate.py", "rates", two, "--cores", 2, "--out", tmp_path / "x.json"))
    (tmp_path / "rates2.json").write_text("{}")
    assert "lacks" in refused(run_tool("simulate.py", "check", "--rates", tmp_path / "rates2.json", two))
    for more in {"ignore": ["o_proj"]}, {"module_map": [["*", {"bits": 8}]]}:
        changed = write_run(tmp_path / f"{len(list(tmp_path.iterdir()))}", 2, ONE)
        value = json.loads((changed / "run.json").read_text())
        value["settings"]["quantization"].update(more)
        (changed / "run.json").write_text(json.dumps(value))
        assert "not all quantized alike" in refused(run_tool("simulate.py", "check", "--rates", rates, changed))
    for field in "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts":
        (tmp_path / "model/config.json").write_text(json.dumps(CONFIG | {field: 4}))
        assert "mixture of experts" in refused(run_tool("simulate.py", "check", "--rates", rates, two))
