"""Whole runs on a GPU, or small ones on the emulation of one (FAIRGPTQ_EMULATED); all of it is skipped where there is neither."""
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from workshop import BINARY, agreement, logits, read_run, refused, run, start, write_model, write_tokens


EMULATED = os.environ.get("FAIRGPTQ_EMULATED") == "1"
SIZES = {"hidden": 128, "intermediate": 384, "heads": 4, "key_value_heads": 2} if EMULATED else \
    {"hidden": 512, "intermediate": 1536, "heads": 8, "key_value_heads": 4}
TOKENS = {"pairs": 40, "texts": 12, "text_length": 100} if EMULATED else {"pairs": 500, "texts": 150, "text_length": 400}


def gpus():
    """How many this machine has; the emulation is of two."""
    if EMULATED:
        return 2
    return len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    model = write_model(folder / "model", layers=3, **SIZES)
    tokens = write_tokens(folder / "tokens.h5", **TOKENS)
    words = ("quantize", "--model", model, "--tokens", tokens, "--device", "cuda", "--out", folder / "probe", "--max-layers", "1")
    probe = subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True, check=False)
    if "no GPU here" in probe.stderr or "no CUDA backend" in probe.stderr:
        pytest.skip(probe.stderr.strip())
    assert probe.returncode == 0, probe.stderr
    return "--model", model, "--tokens", tokens, "--chunk-tokens", "512" if EMULATED else "8192"


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(0, "quantize", *inputs, "--device", "cuda", "--out", out)
    return read_run(out)


def objective(found, module):
    return found[f"{module}@reconstruction"] + found[f"{module}@alpha"] * found[f"{module}@bias_after"]


def start_of(out):
    return json.loads((out / "log.jsonl").read_text().splitlines()[0])


def test_the_same_run_twice_gives_the_same_bytes(inputs, whole, tmp_path):
    run(0, "quantize", *inputs, "--device", "cuda", "--out", tmp_path / "run")
    assert read_run(tmp_path / "run") == whole


def test_what_waits_in_host_memory_changes_no_byte(inputs, whole, tmp_path):
    shown = run(0, "plan", *inputs, "--device", "cuda").stdout
    peak, hidden, layers = (float(re.search(rf"device memory.*?{line} +([0-9.]+) MiB", shown, re.S)[1])
                            for line in ("peak", "hidden states", "layer weights, this and the next"))
    out = tmp_path / "run"
    process = run(0, "quantize", *inputs, "--device", "cuda", "--out", out, "--device-memory", str((peak - layers / 2 - hidden / 2) / 1024))
    assert "wait in host memory" in process.stderr and "fetched for each step" in process.stderr
    assert start_of(out)["spilled_tokens"] > 0
    assert read_run(out) == whole
    assert "a rank needs" in refused("quantize", *inputs, "--device", "cuda", "--out", tmp_path / "none", "--device-memory", "0.5")


def compare_first_layers(cpu, gpu, most_apart):
    """Codes where only the inputs' rounding differs, and what is minimised, of every module. Behind the first stage codes follow
    from other codes: a tie that falls otherwise moves all behind it in its row, and a layer's last module shares three in four."""
    first = {name: value for name, value in cpu.items() if name.startswith("layer_0000")}
    beginning = {name: value for name, value in first.items() if re.search(r"[qkv]_proj/codes$", name)}
    assert len(beginning) == 3 and agreement(beginning, gpu) > 0.98
    modules = [name.removesuffix("@alpha") for name in first if name.endswith("@alpha")]
    ratios = [objective(gpu, module) / objective(first, module) for module in modules]
    assert len(ratios) == 7 and np.mean(ratios) == pytest.approx(1, abs=0.005) and ratios == pytest.approx([1] * 7, abs=most_apart)


def test_begun_on_the_cpu_and_ended_on_the_gpu(inputs, whole, tmp_path):
    out = tmp_path / "run"
    run(0, "quantize", *inputs, "--device", "cpu", "--out", out, "--stop-after-layers", "1", code=75)
    run(0, "quantize", *inputs, "--device", "cuda", "--out", out, "--resume")
    compare_first_layers(read_run(out), whole, most_apart=0.02)  # of a module so small a tie moves some tenths of a percent


def test_a_real_models_layer_is_the_cpus(tmp_path):
    piece = os.environ.get("FAIRGPTQ_PIECE")
    if not piece:
        pytest.skip("FAIRGPTQ_PIECE names no piece of a real model (tests/bench/cut_model.py makes one)")
    cpu, gpu = tmp_path / "cpu", tmp_path / "cuda"
    for out in (cpu, gpu):
        run(0, "quantize", "--model", piece, "--tokens", f"{piece}/tokens.h5", "--group-size", "64", "--max-layers", "1", "--device", out.name,
            "--out", out, timeout=1200)
    compare_first_layers(read_run(cpu), read_run(gpu), most_apart=0.005)


