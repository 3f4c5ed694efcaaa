"""What machines do to a run: killed ranks, full disks, damaged files, a rank that fails alone."""
import os
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from workshop import ROOT, complaints, quantized, ranks_of, read_run, run, start, write_tokens


def arguments(small, out, *more):
    model, tokens = small
    return ("quantize", "--model", model, "--tokens", tokens, "--out", out, "--group-size", "64", *more)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """The uninterrupted run on two ranks, and the seconds it took."""
    out = tmp_path_factory.mktemp("whole") / "run"
    begin = time.monotonic()
    run(2, *arguments(small, out))
    return read_run(out), time.monotonic() - begin


def wait_for_layer(out, layers, process):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if out.is_dir() and len(list(out.glob("layers/layer_????.h5"))) >= layers:
            return
        time.sleep(0.005)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("victim", ["one", "all"])
def test_killed_at_a_random_moment_and_resumed(small, whole, tmp_path, seed, victim):
    expected, seconds = whole
    draw = random.Random(f"{victim}{seed}")
    out = tmp_path / "run"
    for _ in range(2):  # killed twice, the second time while it resumes
        process = start(2, *arguments(small, out, "--resume"))
        time.sleep(draw.uniform(0.2, 0.9) * seconds)
        children = ranks_of(process)
        if victim == "all" or not children:
            os.killpg(process.pid, signal.SIGKILL)
            for pid in children:  # mpirun's ranks may have process groups of their own
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        else:
            try:
                os.kill(draw.choice(children), signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait(timeout=60)
        process.stdout.close()
    run(2, *arguments(small, out, "--resume"))
    assert read_run(out) == expected
    leftovers = [path.name for path in (out / "layers").iterdir() if not path.name.startswith("layer_")]
    assert not leftovers


def test_resumed_with_another_number_of_ranks(small, whole, tmp_path):
    out = tmp_path / "run"
    process = start(3, *arguments(small, out))
    wait_for_layer(out, 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    process.stdout.close()
    run(1, *arguments(small, out, "--resume"))
    assert quantized(read_run(out)) == quantized(whole[0])


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_finish_the_layer_and_stop(small, whole, tmp_path, which):
    out = tmp_path / "run"
    process = start(2, *arguments(small, out))
    wait_for_layer(out, 1, process)
    for pid in ranks_of(process):
        os.kill(pid, which)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 75, text
    assert 1 <= len(list(out.glob("layers/layer_*.h5"))) < 6
    run(2, *arguments(small, out, "--resume"))
    assert read_run(out) == whole[0]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_layer_is_done_again(small, whole, tmp_path, damage):
    out = tmp_path / "run"
    run(2, *arguments(small, out))
    victim = out / "layers/layer_0003.h5"
    content = bytearray(victim.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    victim.write_bytes(content if damage == "flip" else content[:len(content) // 2] if damage == "truncate" else b"")
    others = {path: path.stat().st_mtime_ns for path in out.glob("layers/layer_*.h5") if path != victim}
    process = run(2, *arguments(small, out, "--resume"))
    assert "layer_0003.h5" in process.stderr and "of which 5 are there" in process.stderr
    assert read_run(out) == whole[0]
    assert all(path.stat().st_mtime_ns == time for path, time in others.items()) and len(others) == 5
    assert run(0, "watch", out, "--once").stdout.startswith(f"{out}: done, 6 of 6 layers")


def test_a_full_disk_ends_with_a_sentence_and_resumes_after(small, whole, tmp_path):
    mount = tmp_path / "disk"
    mount.mkdir()
    layer = max(path.stat().st_size for path in _layers(small, tmp_path))
    size = int(2.5 * layer)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=False,
                      capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here (not root)")
    try:
        out = mount / "run"
        process = run(2, *arguments(small, out), code=1)
        sentences = complaints(process.stderr)
        assert len(sentences) == 1 and "space" in sentences[0] and "layer_" in sentences[0], process.stderr
        finished = list(out.glob("layers/layer_????.h5"))
        assert 1 <= len(finished) < 6
        subprocess.run(["mount", "-o", f"remount,size={20 * layer}", str(mount)], check=True)
        run(2, *arguments(small, out, "--resume"))
        assert read_run(out) == whole[0]
    finally:
        subprocess.run(["umount", str(mount)], check=False)


def _layers(small, tmp_path):
    out = tmp_path / "sized"
    run(0, *arguments(small, out, "--max-layers", "1"))
    return list((out / "layers").iterdir())


def test_a_rank_that_fails_alone_ends_the_job(small, whole, tmp_path):
    """Layer 4 is rank 1's to write (of three); a folder in its place makes that rank fail while the others compute on."""
    out = tmp_path / "run"
    process = start(3, *arguments(small, out))
    wait_for_layer(out, 1, process)
    (out / "layers/layer_0004.h5").mkdir()
    (out / "layers/layer_0004.h5/in_the_way").touch()
    text, _ = process.communicate(timeout=30 + 10 * whole[1])
    assert process.returncode not in (0, 2, 75), text
    sentences = complaints(text)
    assert len(sentences) == 1 and "rank 1" in sentences[0] and "layer_0004.h5" in sentences[0], text


def test_an_expert_that_one_rank_cannot_solve_ends_the_job(tmp_path):
    """Ranks are dealt whole experts: what one meets in its own, all hear of, once its sums have come from all."""
    olmoe = ROOT / "tests/model/oracles/olmoe"
    shutil.copytree(olmoe, tmp_path / "model")
    weights = load_file(olmoe / "model.safetensors")
    for half in ("gate_proj", "up_proj"):  # what they make, squared, is more than float32 holds
        name = f"model.layers.1.mlp.experts.1.{half}.weight"
        weights[name] = weights[name].astype(np.float32) * np.float32(1e12)
    save_file(weights, tmp_path / "model/model.safetensors")
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=20, texts=3, text_length=32, vocabulary=48)
    process = run(2, "quantize", "--model", tmp_path / "model", "--tokens", tokens, "--out", tmp_path / "run", "--group-size", "-1", "--scale-dtype", "f32",
                  code=1)
    sentences = complaints(process.stderr)
    assert len(sentences) == 1 and "rank 1: layer 1, experts 0 to 1: mlp.experts.1.down_proj: " in sentences[0], sentences
    assert [path.name for path in (tmp_path / "run/layers").iterdir()] == ["layer_0000.h5"]
