"""Exports as a user makes them: read back with nothing of the program's, and their logits against the run's."""
import json
import re
import shutil

import numpy as np
import pytest
from check_export import array, check, dequantized, settings_of
from safetensors.numpy import load_file, save_file
from workshop import ROOT, logits, refused, run, write_model, write_tokens

FORMATS = ("gptq", "compressed-tensors", "dense")
RUNS = {f"{symmetry}-{bits}": (f"--{symmetry}", "--bits", bits) for bits in "2348" for symmetry in ("sym", "asym")}
RUNS |= {"scattered": ("--asym", "--bits", "3", "--order", "activation"),
         "static": ("--order", "activation", "--static-groups"),
         "groups": ("--asym", "--order", "group"),
         "row": ("--bits", "3", "--group-size", "-1"),
         "mixed": ("--ignore", "k_proj,*.layers.1.mlp.down_proj,*.layers.0.mlp.gate_proj", "--module-map", "mixed.json")}
MIXED = {"*.layers.1.self_attn.*": {"bits": 8, "group_size": -1}, "*.o_proj": {"bits": 3}, "*.mlp.*": {"sym": False}}


def quantize(model, tokens, out, *more, code=0):
    group_size = () if "--group-size" in more else ("--group-size", "32")
    run(0, "quantize", "--model", model, "--tokens", tokens, "--out", out, *group_size, *more, code=code)
    return out


def export(run_folder, out, form, *more):
    run(0, "export", run_folder, "--format", form, "--out", out, *more)
    return out


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A model of two layers with a tokenizer's files beside it, and its token file."""
    folder = tmp_path_factory.mktemp("export")
    model = write_model(folder / "model", layers=2)
    for name in ("tokenizer.json", "generation_config.json", "tokenizer_config.json"):
        (model / name).write_text(json.dumps({"file": name}))
    (model / "merges.txt").write_text("a b\n")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    (model / "notes.md").write_text("not a model's file")
    (folder / "mixed.json").write_text(json.dumps(MIXED))
    return folder, model, write_tokens(folder / "tokens.h5", pairs=40, texts=4)


@pytest.fixture(scope="module")
def runs(workplace):
    """Makes each run once: its folder and its logits."""
    folder, model, tokens = workplace
    made = {}

    def get(name):
        if name not in made:
            options = [folder / option if option == "mixed.json" else option for option in RUNS[name]]
            out = quantize(model, tokens, folder / f"run-{name}", *options)
            made[name] = out, logits(folder / f"{name}.h5", tokens, "--run", out)
        return made[name]
    return get


