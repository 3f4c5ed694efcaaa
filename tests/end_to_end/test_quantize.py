"""Whole runs as a user types them: ranks, resume, settings, and what is refused."""
import json
import shutil

import numpy as np
import pytest
from workshop import agreement, logits, quantized, read_run, refused, run, run_apart, write_model, write_tokens


def quantize(tiny, out, *more, ranks=0, code=0):
    model, tokens = tiny
    return run(ranks, "quantize", "--model", model, "--tokens", tokens, "--out", out, "--group-size", "32", *more, code=code)


def test_ranks_change_nothing(tiny, tmp_path):
    """More ranks than chunks or row tiles, too: with 64 rows a matrix is one tile."""
    quantize(tiny, tmp_path / "one")
    expected = quantized(read_run(tmp_path / "one"))
    assert len(expected) == 3 * 7 * 4
    for ranks in (1, 2, 3, 4):
        quantize(tiny, tmp_path / str(ranks), ranks=ranks)
        found = quantized(read_run(tmp_path / str(ranks)))
        assert agreement(expected, found) >= 0.999
        assert found == expected


def test_same_run_twice_gives_the_same_bytes(tiny, tmp_path):
    for name in ("a", "b"):
        quantize(tiny, tmp_path / name, ranks=2)
    assert read_run(tmp_path / "a") == read_run(tmp_path / "b")


@pytest.mark.parametrize("ranks", [(0, 0), (2, 2), (2, 3)])
@pytest.mark.parametrize("inputs", ["sequential", "original"])
def test_stopped_and_resumed_is_as_uninterrupted(tiny, tmp_path, ranks, inputs):
    first, second = ranks
    quantize(tiny, tmp_path / "whole", "--inputs", inputs, ranks=first)
    stopped = quantize(tiny, tmp_path / "parts", "--inputs", inputs, "--stop-after-layers", "1", ranks=first, code=75)
    assert "--resume" in stopped.stderr
    assert len(list((tmp_path / "parts/layers").iterdir())) == 1
    quantize(tiny, tmp_path / "parts", "--inputs", inputs, "--resume", ranks=second)
    assert quantized(read_run(tmp_path / "parts")) == quantized(read_run(tmp_path / "whole"))
    if first == second:
        assert read_run(tmp_path / "parts") == read_run(tmp_path / "whole")
    again = quantize(tiny, tmp_path / "parts", "--inputs", inputs, "--resume", ranks=second)
    assert "already complete" in again.stderr


def test_inputs_original_differs_after_the_first_stage(tiny, tmp_path):
    quantize(tiny, tmp_path / "sequential")
    quantize(tiny, tmp_path / "original", "--inputs", "original")
    a, b = read_run(tmp_path / "sequential"), read_run(tmp_path / "original")
    name = "layer_0000.h5/self_attn.q_proj/codes"
    assert a[name] == b[name]
    name = "layer_0002.h5/mlp.down_proj/codes"
    assert a[name] != b[name]


@pytest.mark.parametrize("option", [("--hessian-from", "pairs"), ("--hessian-from", "text"), ("--pair-alignment", "common"),
                                    ("--pair-alignment", "context"), ("--pair-alignment", "mean"), ("--alpha", "0.5"),
                                    ("--alpha-modules", "o_proj,down_proj"),
                                    ("--alpha-layers", "upper:30%"), ("--solver", "reference"), ("--bits", "3"), ("--asym",),
                                    ("--solver", "reference-first-order"), ("--order", "activation"), ("--damp", "0.1"),
                                    ("--scale-search", "mse"), ("--scale-dtype", "f32"), ("--order", "group")])
def test_every_option_changes_the_result(tiny, tmp_path, option):
    quantize(tiny, tmp_path / "plain", "--max-layers", "3")
    quantize(tiny, tmp_path / "changed", *option)
    assert quantized(read_run(tmp_path / "plain")) != quantized(read_run(tmp_path / "changed"))


@pytest.mark.parametrize("order, within", [("none", None), ("activation", None), ("group", "activation")])
def test_settings_say_that_groups_are_ordered_within(tiny, tmp_path, order, within):
    """So a run of the program that left them as they were is refused: it has no such setting."""
    quantize(tiny, tmp_path / "run", "--order", order, "--max-layers", "1")
    settings = json.loads((tmp_path / "run/run.json").read_text())["settings"]["quantization"]
    assert (settings["order"], settings.get("within_groups")) == (order, within)


