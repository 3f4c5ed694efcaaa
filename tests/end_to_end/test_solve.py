"""`fairgptq solve` as a user types it: the authors' own results, inputs of pairs, and what is refused."""
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from workshop import ROOT, refused, run

OFFICIAL = Path(os.environ.get("FAIRGPTQ_SHARED_DIR", ROOT.parent / "shared")) / "reference/fair_gptq_official.h5"


def write_case(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def solve(case, out, *options):
    """@returns the result's datasets and attributes by name"""
    run(0, "solve", case, "--out", out, *options)
    with h5py.File(out) as file:
        return {**{name: data[()] for name, data in file.items()}, **file.attrs}


@pytest.fixture
def case():
    """W, and inputs X of 12 pairs of sentences of 7 tokens."""
    random = np.random.default_rng(1)
    inputs = random.normal(size=(12, 2, 7, 64)).astype(np.float32)
    return {"W": random.normal(scale=0.05, size=(40, 64)).astype(np.float16), "X": inputs}


def moments(inputs):
    """H and C of method.md."""
    tokens = inputs.reshape(-1, inputs.shape[-1]).astype(np.float64)
    differences = (inputs[:, 0] - inputs[:, 1]).reshape(-1, inputs.shape[-1]).astype(np.float64)
    return {"H": 2 / len(tokens) * tokens.T @ tokens, "C": 2 / len(differences) * differences.T @ differences}


@pytest.mark.skipif(not OFFICIAL.exists(), reason=f"the authors' results are not at {OFFICIAL}")
def test_the_authors_results_are_reproduced(tmp_path):
    with h5py.File(OFFICIAL) as file:
        for name, group in file.items():
            given = dict(group.attrs)
            alpha = given["alpha"]
            covariance = group["alphaC"][()] / (alpha if alpha > 0 else 1)
            source = write_case(tmp_path / f"{name}.h5", W=group["W"][()], H=group["H"][()], C=covariance)
            result = solve(source, tmp_path / "result.h5", "--alpha", alpha, "--bits", given["bits"],
                           "--solver", "reference" if given["sum_hessians"] else "reference-first-order",
                           "--group-size", given["group_size"], "--sym" if given["sym"] else "--asym",
                           "--order", "activation" if given.get("desc_act") else "none", "--damp", given["damp"],
                           "--scale-dtype", "f32")
            expected = group["Q"][()]
            largest = np.abs(expected).max()
            assert np.mean(np.abs(result["Q"] - expected) <= 1e-5 * largest) >= 0.985, name
            first_block = max(1, 128 // result["group_size"])
            assert np.abs(result["scales"] - group["scale"])[:, :first_block].max() <= 1e-5 * largest, name
            assert (result["zeros"] == group["zero"][()])[:, :first_block].all(), name
            assert (result["group_index"] == group["g_idx"][()]).all(), name
            hessian = group["H"][()].astype(np.float64)
            ours, theirs = (np.einsum("ri,ij,rj", error, hessian, error) for error in
                            (group["W"][()] - q.astype(np.float64) for q in (result["Q"], expected)))
            assert abs(ours - theirs) <= 0.005 * theirs, name


def test_inputs_of_pairs_give_h_and_c(case, tmp_path):
    options = ("--group-size", 32, "--alpha", 0.3)
    from_inputs = solve(write_case(tmp_path / "x.h5", **case), tmp_path / "a.h5", *options)
    from_moments = solve(write_case(tmp_path / "hc.h5", W=case["W"], **moments(case["X"])), tmp_path / "b.h5", *options)
    assert np.mean(from_inputs["codes"] == from_moments["codes"]) > 0.995  # ties of float32
    assert from_inputs["bias_before"] == pytest.approx(from_moments["bias_before"], rel=1e-5)
    assert from_inputs["bias_after"] < 0.5 * from_inputs["bias_before"]


def test_a_result_holds_together(case, tmp_path):
    source = write_case(tmp_path / "x.h5", **case)
    for options in ([], ["--asym", "--order", "activation"], ["--order", "activation", "--static-groups"],
                    ["--order", "group", "--scale-search", "mse"], ["--bits", 3, "--scale-dtype", "f32"]):
        result = solve(source, tmp_path / "result.h5", "--group-size", 32, *options)
        index = result["group_index"]
        scales = result["scales"].astype(np.float32)[:, index]
        zeros = result["zeros"].astype(np.float32)[:, index]
        assert result["scales"].dtype == (np.float32 if "f32" in options else np.float16)
        assert result["codes"].dtype == np.uint8 and result["codes"].max() < 2 ** result["bits"]
        assert (result["Q"] == scales * (result["codes"] - zeros)).all()
        covariance, weights = moments(case["X"])["C"], case["W"].astype(np.float64)
        assert result["bias_before"] == pytest.approx(np.einsum("ri,ij,rj", weights, covariance, weights), rel=1e-4)
        assert result["rows"] == 40 and result["cols"] == 64 and result["group_size"] == 32
        assert result["target"].shape == (40, 64) and result["shift_norm"] == pytest.approx(
            np.linalg.norm(result["target"] - weights) / np.linalg.norm(weights), rel=1e-3)


def test_gptq_needs_no_pairs(case, tmp_path):
    both = moments(case["X"])
    alone = write_case(tmp_path / "h.h5", W=case["W"], H=both["H"])
    result = solve(alone, tmp_path / "a.h5", "--alpha", 0, "--group-size", 32)
    with_pairs = solve(write_case(tmp_path / "hc.h5", W=case["W"], **both), tmp_path / "b.h5", "--alpha", 0, "--group-size", 32)
    assert (result["codes"] == with_pairs["codes"]).all()
    assert "--alpha 0" in refused("solve", alone, "--out", tmp_path / "c.h5", "--group-size", 32)


@pytest.mark.parametrize("change, named", [
    ({"W": None}, "W"),
    ({"W": np.zeros((0, 64), np.float32)}, "W"),
    ({"W": np.full((4, 64), np.nan, np.float32)}, "W"),
    ({"W": np.zeros((4, 64, 2), np.float32)}, "W"),
    ({"W": np.array([[b"a"]])}, "W"),
    ({"H": None}, "H"),
    ({"H": np.eye(63)}, "H"),
    ({"H": np.ones((64, 63))}, "H"),
    ({"H": -np.eye(64)}, "H"),
    ({"H": np.triu(np.ones((64, 64)))}, "H"),
    ({"H": np.full((64, 64), np.inf)}, "H"),
    ({"C": np.eye(65)}, "C"),
    ({"C": np.full((64, 64), np.nan)}, "C"),
    ({"X": np.zeros((2, 2, 3, 64))}, "X"),
    ({"H": None, "C": None, "X": np.zeros((2, 3, 3, 64))}, "X"),
    ({"H": None, "C": None, "X": np.zeros((2, 2, 3, 63))}, "X"),
    ({"H": None, "C": None, "X": np.zeros((0, 2, 3, 64))}, "X"),
])
def test_unusable_cases_are_refused_by_name(case, tmp_path, change, named):
    datasets = {"W": case["W"], **moments(case["X"])}
    datasets.update(change)
    source = write_case(tmp_path / "case.h5", **{name: values for name, values in datasets.items() if values is not None})
    message = refused("solve", source, "--out", tmp_path / "out.h5", "--group-size", 32)
    assert f":/{named}" in message or f" {named}" in message, message
    assert not (tmp_path / "out.h5").exists()


def test_unusable_options_are_refused_by_name(case, tmp_path):
    source = write_case(tmp_path / "x.h5", **case)
    out = tmp_path / "out.h5"
    for options, named in [(("--bits", 5), "--bits"), (("--group-size", 48), "--group-size"),
                           (("--group-size", 128), "32, 64"), (("--alpha", -1), "--alpha"), (("--alpha", "nan"), "nan"),
                           (("--damp", -0.1), "--damp"), (("--solver", "newton"), "--solver"), (("--order", "best"), "--order"),
                           (("--scale-search", "all"), "--scale-search"), (("--scale-dtype", "f64"), "--scale-dtype"),
                           (("--sym", "--asym"), "--asym"), (("--fast",), "fast"), (("--bits", "four"), "four"),
                           (("--device", "tpu"), "tpu"), (("another.h5",), "another.h5")]:
        assert named in refused("solve", source, "--out", out, *options), options
    assert "--out" in refused("solve", source)
    assert "CASE" in refused("solve", "--out", out)
    assert "does not exist" in refused("solve", source, "--out", tmp_path / "missing/out.h5", "--group-size", 32)
    assert "folder" in refused("solve", source, "--out", tmp_path, "--group-size", 32)
    assert "itself" in refused("solve", source, "--out", source, "--group-size", 32)
    assert "nothing.h5" in refused("solve", tmp_path / "nothing.h5", "--out", out)
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    assert "text.h5" in refused("solve", text, "--out", out)
    assert not out.exists()
