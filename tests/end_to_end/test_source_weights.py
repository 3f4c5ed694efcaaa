"""A model that changes under a run: a fine-tune saved over it has the same files, sizes and headers; its numbers differ."""
import json
import shutil
import struct

import pytest
from workshop import complaints, logits, quantized, read_run, refused, run, run_apart, write_token_file

NORM = "model.layers.{}.post_attention_layernorm.weight"
UP = "model.layers.{}.mlp.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


def change(model, name):
    """Flips one bit of the tensor's first number, in place: size and header stay."""
    file = model / "model.safetensors"
    content = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    content[8 + length + json.loads(content[8:8 + length])[name]["data_offsets"][0]] ^= 1
    file.write_bytes(content)


@pytest.fixture
def model(tiny, tmp_path):
    return shutil.copytree(tiny[0], tmp_path / "model")


def arguments(command, model, tokens, out, *more):
    return (command, "--model", model, "--tokens", tokens, "--out", out, "--group-size", "32", *more)


@pytest.mark.parametrize("ranks", [(0, 2), (2, 1)])
@pytest.mark.parametrize("inputs", ["sequential", "original"])
@pytest.mark.parametrize("name", [UP.format(1), NORM.format(0), EMBEDDING, "lm_head.weight"])
def test_what_finished_layers_were_made_of_must_be_the_same(tiny, model, tmp_path, name, inputs, ranks):
    out = tmp_path / "run"
    basic = arguments("quantize", model, tiny[1], out, "--inputs", inputs)
    run(ranks[0], *basic, "--stop-after-layers", "2", code=75)
    before = read_run(out)
    change(model, name)
    sentence = refused(*basic, "--resume", ranks=ranks[1])
    assert f"'{name}'" in sentence and str(model / "model.safetensors") in sentence and "put the file back" in sentence
    assert name in (EMBEDDING, "lm_head.weight") or f"layer {name.split('.')[2]}: " in sentence
    assert read_run(out) == before
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["event"] == "failed"
    change(model, name)  # the file as it was
    run(ranks[1], *basic, "--resume")
    run(0, *arguments("quantize", model, tiny[1], tmp_path / "whole", "--inputs", inputs))
    assert quantized(read_run(out)) == quantized(read_run(tmp_path / "whole"))


@pytest.mark.parametrize("inputs", ["sequential", "original"])
def test_a_layer_still_to_be_done_may_change(tiny, model, tmp_path, inputs):
    """The run is then what the model as it is now gives."""
    out = tmp_path / "run"
    run(2, *arguments("quantize", model, tiny[1], out, "--inputs", inputs, "--stop-after-layers", "2"), code=75)
    untouched = read_run(out)
    change(model, UP.format(2))
    run(2, *arguments("quantize", model, tiny[1], out, "--inputs", inputs, "--resume"))
    run(2, *arguments("quantize", model, tiny[1], tmp_path / "whole", "--inputs", inputs))
    found = read_run(out)
    assert found == read_run(tmp_path / "whole")
    assert untouched.items() <= found.items()
    hashes = json.loads(found["layer_0002.h5@source_tensors"])
    assert UP.format(2) in hashes and EMBEDDING not in hashes
    assert {EMBEDDING, "model.norm.weight", "lm_head.weight"} <= json.loads(found["layer_0000.h5@source_tensors"]).keys()


@pytest.mark.parametrize("name", [NORM.format(1), UP.format(1), EMBEDDING])
@pytest.mark.parametrize("inputs", ["sequential", "original"])
def test_what_comes_after_a_lost_layer_that_has_changed_is_done_again(tiny, model, tmp_path, inputs, name):
    """Whether or not the change shows in the lost layer's codes; and what is done again may have changed itself."""
    out = tmp_path / "run"
    basic = arguments("quantize", model, tiny[1], out, "--inputs", inputs)
    run(2, *basic)
    (out / f"layers/layer_000{0 if name == EMBEDDING else 1}.h5").unlink()
    change(model, name)
    change(model, NORM.format(2))
    assert "came out differently" in run(2, *basic, "--resume").stderr
    run(2, *arguments("quantize", model, tiny[1], tmp_path / "whole", "--inputs", inputs))
    assert read_run(out) == read_run(tmp_path / "whole")


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_sweep_compares_with_each_of_its_runs(tiny, model, tmp_path, ranks):
    """One run has two layers and the other one: the second layer is solved for one of them, and compared with the other's."""
    out = tmp_path / "sweep"
    basic = arguments("sweep", model, tiny[1], out, "--inputs", "original", "--alphas", "0,0.1")
    run(ranks, *basic, "--stop-after-layers", "1", code=75)
    run(ranks, *arguments("quantize", model, tiny[1], out / "alpha_0.1", "--inputs", "original", "--alpha", "0.1", "--resume",
                          "--stop-after-layers", "1"), code=75)
    change(model, UP.format(1))
    sentence = refused(*basic, "--resume", ranks=ranks)
    assert f"layer 1: tensor '{UP.format(1)}'" in sentence and "alpha_0.1" in sentence
    assert len(list((out / "alpha_0/layers").iterdir())) == 1
    change(model, UP.format(1))
    run(ranks, *basic, "--resume")


