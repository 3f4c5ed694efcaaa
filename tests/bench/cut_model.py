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
from safetensors import safe_open
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from support import InvalidInput, Parser, run  # noqa: E402  (the tools are scripts, not a package)
from token_file import write_token_file  # noqa: E402

VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


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
    out.mkdir(parents=True)
    with h5py.File(tokens) as file:
        sequences = {name: np.split(file[name]["token_ids"][...], file[name]["offsets"][1:-1])
                     for name in ("text", "pairs/stereotype", "pairs/anti_stereotype")}
        categories = file["pairs/category"].asstr()[...].tolist()
    used = np.unique(np.concatenate([ids for all_of_one in sequences.values() for ids in all_of_one]))
    new = {name: [np.searchsorted(used, ids) for ids in all_of_one] for name, all_of_one in sequences.items()}
    write_token_file(out / "tokens.h5", {
        "tokenizer_sha256": "0" * 64, "vocab_size": len(used), "sources": [], "text": new["text"],
        "pairs": {"stereotype": new["pairs/stereotype"], "anti_stereotype": new["pairs/anti_stereotype"], "category": categories}})
    kept = {}
    for part in sorted(model.glob("*.safetensors")):
        with safe_open(part, "np") as file:
            for name in file.keys():
                if name.startswith("model.layers.") and int(name.split(".")[2]) >= layers:
                    continue
                tensor = file.get_tensor(name)
                kept[name] = np.ascontiguousarray(tensor[used] if name in VOCABULARY else tensor)
    save_file(kept, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers, "vocab_size": len(used)}, indent=1))
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {layers} layers, {len(used)} tokens, {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    run(main)
