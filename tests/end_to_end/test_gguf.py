"""tools/to_gguf.py: a run's codes in a GGUF file, against the program's own dense export of the same run."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import h5py
import numpy as np
import pytest
from get_smollm2 import LAYER_NAMES
from safetensors.numpy import load_file
from workshop import ROOT, read_run, run, seal, write_model, write_tokens
from workshop import refused as refused_by_program

HEADS, KEY_VALUE_HEADS, EXPERTS, LAYERS = 4, 2, 3, 2
HALVES = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}
Type = gguf.GGMLQuantizationType


def side_by_side(weight, heads):
    """Rows as llama.cpp's converter leaves them: a head's coordinates 0, half, 1, half + 1, …"""
    rows, half = len(weight), len(weight) // heads // 2
    return weight[[head * 2 * half + side * half + at for head in range(heads) for at in range(half) for side in (0, 1)][:rows]]


def gguf_tensors(tensors):
    """{GGUF's name: matrix} of a Llama's or Mixtral's tensors, as the converter has them."""
    found = {"token_embd.weight": tensors["model.embed_tokens.weight"], "output.weight": tensors["lm_head.weight"],
             "output_norm.weight": tensors["model.norm.weight"].astype(np.float32)}
    for layer in range(LAYERS):
        before, after = f"blk.{layer}.", f"model.layers.{layer}."
        for name, linear in LAYER_NAMES.items():
            weight = tensors.get(f"{after}{linear}.weight")
            if weight is None:
                continue
            heads = {"attn_q": HEADS, "attn_k": KEY_VALUE_HEADS}.get(name)
            found[f"{before}{name}.weight"] = weight.astype(np.float32) if weight.ndim == 1 else side_by_side(weight, heads) if heads else weight
        if f"{after}block_sparse_moe.gate.weight" in tensors:
            found[f"{before}ffn_gate_inp.weight"] = tensors[f"{after}block_sparse_moe.gate.weight"].astype(np.float32)
            for half, name in HALVES.items():
                found[f"{before}{name}.weight"] = np.stack([tensors[f"{after}block_sparse_moe.experts.{expert}.{half}.weight"] for expert in range(EXPERTS)])
    return found


def write_base(path, model, *, change=lambda tensors: None, settings=None, as_type=Type.F16, key_value_heads=KEY_VALUE_HEADS):
    tensors = gguf_tensors(load_file(model / "model.safetensors"))
    change(tensors)
    writer = gguf.GGUFWriter(path, arch="llama")
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    if key_value_heads:
        writer.add_head_count_kv(key_value_heads)
    writer.add_name("a small one")
    writer.add_token_list([f"token {index}" for index in range(384)])
    writer.add_array("of.numbers", [1.5, 2.5])
    writer.add_token_scores([0.5] * 384)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for key, value in (settings or {}).items():
        writer.add_uint16(key, value)
    for name, tensor in tensors.items():
        if as_type == Type.F16 or tensor.dtype == np.float32:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quantize(tensor.astype(np.float32), as_type), raw_dtype=as_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def mixtral(tensors):
    """Its MLPs become experts."""
    random = np.random.default_rng(3)
    for layer in range(LAYERS):
        after = f"model.layers.{layer}."
        mlp = {half: tensors.pop(f"{after}mlp.{name}_proj.weight") for half, name in (("w1", "gate"), ("w2", "down"), ("w3", "up"))}
        tensors[f"{after}block_sparse_moe.gate.weight"] = (random.standard_normal((EXPERTS, 64)) / 8).astype(np.float16)
        for expert in range(EXPERTS):
            for half, weight in mlp.items():
                tensors[f"{after}block_sparse_moe.experts.{expert}.{half}.weight"] = random.permutation(weight.ravel()).reshape(weight.shape)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """{"llama", "mixtral": (model, tokens)}"""
    folder = tmp_path_factory.mktemp("gguf")
    tokens = write_tokens(folder / "tokens.h5", pairs=20, texts=6)
    changes = {"llama": {}, "mixtral": {"change": mixtral, "settings": {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": EXPERTS, "num_experts_per_tok": 2}}}
    return {name: (write_model(folder / name, layers=LAYERS, intermediate=192, heads=HEADS, key_value_heads=KEY_VALUE_HEADS, **more), tokens)
            for name, more in changes.items()}


def quantize(inputs, out, *more, name="llama", grids=None, code=0):
    model, tokens = inputs[name]
    if grids:
        (out.parent / "grids.json").write_text(json.dumps(grids))
        more += ("--module-map", out.parent / "grids.json")
    run(0, "quantize", "--model", model, "--tokens", tokens, "--out", out, "--group-size", "32", *more, code=code)
    return out


@pytest.fixture(scope="module")
def plain(inputs, tmp_path_factory):
    """A symmetric run of 4 bits, and the original as GGUF."""
    folder = tmp_path_factory.mktemp("plain")
    return quantize(inputs, folder / "run", "--alpha", "0.1"), write_base(folder / "base.gguf", inputs["llama"][0])


def convert(run_folder, base, out, *more):
    return subprocess.run([sys.executable, str(ROOT / "tools/to_gguf.py"), *map(str, (run_folder, "--base", base, "--out", out, *more))],
                          capture_output=True, text=True, check=False)


def converted(run_folder, base, out, *more):
    """@returns ({tensor: (type, values)}, the file's settings, what the tool said)"""
    process = convert(run_folder, base, out, *more)
    assert process.returncode == 0, process.stderr
    assert not list(out.parent.glob("*.partial*"))
    reader = gguf.GGUFReader(out)
    return ({tensor.name: (tensor.tensor_type, gguf.dequantize(tensor.data, tensor.tensor_type)) for tensor in reader.tensors},
            {name: field.contents() for name, field in reader.fields.items()}, process.stdout)


def refused(process):
    assert process.returncode == 2, process.stdout + process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    return lines[0]


def dense(run_folder, out):
    """{GGUF's name: float16 values of the run}"""
    run(0, "export", run_folder, "--format", "dense", "--out", out)
    return gguf_tensors(load_file(out / "model.safetensors"))


@pytest.mark.parametrize("name,more,grids,types", [
    ("llama", (), None, {Type.Q4_0}),
    ("llama", ("--order", "group", "--scale-search", "mse", "--group-size", "64"), None, {Type.Q4_0}),
    ("llama", ("--bits", "3"), None, {Type.Q4_0}),
    ("llama", ("--bits", "3", "--asym"), None, {Type.Q4_1}),
    ("llama", ("--bits", "8", "--group-size", "-1"), None, {Type.Q8_0}),
    ("llama", ("--asym",), None, {Type.Q4_1}),
    ("llama", ("--scale-dtype", "f32"), None, {Type.Q4_0}),
    ("llama", ("--ignore", "*.layers.0.mlp.down_proj,k_proj"), {"*.o_proj": {"bits": 8}}, {Type.Q4_0, Type.Q8_0, Type.F16}),
    ("mixtral", (), None, {Type.Q4_0}),
    ("mixtral", (), {"*.w2": {"bits": 8}}, {Type.Q4_0, Type.Q8_0}),
])
def test_values_are_those_of_the_dense_export(inputs, tmp_path, name, more, grids, types):
    out = quantize(inputs, tmp_path / "run", "--alpha", "0.05", *more, name=name, grids=grids)
    base = write_base(tmp_path / "base.gguf", inputs[name][0])
    found, _, said = converted(out, base, tmp_path / "run.gguf")
    expected, original = dense(out, tmp_path / "dense"), gguf_tensors(load_file(inputs[name][0] / "model.safetensors"))
    assert list(found) == list(original)
    linears = set()
    exact = not set(more) & {"--asym", "f32"}
    for tensor, (kind, values) in found.items():
        assert values.shape == expected[tensor].shape, tensor
        if tensor.endswith("norm.weight") or tensor in ("token_embd.weight", "output.weight") or "gate_inp" in tensor:
            assert np.array_equal(values, original[tensor]), tensor
            continue
        linears.add(kind)
        if exact:
            assert np.array_equal(values.astype(np.float16), expected[tensor]), tensor
        else:  # float16 holds a group's lowest value, or its scale, to a part of 2^11
            assert np.abs(values - expected[tensor]).max() < 2e-3 * np.abs(expected[tensor]).max(), tensor
        assert (kind == Type.F16) == np.array_equal(values, original[tensor]), tensor
    assert linears == types
    assert ("with the run's values" in said) == exact
    assert ("--bits 4 is more accurate" in said) == ("3" in more)


def test_tokenizer_and_settings_are_the_base_s_and_say_what_was_done(plain, tmp_path):
    _, settings, said = converted(*plain, tmp_path / "run.gguf")
    base = {name: field.contents() for name, field in gguf.GGUFReader(plain[1]).fields.items()}
    own = {"general.file_type", "general.quantization_version", "GGUF.kv_count"}
    assert {name: settings[name] for name in base if name not in own} == {name: value for name, value in base.items() if name not in own}
    assert settings["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_0 and settings["general.quantization_version"] == 2
    assert settings["fairgptq.alpha"] == pytest.approx(0.1) and len(settings["fairgptq.fingerprint"]) == 32
    assert '"bits": 4' in settings["fairgptq.settings"]
    assert "14 as Q4_0" in said and "note:" not in said


@pytest.mark.parametrize("as_type", [Type.F32, Type.BF16, Type.Q8_0, Type.Q4_1])
def test_the_base_may_be_of_any_type(inputs, plain, tmp_path, as_type):
    exact = converted(*plain, tmp_path / "exact.gguf")[0]
    base = write_base(tmp_path / "base.gguf", inputs["llama"][0], as_type=as_type)
    found, _, said = converted(plain[0], base, tmp_path / "run.gguf")
    assert ("likeness of 14 linears" in said) == (as_type != Type.F32)
    for tensor, (kind, values) in found.items():
        if tensor in ("token_embd.weight", "output.weight"):
            assert kind == as_type
        else:
            assert np.array_equal(values, exact[tensor][1]), tensor


def test_a_base_that_is_not_quite_the_model_is_refused(inputs, plain, tmp_path):
    """A fine-tuned one, say. Where types differ, likeness has to do, by blocks of rows."""
    def base_with(name, change, as_type=Type.F16):
        file = tmp_path / f"{name}_{as_type.name}.gguf"
        return write_base(file, inputs["llama"][0], as_type=as_type, change=lambda tensors: tensors.update({name: change(tensors[name].copy())}))

    def a_bit(weight):
        weight[3, 5] += np.float16(0.01)
        return weight

    def some_rows(weight):
        weight[64:] = weight[:63:-1]
        return weight

    def said(base):
        words = refused(convert(plain[0], base, tmp_path / "run.gguf"))
        assert not list(tmp_path.glob(".*partial"))
        return words

    assert "blk.1.ffn_up.weight of --base holds other weights" in said(base_with("blk.1.ffn_up.weight", a_bit))
    assert "token_embd.weight of --base is not the embedding" in said(base_with("token_embd.weight", a_bit))
    for kind in (Type.F32, Type.BF16, Type.Q8_0):
        slightly = base_with("blk.1.ffn_up.weight", a_bit, kind)
        if kind == Type.F32:
            assert "blk.1.ffn_up.weight of --base holds other weights" in said(slightly)
        else:
            assert converted(plain[0], slightly, tmp_path / f"{kind.name}.gguf")
        assert "blk.0.ffn_up.weight of --base holds other weights" in said(base_with("blk.0.ffn_up.weight", some_rows, kind))
        assert "blk.0.ffn_up.weight of --base holds other weights" in said(base_with("blk.0.ffn_up.weight", lambda weight: weight * np.float16(4), kind))


def test_a_matrix_of_zeros(inputs, tmp_path):
    """As models that were made deeper have."""
    def nothing(tensors):
        tensors["model.layers.1.self_attn.o_proj.weight"][:] = 0
    model = write_model(tmp_path / "model", layers=LAYERS, intermediate=192, change=nothing)
    out = quantize({"llama": (model, inputs["llama"][1])}, tmp_path / "run")
    for kind in (Type.F16, Type.BF16):
        found = converted(out, write_base(tmp_path / f"{kind.name}.gguf", model, as_type=kind), tmp_path / f"{kind.name}.q.gguf")[0]
        assert not found["blk.1.attn_output.weight"][1].any()


def test_rows_lie_as_the_base_has_them(inputs, plain, tmp_path):
    """Some architectures' queries and keys keep Hugging Face's order."""
    original = load_file(inputs["llama"][0] / "model.safetensors")

    def change(tensors):
        for layer in range(LAYERS):
            for part in "qk":
                tensors[f"blk.{layer}.attn_{part}.weight"] = original[f"model.layers.{layer}.self_attn.{part}_proj.weight"]
    base = write_base(tmp_path / "base.gguf", inputs["llama"][0], change=change)
    found = converted(plain[0], base, tmp_path / "run.gguf")[0]
    exact = converted(*plain, tmp_path / "exact.gguf")[0]
    for part, heads in (("q", HEADS), ("k", KEY_VALUE_HEADS)):
        tensor = f"blk.1.attn_{part}.weight"
        assert not np.array_equal(found[tensor][1], exact[tensor][1])
        assert np.array_equal(side_by_side(found[tensor][1], heads), exact[tensor][1])


def test_as_many_heads_of_keys_as_of_queries_where_the_base_says_no_other(inputs, tmp_path):
    model = write_model(tmp_path / "model", layers=LAYERS, key_value_heads=HEADS, intermediate=192)
    out = quantize({"llama": (model, inputs["llama"][1])}, tmp_path / "run")
    base = write_base(tmp_path / "base.gguf", model, key_value_heads=None,
                      change=lambda tensors: tensors.update({f"blk.{layer}.attn_k.weight": side_by_side(
                          load_file(model / "model.safetensors")[f"model.layers.{layer}.self_attn.k_proj.weight"], HEADS) for layer in range(LAYERS)}))
    found = converted(out, base, tmp_path / "run.gguf")[0]
    values = dense(out, tmp_path / "dense")
    expected = side_by_side(load_file(tmp_path / "dense/model.safetensors")["model.layers.1.self_attn.k_proj.weight"], HEADS)
    assert np.array_equal(found["blk.1.attn_k.weight"][1].astype(np.float16), expected)
    assert np.array_equal(found["blk.1.attn_q.weight"][1].astype(np.float16), values["blk.1.attn_q.weight"])


def with_fused_linears(tensors):
    """As Phi-3 has them."""
    for layer in range(LAYERS):
        for whole, parts in (("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")), ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj"))):
            prefix = f"model.layers.{layer}."
            tensors[f"{prefix}{whole}.weight"] = np.concatenate([tensors.pop(f"{prefix}{part}.weight") for part in parts])


def test_one_linear_of_queries_keys_and_values(inputs, tmp_path):
    """Another architecture's tensor of that name than linear attention's."""
    names = {"self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    model = write_model(tmp_path / "model", layers=LAYERS, intermediate=192, heads=HEADS, key_value_heads=KEY_VALUE_HEADS, change=with_fused_linears,
                        settings={"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"})
    out = quantize({"llama": (model, inputs["llama"][1])}, tmp_path / "run")
    run(0, "export", out, "--format", "dense", "--out", tmp_path / "dense")

    def as_in_llama_cpp(folder):
        tensors = load_file(folder / "model.safetensors")
        return {f"blk.{layer}.{name}.weight": tensors[f"model.layers.{layer}.{linear}.weight"] for linear, name in names.items() for layer in range(LAYERS)}

    writer = gguf.GGUFWriter(tmp_path / "base.gguf", arch="phi3")
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    for name, tensor in as_in_llama_cpp(model).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found, _, said = converted(out, tmp_path / "base.gguf", tmp_path / "run.gguf")
    assert "likeness" not in said
    for name, values in as_in_llama_cpp(tmp_path / "dense").items():
        assert np.array_equal(found[name][1].astype(np.float16), values), name


def with_linear_attention(tensors):
    """Its first layer gets Qwen3.5's linear attention, of 2 heads of 16 for keys and 4 of 32 for values; its second one an output gate."""
    random = np.random.default_rng(4)

    def matrix(*shape):
        return (random.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float16)

    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        del tensors[f"model.layers.0.self_attn.{name}.weight"]
    first = "model.layers.0.linear_attn."
    tensors.update({first + "in_proj_qkv.weight": matrix(192, 64), first + "in_proj_z.weight": matrix(128, 64), first + "in_proj_a.weight": matrix(4, 64),
                    first + "in_proj_b.weight": matrix(4, 64), first + "conv1d.weight": matrix(192, 1, 4), first + "A_log": matrix(4), first + "dt_bias": matrix(4),
                    first + "norm.weight": np.ones(32, np.float16), first + "out_proj.weight": matrix(64, 128)})
    second = "model.layers.1.self_attn."
    tensors.update({second + "q_proj.weight": matrix(128, 64), second + "q_norm.weight": np.ones(16, np.float16), second + "k_norm.weight": np.ones(16, np.float16)})


def test_heads_of_linear_attention_lie_as_the_base_has_them(inputs, tmp_path):
    """llama.cpp has of the values' heads that share a key's first the first ones, then the second ones."""
    model = write_model(tmp_path / "model", layers=LAYERS, intermediate=192, heads=HEADS, key_value_heads=KEY_VALUE_HEADS, change=with_linear_attention,
                        settings={"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", "full_attention_interval": 2, "linear_num_key_heads": 2,
                                  "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 32})
    out = quantize({"llama": (model, inputs["llama"][1])}, tmp_path / "run", "--alpha", "0.1")
    run(0, "export", out, "--format", "dense", "--out", tmp_path / "dense")
    heads = np.concatenate([np.arange(head * 32, head * 32 + 32) for head in (0, 2, 1, 3)])

    def as_in_llama_cpp(tensors):
        first = {name: tensors[f"model.layers.0.linear_attn.{name}.weight"] for name in ("in_proj_qkv", "in_proj_z", "out_proj")}
        return {"blk.0.attn_qkv.weight": np.concatenate([first["in_proj_qkv"][:64], first["in_proj_qkv"][64:][heads]]),
                "blk.0.attn_gate.weight": first["in_proj_z"][heads], "blk.0.ssm_out.weight": first["out_proj"][:, heads],
                **{f"blk.{layer}.{name}.weight": tensors[f"model.layers.{layer}.{linear}.weight"] for name, linear in LAYER_NAMES.items() for layer in range(LAYERS)
                   if tensors.get(f"model.layers.{layer}.{linear}.weight", np.zeros(1)).ndim == 2}}

    expected = as_in_llama_cpp(load_file(tmp_path / "dense/model.safetensors"))
    assert len(expected) == 3 + 4 + 6
    for as_type in (Type.F16, Type.BF16, Type.Q8_0):
        writer = gguf.GGUFWriter(tmp_path / "base.gguf", arch="qwen35")
        writer.add_block_count(LAYERS)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KEY_VALUE_HEADS)
        writer.add_ssm_group_count(2)
        writer.add_ssm_time_step_rank(4)
        writer.add_ssm_inner_size(128)
        for name, tensor in as_in_llama_cpp(load_file(model / "model.safetensors")).items():
            writer.add_tensor(name, gguf.quantize(tensor.astype(np.float32), as_type), raw_dtype=as_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        found, _, said = converted(out, tmp_path / "base.gguf", tmp_path / f"{as_type.name}.gguf")
        assert ("likeness of 13 linears" in said) == (as_type != Type.F16)
        for tensor, values in expected.items():
            assert np.array_equal(found[tensor][1].astype(np.float16), values), tensor


def test_embeddings_may_be_rounded(plain, tmp_path):
    found = converted(*plain, tmp_path / "run.gguf", "--embeddings", "q8_0")[0]
    exact = converted(*plain, tmp_path / "exact.gguf")[0]
    for tensor, (kind, values) in found.items():
        if tensor in ("token_embd.weight", "output.weight"):
            assert kind == Type.Q8_0
            assert 0 < np.abs(values - exact[tensor][1]).max() < 0.005 * np.abs(values).max()
        else:
            assert np.array_equal(values, exact[tensor][1]), tensor


def test_fewer_layers_and_larger_groups_are_said(inputs, plain, tmp_path):
    out = quantize(inputs, tmp_path / "run", "--max-layers", "1", "--group-size", "64")
    found, _, said = converted(out, plain[1], tmp_path / "run.gguf")
    assert found["blk.0.attn_q.weight"][0] == Type.Q4_0 and found["blk.1.attn_q.weight"][0] == Type.F16
    assert "1 of the model's 2 layers" in said and "--bits 4 is more" not in said and "--group-size 32 is more accurate" in said


def test_refusals(inputs, plain, tmp_path):
    run_folder, base = plain
    out = tmp_path / "run.gguf"

    def said(folder=run_folder, base=base, out=out):
        words = refused(convert(folder, base, out))
        assert not out.exists() or out == base
        assert not list(tmp_path.glob("*.partial*"))
        return words

    assert "tools/to_gguf.py" in refused_by_program("export", run_folder, "--format", "gguf", "--out", out)
    assert "exists already" in said(out=base)
    assert "does not exist" in said(base=tmp_path / "none.gguf") and "is not a file" in said(base=tmp_path)
    assert "not a readable GGUF file" in said(base=run_folder / "run.json")
    assert "does not exist" in said(out=tmp_path / "nowhere/run.gguf")
    assert "is not the folder of a run" in said(folder=tmp_path / "nothing")
    assert "lie side by side" in said(quantize(inputs, tmp_path / "order", "--order", "activation"))
    assert "no type of asymmetric 8-bit" in said(quantize(inputs, tmp_path / "asymmetric", "--bits", "8", "--asym"))
    assert "has not finished layer 1 of 2" in said(quantize(inputs, tmp_path / "half", "--stop-after-layers", "1", code=75))
    other = write_model(tmp_path / "other", layers=LAYERS, intermediate=192, seed=5)
    assert "not the embedding that the run read" in said(base=write_base(tmp_path / "other.gguf", other))
    wider = write_model(tmp_path / "wider", layers=LAYERS, intermediate=96)
    assert "has the shape [192, 64]" in said(base=write_base(tmp_path / "wider.gguf", wider))
    piece = write_base(tmp_path / "piece.gguf", inputs["llama"][0], settings={"split.count": 3})
    assert "one of 3 pieces" in said(base=piece)
    less = write_base(tmp_path / "less.gguf", inputs["llama"][0], change=lambda tensors: tensors.pop("blk.1.ffn_up.weight"))
    assert "no tensor for layer 1, mlp.up_proj" in said(base=less)
    whole = base.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:len(whole) // 2])
    assert "cut.gguf" in said(base=tmp_path / "cut.gguf")


def test_experts_that_one_tensor_cannot_hold_are_refused(inputs, tmp_path):
    base = write_base(tmp_path / "base.gguf", inputs["mixtral"][0])
    some = quantize(inputs, tmp_path / "some", "--ignore", "*.experts.1.w1", name="mixtral")
    assert "all 3 experts in one tensor, and the run quantized 2" in refused(convert(some, base, tmp_path / "run.gguf"))
    mixed = quantize(inputs, tmp_path / "mixed", grids={"*.experts.1.w1": {"bits": 8}}, name="mixtral")
    assert "one type, and these have 2 (Q4_0, Q8_0)" in refused(convert(mixed, base, tmp_path / "run.gguf"))


@pytest.mark.parametrize("change", [lambda module: module.pop("group_index"), lambda module: module.attrs.pop("sym"),
                                    lambda module: module.attrs.modify("bits", 6), lambda module: module.attrs.modify("cols", 1 << 40),
                                    lambda module: module["scales"].write_direct(np.full(module["scales"].shape, np.nan, np.float16))])
def test_a_layer_file_that_is_sealed_but_odd_is_refused(plain, tmp_path, change):
    shutil.copytree(plain[0], tmp_path / "run")
    file = tmp_path / "run/layers/layer_0001.h5"
    with h5py.File(file, "r+") as layer:
        change(layer["self_attn.v_proj"])
    seal(file)
    assert "layer_0001.h5 is not a whole layer file" in refused(convert(tmp_path / "run", plain[1], tmp_path / "run.gguf"))


def test_a_changed_layer_file_is_refused(inputs, plain, tmp_path):
    out = quantize(inputs, tmp_path / "run")
    file = Path(out / "layers/layer_0001.h5")
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    assert "does not match its seal" in refused(convert(out, plain[1], tmp_path / "run.gguf"))
    assert read_run(out)  # HDF5 alone sees nothing
