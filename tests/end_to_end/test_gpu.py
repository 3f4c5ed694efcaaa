"""Whole runs on a GPU; all of it is skipped where there is none."""
import json
import re
import subprocess

import numpy as np
import pytest
from workshop import BINARY, agreement, logits, read_run, refused, run, write_model, write_tokens


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    model = write_model(folder / "model", layers=3, hidden=512, intermediate=1536, heads=8, key_value_heads=4)
    tokens = write_tokens(folder / "tokens.h5", pairs=500, texts=150, text_length=400)
    words = ("quantize", "--model", model, "--tokens", tokens, "--device", "cuda", "--out", folder / "probe", "--max-layers", "1")
    probe = subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True, check=False)
    if "no GPU here" in probe.stderr or "no CUDA backend" in probe.stderr:
        pytest.skip(probe.stderr.strip())
    assert probe.returncode == 0, probe.stderr
    return "--model", model, "--tokens", tokens


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
    peak = float(re.search(r"device memory.*?peak +([0-9.]+) MiB", shown, re.S)[1])
    out = tmp_path / "run"
    process = run(0, "quantize", *inputs, "--device", "cuda", "--out", out, "--device-memory", str((peak - 120) / 1024))
    assert "wait in host memory" in process.stderr and "fetched for each step" in process.stderr
    assert start_of(out)["spilled_tokens"] > 0
    assert read_run(out) == whole
    assert "a rank needs" in refused("quantize", *inputs, "--device", "cuda", "--out", tmp_path / "none", "--device-memory", "0.5")


def test_begun_on_the_cpu_and_ended_on_the_gpu(inputs, whole, tmp_path):
    out = tmp_path / "run"
    run(0, "quantize", *inputs, "--device", "cpu", "--out", out, "--stop-after-layers", "1", code=75)
    run(0, "quantize", *inputs, "--device", "cuda", "--out", out, "--resume")
    found = read_run(out)
    first = {name: value for name, value in found.items() if name.startswith("layer_0000")}
    assert agreement(first, whole) > 0.98
    # What is minimised, of every module; of a module so small a tie moves it by some tenths of a percent.
    modules = [name.removesuffix("@alpha") for name in first if name.endswith("@alpha")]
    ratios = [objective(whole, module) / objective(first, module) for module in modules]
    assert len(ratios) == 7 and np.mean(ratios) == pytest.approx(1, abs=0.005) and ratios == pytest.approx([1] * 7, abs=0.02)


def test_begun_on_the_gpu_and_ended_on_the_cpu(inputs, whole, tmp_path):
    out = tmp_path / "run"
    run(0, "quantize", *inputs, "--device", "cuda", "--out", out, "--stop-after-layers", "1", code=75)
    run(0, "quantize", *inputs, "--device", "cpu", "--out", out, "--resume")
    found = read_run(out)
    begun = [name for name in whole if name.startswith("layer_0000")]
    assert begun and all(found[name] == whole[name] for name in begun)
    assert len(found) == len(whole)


def test_logits_are_the_cpus(inputs, tmp_path):
    found, expected = (logits(tmp_path / f"{device}.h5", inputs[3], "--model", inputs[1], "--device", device)
                       for device in ("cuda", "cpu"))
    # float16 of three layers: half a unit of each of a dozen results a layer, four times that in one logit of a hundred.
    assert np.abs(found - expected).max() <= 4 * (2 * 12 * 3 + 2) ** 0.5 * 2 ** -12 * np.abs(expected).max()


def test_ranks_without_a_gpu_each_say_so_or_are_refused(inputs, whole, tmp_path):
    count = len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines())
    out = tmp_path / "run"
    process = run(count + 1, "quantize", *inputs, "--device", "cuda", "--out", out)
    assert f"ranks 0 and {count} share GPU" in process.stderr
    assert start_of(out)["comm"] == "mpi"
    assert agreement(read_run(out), whole) > 0.999
    said = refused("quantize", *inputs, "--device", "cuda", "--comm", "nccl", "--out", tmp_path / "none", ranks=count + 1)
    assert "share GPU" in said or "no NCCL" in said


def test_nccl_gives_what_mpi_gives(inputs, whole, tmp_path):
    count = len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines())
    if count < 2:
        pytest.skip("this machine has one GPU")
    for comm in ("nccl", "mpi"):
        out = tmp_path / comm
        run(count, "quantize", *inputs, "--device", "cuda", "--comm", comm, "--out", out)
        assert start_of(out)["comm"].startswith(comm)
        assert agreement(read_run(out), whole) > 0.999
    assert read_run(tmp_path / "nccl") == read_run(tmp_path / "mpi")
