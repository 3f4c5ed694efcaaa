#!/usr/bin/env python3
"""Reads an export with nothing of fairgptq's and compares it with the run that it was made from.

    check_export.py EXPORT RUN

Every quantized linear is dequantized from the format's own tensors, as its library documents them, and must equal
scale * (code - zero) of the run's layer files; every other tensor must be the original model's, byte for byte.
"""

import json
import pathlib
import re
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


def expressions(quantization):
    """(ignored, others): regular expressions of what is not quantized, and of what is quantized otherwise with its settings."""
    if quantization["quant_method"] == "gptq":
        dynamic = quantization.get("dynamic", {})
        return ([key[2:] for key in dynamic if key.startswith("-:")],
                [(key[2:], value) for key, value in dynamic.items() if key.startswith("+:")])
    first, *others = quantization["config_groups"].values()
    assert first["targets"] == ["Linear"]
    return ([entry.removeprefix("re:") if entry.startswith("re:") else re.escape(entry) + "$" for entry in quantization["ignore"]],
            [(target.removeprefix("re:"), group["weights"]) for group in others for target in group["targets"]])


def settings_of(quantization, name):
    """How a program quantizes a linear of this name; None: not at all. From a name's start, as all programs match."""
    ignored, others = expressions(quantization)
    if any(re.match(expression, name) for expression in ignored):
        return None
    found = [value for expression, value in others if re.match(expression, name)]
    assert len(found) < 2, f"{name} is quantized in two ways"
    if quantization["quant_method"] == "gptq":
        return quantization | (found[0] if found else {})
    return found[0] if found else quantization["config_groups"]["group_0"]["weights"]


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


def from_compressed_tensors(tensors, name, weights):
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


def quantization_of(config):
    return config.get("quantization_config", {"quant_method": "dense"})


def dequantized(export):
    """Every tensor of an export as a program without its format would have it.

    @returns (linears, others): values float32 of each linear that is stored quantized, by module name; all other tensors as
    read_tensors gives them
    """
    quantization = quantization_of(json.loads((export / "config.json").read_text()))
    tensors = read_tensors(export)
    read, mark = {"gptq": (from_gptq, ".qweight"), "compressed-tensors": (from_compressed_tensors, ".weight_packed"),
                  "dense": (None, None)}[quantization["quant_method"]]
    names = [name[: -len(mark)] for name in tensors if name.endswith(mark)] if read else []
    in_memory = name_in_memory(json.loads((export / "config.json").read_text()))
    return {name: read(tensors, name, settings_of(quantization, in_memory(name))) for name in names}, tensors


def loaded_name(name):
    """How transformers 5 calls in memory what a file of a model that takes pictures calls `name`; GPTQModel goes by that."""
    for stored, loaded in (("language_model.model.", "model.language_model."), ("language_model.lm_head.", "lm_head."),
                           ("model.language_model.", "model.language_model."), ("model.visual.", "model.visual."),
                           ("model.", "model.language_model."), ("vision_tower.", "model.vision_tower."),
                           ("multi_modal_projector.", "model.multi_modal_projector."), ("visual.", "model.visual.")):
        if name.startswith(stored):
            return loaded + name[len(stored):]
    return name


def name_in_memory(config):
    """What programs match expressions with, which for models that take pictures is not always what files call it."""
    return loaded_name if "text_config" in config else lambda name: name


def check(export, run):
    """Asserts that an export is the run's. @returns a sentence that says what was compared"""
    settings = json.loads((run / "run.json").read_text())["settings"]
    original = read_tensors(pathlib.Path(settings["model"]["path"]))
    config = json.loads((export / "config.json").read_text())
    method = quantization_of(config)["quant_method"]
    if method == "gptq":
        assert json.loads((export / "quantize_config.json").read_text()) == config["quantization_config"]
        if "text_config" in config:
            original = {loaded_name(name): tensor for name, tensor in original.items()}
    if config.get("tie_word_embeddings"):
        original.pop("lm_head.weight", None)
    linears, tensors = dequantized(export)

    modules = 0
    for layer in range(settings["layers"]):
        with h5py.File(run / "layers" / f"layer_{layer:04}.h5") as file:
            for short_name, module in file.items():
                (name,) = (key[: -len(".weight")] for key in original
                           if key.endswith(f"layers.{layer}.{short_name}.weight") and "vision_tower." not in key)
                dtype = "F32"
                if method == "dense":
                    dtype = tensors[name + ".weight"][0]
                    found = array(tensors.pop(name + ".weight")).astype(np.float32)
                else:
                    found = linears.pop(name)
                del original[name + ".weight"]
                wrong = int((found != round_to(values_of(module), dtype)).sum())
                assert wrong == 0, f"{name}: {wrong} of {found.size} values are not the run's"
                modules += 1
    assert modules > 0, f"{run} holds no layer"
    assert not linears, f"quantized, but not in the run: {sorted(linears)[:5]}"
    if method != "dense":
        for name, (_, shape, _) in original.items():
            if name.endswith(".weight") and len(shape) == 2 and re.search(r"\.layers\.\d+\.", name):
                assert settings_of(config["quantization_config"], name_in_memory(config)(name.removesuffix(".weight"))) is None, f"{name} is not said to be left"
    assert set(tensors) == set(original), f"tensors differ: {sorted(set(tensors) ^ set(original))[:5]}"
    for name, tensor in original.items():
        assert tensors[name] == tensor, f"{name} is not the original model's"
    return f"{export}: {method}, {modules} linears and {len(original)} other tensors as they should be"


if __name__ == "__main__":
    print(check(*(pathlib.Path(argument) for argument in sys.argv[1:3])))
