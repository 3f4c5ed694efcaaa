#!/usr/bin/env python3
"""Writes a Llama, a Qwen3.5, or a Qwen3, GLM-4.5 or DeepSeek of experts, of random weights in a known model's shape, and a token file for it: to time a machine, a file system or a
job script with before the model itself is there. What comes out of such a run is fast or slow, never good.

  random_model.py 8b FOLDER                         16 GB: a folder as of Hugging Face, and FOLDER/tokens.h5
  random_model.py 70b FOLDER --layers 2             only so many of its 80 layers, which cost the same time each
  fairgptq quantize --model FOLDER --tokens FOLDER/tokens.h5 --out RUN
"""
import json
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

import numpy as np

from model_shapes import HYBRIDS, MIXTURES, SHAPES
from support import InvalidInput, Parser, run

SHARD_BYTES = 4 << 30  # of a file, about
LINEAR, WIDTH = 128, 4  # elements of a head of linear attention, tokens of its convolution
TURNING, VALUE = 64, 128  # elements of a head where keys and values come from latents


def bfloat16_bits(count, random):
    """Magnitudes from 2^-7 to 2^-5, a root of their mean square of 0.018, either sign; as bits."""
    bits = np.frombuffer(random.bytes(2 * count), dtype=np.uint16)
    return (bits & np.uint16(0x80FF)) | np.uint16(0x3C00)  # sign, the exponent's last bit and mantissa are random


def ones(count):
    return np.full(count, 0x3F80, dtype=np.uint16)


def sigmoid(shape):
    """Whether experts are chosen by their sigmoids: not in DeepSeek-V2's form, whose queries have no latent."""
    return not shape.key_value_rank or shape.query_rank > 0


def attention_of(shape, prefix):
    hidden, query = shape.hidden, shape.heads * shape.head_dim
    linears = [("q_proj", 2 * query if shape.linear_heads else query, hidden), ("k_proj", shape.key_value_width, hidden), ("v_proj", shape.key_value_width, hidden),
               ("o_proj", hidden, query)]
    norms = []
    if shape.key_value_rank:
        rank = shape.key_value_rank
        linears = [("q_proj", query, hidden)] if not shape.query_rank else [("q_a_proj", shape.query_rank, hidden),
                                                                            ("q_b_proj", query, shape.query_rank)]
        linears += [("kv_a_proj_with_mqa", rank + TURNING, hidden),
                    ("kv_b_proj", shape.heads * (shape.head_dim - TURNING + VALUE), rank), ("o_proj", hidden, shape.heads * VALUE)]
        norms = [("kv_a_layernorm", rank)] + ([("q_a_layernorm", shape.query_rank)] if shape.query_rank else [])
    for name, rows, cols in linears:
        yield f"{prefix}{name}.weight", (rows, cols)
    for name, size in norms:
        yield f"{prefix}{name}.weight", (size,)


def is_linear(shape, layer):
    return bool(shape.linear_heads) and (layer + 1) % 4 != 0


def linear_attention_of(shape, prefix):
    keys, values = (heads * LINEAR for heads in shape.linear_heads)
    heads = shape.linear_heads[1]
    for name, rows, cols in (("in_proj_qkv", 2 * keys + values, shape.hidden), ("in_proj_z", values, shape.hidden), ("in_proj_b", heads, shape.hidden),
                             ("in_proj_a", heads, shape.hidden), ("out_proj", shape.hidden, values)):
        yield f"{prefix}{name}.weight", (rows, cols)
    yield prefix + "conv1d.weight", (2 * keys + values, 1, WIDTH)
    yield prefix + "norm.weight", (LINEAR,)
    for name in ("A_log", "dt_bias"):
        yield prefix + name, (heads,)


