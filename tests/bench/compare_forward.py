#!/usr/bin/env python3
"""Times the forward pass of one decoder block beside PyTorch's: same shapes and tokens, same run, taking turns.

    compare_forward.py [--fairgptq build/release/fairgptq] [--shape smollm2-135m] [--rounds 3]
    compare_forward.py --device cuda --shape 70b --tokens 16384 --length 2048 --fairgptq build/cuda/fairgptq

Not for CI: it needs torch and transformers (README.md beside this file).

PyTorch's is transformers' LlamaDecoderLayer with scaled_dot_product_attention, without gradients, sequences as a batch,
positions' sines and cosines made beforehand; on a GPU in bfloat16, on a CPU in float32. Ours is the row `stage forward` of
`fairgptq bench`, which computes the sines anew, and the row `attention` beside scaled_dot_product_attention alone. Each is
the median of a few samples, a sample the best call of 50 ms. Exit code 1 if the block's median ratio is below --wanted.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaDecoderLayer, LlamaRotaryEmbedding

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from model_shapes import SHAPES  # noqa: E402


def seconds(work, device):
    """The median of five samples after one to warm up."""
    def now():
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
    samples = []
    for sample in range(6):
        best, spent = float("inf"), 0.0
        while spent < 0.05:
            begin = now()
            work()
            one = now() - begin
            best, spent = min(best, one), spent + one
        if sample > 0:
            samples.append(best)
    return statistics.median(samples)


class Torch:
    def __init__(self, shape, tokens, length, device):
        hidden, heads, key_value_heads, head_dim = shape.hidden, shape.heads, shape.key_value_heads, shape.head_dim
        kind = torch.bfloat16 if device == "cuda" else torch.float32
        config = LlamaConfig(hidden_size=hidden, intermediate_size=shape.intermediate, num_attention_heads=heads, num_hidden_layers=1,
                             num_key_value_heads=key_value_heads, max_position_embeddings=length, vocab_size=8)
        config._attn_implementation = "sdpa"
        torch.manual_seed(1)
        torch.set_default_device(device)
        torch.set_default_dtype(kind)
        self.device, batch = device, tokens // length
        self.layer = LlamaDecoderLayer(config, 0).eval()
        self.hidden = torch.randn(batch, length, hidden)
        positions = torch.arange(length)[None]
        self.positions = LlamaRotaryEmbedding(config)(self.hidden, positions)
        self.position_ids = positions
        self.query = torch.randn(batch, heads, length, head_dim)
        self.key = torch.randn(batch, key_value_heads, length, head_dim)
        self.value = torch.randn(batch, key_value_heads, length, head_dim)

    @torch.no_grad()
    def measure(self):
        def attend():
            torch.nn.functional.scaled_dot_product_attention(self.query, self.key, self.value, is_causal=True, enable_gqa=True)
        return {"stage forward": seconds(lambda: self.layer(self.hidden, position_embeddings=self.positions,
                                                            position_ids=self.position_ids), self.device),
                "attention": seconds(attend, self.device)}


def ours(options):
    words = (options.fairgptq, "bench", "--model-shape", options.shape, "--device", options.device, "--tokens", options.tokens,
             "--sequence-length", options.length, "--kernels", "attention,forward", "--json")
    # Without PyTorch's settings of OpenMP.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_"))}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip())
    result = json.loads(done.stdout)
    return result["device"], {row["kernel"]: row["seconds"] for row in result["kernels"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fairgptq", type=Path, default=Path("build/release/fairgptq"))
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smollm2-135m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--length", type=int, default=512, help="tokens of a sequence")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wanted", type=float, default=1.0, help="times as fast as PyTorch")
    options = parser.parse_args()
    if options.length < 1 or options.tokens < options.length or options.tokens % options.length != 0:
        parser.error("--tokens must be a multiple of --length: PyTorch's sequences are a batch")
    if options.device == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torchs = Torch(SHAPES[options.shape], options.tokens, options.length, options.device)
    print(f"{options.shape}, {options.tokens} tokens of {options.length}; torch {torch.__version__}, transformers {version('transformers')}")
    ratios = {"stage forward": [], "attention": []}
    for number in range(options.rounds):
        device, our = ours(options)
        theirs = torchs.measure()
        for kernel, found in ratios.items():
            found.append(theirs[kernel] / our[kernel])
            print(f"round {number + 1}, {kernel:14} fairgptq {our[kernel] * 1e3:9.2f} ms   PyTorch {theirs[kernel] * 1e3:9.2f} ms   "
                  f"{found[-1]:.2f} times as fast")
    medians = {kernel: statistics.median(found) for kernel, found in ratios.items()}
    print(f"{device}, {options.shape}: the block's forward {medians['stage forward']:.2f} times as fast as PyTorch's, "
          f"attention {medians['attention']:.2f} times (medians)")
    raise SystemExit(1 if medians["stage forward"] < options.wanted else 0)


if __name__ == "__main__":
    main()