def write_dense(folder, exported):
    """The export as an ordinary float32 model, made of what the independent reader finds in it."""
    folder.mkdir()
    linears, others = dequantized(exported)
    tensors = {name: np.ascontiguousarray(array(tensor)).astype(np.float32) for name, tensor in others.items()}
    tensors |= {name + ".weight": np.ascontiguousarray(values) for name, values in linears.items()}
    save_file(tensors, str(folder / "model.safetensors"))
    config = json.loads((exported / "config.json").read_text())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_logits(found, expected, linears, rounding):
    """Each linear's weights are off by at most `rounding` of themselves, and so is, to first order, what each adds to the
    residual stream: no more than all of it together."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= linears * rounding * np.abs(expected).max()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", RUNS)
def test_export_is_the_run(runs, workplace, tmp_path, name, form):
    run_folder, expected = runs(name)
    if (name, form) == ("scattered", "compressed-tensors"):
        sentence = refused("export", run_folder, "--format", form, "--out", tmp_path / "out")
        assert "--static-groups" in sentence and not list(tmp_path.iterdir())
        return
    exported = export(run_folder, tmp_path / "out", form)
    check(exported, run_folder)
    model = exported
    if form != "dense":  # float32 values of the same codes and scales: the same arithmetic, the same logits
        model = write_dense(tmp_path / "dense", exported)
    found = logits(tmp_path / "logits.h5", workplace[2], "--model", model)
    if form == "dense":
        assert_logits(found, expected, 2 * 7, 2.0 ** -11)
    else:
        assert np.array_equal(found, expected)


def test_dense_keeps_what_the_dtype_can_hold(runs, workplace, tmp_path):
    run_folder, expected = runs("asym-3")
    found = {}
    for dtype in ("f32", "bf16"):
        exported = export(run_folder, tmp_path / dtype, "dense", "--dtype", dtype)
        check(exported, run_folder)
        found[dtype] = logits(tmp_path / f"{dtype}.h5", workplace[2], "--model", exported)
    assert np.array_equal(found["f32"], expected)
    assert_logits(found["bf16"], expected, 2 * 7, 2.0 ** -8)


def test_what_programs_read_off_the_settings(runs, tmp_path):
    def settings(name, form):
        exported = export(runs(name)[0], tmp_path / f"{name}-{form}", form)
        return json.loads((exported / "config.json").read_text()).get("quantization_config")

    gptq = settings("sym-4", "gptq")
    assert (gptq["bits"], gptq["group_size"], gptq["sym"], gptq["desc_act"]) == (4, 32, True, False)
    assert (gptq["quant_method"], gptq["checkpoint_format"]) == ("gptq", "gptq")
    assert settings("asym-8", "gptq")["checkpoint_format"] == "gptq_v2"
    assert settings("scattered", "gptq")["desc_act"] is True
    assert settings("static", "gptq")["desc_act"] is False
    assert settings("row", "gptq")["group_size"] == -1
    packed = settings("asym-8", "compressed-tensors")
    assert packed["format"] == "pack-quantized" and packed["ignore"] == ["lm_head"]
    weights = packed["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["symmetric"], weights["strategy"], weights["group_size"]) == (8, False, "group", 32)
    assert settings("row", "compressed-tensors")["config_groups"]["group_0"]["weights"]["strategy"] == "channel"
    assert settings("row", "dense") is None


def test_programs_that_compute_parts_as_one_are_told_so(workplace, tmp_path):
    """vLLM takes q, k and v together, or not at all."""
    folder, model, tokens = workplace

    def warnings_of(name, *more):
        run_folder = tmp_path / name
        found = run(0, "quantize", "--model", model, "--tokens", tokens, "--out", run_folder, "--group-size", "32", *more).stderr
        return found + "".join(run(0, "export", run_folder, "--format", form, "--out", f"{run_folder}.{form}").stderr for form in FORMATS)

    assert warnings_of("whole", "--ignore", "*.layers.1.self_attn.[qkv]_proj,*.layers.0.mlp.*").count("vLLM (") == 0
    parts = warnings_of("parts", "--ignore", "k_proj")
    assert parts.count("it computes as one q, k and v") == 3  # before the run, and at two exports
    assert "Optimum" in parts
    settings = json.loads((tmp_path / "whole.compressed-tensors/config.json").read_text())["quantization_config"]
    for name, left in (("1.self_attn.qkv_proj", True), ("0.self_attn.qkv_proj", False), ("0.mlp.gate_up_proj", True), ("1.mlp.gate_up_proj", False)):
        assert (settings_of(settings, f"model.layers.{name}") is None) == left


def test_files_beside_the_weights_come_along(runs, workplace, tmp_path):
    _, model, _ = workplace
    exported = export(runs("sym-4")[0], tmp_path / "deep" / "out", "gptq")
    for name in ("tokenizer.json", "generation_config.json", "tokenizer_config.json", "merges.txt", "chat_template.jinja"):
        assert (exported / name).read_bytes() == (model / name).read_bytes()
    assert not (exported / "notes.md").exists()
    assert list((tmp_path / "deep").iterdir()) == [exported]


def test_what_vllm_does_not_load_is_said(runs, workplace, tmp_path):
    """At the export, and before the work where no format helps."""
    folder, model, tokens = workplace

    def of_export(name, form):
        return run(0, "export", runs(name)[0], "--format", form, "--out", tmp_path / f"{name}-{form}").stderr

    for name, form in (("sym-4", "gptq"), ("asym-4", "compressed-tensors"), ("static", "gptq"), ("scattered", "dense")):
        assert "vLLM" not in of_export(name, form)
    assert "as compressed-tensors, not as gptq" in of_export("asym-4", "gptq")
    assert "scattered columns (desc_act)" in of_export("scattered", "gptq")
    assert "no kernel for 3 bits" in of_export("row", "compressed-tensors")
    for options, words in ((("--order", "activation"), "--order group"), (("--bits", "3"), "3 bits"), (("--asym",), None)):
        settings = ("--model", model, "--tokens", tokens, "--group-size", "32", *options)
        warning = "vLLM (0.32) will load no export of this run but a dense one"
        for found in (run(0, "plan", *settings).stderr,
                      run(2, "quantize", *settings, "--out", tmp_path / options[-1]).stderr):
            assert found.count(warning) == (words is not None) and (words is None or words in found)


@pytest.mark.parametrize("form", FORMATS)
def test_shards(runs, workplace, tmp_path, form):
    """check() sees that the index names every tensor's shard; the embedding alone is larger than a shard."""
    run_folder, _ = runs("sym-4")
    exported = export(run_folder, tmp_path / "out", form, "--max-shard-size", "40KB")
    check(exported, run_folder)
    shards = sorted(path.name for path in exported.glob("*.safetensors"))
    assert len(shards) > 3
    assert shards == [f"model-{index:05}-of-{len(shards):05}.safetensors" for index in range(1, len(shards) + 1)]
    header = 8192  # the limit is on tensors; every header here is smaller than this
    large = [name for name in shards if (exported / name).stat().st_size > 40_000 + header]
    embedding = 384 * 64 * 2
    assert len(large) == 2 and all((exported / name).stat().st_size <= embedding + header for name in large)
    if form == "dense":
        whole = export(run_folder, tmp_path / "whole", form)
        assert np.array_equal(*(logits(tmp_path / f"{folder.name}.h5", workplace[2], "--model", folder)
                                for folder in (exported, whole)))


