"""A piece of a model: its tensors are the model's, byte for byte, and its tokens the same sentences under new numbers."""
import json
import shutil

import h5py
import numpy as np
import pytest
import random_model
from model_shapes import Shape
from running import ROOT, refused, run_tool
from safetensors import safe_open

SMALL = Shape(64, 160, 3, 4, 2, 300)
TOOL = ROOT / "tests/bench/cut_model.py"


def read_bits(folder):
    """Every tensor's type and bits, by name."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        data = file.read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        with safe_open(file, "np") as opened:  # the library's own checks of offsets and sizes
            for name in opened.keys():
                entry = json.loads(data[8:begin])[name]
                first, end = entry["data_offsets"]
                tensors[name] = entry["dtype"], np.frombuffer(data[begin + first:begin + end], dtype="<u2").reshape(entry["shape"])
    return tensors


def sequences(path):
    with h5py.File(path) as file:
        return {name: [ids.tolist() for ids in np.split(file[name]["token_ids"][...], file[name]["offsets"][1:-1])]
                for name in ("text", "pairs/stereotype", "pairs/anti_stereotype")}, file["pairs/category"].asstr()[...].tolist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model in several files, and a token file that has some of its tokens."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "model").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_model, "SHARD_BYTES", 50_000)
        random_model.write_model(folder / "model", SMALL, 3, seed=5)
    assert len(list((folder / "model").glob("*.safetensors"))) > 2
    from token_file import write_token_file
    random = np.random.default_rng(1)
    some = random.permutation(300)[:90]
    pairs = [random.choice(some, 8).tolist() for _ in range(10)]
    write_token_file(folder / "tokens.h5", {
        "tokenizer_sha256": "1" * 64, "vocab_size": 300, "sources": [], "text": [random.choice(some, 30).tolist() for _ in range(4)],
        "pairs": {"stereotype": pairs[:5], "anti_stereotype": pairs[5:], "category": list("abcab")}})
    return folder / "model", folder / "tokens.h5"


def cut(*arguments):
    return run_tool(TOOL, *arguments)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_piece_has_the_models_bytes_and_the_files_sentences(whole, tmp_path, layers):
    model, tokens = whole
    done = cut(model, tokens, tmp_path / "piece", "--layers", layers)
    assert done.returncode == 0, done.stderr
    before, categories = sequences(tokens)
    after, categories_after = sequences(tmp_path / "piece/tokens.h5")
    used = sorted({token for all_of_one in before.values() for ids in all_of_one for token in ids})
    assert 50 < len(used) <= 90
    assert {name: [[used[token] for token in ids] for ids in all_of_one] for name, all_of_one in after.items()} == before
    assert categories_after == categories

    original, piece = read_bits(model), read_bits(tmp_path / "piece")
    assert set(piece) == {name for name in original if not name.startswith("model.layers.") or int(name.split(".")[2]) < layers}
    for name, (dtype, bits) in piece.items():
        expected = original[name][1][used] if name in ("model.embed_tokens.weight", "lm_head.weight") else original[name][1]
        assert dtype == "BF16" and np.array_equal(bits, expected), name

    config = json.loads((model / "config.json").read_text())
    assert json.loads((tmp_path / "piece/config.json").read_text()) == {**config, "num_hidden_layers": layers, "vocab_size": len(used)}
    with h5py.File(tmp_path / "piece/tokens.h5") as file:
        assert file.attrs["vocab_size"] == len(used)


def test_what_cannot_be_cut_is_refused(whole, tmp_path):
    model, tokens = whole
    out = tmp_path / "piece"
    (tmp_path / "full").mkdir()
    assert "is there already" in refused(cut(model, tokens, tmp_path / "full"))
    assert "no folder of a model" in refused(cut(tmp_path / "full", tokens, out))
    assert "no file" in refused(cut(model, tmp_path / "none.h5", out))
    assert "--layers must be from 1 to 3" in refused(cut(model, tokens, out, "--layers", 4))
    assert "--layers must be from 1 to 3" in refused(cut(model, tokens, out, "--layers", 0))
    from token_file import write_token_file
    contents = {"tokenizer_sha256": "1" * 64, "vocab_size": 400, "sources": [], "text": [[1, 2, 3]]}
    write_token_file(tmp_path / "text.h5", contents)
    assert "both text and pairs" in refused(cut(model, tmp_path / "text.h5", out))
    write_token_file(tmp_path / "other.h5", {**contents, "pairs": {"stereotype": [[399]], "anti_stereotype": [[4]], "category": ["a"]}})
    assert "token 399" in refused(cut(model, tmp_path / "other.h5", out))
    shutil.copytree(model, tmp_path / "nameless")
    for file in (tmp_path / "nameless").glob("*.safetensors"):
        file.write_bytes(file.read_bytes().replace(b"model.embed_tokens", b"model.embed_takens"))
    assert "only models that name their tensors like Llama" in refused(cut(tmp_path / "nameless", tokens, out))
    assert not out.exists()
