"""A shared folder that returns an error once, and a clock that jumps: the run, or its --resume, ends with the same bytes."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from workshop import ENVIRONMENT, command, read_run


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler for the shim")
    library = tmp_path_factory.mktemp("shim") / "faulty.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(Path(__file__).with_name("faulty.c")), "-o", str(library), "-ldl"], check=True)
    return str(library)


def quantize(small, out, **variables):
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(command(2, "quantize", "--model", small[0], "--tokens", small[1], "--out", out, "--group-size", "64", "--resume"),
                          env=environment, capture_output=True, text=True, check=False, timeout=120)


# Counted at every rank: the lock, run.json, the log and the layers' files are all hit by one of these.
@pytest.mark.parametrize(("call", "at"), [("write", 1), ("write", 4), ("write", 12), ("write", 40), ("fsync", 1), ("fsync", 3),
                                          ("fsync", 5), ("rename", 1), ("rename", 2)])
def test_a_folder_that_fails_once(small, expected, shim, tmp_path, call, at):
    out = tmp_path / "run"
    process = quantize(small, out, LD_PRELOAD=shim, FAULTY_CALL=call, FAULTY_AT=str(at), FAULTY_FOLDER=str(out))
    if process.returncode != 0:
        sentences = [line for line in process.stderr.splitlines() if line.startswith("fairgptq:")]
        assert process.returncode in (1, 2) and any("Input/output error" in line for line in sentences), process.stderr
        before = {path: path.stat().st_mtime_ns for path in out.glob("layers/layer_????.h5")}
        process = quantize(small, out)
        assert process.returncode == 0, process.stderr
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert read_run(out) == expected


def test_a_clock_that_jumps(small, expected, shim, tmp_path):
    out = tmp_path / "run"
    process = quantize(small, out, LD_PRELOAD=shim, FAULTY_CLOCK="100000")
    assert process.returncode == 0, process.stderr
    assert read_run(out) == expected
    assert not [name for name in os.listdir(out) if name.startswith("lock")]