@pytest.mark.parametrize("stored", [False, True])
def test_tied_embeddings(tmp_path, stored):
    """A head that is the embedding is left out, also where the original stores a copy of it."""
    def tie(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        if not stored:
            del tensors["lm_head.weight"]
    model = write_model(tmp_path / "model", layers=1, change=tie, settings={"tie_word_embeddings": True})
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=20, texts=2)
    run_folder = quantize(model, tokens, tmp_path / "run")
    expected = logits(tmp_path / "run.h5", tokens, "--run", run_folder)
    for form in FORMATS:
        exported = export(run_folder, tmp_path / form, form)
        check(exported, run_folder)
        assert "lm_head.weight" not in dequantized(exported)[1]
        assert json.loads((exported / "config.json").read_text())["tie_word_embeddings"] is True
        dense = write_dense(tmp_path / f"{form}-dense", exported)
        assert_logits(logits(tmp_path / f"{form}.h5", tokens, "--model", dense), expected, 7,
                      2.0 ** -11 if form == "dense" else 0)


def test_a_trial_run_leaves_the_other_layers_as_they_are(workplace, tmp_path):
    _, model, tokens = workplace
    run_folder = quantize(model, tokens, tmp_path / "run", "--max-layers", "1")
    expected = logits(tmp_path / "run.h5", tokens, "--run", run_folder)
    left, done = "model.layers.1.mlp.up_proj", "model.layers.0.mlp.up_proj"
    for form in FORMATS:
        exported = export(run_folder, tmp_path / form, form)
        check(exported, run_folder)
        dense = write_dense(tmp_path / f"{form}-dense", exported)
        assert_logits(logits(tmp_path / f"{form}.h5", tokens, "--model", dense), expected, 7,
                      2.0 ** -11 if form == "dense" else 0)
        settings = json.loads((exported / "config.json").read_text()).get("quantization_config")
        if form == "gptq":
            (pattern,) = settings["dynamic"]
            pattern = pattern.removeprefix("-:")
        elif form == "compressed-tensors":
            head, pattern = settings["ignore"]
            assert head == "lm_head"
            pattern = pattern.removeprefix("re:")
        else:
            continue
        assert re.match(pattern, left) and not re.match(pattern, done)


FAMILIES = ("llama", "llama31_sharded", "mistral", "qwen2", "qwen3", "opt")


ORACLES = ROOT / "tests/model/oracles"


