"""A shared folder that returns an error once, and a clock that jumps: the run, or its --resume, ends with the same bytes."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from workshop import ENVIRONMENT, command, complaints, read_run, write_model, write_tokens


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return write_model(folder / "model"), write_tokens(folder / "tokens.h5")


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    assert quantize(tiny, out).returncode == 0
    return read_run(out)


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler for the shim")
    library = tmp_path_factory.mktemp("shim") / "faulty.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(Path(__file__).with_name("faulty.c")), "-o", str(library), "-ldl"], check=True)
    return str(library)


def quantize(tiny, out, **variables):
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(command(2, "quantize", "--model", tiny[0], "--tokens", tiny[1], "--out", out, "--group-size", "32", "--resume"),
                          env=environment, capture_output=True, text=True, check=False, timeout=120)


# Counted at every rank: the lock, run.json, the log and the layers' files are all hit by one of these.
@pytest.mark.parametrize(("call", "at"), [("write", 1), ("write", 4), ("write", 12), ("write", 25), ("fsync", 1), ("fsync", 3),
                                          ("fsync", 5), ("rename", 1), ("rename", 2)])
def test_a_folder_that_fails_once(tiny, whole, shim, tmp_path, call, at):
    out = tmp_path / "run"
    process = quantize(tiny, out, LD_PRELOAD=shim, FAULTY_CALL=call, FAULTY_AT=str(at), FAULTY_FOLDER=str(out))
    if process.returncode != 0:
        sentences = complaints(process.stderr)
        assert process.returncode in (1, 2) and any("Input/output error" in line for line in sentences), process.stderr
        before = {path: path.stat().st_mtime_ns for path in out.glob("layers/layer_????.h5")}
        process = quantize(tiny, out)
        assert process.returncode == 0, process.stderr
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert read_run(out) == whole


def test_a_clock_that_jumps(tiny, whole, shim, tmp_path):
    out = tmp_path / "run"
    process = quantize(tiny, out, LD_PRELOAD=shim, FAULTY_CLOCK="100000")
    assert process.returncode == 0, process.stderr
    assert read_run(out) == whole
    assert not [name for name in os.listdir(out) if name.startswith("lock")]