def test_chunk_size_changes_sums_only_in_their_last_bits(tiny, tmp_path):
    quantize(tiny, tmp_path / "large", "--max-layers", "1")
    quantize(tiny, tmp_path / "small", "--max-layers", "1", "--chunk-tokens", "100", ranks=3)
    assert agreement(read_run(tmp_path / "large"), read_run(tmp_path / "small")) > 0.98


def test_alpha_map_and_alpha_zero(tiny, tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({"*.1.mlp.*": 0.7, "*": 0}))
    quantize(tiny, tmp_path / "map", "--alpha-map", tmp_path / "map.json")
    found = read_run(tmp_path / "map")
    assert found["layer_0001.h5/mlp.down_proj@alpha"] == 0.7
    assert found["layer_0001.h5/self_attn.q_proj@alpha"] == 0
    assert found["layer_0000.h5/mlp.down_proj@alpha"] == 0
    assert found["layer_0000.h5/mlp.down_proj@shift_norm"] == 0
    # α = 0 is GPTQ, whatever the solver: the first layer's first stage sees nothing else.
    quantize(tiny, tmp_path / "zero", "--alpha", "0")
    quantize(tiny, tmp_path / "reference", "--alpha", "0", "--solver", "reference", "--group-size", "-1", "--max-layers", "1")
    quantize(tiny, tmp_path / "joint", "--alpha", "0", "--group-size", "-1", "--max-layers", "1")
    assert quantized(read_run(tmp_path / "joint")) == quantized(read_run(tmp_path / "reference"))
    name = "layer_0000.h5/self_attn.q_proj/codes"
    assert read_run(tmp_path / "zero")[name] == found[name]


