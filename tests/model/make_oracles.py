"""Makes the models in oracles/: small random ones of the families that come with no other reference, with what
transformers computes from them in float32. Run where torch and transformers are; its results are kept, as CI has neither.

    python tests/model/make_oracles.py        # made with transformers 5.24 and torch 2.15
"""
import pathlib
import zlib

import h5py
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

LENGTHS = [13, 5, 1, 24]
# A hidden size whose square root every type holds: Gemma multiplies embeddings by it.
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 48, "max_position_embeddings": 64, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 100.0}
PLAIN = {"rope_type": "default", "rope_theta": 100.0}
LATENT = {"rope_parameters": PLAIN, "num_key_value_heads": 4, "head_dim": 8, "kv_lora_rank": 16, "qk_nope_head_dim": 10,
          "qk_rope_head_dim": 8, "v_head_dim": 6}
LINEAR = {"rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}, "num_hidden_layers": 3,
          "layer_types": ["linear_attention", "full_attention", "linear_attention"], "linear_num_key_heads": 2,
          "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 6}
LINEAR_MOE = {**LINEAR, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 40}
FAMILIES = {
    "llama_yarn": ("llama", {"rope_parameters": YARN}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4, "tie_word_embeddings": True}),
    "granite": ("granite", {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1,
                            "logits_scaling": 8.0}),
    "phi3": ("phi3", {"sliding_window": 9}),
    "phi3_longrope": ("phi3", {"num_attention_heads": 2, "original_max_position_embeddings": 48, "rope_parameters": {
        "rope_type": "longrope", "short_factor": [1.0, 1.2, 1.6, 2.5], "long_factor": [4.0] * 4, "rope_theta": 100.0,
        "original_max_position_embeddings": 48}}),
    "phi4_mini": ("phi3", {"partial_rotary_factor": 0.75, "tie_word_embeddings": True, "num_attention_heads": 2,
                           "num_key_value_heads": 1, "original_max_position_embeddings": 48, "rope_parameters": {
                               "rope_type": "longrope", "short_factor": [1.0, 1.4, 2.5], "long_factor": [4.0] * 3,
                               "rope_theta": 100.0, "original_max_position_embeddings": 48,
                               "partial_rotary_factor": 0.75}}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"num_hidden_layers": 4, "sliding_window": 7,
                        "rope_parameters": {"full_attention": YARN, "sliding_attention": PLAIN}}),
    "gemma": ("gemma", {"num_key_value_heads": 1, "tie_word_embeddings": True, "rope_parameters": PLAIN}),
    # Caps that random weights' scores and logits come near.
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 12, "sliding_window": 7, "tie_word_embeddings": True, "rope_parameters": PLAIN,
                          "attn_logit_softcapping": 1.5, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", {"num_hidden_layers": 6, "query_pre_attn_scalar": 12, "sliding_window": 7,
                               "tie_word_embeddings": True, "rope_parameters": {
                                   "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
                                   "sliding_attention": PLAIN}}),
    "exaone4": ("exaone4", {"num_hidden_layers": 4, "sliding_window": 7, "rope_parameters": PLAIN}),
    "seed_oss": ("seed_oss", {"rope_parameters": PLAIN, "attention_out_bias": True}),
    "mixtral": ("mixtral", {"rope_parameters": PLAIN, "num_local_experts": 4, "sliding_window": 9}),
    "qwen3_moe": ("qwen3_moe", {"rope_parameters": PLAIN, "num_experts": 6, "num_experts_per_tok": 2,
                                "moe_intermediate_size": 40, "norm_topk_prob": True, "use_sliding_window": True,
                                "sliding_window": 7, "max_window_layers": 1}),
    "olmoe": ("olmoe", {"num_attention_heads": 2, "num_key_value_heads": 2, "rope_parameters": PLAIN, "num_experts": 5,
                        "num_experts_per_tok": 3}),
    "qwen2_moe": ("qwen2_moe", {"head_dim": 4, "rope_parameters": PLAIN, "num_hidden_layers": 3, "num_experts": 5,
                                "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                                "shared_expert_intermediate_size": 40, "mlp_only_layers": [1],
                                "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}),
    "glm4_moe": ("glm4_moe", {"rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}, "attention_bias": True,
                              "n_routed_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
                              "n_shared_experts": 2, "routed_scaling_factor": 1.5, "use_qk_norm": True}),
    "dots1": ("dots1", {"rope_parameters": PLAIN, "n_routed_experts": 4, "num_experts_per_tok": 2,
                        "moe_intermediate_size": 40, "n_shared_experts": 1, "first_k_dense_replace": 1,
                        "sliding_window": 9, "max_window_layers": 1}),
    "minimax_m2": ("minimax_m2", {"rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}, "num_local_experts": 6,
                                  "num_experts_per_tok": 3}),
    "deepseek_v2": ("deepseek_v2", {**LATENT, "q_lora_rank": None, "n_routed_experts": 6, "num_experts_per_tok": 3,
                                    "moe_intermediate_size": 32, "n_shared_experts": 2, "first_k_dense_replace": 1, "n_group": 3,
                                    "topk_group": 2, "topk_method": "group_limited_greedy", "routed_scaling_factor": 2.0,
                                    "attention_bias": True}),
    "deepseek_v3": ("deepseek_v3", {**LATENT, "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.8}, "q_lora_rank": 24,
                                    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
                                    "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
                                    "routed_scaling_factor": 2.5}),
    "glm4_moe_lite": ("glm4_moe_lite", {**LATENT, "v_head_dim": 14, "q_lora_rank": 8, "n_routed_experts": 5,
                                        "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
                                        "rms_norm_eps": 0.01, "rope_interleave": False}),
    "youtu": ("youtu", {**LATENT, "q_lora_rank": 24, "tie_word_embeddings": True}),
    "glm": ("glm", {"rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}),
    "glm4": ("glm4", {"rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}),
    "ernie4_5": ("ernie4_5", {"rope_parameters": PLAIN, "tie_word_embeddings": True, "use_bias": True}),
    "ernie4_5_moe": ("ernie4_5_moe", {"head_dim": 4, "rope_parameters": PLAIN, "num_hidden_layers": 3, "moe_num_experts": 5,
                                      "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2,
                                      "moe_layer_end_index": 1}),
    "qwen3_5": ("qwen3_5_text", LINEAR),
    "qwen3_5_moe": ("qwen3_5_moe_text", LINEAR_MOE),
    "qwen3_next": ("qwen3_next", {**LINEAR_MOE, "tie_word_embeddings": True}),
    "lfm2": ("lfm2", {"head_dim": 4, "rope_parameters": PLAIN, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"],
                      "intermediate_size": 48, "block_multiple_of": 20, "tie_word_embeddings": True}),
}
# What files call the first linear that reads an expert's input, and the one that reads what it makes of it.
EXPERTS = {"mixtral": ("block_sparse_moe", "w1", "w2"), "minimax_m2": ("block_sparse_moe", "w1", "w2"), "qwen3_moe": ("mlp", "gate_proj", "down_proj"),
           **{name: ("mlp", "gate_proj", "down_proj") for name in ("olmoe", "qwen2_moe", "glm4_moe", "dots1", "ernie4_5_moe", "deepseek_v2",
                                                                  "deepseek_v3", "glm4_moe_lite", "qwen3_5_moe", "qwen3_next",
                                                                  "qwen3_5_moe_with_pictures")}}
# Models that take pictures, too: the text model's type and settings, those of what sees, and those of the whole.
SEES = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4}
QWEN_SEES = {"hidden_size": 8, "intermediate_size": 12, "depth": 1, "num_heads": 2, "patch_size": 4, "out_hidden_size": 16}
WITH_PICTURES = {
    "gemma3_with_pictures": ("gemma3", "gemma3_text", FAMILIES["gemma3"][1], {**SEES, "image_size": 8},
                             {"mm_tokens_per_image": 1, "tie_word_embeddings": True}),
    "mistral_with_pictures": ("mistral3", "mistral", {"rope_parameters": PLAIN, "sliding_window": None},
                              {**SEES, "model_type": "pixtral", "image_size": 8, "head_dim": 4}, {"tie_word_embeddings": False}),
    # Tied by the whole's config alone, as transformers 5 has it where nobody says otherwise.
    "ministral3_with_pictures": ("mistral3", "ministral3", {"rope_parameters": {
        **YARN, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 32, "mscale": 1.0, "mscale_all_dim": 1.0}},
        {**SEES, "model_type": "pixtral", "image_size": 8, "head_dim": 4}, {}),
    "qwen25_with_pictures": ("qwen2_5_vl", "qwen2_5_vl_text", {"head_dim": None, "rope_parameters": {**PLAIN, "mrope_section": [1, 1]}},
                             {**QWEN_SEES, "hidden_act": "silu", "fullatt_block_indexes": [0]}, {"tie_word_embeddings": False}),
    "qwen3_with_pictures": ("qwen3_vl", "qwen3_vl_text", {"rope_parameters": {**PLAIN, "mrope_section": [2, 1, 1]}},
                            {**QWEN_SEES, "num_position_embeddings": 4, "deepstack_visual_indexes": [0]},
                            {"tie_word_embeddings": True}),
    "qwen3_5_with_pictures": ("qwen3_5", "qwen3_5_text", {**LINEAR, "linear_num_value_heads": 2, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 3},
                              {**QWEN_SEES, "num_position_embeddings": 4}, {"tie_word_embeddings": True}),
    "qwen3_5_moe_with_pictures": ("qwen3_5_moe", "qwen3_5_moe_text", LINEAR_MOE, {**QWEN_SEES, "num_position_embeddings": 4},
                                  {"tie_word_embeddings": False}),
}
STAGES = ("q_proj", "qkv_proj", "q_a_proj", "q_b_proj", "kv_b_proj", "o_proj", "in_proj_qkv", "in_proj_qkvz", "out_proj",
          "gate_proj", "gate_up_proj", "down_proj", "conv.in_proj", "w1", "w2")


def fill(model):
    """Weights that keep the size of what they multiply, of float16's values."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            random = torch.randn_like(values)
            if "norm" in name:
                random = values + 0.2 * random
            elif "embed" not in name and not name.endswith(("A_log", "dt_bias")):
                random *= values.shape[-1] ** -0.5
            values.copy_(random.half().float())
        for name, values in [*model.named_buffers(), *model.named_parameters()]:
            if name.endswith("e_score_correction_bias"):
                values.copy_(0.3 * torch.randn_like(values).half().float())


def keep_experts_inputs(model, names, inputs):
    """Has a mixture's experts note what each of them gets, and what its second half gets: rows in the order of tokens."""
    block, first, second = names

    def note(experts, given, layer):
        hidden, chosen, _ = given
        for expert in range(experts.num_experts):
            rows = hidden[(chosen == expert).any(-1)]
            gate, up = torch.nn.functional.linear(rows, experts.gate_up_proj[expert]).chunk(2, dim=-1)
            for name, values in (first, rows), (second, experts.act_fn(gate) * up):
                inputs.setdefault(f"layers.{layer}.{block}.experts.{expert}.{name}", []).append(values.numpy())

    for index, layer in enumerate(getattr(model.model, "language_model", model.model).layers):
        if not hasattr(layer.mlp, "experts"):
            continue
        layer.mlp.experts.register_forward_pre_hook(lambda experts, given, layer=index: note(experts, given, layer))


def models():
    """Name and model of every oracle."""
    for name, (model_type, changes) in FAMILIES.items():
        torch.manual_seed(zlib.crc32(name.encode()))  # of its own: another family changes nothing in this one
        config = AutoConfig.for_model(model_type, **{**SIZES, **changes})
        yield name, AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, (model_type, text_type, changes, sees, whole) in WITH_PICTURES.items():
        torch.manual_seed(zlib.crc32(name.encode()))
        text = {**SIZES, "model_type": text_type, **changes}
        if "tie_word_embeddings" not in whole:
            text.pop("tie_word_embeddings")
        config = AutoConfig.for_model(model_type, text_config=text, vision_config=sees, image_token_id=1, **whole)
        yield name, AutoModelForImageTextToText.from_config(config, attn_implementation="eager")


def main():
    ids = np.random.default_rng(0).integers(3, SIZES["vocab_size"], sum(LENGTHS))
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    for name, model in models():
        model = model.float().eval()
        fill(model)
        inputs = {}
        if name in EXPERTS:
            keep_experts_inputs(model, EXPERTS[name], inputs)
        for module_name, module in model.named_modules():
            if module_name.endswith(STAGES) and "vision" not in module_name and "visual" not in module_name:
                module.register_forward_pre_hook(
                    lambda _, given, key=module_name: inputs.setdefault(key, []).append(
                        given[0].reshape(-1, given[0].shape[-1]).numpy()))
        logits = []
        with torch.no_grad():
            for first, end in zip(offsets[:-1], offsets[1:]):
                logits.append(model(input_ids=torch.tensor(ids[first:end])[None]).logits[0].numpy())
        folder = pathlib.Path(__file__).parent / "oracles" / name
        model.half().save_pretrained(folder)
        (folder / "generation_config.json").unlink()
        # What is called so in memory may be stored under another name.
        first = "layers.0."
        with safe_open(folder / "model.safetensors", "np") as file:
            stored = next(key for key in file.keys() if first in key and "visi" not in key and "visual" not in key).split(first)[0]
        with h5py.File(folder / "oracle.h5", "w") as file:
            file["token_ids"] = ids.astype(np.int32)
            file["offsets"] = offsets.astype(np.int64)
            file["logits"] = np.concatenate(logits)
            for key, parts in inputs.items():
                file.create_dataset(f"inputs/{stored}layers.{key.split('layers.', 1)[1]}", data=np.concatenate(parts))


if __name__ == "__main__":
    main()