def assert_export_is_the_model(model, tokens, tmp_path, *more):
    run_folder = quantize(model, tokens, tmp_path / "run", "--asym", *more)
    expected = logits(tmp_path / "run.h5", tokens, "--run", run_folder)
    for form in ("gptq", "compressed-tensors"):
        exported = export(run_folder, tmp_path / form, form)
        check(exported, run_folder)
        dense = write_dense(tmp_path / f"dense-{form}", exported)
        assert np.array_equal(logits(tmp_path / f"{form}.h5", tokens, "--model", dense), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(shared, tmp_path, family):
    """Biases, norms of heads, learned positions, original shards: all of it comes along."""
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=20, texts=2)
    assert_export_is_the_model(shared / "reference" / "models" / family, tokens, tmp_path)


@pytest.mark.parametrize("family", sorted(folder.name for folder in ORACLES.iterdir()))
def test_every_other_family(tmp_path, family):
    """Linears of several parts, norms in other places, multipliers, layers of two kinds."""
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=20, texts=3, text_length=32, vocabulary=48)
    assert_export_is_the_model(ORACLES / family, tokens, tmp_path, "--group-size", "-1")


@pytest.mark.parametrize("family", ["phi3", "mixtral", "ernie4_5_moe", "deepseek_v3", "qwen25_with_pictures", "gemma3_with_pictures", "qwen3_5_moe",
                                    "qwen3_5_with_pictures"])
def test_modules_of_several_grids_whatever_they_are_called(tmp_path, family):
    """Also where expressions are matched with names that the export's files do not have."""
    (tmp_path / "map.json").write_text(json.dumps({"*.layers.1.*": {"bits": 8}, "*.o_proj": {"sym": True}}))
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=20, texts=3, text_length=32, vocabulary=48)
    assert_export_is_the_model(ORACLES / family, tokens, tmp_path, "--group-size", "-1", "--ignore", "*.layers.0.*attn.*",
                               "--module-map", tmp_path / "map.json")


def test_families_that_another_type_or_program_computes_otherwise(tmp_path):
    def warnings_of(family, form, *more, settings=None):
        model = tmp_path / f"{family}{form}{len(more)}"
        shutil.copytree(ORACLES / family, model)
        config = json.loads((model / "config.json").read_text()) | (settings or {})
        (model / "config.json").write_text(json.dumps(config))
        tokens = write_tokens(model / "tokens.h5", pairs=20, texts=3, text_length=32, vocabulary=48)
        run_folder = quantize(model, tokens, model / "run", "--group-size", "-1", "--max-layers", "1")
        return run(0, "export", run_folder, "--format", form, "--out", model / "out", *more).stderr

    assert "--max-model-len 48" in warnings_of("phi3_longrope", "gptq")
    assert "--max-model-len" not in warnings_of("phi3", "gptq")
    assert "--max-model-len 32" in warnings_of("ministral3_with_pictures", "gptq")
    assert "--max-model-len" not in warnings_of("mistral_with_pictures", "gptq")
    trained = {"dtype": "bfloat16"}
    assert "--dtype bf16" in warnings_of("gemma3", "dense", settings=trained)
    assert "--dtype bf16" not in warnings_of("gemma3", "dense", "--dtype", "bf16", settings=trained)
    assert "--dtype bf16" not in warnings_of("gemma3", "gptq", settings=trained)
    assert "--dtype bf16" not in warnings_of("olmo2", "dense")


