"""`fairgptq plan` against the memory that a run then takes, where buffers and not the program itself are most of it."""
import json
import os
import re
import resource
import subprocess
import time
from pathlib import Path

import pytest
from workshop import ENVIRONMENT, command, refused, run, write_model, write_tokens


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    return (write_model(folder / "model", layers=2, hidden=768, intermediate=2304, heads=12, key_value_heads=4, vocabulary=4096),
            write_tokens(folder / "tokens.h5", pairs=400, texts=80, text_length=60, vocabulary=4096))


def planned_and_measured(model, tokens, out, ranks, *more, command="quantize", log="."):
    """Peak memory of a rank in MiB."""
    arguments = ("--model", model, "--tokens", tokens, *more)
    shown = run(0, "plan", *arguments, "--ranks", ranks).stdout
    run(ranks, command, *arguments, "--out", out)
    end = json.loads((out / log / "log.jsonl").read_text().splitlines()[-1])
    assert end["event"] == "done"
    return float(re.search(r"peak of each rank +([0-9.]+) MiB", shown)[1]), end["peak_rss_kib"] / 1024


@pytest.mark.parametrize("ranks, more", [(1, ()), (2, ()), (2, ("--chunk-tokens", "2048", "--max-layers", "1")),
                                         (1, ("--hessian-from", "text", "--alpha", "0")), (2, ("--ignore", "down_proj"))])
def test_peak_memory_is_within_a_tenth_of_the_plan(inputs, tmp_path, ranks, more):
    planned, peak = planned_and_measured(*inputs, tmp_path / "run", ranks, *more)
    assert peak > 200, "too small a run to tell"
    assert peak == pytest.approx(planned, rel=0.1)


@pytest.mark.parametrize("ranks, alphas", [(2, "0,0.1,0.2,0.3,0.4,1"), (2, "0,0.1,1")])  # dealt whole; one by both
def test_peak_memory_of_a_sweep(inputs, tmp_path, ranks, alphas):
    planned, peak = planned_and_measured(*inputs, tmp_path / "sweep", ranks, "--inputs", "original", "--alphas", alphas,
                                         command="sweep", log="alpha_0.1")
    assert peak == pytest.approx(planned, rel=0.1)


def test_peak_memory_of_a_large_vocabulary(tmp_path):
    """Most of it is there before the first layer: the embedding, and the pages of its file."""
    planned, peak = planned_and_measured(write_model(tmp_path / "model", layers=1, hidden=512, intermediate=512, vocabulary=60000),
                                         write_tokens(tmp_path / "tokens.h5", vocabulary=60000), tmp_path / "run", 1)
    assert peak > 200
    assert peak == pytest.approx(planned, rel=0.1)


def test_it_says_whether_the_memory_suffices_and_refuses_what_quantize_refuses(inputs):
    arguments = ("plan", "--model", inputs[0], "--tokens", inputs[1])
    assert "suffice:" in run(0, *arguments, "--device-memory", "80").stdout
    less = run(0, *arguments, "--device-memory", "0.1", code=2)
    assert "device memory" in less.stdout or "memory of each rank" in less.stdout
    assert "0.1 GiB a rank do not suffice: " in less.stderr
    assert "--ranks" in refused(*arguments, "--ranks", "0")
    assert "--inputs original" in refused(*arguments, "--alphas", "0,1")
    assert "'x' is none" in refused(*arguments, "--inputs", "original", "--alphas", "0,x")
    assert "--device-memory" in refused(*arguments, "--device-memory", "-1")
    assert "--group-size" in refused(*arguments, "--group-size", "many")
    assert "--group-size" in refused(*arguments, "--group-size", "512")