def tensors_of(shape, layers):
    """Names and sizes, in the order of the files."""
    hidden, intermediate, query = shape.hidden, shape.intermediate, shape.heads * shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocabulary, hidden)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        linear = is_linear(shape, layer)
        yield from linear_attention_of(shape, prefix + "linear_attn.") if linear else attention_of(shape, prefix + "self_attn.")
        if shape.shared and not shape.key_value_rank:
            for name, rows in (("q_proj", query), ("k_proj", shape.key_value_width), ("v_proj", shape.key_value_width)):
                yield f"{prefix}self_attn.{name}.bias", (rows,)
        if (shape.experts and shape.normed) or (shape.linear_heads and not linear):
            for norm in ("q_norm", "k_norm"):
                yield f"{prefix}self_attn.{norm}.weight", (shape.head_dim,)
        blocks = [("mlp", shape.dense_intermediate or intermediate)]
        if shape.experts and layer >= shape.dense_layers:
            yield prefix + "mlp.gate.weight", (shape.experts, hidden)
            blocks = [(f"mlp.experts.{expert}", intermediate) for expert in range(shape.experts)]
            if shape.shared and sigmoid(shape):
                yield prefix + "mlp.gate.e_score_correction_bias", (shape.experts,)
            if shape.shared:
                blocks.append(("mlp.shared_experts", shape.shared * intermediate))
        for block, wide in blocks:
            for name, rows, cols in (("gate_proj", wide, hidden), ("up_proj", wide, hidden), ("down_proj", hidden, wide)):
                yield f"{prefix}{block}.{name}.weight", (rows, cols)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocabulary, hidden)


def shards_of(tensors):
    """Lists of (name, size), each a file."""
    shard, held = [], 0
    for name, size in tensors:
        size_bytes = 2 * int(np.prod(size))
        if shard and held + size_bytes > SHARD_BYTES:
            yield shard
            shard, held = [], 0
        shard.append((name, size))
        held += size_bytes
    yield shard


def write_shard(path, shard, seed):
    """A safetensors file, a tensor at a time: the library wants all of them in memory, and its bfloat16 has no numpy type."""
    header, begin = {"__metadata__": {"format": "pt"}}, 0
    for name, size in shard:
        end = begin + 2 * int(np.prod(size))
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [begin, end]}
        begin = end
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with open(path, "wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        for number, (_, size) in enumerate(shard):
            count = int(np.prod(size))
            bits = ones(count) if len(size) == 1 else bfloat16_bits(count, np.random.default_rng([*seed, number]))
            file.write(bits.astype("<u2", copy=False))


def write_model(folder, shape, layers, seed):
    shards = list(shards_of(tensors_of(shape, layers)))
    names = [f"model-{number + 1:05}-of-{len(shards):05}.safetensors" for number in range(len(shards))]
    pool = ThreadPoolExecutor(max(1, min(4, cpu_count() or 1)))
    try:
        for done in [pool.submit(write_shard, folder / name, shard, (seed, number))
                     for number, (name, shard) in enumerate(zip(names, shards))]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, or on a full disk, no further file is begun
    weights = {tensor: name for name, shard in zip(names, shards) for tensor, _ in shard}
    total = sum(2 * int(np.prod(size)) for shard in shards for _, size in shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weights}, indent=1))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
              "num_hidden_layers": layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.key_value_heads,
              "head_dim": shape.head_dim, "vocab_size": shape.vocabulary, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
              "hidden_act": "silu", "tie_word_embeddings": shape.tied, "rope_theta": 500000.0, "attention_bias": False, "mlp_bias": False,
              "torch_dtype": "bfloat16"}
    if shape.experts:
        config |= {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "moe_intermediate_size": shape.intermediate,
                   "num_experts": shape.experts, "num_experts_per_tok": shape.experts_per_token, "norm_topk_prob": True,
                   "decoder_sparse_step": 1, "mlp_only_layers": []}
    if shape.shared:
        config |= {"architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "intermediate_size": shape.dense_intermediate,
                   "n_routed_experts": shape.experts, "n_shared_experts": shape.shared, "first_k_dense_replace": shape.dense_layers,
                   "use_qk_norm": shape.normed, "attention_bias": True, "partial_rotary_factor": 0.5}
        del config["num_experts"]
    if shape.linear_heads:
        keys, values = shape.linear_heads
        config |= {"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", "full_attention_interval": 4, "linear_num_key_heads": keys,
                   "linear_num_value_heads": values, "linear_key_head_dim": LINEAR, "linear_value_head_dim": LINEAR, "linear_conv_kernel_dim": WIDTH,
                   "partial_rotary_factor": 0.25}
        del config["mlp_bias"]
    if shape.key_value_rank:
        form = "v3" if sigmoid(shape) else "v2"
        config |= {"architectures": [f"Deepseek{form.upper()}ForCausalLM"], "model_type": f"deepseek_{form}", "head_dim": TURNING,
                   "q_lora_rank": shape.query_rank or None, "kv_lora_rank": shape.key_value_rank, "qk_rope_head_dim": TURNING,
                   "qk_nope_head_dim": shape.head_dim - TURNING, "v_head_dim": VALUE, "attention_bias": False,
                   "topk_method": "noaux_tc" if sigmoid(shape) else "greedy", "scoring_func": "sigmoid" if sigmoid(shape) else "softmax",
                   "routed_scaling_factor": 2.5 if sigmoid(shape) else 1.0, "n_group": 8 if sigmoid(shape) else 1, "topk_group": 4 if sigmoid(shape) else 1, "norm_topk_prob": sigmoid(shape)}
        for field in ("partial_rotary_factor", "use_qk_norm"):
            del config[field]
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return total