def test_architectures_that_a_program_reads_in_fewer_forms(tmp_path):
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=20, texts=3, text_length=32, vocabulary=48)

    def warnings_of(family, name, form, *more):
        run_folder = quantize(ORACLES / family, tokens, tmp_path / name, "--group-size", "-1", *more)
        return run(0, "export", run_folder, "--format", form, "--out", tmp_path / f"{name}-out").stderr

    assert "transformers" in warnings_of("qwen3_moe", "a", "compressed-tensors", "--asym")
    assert "transformers" in warnings_of("olmoe", "b", "compressed-tensors", "--max-layers", "1")
    assert "transformers" not in warnings_of("olmoe", "c", "compressed-tensors")
    assert "GPTQModel" in warnings_of("mixtral", "d", "gptq")
    assert "GPTQModel" in warnings_of("minimax_m2", "s", "gptq")
    assert "GPTQModel" not in warnings_of("olmoe", "e", "gptq")
    assert "layers without experts" in warnings_of("qwen2_moe", "f", "gptq")
    assert "its router" in warnings_of("glm4_moe", "g", "gptq")
    assert "GPTQModel" not in warnings_of("dots1", "h", "gptq")
    assert "router's correction" in warnings_of("ernie4_5_moe", "i", "gptq")
    assert "two linears" in warnings_of("glm", "j", "gptq")
    assert "neither vLLM" in warnings_of("glm4", "k", "gptq")
    assert "neither vLLM" not in warnings_of("glm4", "l", "compressed-tensors")
    assert "its router" in warnings_of("glm4_moe_lite", "m", "gptq")
    assert "does not know this architecture" in warnings_of("youtu", "n", "gptq")
    assert "does not know" not in warnings_of("youtu", "o", "dense")
    assert "GPTQModel" not in warnings_of("deepseek_v2", "p", "gptq")
    # A config.json of transformers 5 lacks what published ones have, and vLLM goes by.
    assert '"topk_method": "noaux_tc"' in warnings_of("deepseek_v3", "q", "compressed-tensors")
    model = tmp_path / "published"
    shutil.copytree(ORACLES / "deepseek_v3", model)
    config = json.loads((model / "config.json").read_text()) | {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
    (model / "config.json").write_text(json.dumps(config))
    assert "topk_method" not in warnings_of(model, "r", "compressed-tensors")
    assert "it computes as one" in warnings_of("qwen3_5", "t", "compressed-tensors", "--ignore", "in_proj_z")
    assert "it computes as one" not in warnings_of("qwen3_5", "u", "compressed-tensors", "--ignore", "in_proj_z,in_proj_qkv")
    warnings_of("lfm2", "v", "compressed-tensors", "--ignore", "out_proj")
    ignored = json.loads((tmp_path / "v-out/config.json").read_text())["quantization_config"]["ignore"]
    for name in ("model.layers.0.conv.out_proj", "model.layers.2.short_conv.out_proj", "model.layers.1.self_attn.out_proj"):  # vLLM's second
        assert any(re.match(one.removeprefix("re:"), name) for one in ignored), name
    ignored = json.loads((tmp_path / "u-out/config.json").read_text())["quantization_config"]["ignore"]
    for name in ("model.layers.2.linear_attn.in_proj_a", "model.layers.0.linear_attn.in_proj_b", "mtp.fc", "model.layers.2.linear_attn.in_proj_qkvz"):
        assert any(re.match(one.removeprefix("re:"), name) for one in ignored), name
    for name, setting in ("c", "ignore"), ("e", "dynamic"):
        settings = json.loads((tmp_path / f"{name}-out/config.json").read_text())["quantization_config"]
        pattern = [one for one in settings[setting] if one != "lm_head"][0].removeprefix("re:").removeprefix("-:")
        assert re.match(pattern, "model.layers.0.mlp.gate") and not re.match(pattern, "model.layers.0.mlp.experts.0.gate_proj")


def test_gates_of_experts_and_layers_behind_the_model_stay_as_they_are(tmp_path):
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=20, texts=3, text_length=32, vocabulary=48)

    def left_alone(model, name, form):
        """@returns whether a program that reads the export takes a linear for unquantized"""
        if not (tmp_path / name).exists():
            quantize(model, tokens, tmp_path / name, "--group-size", "-1")
        run(0, "export", tmp_path / name, "--format", form, "--out", tmp_path / f"{name}-{form}")
        settings = json.loads((tmp_path / f"{name}-{form}/config.json").read_text())["quantization_config"]
        patterns = [one.removeprefix("re:").removeprefix("-:") for one in settings["dynamic" if form == "gptq" else "ignore"]]
        return lambda linear: any(re.match(pattern, linear) for pattern in patterns)

    # Layers that predict further tokens lie behind the model's own in GLM's files.
    glm = tmp_path / "glm"
    shutil.copytree(ORACLES / "glm4_moe", glm)
    tensors = load_file(glm / "model.safetensors")
    further = {f"model.layers.2.{name}.weight": np.full((8, 16), 0.5, np.float16) for name in ("eh_proj", "mlp.experts.0.up_proj")}
    save_file(tensors | further, glm / "model.safetensors")
    # ERNIE's files count them anew, and vLLM on.
    ernie = tmp_path / "ernie"
    shutil.copytree(ORACLES / "ernie4_5_moe", ernie)
    ahead = {f"model.{name}.weight": np.full((8, 16), 0.5, np.float16) for name in ("mtp_block.0.self_attn.q_proj", "mtp_linear_proj.0")}
    save_file(load_file(ernie / "model.safetensors") | ahead, ernie / "model.safetensors")
    for form in "gptq", "compressed-tensors":
        alone = left_alone(ernie, "ernie-run", form)
        assert alone("model.layers.3.self_attn.qkv_proj") and not alone("model.layers.2.self_attn.qkv_proj")
        exported = load_file(tmp_path / f"ernie-run-{form}/model.safetensors")
        assert all((exported[name] == ahead[name]).all() for name in ahead)
        alone = left_alone(glm, "glm-run", form)
        assert alone("model.layers.1.mlp.gate") and alone("model.layers.2.eh_proj") and alone("model.layers.2.mlp.experts.0.up_proj")
        for linear in "mlp.shared_experts.gate_proj", "mlp.experts.0.gate_proj", "self_attn.q_proj":
            assert not alone(f"model.layers.1.{linear}")
        assert not alone("model.layers.0.mlp.gate_proj")
        exported = load_file(tmp_path / f"glm-run-{form}/model.safetensors")
        for name in *further, "model.layers.1.mlp.gate.weight", "model.layers.1.mlp.gate.e_score_correction_bias":
            assert np.array_equal(exported[name], (tensors | further)[name])
        alone = left_alone(ORACLES / "qwen2_moe", "qwen-run", form)
        assert alone("model.layers.0.mlp.gate") and alone("model.layers.0.mlp.shared_expert_gate")
        assert not alone("model.layers.0.mlp.shared_expert.gate_proj") and not alone("model.layers.1.mlp.gate_proj")