def test_begun_on_the_gpu_and_ended_on_the_cpu(inputs, whole, tmp_path):
    out = tmp_path / "run"
    run(0, "quantize", *inputs, "--device", "cuda", "--out", out, "--stop-after-layers", "1", code=75)
    run(0, "quantize", *inputs, "--device", "cpu", "--out", out, "--resume")
    found = read_run(out)
    begun = [name for name in whole if name.startswith("layer_0000")]
    assert begun and all(found[name] == whole[name] for name in begun)
    assert len(found) == len(whole)


def test_what_came_after_a_lost_layer_stays_where_the_layer_comes_out_the_same(inputs, whole, tmp_path):
    out = tmp_path / "run"
    run(0, "quantize", *inputs, "--device", "cuda", "--out", out)
    second = out / "layers/layer_0001.h5"
    last = (out / "layers/layer_0002.h5").read_bytes()
    second.unlink()
    process = run(0, "quantize", *inputs, "--device", "cuda", "--out", out, "--resume")
    assert "of which 2 are there" in process.stderr and "came out differently" not in process.stderr
    assert read_run(out) == whole and (out / "layers/layer_0002.h5").read_bytes() == last
    second.unlink()
    process = run(0, "quantize", *inputs, "--device", "cpu", "--out", out, "--resume")
    assert "layer_0001.h5 came out differently than when layer 2 was made after it" in process.stderr
    found = read_run(out)
    assert found["layer_0000.h5@hash"] == whole["layer_0000.h5@hash"]
    assert found["layer_0002.h5@made_after"] == found["layer_0001.h5@hash"] != whole["layer_0001.h5@hash"]


def test_logits_are_the_cpus(inputs, tmp_path):
    found, expected = (logits(tmp_path / f"{device}.h5", inputs[3], "--model", inputs[1], "--device", device)
                       for device in ("cuda", "cpu"))
    # float16 of three layers: half a unit of each of a dozen results a layer, four times that in one logit of a hundred.
    assert np.abs(found - expected).max() <= 4 * (2 * 12 * 3 + 2) ** 0.5 * 2 ** -12 * np.abs(expected).max()


def test_ranks_without_a_gpu_each_say_so_or_are_refused(inputs, whole, tmp_path):
    count = gpus()
    out = tmp_path / "run"
    process = run(count + 1, "quantize", *inputs, "--device", "cuda", "--out", out)
    assert f"ranks 0 and {count} share GPU" in process.stderr
    assert start_of(out)["comm"] == "mpi"
    assert agreement(read_run(out), whole) > 0.999
    said = refused("quantize", *inputs, "--device", "cuda", "--comm", "nccl", "--out", tmp_path / "none", ranks=count + 1)
    assert "share GPU" in said or "no NCCL" in said and not EMULATED


def test_nccl_gives_what_mpi_gives(inputs, whole, tmp_path):
    count = gpus()
    if count < 2:
        pytest.skip("this machine has one GPU")
    for comm in ("nccl", "mpi"):
        out = tmp_path / comm
        run(count, "quantize", *inputs, "--device", "cuda", "--comm", comm, "--out", out)
        assert start_of(out)["comm"].startswith(comm)
        assert agreement(read_run(out), whole) > 0.999
    assert read_run(tmp_path / "nccl") == read_run(tmp_path / "mpi")


def test_a_killed_rank_ends_an_exchange_by_nccl_and_the_run_goes_on(inputs, tmp_path):
    count = gpus()
    if count < 2:
        pytest.skip("this machine has one GPU")
    words = ("quantize", *inputs, "--device", "cuda", "--comm", "nccl", "--out")
    run(count, *words, tmp_path / "whole")
    out = tmp_path / "run"
    process = start(count, *words, out)
    wait_for(lambda: (out / "layers/layer_0000.h5").exists())
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    assert process.wait(timeout=30) != 0
    process.stdout.close()
    for pid in ranks:  # what the emulation of NCCL could not take away
        for file in Path("/dev/shm").glob(f"emulated_nccl_{pid}_*"):
            file.unlink()
    finished = sorted((out / "layers").glob("layer_*.h5"))
    assert 1 <= len(finished) < 3
    run(count, *words, out, "--resume")
    assert read_run(out) == read_run(tmp_path / "whole")


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


@pytest.mark.skipif(not EMULATED, reason="what a build can do is known of the emulation's")
def test_a_build_says_what_it_can_do():
    shown = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"fairgptq [0-9.]+ \(CPU, CUDA, NCCL\), OpenBLAS kernels \w+\n", shown)
