#!/usr/bin/env python3
"""Times `fairgptq solve` beside LLM Compressor's quantize_weight: same matrices, same run, taking turns.

    compare_llmcompressor.py [--fairgptq build/release/fairgptq] [--rounds 5]
    taskset -c 0 compare_llmcompressor.py ...       on one core: the fairer comparison where others work on the machine
    compare_llmcompressor.py --device cuda --shapes 70b --fairgptq build/cuda/fairgptq --rounds 2       on a GPU, both

Not for CI: it needs h5py, torch and LLM Compressor, some gigabytes of packages (README.md beside this file).

Both do plain GPTQ (alpha 0) with 4 bit symmetric groups in the columns' own order, scales fixed before the first column
and kept in float32, damping 0.01, a thread for every core they may run on. Timed is what lies between H and Q: damping,
factorization, columns. Of quantize_weight that is the call, in a warm process, its scales found beforehand; of `solve`
the `seconds` in its result, in a process of its own each time, which holds also the search for scales and the
reconstruction error, but no reading and writing (on a GPU the second solve of that process: libraries load their kernels
in the first). Both errors tr((W - Q) H (W - Q)^T) are then taken anew, in float64,
and Q is compared element by element, so that neither can win by doing less: exit code 1 if an error is more than 1 %
above the other, or a median falls short of the speed asked for.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import h5py
import torch

BITS, DAMP, SEED = 4, 0.01, 1
# rows, columns, group size, how many times as fast `solve` is to be
SHAPES = {
    "cpu": [(4096, 4096, 128, 1.5), (576, 1536, 64, 3.0)],
    "8b": [(4096, 4096, 128, 1.5), (14336, 4096, 128, 1.5), (4096, 14336, 128, 1.5)],
    "70b": [(8192, 8192, 128, 1.5), (28672, 8192, 128, 1.5), (8192, 28672, 128, 1.5)],
}
# What makes OpenBLAS or OpenMP anything but their defaults here would make the comparison one of settings.
SETTINGS = ("OPENBLAS_", "OMP_", "GOMP_", "MKL_")


def matrices(rows, cols, device):
    """W of a layer's spread; H = 2/tokens X^T X of inputs that share a few directions, some channels far larger."""
    torch.manual_seed(SEED)
    torch.set_default_device(device)
    tokens, directions = 2 * cols, cols // 8
    inputs = torch.randn(tokens, directions) @ torch.randn(directions, cols) / directions**0.5
    inputs += 0.5 * torch.randn(tokens, cols)
    inputs *= torch.exp(torch.randn(cols))
    hessian = inputs.T @ inputs * (2 / tokens)
    return 0.02 * torch.randn(rows, cols), (hessian + hessian.T) / 2


def now(device):
    """The time when everything asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class LlmCompressor:
    def __init__(self, weights, hessian, group_size, device):
        from compressed_tensors.quantization import QuantizationArgs
        from compressed_tensors.quantization.utils import calculate_qparams
        from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

        self.quantize_weight = quantize_weight
        self.weights, self.hessian, self.device = weights, hessian, device
        self.settings = QuantizationArgs(num_bits=BITS, symmetric=True, strategy="group", group_size=group_size)
        groups = weights.unflatten(1, (-1, group_size))
        self.scale, self.zero_point = calculate_qparams(groups.amin(-1), groups.amax(-1), self.settings)

    def solve(self):
        """Q and seconds."""
        weights, hessian = self.weights.clone()[None], self.hessian.clone()[None]  # it works in place
        started = now(self.device)
        with torch.no_grad():
            quantized, _, gave_up = self.quantize_weight(
                weights, hessian, self.scale[None], self.zero_point[None], None, self.settings, percdamp=DAMP
            )
        seconds = now(self.device) - started
        assert not gave_up.any(), "LLM Compressor rounded to nearest, for its Hessian did not factor"
        return quantized[0], seconds


class Fairgptq:
    def __init__(self, program, folder, weights, hessian, group_size, device):
        self.case, self.result, self.device = folder / "case.h5", folder / "result.h5", device
        with h5py.File(self.case, "w") as file:
            file["W"], file["H"] = weights.cpu().numpy(), hessian.cpu().numpy()
        self.command = [program, "solve", self.case, "--out", self.result, "--alpha", "0", "--device", device]
        self.command += ["--repeat", "2"] if device == "cuda" else []
        self.command += ["--bits", str(BITS), "--group-size", str(group_size), "--damp", str(DAMP)]
        self.command += ["--static-groups", "--scale-dtype", "f32"]

    def solve(self):
        """Q and seconds."""
        if self.device == "cuda":
            torch.cuda.empty_cache()  # what torch keeps, solve cannot have
        subprocess.run(self.command, check=True, stdout=subprocess.DEVNULL)
        with h5py.File(self.result) as file:
            assert abs(file.attrs["damp_used"] - DAMP) < 1e-9, "fairgptq had to damp further"
            return torch.from_numpy(file["Q"][()]).to(self.device), float(file.attrs["seconds"])


def matrix_product_rate(device):
    """Operations a second of torch's float32 matrix product."""
    size = 8192 if device == "cuda" else 2048
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    started = now(device)
    torch.matmul(a, b, out=out)
    return 2 * size**3 / (now(device) - started)