def test_ranks_with_different_models_are_refused(tiny, model, tmp_path):
    """A stale copy on one node, say."""
    change(model, NORM.format(1))
    process = run_apart(*(arguments("quantize", folder, tiny[1], tmp_path / "run") for folder in (tiny[0], model)), code=2)
    sentences = complaints(process.stderr)
    assert len(sentences) == 1 and "rank 1" in sentences[0] and NORM.format(1) in sentences[0], process.stderr
    assert str(model / "model.safetensors") in sentences[0]
    assert len(list((tmp_path / "run/layers").iterdir())) == 1  # what both made of the same weights


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    run(0, *arguments("quantize", tiny[0], tiny[1], out))
    return out


@pytest.mark.parametrize("name", [EMBEDDING, "lm_head.weight", NORM.format(2), UP.format(0)])
def test_what_reads_a_run_compares_what_it_reads(tiny, model, finished, tmp_path, name):
    expected = logits(tmp_path / "before.h5", tiny[1], "--run", finished, "--model", model)
    change(model, name)
    tokens = ("--tokens", tiny[1])
    with_run = ("logits", "--run", finished, "--model", model, *tokens, "--out", tmp_path / "logits.h5")
    export = ("export", finished, "--model", model, "--format", "dense", "--dtype", "f32", "--out", tmp_path / "export")
    if name == UP.format(0):  # the run's codes are put in its place, and it is not read
        assert (logits(tmp_path / "logits.h5", tiny[1], "--run", finished, "--model", model) == expected).all()
        run(0, *export)
        assert abs(logits(tmp_path / "after.h5", tiny[1], "--model", tmp_path / "export") - expected).max() < 1e-3
    else:
        for command in (with_run, export):
            assert f"'{name}'" in refused(*command), command[0]
        assert not (tmp_path / "logits.h5").exists()
        assert not (tmp_path / "export").exists()
    # This one continues the original's own prompts.
    assert f"'{name}'" in refused("diverge", "--run", finished, "--model", model, *tokens, "--prompts", "2",
                                  "--continuation-tokens", "2")


@pytest.mark.parametrize("ranks", [0, 2])
def test_eval_compares_at_every_rank(tiny, model, finished, tmp_path, ranks):
    write_token_file(tmp_path / "tokens.h5", {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "tasks": {"words": {
        "kind": "perplexity", "sequences": [[1, 2, 3, 4]] * 4, "scored_from": [1] * 4, "item": [0, 1, 2, 3], "role": [0] * 4, "strings": {}}}})
    command = ("eval", "--run", finished, "--model", model, "--tokens", tmp_path / "tokens.h5", "--out", tmp_path / "report.json")
    run(ranks, *command)
    (tmp_path / "report.json").unlink()
    change(model, NORM.format(1))
    sentence = refused(*command, ranks=ranks)
    assert f"layer 1: tensor '{NORM.format(1)}'" in sentence
    assert not (tmp_path / "report.json").exists()


def test_a_trial_compares_the_layers_it_came_to(tiny, model, tmp_path):
    run(0, *arguments("quantize", model, tiny[1], tmp_path / "run", "--max-layers", "1"))
    change(model, NORM.format(2))
    logits(tmp_path / "logits.h5", tiny[1], "--run", tmp_path / "run")
    change(model, NORM.format(0))
    assert NORM.format(0) in refused("logits", "--run", tmp_path / "run", "--tokens", tiny[1], "--out", tmp_path / "other.h5")


def test_a_run_of_an_older_program_is_refused(tiny, finished, tmp_path):
    """Its run.json has one hash of all weights, and its layers none."""
    old = shutil.copytree(finished, tmp_path / "run")
    described = json.loads((old / "run.json").read_text())
    described["version"] = 1
    described["settings"]["model"]["weights_hash"] = "0" * 32
    (old / "run.json").write_text(json.dumps(described))
    for command in (arguments("quantize", *tiny, old, "--resume"), ("inspect", old),
                    ("export", old, "--format", "dense", "--out", tmp_path / "export")):
        assert "go on with the fairgptq that made the run" in refused(*command)
