"""Models and token files that are damaged, lie about themselves or fit nothing: one sentence, exit code 2, no RUN folder."""
import json
import struct

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from workshop import refused, run, seal, write_model, write_token_file, write_tokens

WEIGHT = "model.layers.0.mlp.up_proj.weight"


def assert_refused(folder, model, tokens, *words, ranks=0):
    """Nothing may be left that was not there, in the folder or among the inputs."""
    before = sorted(folder.rglob("*"))
    sentence = refused("quantize", "--model", model, "--tokens", tokens, "--out", folder / "run", "--group-size", "32", ranks=ranks)
    assert all(str(word) in sentence for word in words), sentence
    assert sorted(folder.rglob("*")) == before


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens.h5", pairs=10, texts=2)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model", layers=1)


def test_the_model_itself_is_fine(model, tokens, tmp_path):
    """Or every test below would pass for the wrong reason."""
    run(0, "quantize", "--model", model, "--tokens", tokens, "--out", tmp_path / "run", "--group-size", "32")


# --- safetensors ---------------------------------------------------------------------------------------------------------

def parts(file):
    """(header, data) of a safetensors file."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8: 8 + length]), content[8 + length:]


def put(file, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_truncated_weights(model, tokens, tmp_path):
    file = model / "model.safetensors"
    whole = file.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    for size in (0, 7, 8, 9, 8 + length - 1, 8 + length, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert_refused(tmp_path, model, tokens, file)
    file.write_bytes(whole + b"\0")
    assert_refused(tmp_path, model, tokens, file, "after its last tensor")


@pytest.mark.parametrize("length", [1 << 20, 100_000_001, 1 << 63, (1 << 64) - 1, (1 << 64) - 8])
def test_header_lengths_that_lie(model, tokens, tmp_path, length):
    file = model / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    assert_refused(tmp_path, model, tokens, file, length)


ENTRIES = {
    "offsets outside the file": (lambda entry: entry.update(data_offsets=[1 << 40, (1 << 40) + 20480]), "truncated"),
    "offsets beyond 63 bits": (lambda entry: entry.update(data_offsets=[0, (1 << 64) - 1]), "63 bits"),
    "negative offsets": (lambda entry: entry.update(data_offsets=[-2, 20478]), "data_offsets"),
    "falling offsets": (lambda entry: entry["data_offsets"].reverse(), "rising"),
    "one offset": (lambda entry: entry["data_offsets"].pop(), "data_offsets"),
    "offsets of text": (lambda entry: entry.update(data_offsets="0"), "data_offsets"),
    "a shape that overflows": (lambda entry: entry.update(shape=[1 << 62, 1 << 62]), "overflows"),
    "a negative extent": (lambda entry: entry.update(shape=[-160, -64]), "shape"),
    "another shape": (lambda entry: entry.update(shape=[160, 63]), "bytes"),
    "a turned shape": (lambda entry: entry.update(shape=[64, 160]), "[64, 160]"),
    "three extents": (lambda entry: entry.update(shape=[160, 8, 8]), "[160, 8, 8]"),
    "no shape": (lambda entry: entry.pop("shape"), "shape"),
    "fractions": (lambda entry: entry.update(shape=[160.5, 64]), "shape"),
    "an unknown type": (lambda entry: entry.update(dtype="F12"), "F12"),
    "whole numbers": (lambda entry: entry.update(dtype="I16"), "I16"),
    "a type twice as wide": (lambda entry: entry.update(dtype="F32"), "bytes"),
    "a type that is no text": (lambda entry: entry.update(dtype=16), "dtype"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_entries_that_lie(model, tokens, tmp_path, name):
    change, word = ENTRIES[name]
    file = model / "model.safetensors"
    header, data = parts(file)
    change(header[WEIGHT])
    put(file, header, data)
    assert_refused(tmp_path, model, tokens, WEIGHT, word)


def test_tensors_that_overlap(model, tokens, tmp_path):
    file = model / "model.safetensors"
    header, data = parts(file)
    header[WEIGHT]["data_offsets"] = header["model.layers.0.mlp.gate_proj.weight"]["data_offsets"]
    put(file, header, data)
    assert_refused(tmp_path, model, tokens, file)


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"null", b'{"a": 1}', b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 100_000])
def test_headers_that_are_no_json_object(model, tokens, tmp_path, header):
    file = model / "model.safetensors"
    put(file, header, b"")
    assert_refused(tmp_path, model, tokens, file)


def test_missing_and_unusable_tensors(tokens, tmp_path):
    for index, name in enumerate((WEIGHT, "model.norm.weight", "lm_head.weight", "model.embed_tokens.weight")):
        model = write_model(tmp_path / f"without{index}", layers=1, change=lambda tensors, name=name: tensors.pop(name))
        assert_refused(tmp_path, model, tokens, name)
    for index, value in enumerate((np.nan, np.inf, -np.inf)):
        def spoil(tensors, value=value):
            tensors[WEIGHT][159, 63] = value
        # Weights are read layer by layer: the run has begun by then, and keeps what it has finished.
        model = write_model(tmp_path / f"spoiled{index}", layers=1, change=spoil)
        assert WEIGHT in refused("quantize", "--model", model, "--tokens", tokens, "--out", tmp_path / f"run{index}",
                                 "--group-size", "32")


def test_shards(model, tokens, tmp_path):
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, str(model / file))
    good = {name: file for file, part in halves.items() for name in part}
    index = model / "model.safetensors.index.json"

    def refuse(weight_map, *words):
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert_refused(tmp_path, model, tokens, *words)

    assert_refused(tmp_path, model, tokens, model, "model.safetensors.index.json")  # neither the one nor the other
    refuse(good | {names[0]: "three.safetensors"}, "three.safetensors")
    refuse(good | {names[0]: "two.safetensors"}, names[0])
    refuse(good | {names[0]: "../model/one.safetensors"}, names[0])
    refuse(good | {names[0]: "/etc/passwd"}, "/etc/passwd")
    refuse(good | {names[0]: 7}, names[0])
    refuse(good | {"more": "one.safetensors"}, "more")
    refuse({}, index)
    refuse([], index)
    index.write_text("{")
    assert_refused(tmp_path, model, tokens, index)
    index.write_text(json.dumps({"weight_map": good}))
    save_file({name: tensors[name] for name in names}, str(model / "two.safetensors"))
    assert_refused(tmp_path, model, tokens, names[0], "both")
    save_file({name: tensors[name] for name in halves["two.safetensors"]}, str(model / "two.safetensors"))
    run(0, "quantize", "--model", model, "--tokens", tokens, "--out", tmp_path / "run", "--group-size", "32")


# --- config.json ---------------------------------------------------------------------------------------------------------

CONFIGS = {
    "an unknown architecture": ({"architectures": ["MambaForCausalLM"]}, ("MambaForCausalLM", "LlamaForCausalLM")),
    "two architectures": ({"architectures": ["LlamaForCausalLM", "OPTForCausalLM"]}, ("architectures",)),
    "no architecture": ({"architectures": None}, ("architectures",)),
    "another model type": ({"model_type": "qwen2"}, ("model_type", "qwen2")),
    "an unknown rope": ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, ("dynamic", "llama3")),
    "half a rope": ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, ("factor",)),
    "a rope that is text": ({"rope_parameters": "default"}, ("rope_parameters",)),
    "rotation of half a head": ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ("partial_rotary_factor",)),
    "no hidden size": ({"hidden_size": None}, ("hidden_size",)),
    "hidden size zero": ({"hidden_size": 0}, ("hidden_size",)),
    "a negative size": ({"intermediate_size": -160}, ("intermediate_size", -160)),
    "a size beyond 64 bits": ({"hidden_size": 1 << 64}, ("hidden_size",)),
    "a size that would overflow": ({"hidden_size": (1 << 63) - 1}, ("hidden_size",)),
    "many layers": ({"num_hidden_layers": 1 << 40}, ("num_hidden_layers",)),
    "more layers than there are": ({"num_hidden_layers": 2}, ("model.layers.1.",)),
    "text for a size": ({"hidden_size": "64"}, ("hidden_size",)),
    "a fraction": ({"num_attention_heads": 4.5}, ("num_attention_heads",)),
    "heads that do not divide": ({"num_key_value_heads": 3}, ("num_key_value_heads",)),
    "an odd head": ({"head_dim": 15}, ("head_dim",)),
    "another width": ({"intermediate_size": 192}, ("160", "192")),
    "another vocabulary": ({"vocab_size": 400}, ("384", "400")),
    "a small vocabulary": ({"vocab_size": 100}, ("100",)),
    "few positions": ({"max_position_embeddings": 10}, ("10",)),
    "a negative epsilon": ({"rms_norm_eps": -1e-6}, ("rms_norm_eps",)),
    "an unknown activation": ({"hidden_act": "mish"}, ("mish", "silu")),
    "an unknown type": ({"dtype": "float8_e4m3fn"}, ("float8_e4m3fn", "bfloat16")),
    "a quantized model": ({"quantization_config": {"quant_method": "gptq"}}, ("quantization_config",)),
    "text for a flag": ({"tie_word_embeddings": "yes"}, ("tie_word_embeddings",)),
    "biases that are not there": ({"attention_bias": True}, ("q_proj.bias",)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(tokens, tmp_path, name):
    settings, words = CONFIGS[name]
    assert_refused(tmp_path, write_model(tmp_path / "model", layers=1, settings=settings), tokens, *words)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"architectures": ["Llama', "\x00\x00", '{"a": 1e999}', "[" * 100_000])
def test_configs_that_are_no_json_object(model, tokens, tmp_path, text):
    (model / "config.json").write_text(text)
    assert_refused(tmp_path, model, tokens, model / "config.json")


def test_folders_that_are_no_model(model, tokens, tmp_path):
    for folder in (tmp_path / "nothing", model / "config.json", tmp_path):
        assert_refused(tmp_path, folder, tokens, folder)
    (model / "config.json").unlink()
    assert_refused(tmp_path, model, tokens, "config.json")
    (model / "config.json").mkdir()
    assert_refused(tmp_path, model, tokens, "config.json")


# --- token files ---------------------------------------------------------------------------------------------------------

def sealed(path, change):
    """A token file of good pairs and text, changed and sealed again: its checksum does not give it away."""
    write_tokens(path, pairs=4, texts=2)
    with h5py.File(path, "r+") as file:
        change(file)
    seal(path)
    return path


def replace(name, values):
    def change(file):
        del file[name]
        if values is not None:
            file[name] = values
    return change


def poke(name, place, value):
    def change(file):
        file[name][place] = value
    return change


def attribute(name, value):
    def change(file):
        file.attrs[name] = value
    return change


INT32, INT64 = np.int32, np.int64
TOKENS = {
    "a token beyond the vocabulary": (poke("text/token_ids", 5, 384), ("/text", "384")),
    "a negative token": (poke("pairs/stereotype/token_ids", 0, -1), ("/pairs/stereotype", "-1")),
    "offsets that fall": (poke("text/offsets", 1, 0), ("/text/offsets",)),
    "offsets beyond the end": (poke("text/offsets", 2, 1 << 62), ("/text/offsets",)),
    "offsets that start late": (poke("text/offsets", 0, 1), ("/text/offsets",)),
    "no offsets": (replace("text/offsets", np.empty(0, INT64)), ("/text/offsets",)),
    "offsets missing": (replace("text/offsets", None), ("offsets",)),
    "tokens missing": (replace("text/token_ids", None), ("token_ids",)),
    "tokens in a table": (replace("text/token_ids", np.zeros((60, 2), INT32)), ("token_ids",)),
    "tokens that are text": (replace("text/token_ids", "hello"), ("token_ids",)),
    "tokens that are fractions": (replace("text/token_ids", np.full(120, 0.5)), ("token_ids",)),
    "a group for tokens": (lambda file: (replace("text/token_ids", None)(file), file.create_group("text/token_ids")), ("token_ids",)),
    "one side of the pairs": (replace("pairs/anti_stereotype", None), ("anti_stereotype",)),
    "an odd pair": (lambda file: (replace("pairs/anti_stereotype/token_ids", np.zeros(3, INT32))(file),
                                  replace("pairs/anti_stereotype/offsets", np.arange(4, dtype=INT64))(file)), ("4", "3")),
    "categories of other pairs": (lambda file: (replace("pairs/category", None)(file), file["pairs"].create_dataset(
        "category", data=["a", "b"], dtype=h5py.string_dtype())), ("category",)),
    "another format": (attribute("format", "other"), ("fairgptq-tokens",)),
    "another version": (attribute("version", 2), ("version 2",)),
    "no version": (lambda file: file.attrs.__delitem__("version"), ("version",)),
    "a version that is text": (attribute("version", "one"), ("version",)),
    "a vocabulary of none": (attribute("vocab_size", 0), ("vocab_size",)),
    "a negative vocabulary": (attribute("vocab_size", -384), ("vocab_size",)),
    "a vocabulary beyond 31 bits": (attribute("vocab_size", 1 << 40), ("vocab_size",)),
}


@pytest.mark.parametrize("name", TOKENS)
def test_token_files(model, tmp_path, name):
    change, words = TOKENS[name]
    path = sealed(tmp_path / "tokens.h5", change)
    assert_refused(tmp_path, model, path, path, *words)


def test_damaged_token_files(model, tokens, tmp_path):
    whole = tokens.read_bytes()
    path = tmp_path / "tokens.h5"
    for size in (0, 1, 511, 512, 513, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert_refused(tmp_path, model, path, path)
    for place in (20, 600, len(whole) // 2, len(whole) - 1):  # in the seal's size, and in what it seals
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1:])
        assert_refused(tmp_path, model, path, path)
    for wrong in (tmp_path, tmp_path / "nothing.h5", model / "config.json"):
        assert_refused(tmp_path, model, wrong, wrong)


def test_an_empty_token_file(model, tmp_path):
    path = tmp_path / "tokens.h5"
    write_token_file(path, {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": []})
    assert_refused(tmp_path, model, path, path)


def test_several_ranks_say_it_once(model, tmp_path):
    path = sealed(tmp_path / "tokens.h5", poke("text/token_ids", 5, 384))
    assert_refused(tmp_path, model, path, path, ranks=2)
    assert_refused(tmp_path, write_model(tmp_path / "other", settings={"head_dim": 15}), path, "head_dim", ranks=2)
