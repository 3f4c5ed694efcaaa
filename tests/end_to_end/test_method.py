"""docs/method.md, from the page to numpy in float64, against `fairgptq solve`: the page is enough to repeat a result."""
import h5py
import numpy as np
import pytest
from workshop import run

ROWS, COLS, BLOCK = 40, 192, 128


def grid_of(weights, bits, sym, mse):
    """"Grid": scale and zero of each row of a group's weights [rows, size]."""
    top = 2 ** bits - 1
    low, high = np.minimum(weights.min(axis=1), 0), np.maximum(weights.max(axis=1), 0)
    if sym:
        high = np.maximum(high, -low)
        low = -high
    empty = (low == 0) & (high == 0)
    low, high = np.where(empty, -1, low), np.where(empty, 1, high)
    best = None
    for shrunk in range(80 if mse else 1):
        left = 1 - shrunk / 100
        scale = (left * (high - low) / top).astype(np.float16).astype(np.float64)
        zero = np.full(len(low), 2.0 ** (bits - 1)) if sym else np.round(-left * low / scale)
        error = np.sum(np.abs(rounded(weights, scale[:, None], zero[:, None], bits)[0] - weights) ** 2.4, axis=1)
        if best is None:
            best = [scale, zero, error]
        else:
            better = error < best[2]
            best = [np.where(better, new, old) for new, old in zip((scale, zero, error), best)]
    return best[0], best[1]


def rounded(weights, scale, zero, bits):
    codes = np.clip(np.round(weights / scale + zero), 0, 2 ** bits - 1)
    return scale * (codes - zero), codes


def solve(weights, hessian, covariance, *, alpha, solver, order, static, bits, sym, mse, size):
    """"Solvers" and "The column loop". @returns Q and codes [rows, cols], group_index [cols], W*"""
    n = weights.shape[1]
    identity = np.eye(n)
    damp = 0.01 * np.mean(np.diag(hessian))
    both = hessian + alpha * covariance
    loop = (both if solver == "joint" else hessian) + damp * identity
    moving = {"joint": loop, "reference-first-order": loop, "reference": both + 0.01 * np.mean(np.diag(both)) * identity}[solver]
    target = weights - alpha * weights @ covariance @ np.linalg.inv(moving)

    width = n if size == -1 else size
    diagonal = np.diag(both if solver == "joint" else hessian)
    groups = np.arange(n) // width
    visit = np.arange(n)
    if order == "activation":
        visit = np.argsort(-diagonal, kind="stable")
        if not static:
            groups = np.empty(n, int)
            groups[visit] = np.arange(n) // width
    elif order == "group":
        largest = np.array([diagonal[groups == group].max() for group in range(n // width)])
        within = [group * width + np.argsort(-diagonal[groups == group], kind="stable") for group in range(n // width)]
        visit = np.concatenate([within[group] for group in np.argsort(-largest, kind="stable")])

    scale, zero = np.zeros((2, len(weights), n // width))
    left = target[:, visit]
    in_loop = groups[visit]
    factor = np.linalg.cholesky(loop[np.ix_(visit[::-1], visit[::-1])])[::-1, ::-1]  # M = UUᵀ in the loop's order
    inverse = np.linalg.inv(factor)
    assert np.allclose(np.tril(inverse, -1), 0)

    def find(group, source):
        scale[:, group], zero[:, group] = grid_of(source, bits, sym, mse)

    if static or (solver != "joint" and size == -1):
        source = target if size != -1 else weights
        for group in range(n // width):
            find(group, source[:, groups == group])
    values, codes = np.zeros((2, *weights.shape))
    for i in range(n):
        starts = i == 0 or in_loop[i] != in_loop[i - 1]
        if not static and solver == "joint" and starts:
            find(in_loop[i], left[:, i:i + width])
        if not static and solver != "joint" and size != -1 and i % BLOCK == 0:
            for start in range(i, min(i + BLOCK, n)):
                if start == 0 or in_loop[start] != in_loop[start - 1]:
                    find(in_loop[start], left[:, start:start + width])
        group = in_loop[i]
        values[:, visit[i]], codes[:, visit[i]] = rounded(left[:, i], scale[:, group], zero[:, group], bits)
        error = (left[:, i] - values[:, visit[i]]) / inverse[i, i]
        left[:, i + 1:] -= np.outer(error, inverse[i, i + 1:])
    return values, codes, groups, target


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Correlated inputs, some much larger than others, and pairs whose tokens differ in a few directions."""
    random = np.random.default_rng(8)
    mixing = random.standard_normal((COLS, COLS)) * (0.05 + 0.3 * (random.random(COLS) < 0.1))
    text = random.standard_normal((600, COLS)) @ (mixing + np.eye(COLS))
    differences = random.standard_normal((200, 6)) @ random.standard_normal((6, COLS))
    contents = {"W": random.standard_normal((ROWS, COLS)) / COLS ** 0.5, "H": 2 / 600 * text.T @ text,
                "C": 2 / 200 * differences.T @ differences}
    contents = {name: values.astype(np.float32) for name, values in contents.items()}
    path = tmp_path_factory.mktemp("method") / "case.h5"
    with h5py.File(path, "w") as file:
        for name, values in contents.items():
            file[name] = values
    return path, {name: values.astype(np.float64) for name, values in contents.items()}


@pytest.mark.parametrize("solver", ["joint", "reference", "reference-first-order"])
@pytest.mark.parametrize("order, static, size, bits, sym, mse", [
    ("none", False, 64, 4, True, False), ("none", False, 32, 4, False, True), ("none", False, -1, 3, False, False),
    ("activation", False, 32, 3, False, False), ("activation", True, 32, 4, False, True), ("group", False, 32, 2, True, True)])
def test_the_page_is_what_is_computed(case, tmp_path, solver, order, static, size, bits, sym, mse):
    path, contents = case
    alpha = 0.3
    options = ["--alpha", alpha, "--solver", solver, "--order", order, "--group-size", size, "--bits", bits,
               "--sym" if sym else "--asym", "--scale-search", "mse" if mse else "none", *(["--static-groups"] if static else [])]
    run(0, "solve", path, "--out", tmp_path / "result.h5", *options)
    weights, hessian, covariance = (contents[name] for name in "WHC")
    values, codes, groups, target = solve(weights, hessian, covariance, alpha=alpha, solver=solver, order=order, static=static,
                                          bits=bits, sym=sym, mse=mse, size=size)
    with h5py.File(tmp_path / "result.h5") as file:
        np.testing.assert_array_equal(file["group_index"][()], groups)
        assert np.linalg.norm(file["target"][()] - target) <= 1e-4 * np.linalg.norm(target)
        # A tie that float32 decides otherwise changes what follows it in its row.
        assert np.mean(file["codes"][()] == codes) >= 0.985
        left = weights - values
        minimised = np.sum(left @ hessian * left) + alpha * np.sum(values @ covariance * values)
        assert file.attrs["reconstruction"] + alpha * file.attrs["bias_after"] == pytest.approx(minimised, rel=0.005)