def test_an_existing_folder_is_refused_and_kept(runs, tmp_path):
    run_folder, _ = runs("sym-4")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for out in ("out", "file"):
        assert f"{tmp_path / out} exists" in refused("export", run_folder, "--format", "dense", "--out", tmp_path / out)
    assert (tmp_path / "out/mine").read_text() == (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]
    (tmp_path / "empty").mkdir()
    check(export(run_folder, tmp_path / "empty", "dense"), run_folder)
    check(export(run_folder, f"{tmp_path}/slash/", "dense") and tmp_path / "slash", run_folder)


def test_unfinished_and_damaged_runs_are_refused(workplace, runs, tmp_path):
    _, model, tokens = workplace
    out = tmp_path / "out"
    unfinished = quantize(model, tokens, tmp_path / "unfinished", "--stop-after-layers", "1", code=75)
    for form in FORMATS:
        assert "unfinished" in refused("export", unfinished, "--format", form, "--out", out)
    damaged = tmp_path / "damaged"
    shutil.copytree(runs("sym-4")[0], damaged)
    layer = damaged / "layers/layer_0001.h5"
    content = bytearray(layer.read_bytes())
    content[len(content) // 2] ^= 1
    layer.write_bytes(content)
    process = run(0, "export", damaged, "--format", "gptq", "--out", out, code=2)
    warning, sentence = process.stderr.splitlines()
    assert "layer_0001.h5 is damaged" in warning and "--resume" in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "unfinished"]


def test_a_model_that_changed_since_is_refused(workplace, tmp_path):
    _, original, tokens = workplace
    model = tmp_path / "model"
    shutil.copytree(original, model)
    run_folder = quantize(model, tokens, tmp_path / "run", "--max-layers", "1")
    write_model(model, layers=2, settings={"rms_norm_eps": 1e-5}, change=lambda tensors: tensors.update(
        {"extra": np.zeros(3, np.float16)}))
    assert str(model) in refused("export", run_folder, "--format", "dense", "--out", tmp_path / "out")
    shutil.rmtree(model)
    assert str(model) in refused("export", run_folder, "--format", "dense", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "words"), [
    (("--format", "awq"), ("awq", "compressed-tensors")), ((), ("--format",)),
    (("--format", "gptq", "--dtype", "f32"), ("--dtype", "dense")), (("--format", "dense", "--dtype", "f8"), ("f8", "bf16")),
    (("--format", "dense", "--max-shard-size", "many"), ("--max-shard-size", "5GB")),
    (("--format", "dense", "--max-shard-size", "0"), ("--max-shard-size",)),
    (("--format", "dense", "--max-shard-size", "-1GB"), ("--max-shard-size",))])