def test_modules_that_are_ignored_or_quantized_otherwise(tiny, tmp_path):
    """On ranks, stopped and resumed; what the run then computes is what its dense export does."""
    model, tokens = tiny
    (tmp_path / "map.json").write_text(json.dumps({"*.down_proj": {"bits": 8, "group_size": -1}, "*.0.*": {"sym": False}}))
    more = ("--ignore", "o_proj", "--ignore", "*.layers.1.self_attn.*", "--module-map", tmp_path / "map.json")
    quantize(tiny, tmp_path / "run", *more)
    found = read_run(tmp_path / "run")
    names = {name.split("@")[0].removesuffix(".h5") for name in found if name.endswith("@bits")}
    assert {name for name in names if "o_proj" in name} == set()
    assert {name.split("/")[1] for name in names if name.startswith("layer_0001")} == {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
    assert len(names) == 6 + 3 + 6
    grid = [found[f"layer_0000.h5/{module}@{field}"] for module in ("mlp.down_proj", "mlp.up_proj") for field in ("bits", "group_size", "sym")]
    assert grid == [8, 160, 1, 4, 32, 0]
    quantize(tiny, tmp_path / "parts", *more, "--stop-after-layers", "2", ranks=3, code=75)
    assert "quantization.ignore" in refused("quantize", "--model", model, "--tokens", tokens, "--out", tmp_path / "parts",
                                            "--group-size", "32", *more[2:], "--resume")
    quantize(tiny, tmp_path / "parts", *more, "--resume", ranks=2)
    assert quantized(read_run(tmp_path / "parts")) == quantized(found)
    run(0, "export", tmp_path / "run", "--format", "dense", "--dtype", "f32", "--out", tmp_path / "dense")
    assert np.array_equal(*(logits(tmp_path / f"{kind}.h5", tokens, f"--{kind}", folder)
                            for kind, folder in (("run", tmp_path / "run"), ("model", tmp_path / "dense"))))
    text = run(0, "inspect", tmp_path / "run").stdout
    assert "8/row" in text and "4/32a" in text and '["o_proj","*.layers.1.self_attn.*"]' in text
    first = quantize(tiny, tmp_path / "first", "--ignore", "*.layers.0.*", "--stop-after-layers", "1", code=75)
    assert "all modules ignored" in first.stderr
    event = json.loads((tmp_path / "first/log.jsonl").read_text().splitlines()[-2])
    assert (event["event"], event["modules"]) == ("layer", {})
    (tmp_path / "idle.json").write_text(json.dumps({"*.down_proj": {"bits": 8}, "*.1.mlp.down_proj": {"bits": 3}}))
    idle = run(0, "plan", "--model", model, "--tokens", tokens, "--group-size", "32", "--module-map", tmp_path / "idle.json").stderr
    assert "'*.1.mlp.down_proj' has no effect" in idle and "'*.down_proj' has" not in idle


def test_the_bias_term_lowers_bias(tiny, tmp_path):
    for alpha in ("0", "1"):
        quantize(tiny, tmp_path / alpha, "--alpha", alpha, "--inputs", "original")
    plain, fair = read_run(tmp_path / "0"), read_run(tmp_path / "1")
    for name, value in plain.items():
        if name.endswith("@bias_after"):
            assert fair[name] < value, name
        if name.endswith("@reconstruction"):
            assert 0 < value < fair[name], name


def test_an_existing_run_and_changed_settings_are_refused(tiny, tmp_path):
    model, tokens = tiny
    out = tmp_path / "run"
    quantize(tiny, out, "--stop-after-layers", "1", code=75)
    before = read_run(out)
    basic = ("quantize", "--model", model, "--tokens", tokens, "--out", out, "--group-size", "32")
    for ranks in (0, 2):
        assert "--resume" in refused(*basic, ranks=ranks)
        assert "alpha" in refused(*basic, "--resume", "--alpha", "0.2", ranks=ranks)
        assert "group_size" in refused(*basic, "--resume", "--group-size", "-1", ranks=ranks)
    other = write_model(tmp_path / "other", seed=5, vocabulary=385)
    assert "model" in refused("quantize", "--model", other, "--tokens", tokens, "--out", out, "--group-size", "32", "--resume")
    others = write_tokens(tmp_path / "tokens.h5", seed=9)
    assert "calibration" in refused("quantize", "--model", model, "--tokens", others, "--out", out, "--group-size", "32", "--resume")
    assert read_run(out) == before


def test_a_moved_model_still_resumes(tiny, tmp_path):
    model, tokens = tiny
    quantize(tiny, tmp_path / "run", "--stop-after-layers", "1", code=75)
    shutil.copytree(model, tmp_path / "moved")
    quantize((tmp_path / "moved", tokens), tmp_path / "run", "--resume")


def test_bad_usage_is_refused_before_any_work(tiny, tmp_path):
    model, tokens = tiny
    out = tmp_path / "run"
    basic = ("quantize", "--model", model, "--tokens", tokens, "--out", out)
    assert "q_proj" in refused(*basic, "--group-size", "128")  # 64 and 160 inputs: 32 divides both
    assert "down_proj" in refused(*basic, "--group-size", "64")
    assert "128" in refused(*basic, "--group-size", "48")
    for wrong, word in ((("--bits", "5"), "--bits"), (("--alpha", "-1"), "--alpha"), (("--alpha", "x"), "--alpha: "), (("--damp=y",), "--damp: "),
                        (("--bits", "4.5"), "--bits: "),
                        (("--solver", "best"), "joint"), (("--order", "up"), "activation"), (("--damp", "-1"), "--damp"),
                        (("--inputs", "none"), "sequential"), (("--device", "tpu"), "cpu"), (("--comm", "nccl"), "NCCL"),
                        (("--max-layers", "9"), "3"), (("--max-layers", "0"), "--max-layers"), (("--frobnicate",), "frobnicate"),
                        (("--alpha-layers", "7"), "7"), (("--alpha-modules", "x_proj"), "q_proj"), (("stray",), "stray"),
                        (("--chunk-tokens", "0"), "--chunk-tokens"), (("--stop-after-layers", "0"), "--stop-after-layers"),
                        (("--ignore", "x_proj"), "q_proj"), (("--ignore", "*"), "no module to quantize"), (("--ignore", ""), "--ignore"),
                        (("--ignore", "*.layers.0.*", "--max-layers", "1"), "--max-layers"),
                        (("--alpha-modules", "o_proj", "--ignore", "o_proj"), "bias term"),
                        (("--module-map", "/nowhere.json"), "/nowhere.json"), (("--alpha-map", "/nowhere.json"), "/nowhere.json")):
        assert word in refused(*basic, "--group-size", "32", *wrong), wrong
        assert not out.exists(), wrong
    assert "--out" in refused("quantize", "--model", model, "--tokens", tokens)
    assert "/nowhere" in refused("quantize", "--model", "/nowhere", "--tokens", tokens, "--out", out)
    assert "/nowhere" in refused("quantize", "--model", model, "--tokens", "/nowhere", "--out", out)
    assert "/proc/run" in refused(*basic[:-1], "/proc/run", "--group-size", "32")
    pairless = write_tokens(tmp_path / "text.h5", pairs=0)
    assert "pairs" in refused("quantize", "--model", model, "--tokens", pairless, "--out", out, "--group-size", "32")
    large = write_tokens(tmp_path / "large.h5", vocabulary=1000)
    assert "large.h5" in refused("quantize", "--model", model, "--tokens", large, "--out", out, "--group-size", "32")
    assert not out.exists()


def test_text_alone_is_plain_gptq(tiny, tmp_path):
    tokens = write_tokens(tmp_path / "text.h5", pairs=0)
    quantize((tiny[0], tokens), tmp_path / "run", "--alpha", "0", "--hessian-from", "text", ranks=2)
    assert read_run(tmp_path / "run")["layer_0000.h5/mlp.up_proj@bias_before"] == 0
    quantize((tiny[0], tokens), tmp_path / "short", "--alpha", "0", ranks=2)  # what there is, H is made of
    assert read_run(tmp_path / "short") == read_run(tmp_path / "run")


def test_dead_inputs_and_a_stubborn_hessian(tmp_path):
    """One sentence of four tokens cannot fill a Hessian of 64 columns: damping makes it factor, and the run says what it took."""
    def kill_channel(tensors):
        tensors["model.layers.0.input_layernorm.weight"][3] = 0
    model = write_model(tmp_path / "model", change=kill_channel)
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=1, texts=0)
    process = quantize((model, tokens), tmp_path / "run", "--alpha", "0.1", "--damp", "1e-12", ranks=2)
    assert process.stderr.count("layer 0, mlp.down_proj: its Hessian did not factor") == 1
    found = read_run(tmp_path / "run")
    assert max(value for name, value in found.items() if name.endswith("@damp_used")) > 1e-12