def random_pairs(count, vocabulary, random):
    """Sentences of 6 to 25 tokens that differ in one."""
    pairs = {"stereotype": [], "anti_stereotype": [], "category": []}
    for number in range(count):
        sentence = random.integers(0, vocabulary, random.integers(6, 26))
        partner = sentence.copy()
        place = random.integers(1, len(partner))
        partner[place] = (partner[place] + 1) % vocabulary
        pairs["stereotype"].append(sentence)
        pairs["anti_stereotype"].append(partner)
        pairs["category"].append(f"random-{number % 4}")
    return pairs


def write_tokens(path, vocabulary, options):
    from token_file import write_token_file  # a model alone needs none of its packages

    random = np.random.default_rng([options.seed, 1 << 20])
    contents = {"tokenizer_sha256": "0" * 64, "vocab_size": vocabulary, "sources": [{"name": "random", "seed": options.seed}]}
    if options.length > 0 and options.sequences > 0:
        contents["text"] = [random.integers(0, vocabulary, options.length) for _ in range(options.sequences)]
    if options.pairs > 0:
        contents["pairs"] = random_pairs(options.pairs, vocabulary, random)
    write_token_file(path, contents)


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    shapes = SHAPES | MIXTURES | HYBRIDS
    parser.add_argument("shape", choices=sorted(shapes))
    parser.add_argument("folder", type=Path, help="folder to make")
    parser.add_argument("--layers", type=int, help="the first so many of the model's layers")
    parser.add_argument("--sequences", type=int, default=128, help="sequences of text")
    parser.add_argument("--length", type=int, default=2048, help="tokens of each")
    parser.add_argument("--pairs", type=int, default=1000, help="sentence pairs")
    parser.add_argument("--only", choices=("model", "tokens"), help="not the other of the two")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    shape = shapes[options.shape]
    layers = options.layers if options.layers is not None else shape.layers
    if not 1 <= layers <= shape.layers:
        raise InvalidInput(f"--layers must be from 1 to {shape.layers}, the layers of {options.shape}, not {layers}")
    for name in ("sequences", "length", "pairs", "seed"):
        if getattr(options, name) < 0:
            raise InvalidInput(f"--{name} must not be negative")
    texts = options.sequences if options.length > 0 else 0
    if texts == 0 and options.pairs == 0:
        raise InvalidInput("a token file needs text or pairs: --sequences and --length, or --pairs, above 0")
    if options.folder.exists() and (not options.folder.is_dir() or any(options.folder.iterdir())):
        raise InvalidInput(f"{options.folder} is there already; name a folder that is not, or that is empty")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.only != "tokens":
        total = write_model(options.folder, shape, layers, options.seed)
        print(f"{options.folder}: {layers} layers in {options.shape}'s shape, {total / 1e9:.1f} GB")
    if options.only != "model":
        write_tokens(options.folder / "tokens.h5", shape.vocabulary, options)
        print(f"{options.folder}/tokens.h5: {texts} x {options.length} tokens of text, {options.pairs} pairs")


if __name__ == "__main__":
    run(main)