def test_wrong_options(runs, tmp_path, arguments, words):
    sentence = refused("export", runs("sym-4")[0], "--out", tmp_path / "out", *arguments)
    assert all(word in sentence for word in words), sentence
    assert not list(tmp_path.iterdir())


def test_wrong_places(runs, tmp_path):
    run_folder, _ = runs("sym-4")
    assert "/nowhere" in refused("export", "/nowhere", "--format", "gptq", "--out", tmp_path / "out")
    assert "/proc/" in refused("export", run_folder, "--format", "gptq", "--out", "/proc/out")
    assert "--out" in refused("export", run_folder, "--format", "gptq")
    assert "RUN" in refused("export", "--format", "gptq", "--out", tmp_path / "out")


def test_float32_scales_do_not_fit_gptq(workplace, tmp_path):
    _, model, tokens = workplace
    run_folder = quantize(model, tokens, tmp_path / "run", "--scale-dtype", "f32")
    assert "float32 scales" in refused("export", run_folder, "--format", "gptq", "--out", tmp_path / "gptq")
    assert not (tmp_path / "gptq").exists()
    expected = logits(tmp_path / "run.h5", tokens, "--run", run_folder)
    exported = export(run_folder, tmp_path / "packed", "compressed-tensors")
    check(exported, run_folder)
    dense = write_dense(tmp_path / "dense", exported)
    assert np.array_equal(logits(tmp_path / "dense.h5", tokens, "--model", dense), expected)


def test_a_moved_model_is_found_where_the_user_says(workplace, tmp_path):
    _, model, tokens = workplace
    shutil.copytree(model, tmp_path / "model")
    out = quantize(tmp_path / "model", tokens, tmp_path / "run")
    before = logits(tmp_path / "before.h5", tokens, "--run", out)
    (tmp_path / "model").rename(tmp_path / "moved")
    for command in (("export", out, "--format", "dense", "--out", tmp_path / "no"),
                    ("logits", "--run", out, "--tokens", tokens, "--out", tmp_path / "no.h5")):
        assert "--model" in refused(*command)
        assert "is not a folder" in refused(*command, "--model", tmp_path / "nowhere")
    after = logits(tmp_path / "after.h5", tokens, "--run", out, "--model", tmp_path / "moved")
    assert np.array_equal(before, after)
    export(out, tmp_path / "dense", "dense", "--model", tmp_path / "moved")
    assert (tmp_path / "dense/config.json").is_file()


def test_a_model_with_other_settings_is_refused(workplace, tmp_path):
    """(Other weights in files of the same names, sizes and headers: test_source_weights.py.)"""
    _, _, tokens = workplace
    word = "config.json have changed"
    model = write_model(tmp_path / "model", layers=2)
    out = quantize(model, tokens, tmp_path / "run")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert word in refused("export", out, "--format", "gptq", "--out", tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert word in refused("eval", "--run", out, "--tokens", tokens, ranks=2)


FLOAT8 = np.array([(mantissa * 2.0 ** -9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10))
                   for exponent in range(16) for mantissa in range(8)])[:127]


def bfloat16_bits(values):
    """To the nearest, ties to even."""
    words = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype("<u2")


def write_raw(folder, tensors):
    """@param tensors  names, with dtype and an array of the bits"""
    header, data = {}, b""
    for name, (dtype, bits) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(bits.shape), "data_offsets": [len(data), len(data) + bits.nbytes]}
        data += bits.tobytes()
    words = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(words).to_bytes(8, "little") + words + data)


