"""The α sweep's two tools: points drawn the same way twice, and results gathered with what is missing named."""
import csv
import json
import math

import numpy as np
import pytest
from running import refused, run_tool
from safetensors.numpy import save_file


def tool(name, *arguments, code=0):
    process = run_tool(name, *arguments)
    assert process.returncode == code, process.stdout + process.stderr
    return process


def write_model(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 3}))
    save_file({f"model.layers.{layer}.{name}.weight": np.zeros((4, 4) if "norm" not in name else 4, np.float16)
               for layer in range(3) for name in ("self_attn.q_proj", "mlp.down_proj", "input_layernorm")},
              str(folder / "model.safetensors"))
    return folder


def points(folder):
    return [json.loads(file.read_text()) for file in sorted(folder.glob("point_*.json"))]


def test_grid_and_random_points(tmp_path):
    model = write_model(tmp_path / "model")
    done = tool("alpha_points.py", "--out", tmp_path / "a", "--grid", "0,0.1", "--random", "50", "--seed", "7", "--low", "0.01", "--high", "1")
    assert done.stdout.strip() == "52"
    drawn = points(tmp_path / "a")
    assert drawn[:2] == [{"*": 0.0}, {"*": 0.1}]
    values = [point["*"] for point in drawn[2:]]
    assert all(0.01 <= value <= 1 for value in values) and len(set(values)) == 50
    assert 10 < sum(value < 0.1 for value in values) < 40  # log-uniform: as many below the geometric mean as above
    tool("alpha_points.py", "--out", tmp_path / "b", "--grid", "0,0.1", "--random", "50", "--seed", "7", "--low", "0.01", "--high", "1")
    assert points(tmp_path / "b") == drawn
    tool("alpha_points.py", "--out", tmp_path / "m", "--random", "2", "--scope", "module", "--model", model)
    assert [sorted(point) for point in points(tmp_path / "m")] == [["*.mlp.down_proj", "*.self_attn.q_proj"]] * 2
    tool("alpha_points.py", "--out", tmp_path / "l", "--random", "1", "--scope", "layer", "--model", model)
    assert list(points(tmp_path / "l")[0]) == ["*.layers.0.*", "*.layers.1.*", "*.layers.2.*"]


def test_experts_are_of_one_kind_and_what_weights_them_is_not_quantized(tmp_path):
    names = ["self_attn.q_proj", "mlp.gate", "mlp.shared_expert_gate", "mlp.shared_expert.gate_proj"]
    names += [f"mlp.experts.{expert}.{linear}" for expert in range(12) for linear in ("gate_proj", "down_proj")]
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps({"num_hidden_layers": 1}))
    tensors = {f"model.layers.0.{name}.weight": np.zeros((4, 4), np.float16) for name in names}
    tensors["model.layers.1.eh_proj.weight"] = np.zeros((4, 8), np.float16)  # predicts further tokens
    save_file(tensors, str(tmp_path / "model/model.safetensors"))
    tool("alpha_points.py", "--out", tmp_path / "m", "--random", "1", "--scope", "module", "--model", tmp_path / "model")
    assert sorted(points(tmp_path / "m")[0]) == ["*.mlp.experts.*.down_proj", "*.mlp.experts.*.gate_proj",
                                                 "*.mlp.shared_expert.gate_proj", "*.self_attn.q_proj"]
    tool("alpha_points.py", "--out", tmp_path / "l", "--random", "1", "--scope", "layer", "--model", tmp_path / "model")
    assert list(points(tmp_path / "l")[0]) == ["*.layers.0.*"]


@pytest.mark.parametrize("prefix", ["model", "model.decoder", "decoder", "language_model.model", "model.language_model"])
def test_only_the_text_models_linears_count(tmp_path, prefix):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps({"text_config": {"num_hidden_layers": 2}}))
    names = [f"{prefix}.layers.{layer}.fc1" for layer in range(2)]
    names += ["vision_tower.vision_model.encoder.layers.0.mlp.fc1", "model.vision_tower.transformer.layers.1.feed_forward.gate_proj"]
    save_file({f"{name}.weight": np.zeros((4, 4), np.float16) for name in names}, str(tmp_path / "model/model.safetensors"))
    tool("alpha_points.py", "--out", tmp_path / "m", "--random", "1", "--scope", "module", "--model", tmp_path / "model")
    assert list(points(tmp_path / "m")[0]) == ["*.fc1"]


