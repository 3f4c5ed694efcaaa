"""`fairgptq bench`, and the model of random weights that GPU measurements are made with."""
import json
import subprocess
import sys
from pathlib import Path

from workshop import refused, run

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def test_the_kernels_asked_for_are_timed():
    done = run(0, "bench", "--model-shape", "smollm2-135m", "--tokens", "96", "--sequence-length", "40", "--kernels", "forward,attention", "--json")
    rows = json.loads(done.stdout)["kernels"]
    assert [(row["kernel"], row["size"]) for row in rows] == [("attention", "96 tokens of 40"), ("stage forward", "96 tokens of 40")]
    assert all(row["seconds"] > 0 and row["share_of_matrix_rate"] > 0 and row["share_of_copy_rate"] > 0 for row in rows)
    assert rows[0]["seconds"] < rows[1]["seconds"]  # the block holds it


def test_unknown_kernels_are_refused():
    assert "--kernels must be all, or a list of covariance, factor" in refused("bench", "--kernels", "columns,matmul")
    assert "names no kernel" in refused("bench", "--kernels", "")
    assert "--group-size is 8" in refused("bench", "--group-size", "8")
    assert "solve is timed on a GPU only" in refused("bench", "--kernels", "solve", "--device", "cpu", "--model-shape", "smollm2-135m")


def test_a_model_of_random_weights_is_quantized(tmp_path):
    made = subprocess.run([sys.executable, TOOLS / "random_model.py", "smollm2-135m", tmp_path / "model", "--layers", "1", "--sequences", "2",
                           "--length", "64", "--pairs", "5"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    run(0, "quantize", "--model", tmp_path / "model", "--tokens", tmp_path / "model/tokens.h5", "--out", tmp_path / "run", "--group-size", "64")
    assert len(list((tmp_path / "run/layers").iterdir())) == 1