@pytest.fixture(scope="module")
def float8(tmp_path_factory):
    """A model whose linears are 8-bit floats in blocks of 128 x 128, and the same one in bfloat16."""
    folder = tmp_path_factory.mktemp("float8")
    source = write_model(folder / "source", layers=2, hidden=192, intermediate=320, heads=6, key_value_heads=3)
    config = json.loads((source / "config.json").read_text()) | {"dtype": "bfloat16"}
    blocks, plain = {}, {}
    for name, values in load_file(source / "model.safetensors").items():
        plain[name] = blocks[name] = "BF16", bfloat16_bits(values)
        if "_proj" not in name:
            continue
        values = values.astype(np.float32)
        codes, made = np.zeros(values.shape, np.uint8), np.zeros(values.shape, np.float32)
        scales = np.zeros([(extent + 127) // 128 for extent in values.shape], np.float32)
        for row, col in np.ndindex(*scales.shape):
            part = np.s_[128 * row:128 * (row + 1), 128 * col:128 * (col + 1)]
            scales[row, col] = np.abs(values[part]).max() / 448
            nearest = np.abs(np.abs(values[part] / scales[row, col])[..., None] - FLOAT8).argmin(-1)
            codes[part] = nearest + np.where(values[part] < 0, 128, 0)
            made[part] = (np.where(values[part] < 0, -1, 1) * FLOAT8[nearest]).astype(np.float32) * scales[row, col]
        blocks[name], plain[name] = ("F8_E4M3", codes), ("BF16", bfloat16_bits(made))
        blocks[name + "_scale_inv"] = "F32", scales
    # Of a layer behind the model's own, which no run reads.
    codes, factor = np.arange(0, 96, dtype=np.uint8).reshape(8, 12), np.float32([[0.7]])
    blocks["model.layers.2.eh_proj.weight"] = "F8_E4M3", codes
    blocks["model.layers.2.eh_proj.weight_scale_inv"] = "F32", factor
    plain["model.layers.2.eh_proj.weight"] = "BF16", bfloat16_bits(FLOAT8[codes].astype(np.float32) * factor)
    for form, tensors in (("blocks", blocks), ("plain", plain)):
        (folder / form).mkdir()
        write_raw(folder / form, tensors)
        settings = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
        more = {"quantization_config": settings} if form == "blocks" else {}
        (folder / form / "config.json").write_text(json.dumps(config | more))
    return folder, blocks, write_tokens(folder / "tokens.h5", pairs=40, texts=8)


def test_a_model_of_8_bit_floats_is_what_it_is_in_bfloat16(float8):
    folder, blocks, tokens = float8
    logits_of = {form: logits(folder / f"{form}.h5", tokens, "--model", folder / form) for form in ("blocks", "plain")}
    assert np.array_equal(logits_of["blocks"], logits_of["plain"])
    exported = {}
    for form in ("blocks", "plain"):
        out = quantize(folder / form, tokens, folder / f"run-{form}", "--ignore", "*.layers.1.mlp.*,k_proj")
        for kind in FORMATS:
            result = export(out, folder / f"{kind}-{form}", kind)
            exported[form, kind] = (result / "model.safetensors").read_bytes(), json.loads((result / "config.json").read_text())
    for kind in FORMATS:
        assert exported["blocks", kind] == exported["plain", kind]
    # What the run was made of is known by factors, too.
    changed = dict(blocks)
    name = "model.layers.1.mlp.up_proj.weight_scale_inv"
    changed[name] = "F32", blocks[name][1] * np.float32(1.5)
    write_raw(folder / "blocks", changed)
    for command in (("export", folder / "run-blocks", "--format", "gptq", "--out", folder / "late"),
                    ("logits", "--run", folder / "run-blocks", "--tokens", tokens, "--out", folder / "late.h5")):
        assert "up_proj.weight" in refused(*command)
    name = "model.layers.2.eh_proj.weight"
    holed = blocks[name][1].copy()
    holed[3, 3] = 0x7F
    write_raw(folder / "blocks", dict(blocks) | {name: ("F8_E4M3", holed)})
    assert "eh_proj.weight' holds NaN" in refused("export", folder / "run-blocks", "--format", "gptq", "--out", folder / "late")
    write_raw(folder / "blocks", blocks)


def test_it_is_one_process(tiny, tmp_path):
    """Several would write the same folder."""
    out = quantize(*tiny, tmp_path / "run", "--max-layers", "1", "--group-size", "32")
    assert "export is the work of one process, not of 2: start it without mpirun" in \
        run(2, "export", out, "--format", "dense", "--out", tmp_path / "out", code=2).stderr
    assert not (tmp_path / "out").exists()
    assert "2 of the model's 3 layers are left as they are" in run(0, "export", out, "--format", "dense", "--out", tmp_path / "out").stderr
    assert "1 of 1 layers finished, of the model's 3" in run(0, "inspect", out).stdout