def test_a_pointer_to_a_model_is_refused(tmp_path):
    model = write_model(tmp_path / "model")
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    sentence = refused(run_tool("alpha_points.py", "--out", tmp_path / "out", "--random", "1", "--scope", "layer", "--model", model))
    assert "model.safetensors is not a whole safetensors file" in sentence and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "word"), [(("--grid", "0,x"), "'x'"), (("--grid", "-1"), "--grid"), ((), "--grid"),
                                                 (("--random", "3", "--low", "0"), "--low"), (("--random", "-1"), "--random"),
                                                 (("--random", "1", "--scope", "layer"), "--model"),
                                                 (("--random", "1", "--scope", "layer", "--model", "/nowhere"), "/nowhere")])
def test_points_that_cannot_be_drawn(tmp_path, arguments, word):
    assert word in tool("alpha_points.py", "--out", tmp_path / "out", *arguments, code=2).stderr


def test_points_of_another_sweep_are_kept(tmp_path):
    tool("alpha_points.py", "--out", tmp_path, "--grid", "0,0.1,1")
    assert "another" in tool("alpha_points.py", "--out", tmp_path, "--grid", "0,0.2,1", code=2).stderr
    assert "another" in tool("alpha_points.py", "--out", tmp_path, "--grid", "0,0.1", code=2).stderr


def write_sweep(folder, results):
    """results: α to (bias, perplexity), or None where the point failed."""
    (folder / "points").mkdir()
    (folder / "reports").mkdir()

    def report(bias, perplexity):
        return json.dumps({"model": "m", "run": None, "settings": None, "tasks": {"words": {"kind": "perplexity", "perplexity": perplexity},
                                     "pairs": {"kind": "pair_preference", "mean_abs_difference_per_token": bias}}})
    (folder / "reports/original.json").write_text(report(0.5, 20))
    for index, (alpha, result) in enumerate(results.items()):
        (folder / f"points/point_{index:03}.json").write_text(json.dumps({"*": alpha}))
        if result:
            (folder / f"reports/point_{index:03}.json").write_text(report(*result))


def test_the_best_alpha_under_a_loss(tmp_path):
    write_sweep(tmp_path, {0: (0.6, 25), 0.01: (0.5, 25.2), 0.1: (0.4, 26), 0.5: None, 1: (0.3, 30), 2: (0.35, 31)})
    shown = tool("sweep_results.py", tmp_path, "--max-loss", "0.05").stdout
    assert "without a result: point_003" in shown
    assert "best alpha that loses at most 5 %: 0.1 (point_002)" in shown
    assert json.loads((tmp_path / "best_alpha_map.json").read_text()) == {"*": 0.1}
    with open(tmp_path / "sweep.csv", encoding="utf-8") as file:
        rows = {row["alpha"]: row for row in csv.DictReader(file)}
    assert math.isclose(float(rows["0.1"]["loss"]), 26 / 25 - 1)
    front = [line.split()[1] for line in shown.splitlines() if line.endswith((" front", " best"))]
    assert front == ["0", "0.01", "0.1", "1"]
    assert "loses at most 30 %: 1 " in tool("sweep_results.py", tmp_path, "--max-loss", "0.3").stdout
    # Against the original model, whose perplexity is 20, every α loses more than 5 %.
    assert "no alpha loses" in tool("sweep_results.py", tmp_path, "--baseline", "original").stdout
    assert "--bias" in tool("sweep_results.py", tmp_path, "--bias", "pairs.none", code=2).stderr


def test_a_sweep_without_results_is_refused(tmp_path):
    assert "point_NNN" in tool("sweep_results.py", tmp_path, code=2).stderr
    write_sweep(tmp_path, {0: None})
    assert "report" in tool("sweep_results.py", tmp_path, code=2).stderr


@pytest.mark.parametrize(("file", "content", "words"), [
    ("reports/point_001.json", '{"model": "m"}', '"tasks"'),
    ("reports/point_001.json", '{"model": "m", "tasks": {}}', "measured on other data"),
    ("reports/original.json", '{"tasks": [1]}', "original.json lacks"),
    ("points/point_001.json", "{}", "a number for each pattern"),
    ("points/point_001.json", '{"*": "x"}', "a number for each pattern"),
])
def test_files_of_a_sweep_that_are_none_are_refused(tmp_path, file, content, words):
    write_sweep(tmp_path, {0: (0.6, 25), 0.1: (0.4, 26)})
    (tmp_path / file).write_text(content)
    assert words in refused(run_tool("sweep_results.py", tmp_path))


def test_ability_of_which_no_share_can_be_lost(tmp_path):
    write_sweep(tmp_path, {0: (0.6, 0), 0.1: (0.4, 26)})
    assert "words.perplexity is 0 with α = 0" in refused(run_tool("sweep_results.py", tmp_path))


def test_tables_of_a_sweep_are_whole_or_not_there(tmp_path):
    write_sweep(tmp_path, {0: (0.6, 25), 0.1: (0.4, 26)})
    assert "sweep.csv cannot be written" in refused(run_tool("sweep_results.py", tmp_path, largest_file=10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points", "reports"]