def test_nan_weights_are_refused_by_name(tiny, tmp_path):
    """Found when their layer is read: what was finished before stays, and with the tensor mended the run goes on."""
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = float("nan")
    model = write_model(tmp_path / "model", change=spoil)
    for ranks in (0, 3):
        sentence = refused("quantize", "--model", model, "--tokens", tiny[1], "--out", tmp_path / f"run{ranks}",
                           "--group-size", "32", ranks=ranks)
        assert "model.layers.1.mlp.up_proj.weight" in sentence
        assert [path.name for path in (tmp_path / f"run{ranks}/layers").iterdir()] == ["layer_0000.h5"]
    shutil.copytree(tiny[0], model, dirs_exist_ok=True)
    for ranks in (0, 3):
        quantize((model, tiny[1]), tmp_path / f"run{ranks}", "--resume")
    assert read_run(tmp_path / "run0") == read_run(tmp_path / "run3")


def test_a_run_says_what_it_did(tiny, tmp_path):
    process = quantize(tiny, tmp_path / "run", ranks=2)
    lines = process.stderr.splitlines()
    assert sum(line.startswith("layer ") for line in lines) == 3
    assert any("times what its" in line for line in lines)
    events = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "layer", "layer", "layer", "done"]
    shown = run(0, "inspect", tmp_path / "run").stdout
    assert "down_proj" in shown
    assert json.loads(run(0, "inspect", tmp_path / "run", "--json").stdout)


def test_a_rank_with_other_inputs_is_refused(tiny, tmp_path):
    model, tokens = tiny
    other = write_tokens(tmp_path / "other.h5", seed=9)
    process = run_apart(*(("quantize", "--model", model, "--tokens", file, "--out", tmp_path / "run", "--group-size", "32")
                          for file in (tokens, other)), code=2)
    assert "rank 1" in process.stderr and "calibration.digest" in process.stderr


def test_a_run_that_ended_before_it_began_is_begun(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json.partial").write_text("{")
    quantize(tiny, tmp_path / "run", "--resume", "--max-layers", "1")
    quantize(tiny, tmp_path / "run", "--resume", "--max-layers", "1")