def large_model(folder, hidden, intermediate, layers, heads):
    """A config.json and nothing else."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate,
         "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8, "vocab_size": 128256,
         "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 500000.0,
         "tie_word_embeddings": False, "dtype": "bfloat16"}))
    return folder


def test_gpus_are_planned_from_config_json_alone_where_there_are_none(inputs, tmp_path):
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=1000, texts=128, text_length=2048, vocabulary=4096)
    arguments = ("plan", "--tokens", tokens, "--device", "cuda", "--device-memory", "80")
    for name, shape in {"70b": (8192, 28672, 80, 64), "405b": (16384, 53248, 126, 128)}.items():
        model = large_model(tmp_path / name, *shape)
        shown = run(0, *arguments, "--model", model, "--ranks", "8").stdout
        assert "80 GiB a rank suffice:" in shown and "device memory of each rank" in shown
        assert "host memory, and" not in shown
        peak = float(re.search(r"device memory.*?peak +([0-9.]+) MiB", shown, re.S)[1]) / 1024
        assert f"{peak:.1f} GiB are needed" in shown
    less = run(0, *arguments[:-1], "40", "--model", tmp_path / "70b", "--ranks", "1").stdout
    assert "40 GiB a rank suffice: 4" in less or "40 GiB a rank suffice: 39." in less
    assert "the next layer's weights wait in host memory" in less
    assert re.search(r"the hidden states of \d+ of a rank's \d+ tokens are in host memory", less)
    assert "hidden states, page-locked" in less
    assert "do not suffice" in run(0, *arguments[:-1], "40", "--model", tmp_path / "405b", "--ranks", "8", code=2).stderr
    # What runs reads weights.
    assert "model.safetensors" in refused("quantize", "--model", tmp_path / "70b", "--tokens", tokens, "--out", tmp_path / "run")


def test_quantize_keeps_to_the_same_limit(inputs, tmp_path):
    arguments = ("--model", inputs[0], "--tokens", inputs[1])
    shown = run(0, "plan", *arguments).stdout
    needed = float(re.search(r"peak of each rank +([0-9.]+) MiB", shown)[1]) / 1024
    said = refused("quantize", *arguments, "--out", tmp_path / "run", "--device-memory", str(needed * 0.9))
    assert "--device-memory: a rank needs" in said and "--chunk-tokens" in said
    assert not (tmp_path / "run").exists()
    assert "--device-memory" in refused("quantize", *arguments, "--out", tmp_path / "run", "--device-memory", "0")
    run(0, "quantize", *arguments, "--out", tmp_path / "run", "--device-memory", str(needed * 1.01), "--max-layers", "1")
    start = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[0])
    assert start["comm"] == "one rank" and start["spilled_tokens"] == 0
    assert start["planned_device_bytes"] < needed * 1.01 * 2 ** 30


def make_cgroup(controller, needed):
    """A cgroup in this process's own, with the files that are needed of version 1 or 2; skips where none can be made."""
    own = {name: path for _, names, path in (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
           for name in names.split(",")}
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for left, right in mounts:
        root, mount = left.split()[3:5]
        one = right.startswith("cgroup ") and controller in right.split()[2].split(",")
        if not one and not right.startswith("cgroup2 "):
            continue
        # Version 2 lets a cgroup be limited only where no process is: in its root.
        folder = Path(mount) / (os.path.relpath(own[controller], root) if one else ".") / f"fairgptq-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        limit = folder / needed[0 if one else 1]
        if limit.exists() and os.access(limit, os.W_OK):
            yield folder, limit
            for _ in range(50):  # a launcher's helpers may still be ending
                try:
                    folder.rmdir()
                    return
                except OSError:
                    time.sleep(0.1)
            return
        folder.rmdir()
    pytest.skip("no cgroup can be made here")


@pytest.fixture
def cgroup():
    yield from make_cgroup("memory", ("memory.limit_in_bytes", "memory.max"))


@pytest.fixture
def quota():
    yield from make_cgroup("cpu", ("cpu.cfs_quota_us", "cpu.max"))


def test_no_more_threads_than_a_quota_of_processor_time_allows(inputs, quota):
    folder, limit = quota
    free = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_NUM_THREADS"}

    def threads(**more):
        shown = subprocess.run(command(0, "plan", "--model", inputs[0], "--tokens", inputs[1]), env=free, capture_output=True,
                               text=True, check=True, timeout=100, **more).stdout
        return int(re.search(r"with ([0-9]+) thread", shown)[1])

    cores = threads()
    if cores == 1:
        pytest.skip("there is one core")
    limit.write_text(f"{100000 * cores - 50000}" + (" 100000" if limit.name == "cpu.max" else ""))
    assert threads(preexec_fn=lambda: (folder / "cgroup.procs").write_text("0")) == cores - 1


def test_ranks_that_a_cgroup_would_kill_are_refused(inputs, tmp_path, cgroup):
    """What a Slurm job's --mem and a container's memory are."""
    folder, limit = cgroup
    arguments = ("--model", inputs[0], "--tokens", inputs[1])
    of_one, of_two = (float(re.search(r"peak of each rank +([0-9.]+) MiB", run(0, "plan", *arguments, "--ranks", ranks).stdout)[1])
                      for ranks in (1, 2))
    limit.write_text(str(int(1.6 * of_two * 2**20)))
    assert 1.6 * of_two > 1.1 * of_one, "one rank would not fit either"

    def join():
        (folder / "cgroup.procs").write_text("0")

    said = refused("quantize", *arguments, "--out", tmp_path / "run", ranks=2, preexec_fn=join)
    assert said.startswith("fairgptq: 2 ranks on one machine need ") and f"{folder.name} (a container's, or a Slurm job's: --mem) allows" in said
    assert not (tmp_path / "run").exists()
    run(1, "quantize", *arguments, "--out", tmp_path / "run", preexec_fn=join)


@pytest.mark.parametrize("kind, mebibytes", [(resource.RLIMIT_AS, (700, 4000)), (resource.RLIMIT_DATA, (500, 4000))])
def test_too_little_address_space_is_refused(inputs, tmp_path, kind, mebibytes):
    """OpenBLAS waits without end for memory that ulimit -v does not give."""
    arguments = ("--model", inputs[0], "--tokens", inputs[1])
    codes = []
    for most in mebibytes:
        process = subprocess.run(command(0, "quantize", *arguments, "--out", tmp_path / f"run_{most}", "--max-layers", "1"),
                                 env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=100,
                                 preexec_fn=lambda most=most: resource.setrlimit(kind, (most * 2**20, most * 2**20)))
        codes.append(process.returncode)
        assert process.returncode in (0, 2), process.stderr
        if process.returncode == 2:
            assert "ulimit -v or -d" in process.stderr and len(process.stderr.splitlines()) == 1
            assert not (tmp_path / f"run_{most}").exists()
    assert codes == [2, 0]
