#!/usr/bin/env python3
"""Cuts a small piece out of a real model, for a machine that a whole one does not get to: its first layers, and of its embedding
the rows of the tokens that a token file has. Layer 0 of the piece is layer 0 of the model: the same inputs, weights, H and C.

  cut_model.py MODEL TOKENS OUT [--layers N]      OUT/config.json, OUT/model.safetensors, OUT/tokens.h5 (its text and pairs)
"""
import json
import sys
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from support import InvalidInput, Parser, read_json_object, run  # noqa: E402  (the tools are scripts, not a package)
from token_file import write_token_file  # noqa: E402

EMBEDDING = "model.embed_tokens.weight"
VOCABULARY = (EMBEDDING, "lm_head.weight")


def read_tensors(model):
    """By name: type, sizes, and the bytes as rows. numpy, and so the library, has no bfloat16."""
    tensors = {}
    for path in sorted(model.glob("*.safetensors")):
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        data = np.memmap(path, np.uint8, "r", 8 + size)
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                tensors[name] = entry["dtype"], entry["shape"], data[begin:end].reshape(entry["shape"][0], -1)
    return tensors


def write_tensors(path, tensors):
    header, begin = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, rows) in tensors.items():
        header[name] = {"dtype": dtype, "shape": [len(rows), *shape[1:]], "data_offsets": [begin, begin + rows.size]}
        begin += rows.size
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with open(path, "wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        for _, _, rows in tensors.values():
            file.write(rows.tobytes())


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a whole model")
    parser.add_argument("tokens", type=Path, help="token file with text and pairs")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--layers", type=int, default=2, help="how many of its first layers")
    options = parser.parse_args()
    model, tokens, out, layers = options.model, options.tokens, options.out, options.layers
    if out.exists():
        raise InvalidInput(f"{out} is there already; name a folder that is not")
    if not (model / "config.json").exists() or not tokens.exists():
        raise InvalidInput(f"{model} is no folder of a model, or {tokens} no file")
    config = read_json_object(model / "config.json")
    tensors = read_tensors(model)
    if EMBEDDING not in tensors:
        raise InvalidInput(f"{model} has no {EMBEDDING}: only models that name their tensors like Llama can be cut")
    if not 1 <= layers <= config["num_hidden_layers"]:
        raise InvalidInput(f"--layers must be from 1 to {config['num_hidden_layers']}, the layers of {model}, not {layers}")
    with h5py.File(tokens) as file:
        if "text" not in file or "pairs" not in file:
            raise InvalidInput(f"{tokens} should have both text and pairs")
        sequences = {name: np.split(file[name]["token_ids"][...], file[name]["offsets"][1:-1])
                     for name in ("text", "pairs/stereotype", "pairs/anti_stereotype")}
        categories = file["pairs/category"].asstr()[...].tolist()
    used = np.unique(np.concatenate([ids for all_of_one in sequences.values() for ids in all_of_one]))
    if used[-1] >= tensors[EMBEDDING][1][0]:
        raise InvalidInput(f"{tokens} has token {used[-1]}, and {model} only {tensors[EMBEDDING][1][0]}: it is another model's")
    new = {name: [np.searchsorted(used, ids) for ids in all_of_one] for name, all_of_one in sequences.items()}
    out.mkdir(parents=True)
    write_token_file(out / "tokens.h5", {
        "tokenizer_sha256": "0" * 64, "vocab_size": len(used), "sources": [], "text": new["text"],
        "pairs": {"stereotype": new["pairs/stereotype"], "anti_stereotype": new["pairs/anti_stereotype"], "category": categories}})
    write_tensors(out / "model.safetensors", {
        name: (dtype, shape, rows[used] if name in VOCABULARY else rows) for name, (dtype, shape, rows) in tensors.items()
        if not name.startswith("model.layers.") or int(name.split(".")[2]) < layers})
    # Lists with an entry a layer, such as layer_types.
    cut = {name: value[:layers] for name, value in config.items() if isinstance(value, list) and len(value) == config["num_hidden_layers"]}
    (out / "config.json").write_text(json.dumps({**config, **cut, "num_hidden_layers": layers, "vocab_size": len(used)}, indent=1))
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {layers} layers, {len(used)} tokens, {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    run(main)