def reconstruction(weights, quantized, hessian):
    # A slab of rows at a time: float64 copies of a large layer would not fit beside it.
    hessian = hessian.double()
    slabs = ((weights[rows] - quantized[rows]).double() for rows in torch.arange(len(weights)).split(4096))
    return sum(float(((error @ hessian) * error).sum()) for error in slabs)


def compare(program, device, rounds, rows, cols, group_size, goal):
    weights, hessian = matrices(rows, cols, device)
    theirs = LlmCompressor(weights, hessian, group_size, device)
    pairs, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        ours = Fairgptq(program, Path(folder), weights, hessian, group_size, device)
        for turn in range(rounds + 1):  # the first of each is not counted
            their_quantized, their_seconds = theirs.solve()
            our_quantized, our_seconds = ours.solve()
            rates.append(matrix_product_rate(device))
            if turn > 0:
                pairs.append((their_seconds, our_seconds))

    # Cholesky factor and triangular inverse, n^3/3 each; every column into those after it, rows n^2. LLM Compressor's way
    # (factor, inverse of H, factor) takes 4/3 n^3 for the first.
    rate = max(rates)
    least = (2 / 3 * cols**3 + rows * cols**2) / rate
    their_own = (4 / 3 * cols**3 + rows * cols**2) / rate
    their_median, our_median = (statistics.median(column) for column in zip(*pairs))
    ratios = [a / b for a, b in pairs]
    ratio = statistics.median(ratios)
    their_best, our_best = (min(column) for column in zip(*pairs))
    their_error, our_error = (reconstruction(weights, q, hessian) for q in (their_quantized, our_quantized))
    same = float(torch.isclose(their_quantized, our_quantized, rtol=1e-5, atol=1e-8).float().mean())

    print(f"{rows} x {cols}, group {group_size}; torch's matrix product {rate / 1e9:.0f} GFLOP/s; medians of {rounds}")
    print(f"  LLM Compressor {their_median:8.4f} s   {their_median / least:5.2f} times the least arithmetic"
          f" ({their_median / their_own:.2f} times its own)   error {their_error:.6g}")
    print(f"  fairgptq       {our_median:8.4f} s   {our_median / least:5.2f} times the least arithmetic"
          f"   error {our_error:.6g}, {100 * same:.2f} % of Q the same")
    print(f"  pair by pair   {', '.join(f'{r:.2f}' for r in ratios)}; median {ratio:.2f} times as fast (goal {goal});"
          f" fastest of each {their_best:.4f}, {our_best:.4f} s: {their_best / our_best:.2f}")
    return ratio >= goal and max(their_error, our_error) <= 1.01 * min(their_error, our_error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fairgptq", default="build/release/fairgptq")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shapes", choices=SHAPES, help="default: cpu; with --device cuda, 8b")
    options = parser.parse_args()
    if any(name.startswith(SETTINGS) for name in os.environ):
        parser.error(f"unset the variables that begin with {', '.join(SETTINGS)}: both are to run with their defaults")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    shapes = SHAPES[options.shapes or ("8b" if options.device == "cuda" else "cpu")]
    torch.backends.cuda.matmul.allow_tf32 = False
    warnings.filterwarnings("ignore")
    cores = len(os.sched_getaffinity(0))
    if options.device == "cuda":
        print(torch.cuda.get_device_name())
    torch.set_num_threads(cores)
    versions = ", ".join(f"{name} {version(name)}" for name in ("llmcompressor", "compressed-tensors", "torch"))
    print(f"{versions}; {cores} thread(s), load average {os.getloadavg()[0]:.1f} before", flush=True)
    reached = [compare(options.fairgptq, options.device, options.rounds, *shape) for shape in shapes]
    raise SystemExit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
