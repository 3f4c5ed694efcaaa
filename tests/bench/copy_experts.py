#!/usr/bin/env python3
"""Makes a mixture of experts of a Llama, which computes what the Llama does: each expert is a copy of the layer's MLP, and a random
router sends every token to one of them. What quantization does to it is measured as of the Llama itself.

  copy_experts.py MODEL OUT [--experts N]      OUT: a folder as of Mixtral, with the model's tokenizer
"""
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tools"), str(Path(__file__).resolve().parent)]
from cut_model import read_tensors, write_tensors  # noqa: E402
from support import InvalidInput, Parser, read_json_object, run  # noqa: E402  (the tools are scripts, not a package)

MLP = re.compile(r"(.*)\.mlp\.(gate_proj|up_proj|down_proj)\.weight$")
NAMES = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a Llama in float16")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--experts", type=int, default=4)
    options = parser.parse_args()
    model, out = options.model, options.out
    if out.exists():
        raise InvalidInput(f"{out} is there already; name a folder that is not")
    config = read_json_object(model / "config.json")
    tensors = read_tensors(model)
    if config.get("model_type") != "llama" or {dtype for dtype, *_ in tensors.values()} != {"F16"}:
        raise InvalidInput(f"{model} is not a Llama in float16")
    random = np.random.default_rng(0)
    mixture = {}
    for name, tensor in tensors.items():
        found = MLP.match(name)
        if not found:
            mixture[name] = tensor
            continue
        layer, linear = found.groups()
        for expert in range(options.experts):
            mixture[f"{layer}.block_sparse_moe.experts.{expert}.{NAMES[linear]}.weight"] = tensor
        if linear == "gate_proj":
            sizes = options.experts, config["hidden_size"]
            values = (0.1 * random.standard_normal(sizes)).astype("<f2")
            mixture[f"{layer}.block_sparse_moe.gate.weight"] = "F16", list(sizes), values.view(np.uint8)
    config |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": options.experts,
               "num_experts_per_tok": 1, "sliding_window": None}
    out.mkdir(parents=True)
    write_tensors(out / "model.safetensors", mixture)
    (out / "config.json").write_text(json.dumps(config, indent=1))
    for file in model.glob("tokenizer*"):
        shutil.copy(file, out)


if __name__ == "__main__":
    run(main)
