"""Exports as a user types them, read back by a reader that shares nothing with the program."""
import subprocess
import sys
from pathlib import Path

import pytest
from workshop import refused, run

CHECK = Path(__file__).with_name("check_export.py")


def quantize(tiny, out, *more):
    model, tokens = tiny
    run(0, "quantize", "--model", model, "--tokens", tokens, "--out", out, "--group-size", "32", *more)
    return out


def check(export, folder, tokens, logits):
    done = subprocess.run([sys.executable, CHECK, export, folder, tokens, logits], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), ("--asym", "--bits", "3"), ("--group-size", "-1", "--bits", "8"), ("--max-layers", "2")])
def test_every_format_holds_the_run(tiny, tmp_path, options):
    folder = quantize(tiny, tmp_path / "run", *options)
    tokens, logits = tiny[1], tmp_path / "logits.h5"
    run(0, "logits", "--run", folder, "--tokens", tokens, "--out", logits)
    for form, more in (("gptq", ()), ("compressed-tensors", ("--max-shard-size", "20KB")), ("dense", ("--dtype", "f32"))):
        run(0, "export", folder, "--format", form, "--out", tmp_path / form, *more)
        check(tmp_path / form, folder, tokens, logits)
    assert len(list((tmp_path / "compressed-tensors").glob("*.safetensors"))) > 3


def test_activation_order_keeps_its_groups(tiny, tmp_path):
    folder = quantize(tiny, tmp_path / "run", "--order", "activation")
    tokens, logits = tiny[1], tmp_path / "logits.h5"
    run(0, "logits", "--run", folder, "--tokens", tokens, "--out", logits)
    run(0, "export", folder, "--format", "gptq", "--out", tmp_path / "gptq")
    check(tmp_path / "gptq", folder, tokens, logits)
    message = refused("export", folder, "--format", "compressed-tensors", "--out", tmp_path / "out")
    assert "self_attn.q_proj" in message and "--static-groups" in message
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused(tiny, tmp_path):
    folder = quantize(tiny, tmp_path / "run")
    out = tmp_path / "out"
    assert "--format" in refused("export", folder, "--out", out)
    assert "gguf" in refused("export", folder, "--format", "gguf", "--out", out)
    assert "--out" in refused("export", folder, "--format", "dense")
    assert "--dtype" in refused("export", folder, "--format", "gptq", "--dtype", "f32", "--out", out)
    assert "--max-shard-size" in refused("export", folder, "--format", "gptq", "--max-shard-size", "5TB", "--out", out)
    assert "not a run" in refused("export", tmp_path, "--format", "gptq", "--out", out)
    (folder / "layers/layer_0002.h5").rename(tmp_path / "gone.h5")
    assert "2 of 3 layers" in refused("export", folder, "--format", "gptq", "--out", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone.h5", "run"]
