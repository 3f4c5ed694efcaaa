#!/usr/bin/env python3
"""Reads an export with nothing of fairgptq's and compares it with the run that it was made from.

    check_export.py EXPORT RUN [TOKENS.h5 LOGITS.h5]

Every quantized linear is dequantized from the format's own tensors, as its library documents them, and must equal
scale * (code - zero) of the run's layer files; every other tensor must be the original model's, byte for byte. With a token
file and the logits that `fairgptq logits --run` wrote for its text, a Llama's forward pass in numpy over the dequantized
export must give the same logits, to 2e-4 of the largest.
"""

import json
import pathlib
import sys

import h5py
import numpy as np
import safetensors

BITS_OF = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "I64": np.int64}


def read_tensors(folder):
    """{name: (dtype, shape, bytes)} of all shards; the index, where there is one, must name each tensor's shard."""
    tensors, homes = {}, {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in safetensors.deserialize(file.read_bytes()):
            assert name not in tensors, f"{name} is in two shards"
            tensors[name] = (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
            homes[name] = file.name
    index = folder / "model.safetensors.index.json"
    if index.exists():
        assert json.loads(index.read_text())["weight_map"] == homes, f"{index} does not match the shards"
    else:
        assert set(homes.values()) == {"model.safetensors"}, "several shards and no index"
    return tensors


def array(tensor):
    dtype, shape, data = tensor
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(data, BITS_OF[dtype]).reshape(shape)


def unpack(words, bits, count):
    """Fields of `bits` bits from the last axis of int32 words, the first field in the lowest bits."""
    words = np.ascontiguousarray(words).view(np.uint32)
    stream = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    stream = stream.reshape(*words.shape[:-1], -1)[..., : count * bits]
    fields = stream.reshape(*words.shape[:-1], count, bits)
    return (fields << np.arange(bits, dtype=np.uint32)).sum(axis=-1).astype(np.int64)


def from_gptq(tensors, name, settings):
    bits = settings["bits"]
    qweight = array(tensors.pop(name + ".qweight"))
    qzeros = array(tensors.pop(name + ".qzeros"))
    scales = array(tensors.pop(name + ".scales")).astype(np.float32)
    g_idx = array(tensors.pop(name + ".g_idx"))
    rows, cols = qweight.shape[1], g_idx.size
    codes = unpack(qweight.T, bits, cols)
    zeros = unpack(qzeros, bits, rows)
    if settings["checkpoint_format"] == "gptq":
        zeros = zeros + 1
    group_size = cols if settings["group_size"] == -1 else settings["group_size"]
    neighbours = np.arange(cols) // group_size
    assert settings["desc_act"] or (g_idx == neighbours).all(), f"{name}: scattered groups without desc_act"
    assert not settings["sym"] or (zeros == 1 << (bits - 1)).all(), f"{name}: zeros are not symmetric"
    return scales.T[:, g_idx] * (codes - zeros.T[:, g_idx]).astype(np.float32)


def from_compressed_tensors(tensors, name, settings):
    (group,) = settings["config_groups"].values()
    weights = group["weights"]
    bits = weights["num_bits"]
    rows, cols = array(tensors.pop(name + ".weight_shape"))
    codes = unpack(array(tensors.pop(name + ".weight_packed")), bits, cols) - (1 << (bits - 1))
    scales = array(tensors.pop(name + ".weight_scale")).astype(np.float32)
    assert codes.shape == (rows, cols)
    zeros = np.zeros(scales.shape, np.int64)
    if not weights["symmetric"]:
        zeros = unpack(array(tensors.pop(name + ".weight_zero_point")).T, bits, rows).T - (1 << (bits - 1))
    group_size = cols if weights["strategy"] == "channel" else weights["group_size"]
    assert scales.shape == (rows, cols // group_size)
    group_of = np.arange(cols) // group_size
    return scales[:, group_of] * (codes - zeros[:, group_of]).astype(np.float32)


def round_to(values, dtype):
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "BF16":
        words = values.view(np.uint32).astype(np.uint64)
        words = (words + 0x7FFF + ((words >> 16) & 1)) & 0xFFFF0000
        return words.astype(np.uint32).view(np.float32)
    return values


def values_of(module):
    """What the run says: codes are bits j*bits... of their row, least significant first."""
    rows, cols, bits = (int(module.attrs[key]) for key in ("rows", "cols", "bits"))
    stream = np.unpackbits(module["codes"][()], axis=1, bitorder="little")[:, : cols * bits].reshape(rows, cols, bits)
    codes = (stream.astype(np.int64) << np.arange(bits)).sum(axis=-1)
    group_index = module["group_index"][()]
    zeros = module["zeros"][()].astype(np.int64)
    return module["scales"][()].astype(np.float32)[:, group_index] * (codes - zeros[:, group_index]).astype(np.float32)


def llama_logits(config, weights, ids):
    """Logits [tokens, vocabulary] of one sequence, in float64. @param weights  {name: array}"""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    group = heads // config["num_key_value_heads"]
    rope = config.get("rope_parameters", config)
    assert rope.get("rope_type", "default") == "default" and config["model_type"] == "llama"
    angles = np.arange(len(ids))[:, None] * rope["rope_theta"] ** (-np.arange(0, head_dim, 2) / head_dim)
    cos, sin = (np.concatenate([turn, turn], axis=1)[:, None] for turn in (np.cos(angles), np.sin(angles)))

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weights[name + ".weight"]

    def linear(x, name):
        return x @ weights[name + ".weight"].T

    def rotate(x):
        left, right = np.split(x, 2, axis=-1)
        return x * cos + np.concatenate([-right, left], axis=-1) * sin

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        inputs = norm(x, prefix + "input_layernorm")
        query, key, value = (
            linear(inputs, f"{prefix}self_attn.{name}_proj").reshape(len(ids), -1, head_dim) for name in "qkv"
        )
        query, key, value = rotate(query), rotate(key).repeat(group, axis=1), value.repeat(group, axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(head_dim)
        scores[:, np.triu(np.ones((len(ids), len(ids)), bool), 1)] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), value)
        x = x + linear(mixed.reshape(len(ids), -1), prefix + "self_attn.o_proj")
        inputs = norm(x, prefix + "post_attention_layernorm")
        gate = linear(inputs, prefix + "mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(inputs, prefix + "mlp.up_proj"), prefix + "mlp.down_proj")
    head = weights["model.embed_tokens.weight" if config.get("tie_word_embeddings") else "lm_head.weight"]
    return norm(x, "model.norm") @ head.T


def check_logits(config, weights, token_file, logits_file):
    with h5py.File(token_file) as file:
        ids, offsets = file["text/token_ids"][()], file["text/offsets"][()]
    with h5py.File(logits_file) as file:
        expected = file["logits"][()]
    found = np.concatenate([llama_logits(config, weights, ids[a:b]) for a, b in zip(offsets[:-1], offsets[1:])])
    error = np.abs(found - expected).max() / np.abs(found).max()
    assert error <= 2e-4, f"logits differ by {error:.2e} of the largest"
    print(f"logits differ by {error:.2e} of the largest")


def main():
    export, run = (pathlib.Path(argument) for argument in sys.argv[1:3])
    settings = json.loads((run / "run.json").read_text())["settings"]
    original = read_tensors(pathlib.Path(settings["model"]["path"]))
    config = json.loads((export / "config.json").read_text())
    quantization = config.get("quantization_config", {"quant_method": "dense"})
    tensors = read_tensors(export)
    if config.get("tie_word_embeddings"):
        original.pop("lm_head.weight", None)

    weights = {}  # dequantized, by name
    for layer in range(settings["layers"]):
        with h5py.File(run / "layers" / f"layer_{layer:04}.h5") as file:
            for short_name, module in file.items():
                (name,) = (key[: -len(".weight")] for key in original if key.endswith(f"layers.{layer}.{short_name}.weight"))
                dtype = "F32"
                if quantization["quant_method"] == "gptq":
                    found = from_gptq(tensors, name, quantization)
                elif quantization["quant_method"] == "compressed-tensors":
                    found = from_compressed_tensors(tensors, name, quantization)
                else:
                    dtype = tensors[name + ".weight"][0]
                    found = array(tensors.pop(name + ".weight")).astype(np.float32)
                del original[name + ".weight"]
                wrong = int((found != round_to(values_of(module), dtype)).sum())
                assert wrong == 0, f"{name}: {wrong} of {found.size} values are not the run's"
                weights[name + ".weight"] = found.astype(np.float64)
    assert set(tensors) == set(original), f"tensors differ: {sorted(set(tensors) ^ set(original))[:5]}"
    for name, tensor in original.items():
        assert tensors[name] == tensor, f"{name} is not the original model's"
    print(f"{export}: {quantization['quant_method']}, {len(weights)} linears and {len(original)} other tensors as they should be")
    if len(sys.argv) > 3:
        weights.update((name, array(tensor).astype(np.float64)) for name, tensor in tensors.items())
        check_logits(config, weights, *sys.argv[3:5])


if __name__ == "__main__":
    main()
