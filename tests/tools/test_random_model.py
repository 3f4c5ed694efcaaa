"""The model of random weights: what its files hold, as the libraries that read such files see it."""
import json

import h5py
import numpy as np
import random_model
from model_shapes import Shape
from running import refused, run_tool
from safetensors import safe_open

SMALL = Shape(64, 160, 3, 4, 2, 300)


def read_bits(folder):
    """Every tensor as bits, by name; and the file that each is in."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors, files = {}, {}
    for file in sorted(folder.glob("*.safetensors")):
        data = file.read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        with safe_open(file, "np") as opened:  # the library's own checks of offsets and sizes
            for name in opened.keys():
                assert index["weight_map"][name] == file.name
                assert opened.get_slice(name).get_dtype() == "BF16"
        for name, entry in json.loads(data[8:begin]).items():
            if name != "__metadata__":
                first, end = entry["data_offsets"]
                tensors[name] = np.frombuffer(data[begin + first:begin + end], dtype="<u2").reshape(entry["shape"])
                files[name] = file.name
    assert set(tensors) == set(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(2 * tensor.size for tensor in tensors.values())
    return tensors, files


def values(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_every_tensor_is_there_and_random(tmp_path):
    random_model.write_model(tmp_path, SMALL, 2, seed=5)
    tensors, _ = read_bits(tmp_path)
    assert len(tensors) == 3 + 2 * 9
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (32, 64)
    assert tensors["model.layers.1.mlp.down_proj.weight"].shape == (64, 160)
    assert np.all(values(tensors["model.layers.0.input_layernorm.weight"]) == 1)
    weights = values(tensors["model.layers.1.mlp.gate_proj.weight"])
    assert np.abs(weights).min() >= 2**-7 and np.abs(weights).max() < 2**-5
    assert abs(weights.mean()) < 0.002 and 0.016 < np.sqrt(np.mean(weights**2)) < 0.02
    assert not np.array_equal(tensors["model.layers.0.mlp.up_proj.weight"], tensors["model.layers.1.mlp.up_proj.weight"])


def test_experts_have_linears_of_their_own(tmp_path):
    random_model.write_model(tmp_path, Shape(64, 32, 3, 4, 2, 300, experts=5, experts_per_token=2, head_size=32), 1, seed=5)
    tensors, _ = read_bits(tmp_path)
    assert len(tensors) == 3 + 2 + 4 + 2 + 1 + 3 * 5
    assert tensors["model.layers.0.self_attn.o_proj.weight"].shape == (64, 128)
    assert tensors["model.layers.0.mlp.gate.weight"].shape == (5, 64)
    assert tensors["model.layers.0.mlp.experts.4.down_proj.weight"].shape == (64, 32)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["Qwen3MoeForCausalLM"] and (config["num_experts"], config["num_experts_per_tok"]) == (5, 2)


def test_a_shared_expert_and_layers_without_any(tmp_path):
    shape = Shape(64, 32, 3, 4, 2, 300, experts=5, experts_per_token=2, head_size=32, shared=2, dense_layers=1, dense_intermediate=96, normed=False)
    random_model.write_model(tmp_path, shape, 2, seed=5)
    tensors, _ = read_bits(tmp_path)
    assert len(tensors) == 3 + 2 * (2 + 4 + 3) + 3 + 2 + 3 * 6
    assert tensors["model.layers.0.mlp.gate_proj.weight"].shape == (96, 64)
    assert tensors["model.layers.1.mlp.gate.e_score_correction_bias"].shape == (5,)
    assert tensors["model.layers.1.mlp.shared_experts.down_proj.weight"].shape == (64, 64)
    assert tensors["model.layers.1.self_attn.q_proj.bias"].shape == (128,)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["Glm4MoeForCausalLM"] and (config["intermediate_size"], config["moe_intermediate_size"]) == (96, 32)


def test_latents_in_deepseeks_forms(tmp_path):
    for form, query_rank in (("v2", 0), ("v3", 48)):
        folder = tmp_path / form
        folder.mkdir()
        shape = Shape(64, 32, 3, 4, 4, 300, experts=16, experts_per_token=2, head_size=96, shared=2, dense_layers=1, dense_intermediate=96,
                      normed=False, key_value_rank=40, query_rank=query_rank)
        random_model.write_model(folder, shape, 2, seed=5)
        tensors, _ = read_bits(folder)
        attention = "model.layers.1.self_attn."
        assert tensors[attention + "kv_a_proj_with_mqa.weight"].shape == (40 + 64, 64)
        assert tensors[attention + "kv_b_proj.weight"].shape == (4 * (32 + 128), 40)
        assert tensors[attention + "o_proj.weight"].shape == (64, 4 * 128)
        assert tensors[attention + "kv_a_layernorm.weight"].shape == (40,)
        assert tensors[attention + ("q_b_proj.weight" if query_rank else "q_proj.weight")].shape == (4 * 96, query_rank or 64)
        assert ("model.layers.1.mlp.gate.e_score_correction_bias" in tensors) == (form == "v3")
        assert tensors["model.layers.1.mlp.shared_experts.down_proj.weight"].shape == (64, 64)
        assert not any(name.endswith(".bias") for name in tensors)
        config = json.loads((folder / "config.json").read_text())
        assert config["model_type"] == f"deepseek_{form}" and config["q_lora_rank"] == (query_rank or None)


def test_linear_attention_in_qwens_form(tmp_path):
    random_model.write_model(tmp_path, Shape(64, 160, 4, 4, 2, 300, head_size=32, linear_heads=(2, 6)), 4, seed=5)
    tensors, _ = read_bits(tmp_path)
    assert len(tensors) == 3 + 3 * (2 + 9 + 3) + (2 + 6 + 3)
    assert tensors["model.layers.2.linear_attn.in_proj_qkv.weight"].shape == ((2 + 2 + 6) * 128, 64)
    assert tensors["model.layers.2.linear_attn.conv1d.weight"].shape == ((2 + 2 + 6) * 128, 1, 4)
    assert tensors["model.layers.2.linear_attn.A_log"].shape == (6,)
    assert tensors["model.layers.3.self_attn.q_proj.weight"].shape == (2 * 128, 64)
    assert tensors["model.layers.3.self_attn.o_proj.weight"].shape == (64, 128)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "qwen3_5_text" and config["linear_num_value_heads"] == 6


def test_several_files_hold_the_model_and_the_seed_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(random_model, "SHARD_BYTES", 50_000)
    found = []
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        (tmp_path / name).mkdir()
        random_model.write_model(tmp_path / name, SMALL, 3, seed)
        found.append(read_bits(tmp_path / name))
    tensors, files = found[0]
    assert len(set(files.values())) > 2
    assert all(np.array_equal(tensors[name], found[1][0][name]) for name in tensors)
    assert not np.array_equal(tensors["lm_head.weight"], found[2][0]["lm_head.weight"])


def test_the_tokens_are_the_models(tmp_path):
    done = run_tool("random_model.py", "smollm2-135m", tmp_path / "out", "--only", "tokens", "--sequences", "3", "--length", "40", "--pairs", "7")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tokens.h5"]
    with h5py.File(tmp_path / "out/tokens.h5") as file:
        assert file.attrs["vocab_size"] == 49152
        assert file["text/offsets"][:].tolist() == [0, 40, 80, 120]
        first, second = (file[f"pairs/{side}/token_ids"][:] for side in ("stereotype", "anti_stereotype"))
        assert np.count_nonzero(first != second) == 7


def test_what_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert "is there already" in refused(run_tool("random_model.py", "8b", tmp_path / "full"))
    assert "--layers must be from 1 to 32" in refused(run_tool("random_model.py", "8b", tmp_path / "out", "--layers", "33"))
    assert "invalid choice" in refused(run_tool("random_model.py", "9b", tmp_path / "out"))
    assert "needs text or pairs" in refused(run_tool("random_model.py", "8b", tmp_path / "out", "--sequences", "0", "--pairs", "0"))
    assert "--seed must not be negative" in refused(run_tool("random_model.py", "8b", tmp_path / "out", "--seed", "-1"))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence(tmp_path):
    """HDF5 itself would end by a segmentation fault."""
    (tmp_path / "out").mkdir()
    for largest_file in (100, 60_000):
        done = run_tool("random_model.py", "smollm2-135m", tmp_path / "out", "--only", "tokens", largest_file=largest_file)
        assert "tokens.h5 cannot be written" in refused(done)
        assert list((tmp_path / "out").iterdir()) == []
