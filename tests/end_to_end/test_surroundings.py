"""What is around a run: streams that cannot be written, files of another kind, limits of a shell, numbers with more behind them."""
import os
import pathlib
import re
import resource
import signal
import subprocess

import pytest
from workshop import BINARY, ENVIRONMENT, command, read_run, refused, run


def arguments(tiny, out, *more):
    return ("quantize", "--model", tiny[0], "--tokens", tiny[1], "--group-size", "32", "--out", out, *more)


def shell(redirection, ranks, *words):
    """A command with each rank's streams redirected by bash."""
    script = f'"$0" "$@" {redirection}; exit "${{PIPESTATUS[0]}}"'
    line = command(ranks, *words)
    program = line.index(BINARY)
    return subprocess.run([*line[:program], "bash", "-c", script, *line[program:]], env=ENVIRONMENT, check=False, timeout=100,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(0, *arguments(tiny, out))
    return out


@pytest.mark.parametrize("ranks, redirection", [(0, "2>/dev/full"), (0, "2>&-"), (0, "2>&1 | head -c 1"), (0, ">&- 2>&- <&-"), (2, "2>&-")])
def test_a_run_goes_on_where_nobody_reads_along(tiny, whole, tmp_path, ranks, redirection):
    assert shell(redirection, ranks, *arguments(tiny, tmp_path / "run")).returncode == 0
    assert read_run(tmp_path / "run") == read_run(whole)
    assert shell(redirection, ranks, *arguments(tiny, tmp_path / "run", "--resume")).returncode == 0
    assert shell(redirection, 0, *arguments(tiny, tmp_path / "other", "--bits", "5")).returncode == 2


def test_openblas_computes_with_what_the_processor_can():
    """Of a processor newer than itself it takes kernels of 2004, a quarter as fast; what the user asks for it gets."""
    def kernels(**more):
        environment = {name: value for name, value in ENVIRONMENT.items() if name != "OPENBLAS_CORETYPE"} | more
        done = subprocess.run(command(0, "--version"), capture_output=True, text=True, check=True, env=environment)
        return re.search(r"OpenBLAS kernels (\w+)", done.stdout)[1]

    if " avx2 " not in pathlib.Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    assert kernels().lower() in ("haswell", "zen", "skylakex", "cooperlake", "sapphirerapids")
    assert kernels(OPENBLAS_CORETYPE="Nehalem") == "Nehalem"
    assert kernels(OMP_WAIT_POLICY="passive") == kernels(GOMP_SPINCOUNT="1") == kernels()


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_a_result_that_cannot_be_printed_is_a_failure(tiny, whole, redirection):
    for words in (("inspect", whole), ("inspect", whole, "--json"), ("plan", *arguments(tiny, whole)[1:-2]), ("watch", whole, "--once"), ("--help",), ("--version",)):
        done = shell(redirection, 0, *words)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("fairgptq: "), (words, done)


def test_files_of_another_kind_are_refused_at_once(tiny, whole, tmp_path):
    fifo, folder = tmp_path / "fifo", tmp_path / "folder"
    os.mkfifo(fifo)
    folder.mkdir()
    for path in (fifo, folder):
        assert f"{path} is not a file" in refused(*arguments(tiny, tmp_path / "run"), "--tokens", path)
        assert f"{path} is not a file" in refused(*arguments(tiny, tmp_path / "run"), "--alpha-map", path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_bytes((tiny[0] / "config.json").read_bytes())
    os.mkfifo(model / "model.safetensors")
    assert "model.safetensors is not a file" in refused("quantize", "--model", model, "--tokens", tiny[1], "--group-size", "32", "--out", tmp_path / "run")
    (folder / "log.jsonl").mkdir()
    assert "log.jsonl" in refused("watch", folder)
    assert "name too long" in refused(*arguments(tiny, tmp_path / ("n" * 300))).lower()


def test_a_number_is_all_of_an_options_value(tiny, tmp_path):
    for option, value in (("--alpha", "0,5"), ("--alpha", "0x10"), ("--alpha", "0.5abc"), ("--alpha", "0.1 0.2"), ("--alpha", "nan"), ("--alpha", ""),
                          ("--damp", "0.5,5"), ("--device-memory", "8GB")):
        assert option in refused(*arguments(tiny, tmp_path / "run"), f"{option}={value}")
    assert "--asym" in refused(*arguments(tiny, tmp_path / "run"), "--sym=false")
    run(0, *arguments(tiny, tmp_path / "run", "--alpha", "1e-1", "--damp", ".01", "--max-layers", "1"))


def test_limits_of_a_shell(tiny, whole, tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 10, 30 << 10))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    done = run(0, *arguments(tiny, tmp_path / "run"), code=1, preexec_fn=small_files)
    assert "layer_0000.h5 could not be written: File too large" in done.stderr
    run(0, *arguments(tiny, tmp_path / "run", "--resume"))
    assert read_run(tmp_path / "run") == read_run(whole)
    threads = subprocess.run(command(0, *arguments(tiny, tmp_path / "other")), env={**ENVIRONMENT, "OMP_NUM_THREADS": "100000"},
                             capture_output=True, text=True, check=False, timeout=100)
    assert threads.returncode == 2 and "OMP_NUM_THREADS" in threads.stderr and not (tmp_path / "other").exists()


def test_watch_counts_what_a_failed_run_has_saved(tiny, tmp_path):
    """The log has a layer whose file did not come to be."""
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 10, 30 << 10))

    run(0, *arguments(tiny, tmp_path / "run"), code=1, preexec_fn=small_files)
    assert "failed, 0 of 3 layers" in run(0, "watch", tmp_path / "run", "--once").stdout
