"""`fairgptq solve` on files: the authors' own results, and cases that no one should trust."""
import h5py
import numpy as np
import pytest
from workshop import refused, run


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Every device that this build and this machine have."""
    if request.param != "cpu":
        sentence = refused("solve", "no_such_case.h5", "--out", "none.h5", "--device", request.param)
        if "--device" in sentence:
            pytest.skip(sentence)
    return request.param


def solve(case, out, *more):
    run(0, "solve", case, "--out", out, *more)
    with h5py.File(out) as file:
        return {name: dataset[()] for name, dataset in file.items()}, dict(file.attrs)


def write_case(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def good_case(rows=24, cols=64, pairs=6, tokens=12):
    random = np.random.default_rng(3)
    inputs = random.standard_normal((pairs, 2, tokens, cols)).astype(np.float32)
    flat = inputs.reshape(-1, cols).astype(np.float64)
    difference = (inputs[:, 0].astype(np.float64) - inputs[:, 1]).reshape(-1, cols)
    return {"W": random.standard_normal((rows, cols)).astype(np.float32), "X": inputs,
            "H": (2 / len(flat) * flat.T @ flat).astype(np.float32),
            "C": (2 / len(difference) * difference.T @ difference).astype(np.float32)}


def reconstruction(weights, quantized, hessian):
    error = weights.astype(np.float64) - quantized
    return np.sum(error @ hessian.astype(np.float64) * error)


def test_the_authors_results(shared, tmp_path, device):
    with h5py.File(shared / "reference" / "fair_gptq_official.h5") as file:
        assert len(file) >= 6
        for name, case in file.items():
            settings = case.attrs
            weights, hessian, expected = case["W"][()], case["H"][()], case["Q"][()]
            alpha = float(settings["alpha"])
            covariance = case["alphaC"][()] / (alpha if alpha > 0 else 1)
            write_case(tmp_path / "case.h5", W=weights, H=hessian, C=covariance.astype(np.float32))
            found, attributes = solve(
                tmp_path / "case.h5", tmp_path / f"{name}.h5", "--device", device, "--scale-dtype", "f32", "--alpha", repr(alpha),
                "--solver", "reference" if settings["sum_hessians"] else "reference-first-order",
                "--bits", int(settings["bits"]), "--group-size", int(settings["group_size"]),
                "--sym" if settings["sym"] else "--asym", "--damp", repr(float(settings["damp"])),
                "--order", "activation" if settings.get("desc_act", False) else "none")
            largest = np.abs(expected).max()
            assert np.array_equal(found["group_index"], case["g_idx"][()]), name
            share = np.mean(np.abs(found["Q"] - expected) <= 1e-5 * largest)
            assert share >= 0.985, (name, share)

            # Groups that begin in the first block of 128 columns: their scales depend on no rounding before them.
            cols = weights.shape[1]
            size = cols if settings["group_size"] == -1 else int(settings["group_size"])
            first = range(-(-min(cols, 128) // size))
            assert np.abs(found["scales"] - case["scale"][()])[:, first].max() <= 1e-5 * largest, name
            assert np.array_equal(found["zeros"][:, first], case["zero"][()][:, first]), name

            ours, theirs = (reconstruction(weights, values, hessian) for values in (found["Q"], expected))
            assert abs(ours - theirs) <= 0.005 * theirs, (name, ours, theirs)
            assert attributes["reconstruction"] == pytest.approx(ours, rel=1e-4), name


def test_a_result_is_what_the_interface_says(tmp_path, device):
    contents = good_case()
    case = write_case(tmp_path / "case.h5", **{name: contents[name] for name in "WHC"})
    found, attributes = solve(case, tmp_path / "result.h5", "--group-size", "32", "--alpha", "0.2", "--asym",
                              "--device", device)
    assert (found["Q"].dtype, found["codes"].dtype, found["scales"].dtype) == (np.float32, np.uint8, np.float16)
    assert found["codes"].shape == (24, 64) and found["scales"].shape == found["zeros"].shape == (24, 2)
    group = found["group_index"]
    steps = found["codes"].astype(np.float32) - found["zeros"].astype(np.float32)[:, group]
    assert np.array_equal(found["Q"], found["scales"].astype(np.float32)[:, group] * steps)
    assert found["codes"].max() <= 15
    # W* = W − αWC(H + αC + λI)⁻¹ with λ of H alone, here in float64.
    weights, hessian, covariance = (contents[name].astype(np.float64) for name in "WHC")
    damped = hessian + 0.2 * covariance + 0.01 * np.mean(np.diag(hessian)) * np.eye(64)
    shift = 0.2 * weights @ covariance @ np.linalg.inv(damped)
    # float32 solves: 64 columns · 2⁻²⁴ · the condition of what is inverted.
    close = 64 * 2.0 ** -24 * np.linalg.cond(damped)
    assert np.linalg.norm(found["target"] - (weights - shift)) <= close * np.linalg.norm(weights)
    assert attributes["shift_norm"] == pytest.approx(np.linalg.norm(shift) / np.linalg.norm(weights), rel=close)
    assert attributes["bias_before"] == pytest.approx(np.sum(weights @ covariance * weights), rel=1e-4)
    quantized = found["Q"].astype(np.float64)
    assert attributes["bias_after"] == pytest.approx(np.sum(quantized @ covariance * quantized), rel=1e-4)
    assert attributes["reconstruction"] == pytest.approx(reconstruction(weights, quantized, hessian), rel=1e-4)
    assert (attributes["rows"], attributes["cols"], attributes["bits"], attributes["group_size"]) == (24, 64, 4, 32)
    assert attributes["alpha"] == 0.2 and attributes["damp_used"] == pytest.approx(0.01)


def test_inputs_of_pairs_are_their_moments(tmp_path, device):
    """X alone gives the same H and C: codes may differ where their last bits decide a tie, and reconstruction hardly."""
    contents = good_case()
    moments = write_case(tmp_path / "moments.h5", **{name: contents[name] for name in "WHC"})
    inputs = write_case(tmp_path / "inputs.h5", W=contents["W"], X=contents["X"])
    given, attributes = solve(moments, tmp_path / "a.h5", "--group-size", "32", "--device", device)
    made, others = solve(inputs, tmp_path / "b.h5", "--group-size", "32", "--device", device)
    assert np.mean(given["codes"] == made["codes"]) >= 0.985
    for name in ("reconstruction", "bias_before", "bias_after"):
        assert others[name] == pytest.approx(attributes[name], rel=0.005)


def test_gptq_needs_no_covariance(tmp_path):
    contents = good_case()
    case = write_case(tmp_path / "case.h5", W=contents["W"], H=contents["H"])
    found, attributes = solve(case, tmp_path / "result.h5", "--group-size", "-1", "--alpha", "0", "--bits", "8")
    assert attributes["shift_norm"] == 0 and np.array_equal(found["target"], contents["W"])
    sentence = refused("solve", case, "--out", tmp_path / "none.h5", "--group-size", "-1")
    assert "--alpha 0" in sentence and not (tmp_path / "none.h5").exists()


def spoiled(name, value, place=(3, 5)):
    contents = good_case()
    contents[name][place] = value
    return {key: contents[key] for key in "WHC"}


def changed(*without, **instead):
    contents = good_case()
    kept = {key: contents[key] for key in "WHC" if key not in without}
    return kept | instead


HOSTILE = {
    "NaN weight": (lambda: spoiled("W", np.nan), "/W"),
    "infinite weight": (lambda: spoiled("W", np.inf), "/W"),
    "NaN Hessian": (lambda: spoiled("H", np.nan), "/H"),
    "asymmetric Hessian": (lambda: spoiled("H", 1e3), "/H"),
    "negative Hessian diagonal": (lambda: spoiled("H", -1, (4, 4)), "/H"),
    "infinite covariance": (lambda: spoiled("C", -np.inf), "/C"),
    "asymmetric covariance": (lambda: spoiled("C", 1e3), "/C"),
    "no weights": (lambda: changed("W"), "W"),
    "no Hessian": (lambda: changed("H"), "H"),
    "X and H": (lambda: changed(X=good_case()["X"]), "X"),
    "small Hessian": (lambda: changed(H=np.eye(63, dtype=np.float32)), "64 x 64"),
    "flat covariance": (lambda: changed(C=np.ones(64, np.float32)), "/C"),
    "flat weights": (lambda: changed(W=np.ones(64, np.float32)), "/W"),
    "no rows": (lambda: changed(W=np.ones((0, 64), np.float32)), "/W"),
    "text for weights": (lambda: changed(W="weights"), "/W"),
    "X of other columns": (lambda: {"W": good_case()["W"], "X": np.ones((3, 2, 4, 63), np.float32)}, "/X"),
    "X of three sentences": (lambda: {"W": good_case()["W"], "X": np.ones((2, 3, 4, 64), np.float32)}, "/X"),
    "X of no pair": (lambda: {"W": good_case()["W"], "X": np.ones((0, 2, 4, 64), np.float32)}, "/X"),
    "NaN X": (lambda: {"W": good_case()["W"], "X": np.full((1, 2, 4, 64), np.nan, np.float32)}, "/X"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_cases(tmp_path, name):
    contents, word = HOSTILE[name]
    case = write_case(tmp_path / "case.h5", **contents())
    sentence = refused("solve", case, "--out", tmp_path / "result.h5", "--group-size", "32")
    assert str(case) in sentence and word in sentence, sentence
    assert list(tmp_path.iterdir()) == [case]


def test_files_that_are_no_case(tmp_path):
    case = write_case(tmp_path / "case.h5", **changed())
    whole = case.read_bytes()
    for content in (b"", b"no HDF5", whole[: len(whole) // 2], b"\x89HDF\r\n\x1a\n" + bytes(3000)):
        case.write_bytes(content)
        assert str(case) in refused("solve", case, "--out", tmp_path / "result.h5", "--group-size", "32")
    for missing in (tmp_path / "nothing.h5", tmp_path):
        assert str(missing) in refused("solve", missing, "--out", tmp_path / "result.h5", "--group-size", "32")
    assert list(tmp_path.iterdir()) == [case]


def test_wrong_options(tmp_path):
    case = write_case(tmp_path / "case.h5", **changed())
    out = ("--out", tmp_path / "result.h5")
    for wrong, word in ((("--bits", "7"), "--bits"), (("--sym", "--asym"), "--asym"), (("--scale-dtype", "f64"), "f64"),
                        (("--alpha", "-1"), "--alpha"), (("--alpha", "nan"), "nan"), (("--solver", "fast"), "fast"),
                        (("--damp", "-0.1"), "--damp")):
        assert word in refused("solve", case, *out, "--group-size", "32", *wrong), wrong
    assert "64" in refused("solve", case, *out, "--group-size", "128")
    assert "33" in refused("solve", case, *out, "--group-size", "33")
    assert "--out" in refused("solve", case, "--group-size", "32")
    assert "CASE" in refused("solve", *out)
    for place in (tmp_path, tmp_path / "no/result.h5", case, "/dev/null"):
        assert str(place) in refused("solve", case, "--out", place, "--group-size", "32")
    assert list(tmp_path.iterdir()) == [case]


def test_solving_again_changes_nothing(tmp_path, device):
    """Another time in the same process, and in another process."""
    case = write_case(tmp_path / "case.h5", **{name: values for name, values in good_case().items() if name != "X"})
    once, _ = solve(case, tmp_path / "once.h5", "--group-size", "32", "--device", device)
    thrice, attributes = solve(case, tmp_path / "thrice.h5", "--group-size", "32", "--device", device, "--repeat", "3")
    assert all(np.array_equal(once[name], thrice[name]) for name in once)
    assert attributes["seconds"] > 0
    assert "--repeat" in refused("solve", case, "--out", tmp_path / "none.h5", "--group-size", "32", "--repeat", "0")
