#!/usr/bin/env python3
"""Loads real exports in the programs that they are for, on the CPU, and compares logits with fairgptq's own.

    fairgptq logits --run RUN --tokens TOKENS.h5 --out LOGITS.h5
    fairgptq export RUN --format dense --dtype f32 --out DENSE
    load_exports.py --tokens TOKENS.h5 --logits LOGITS.h5 [--dense DENSE] [--compressed-tensors DIR] [--gptq DIR]

Not for CI: it needs torch, transformers, compressed-tensors and gptqmodel (--gptq), some gigabytes of packages:

    pip install torch transformers accelerate compressed-tensors==0.20.0 && pip install --no-build-isolation gptqmodel==7.7.0

transformers computes in float32 and has to agree to 2e-4 of the largest logit, as fairgptq itself has to agree with
transformers. GPTQModel computes in bfloat16 only; so does, for comparison, transformers with the --dense export, and
GPTQModel may be no more than half as far again from fairgptq's logits as that.
"""

import argparse
import json
import os
import pathlib

TOLERANCE = 2e-4
ROUNDED_TOLERANCE = 4e-3  # weights rounded to float16: 2^-11 of each, which a deep network makes more of


def pretend_more_cores():
    """GPTQModel plans thread pools for more cores than small machines have, and refuses to start there."""
    cores = max(8, os.cpu_count() or 1)
    os.cpu_count = lambda: cores


def sequences_of(path):
    import h5py

    with h5py.File(path) as file:
        ids, offsets = file["text/token_ids"][()], file["text/offsets"][()]
    return [ids[begin:end] for begin, end in zip(offsets[:-1], offsets[1:])]


def logits_of(model, sequences):
    import numpy as np
    import torch

    with torch.inference_mode():
        rows = [model(input_ids=torch.tensor(ids[None].astype(np.int64))).logits[0].float().numpy() for ids in sequences]
    return np.concatenate(rows)


def distance(found, expected):
    """Largest difference as a share of the largest logit, and how often both like the same token best."""
    import numpy as np

    assert found.shape == expected.shape, f"{found.shape} against {expected.shape}"
    assert np.isfinite(found).all(), "logits are not finite"
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    return error, float((found.argmax(-1) == expected.argmax(-1)).mean())


def with_transformers(folder, dtype, **more):
    import torch
    import transformers

    pictures = "ForConditionalGeneration" in (pathlib.Path(folder) / "config.json").read_text()
    kind = transformers.AutoModelForImageTextToText if pictures else transformers.AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=getattr(torch, dtype), **more).eval()


def with_compressed_tensors(folder):
    """@returns the model, and how close it has to come. Symmetric models are computed with exactly. transformers 5.23 cannot
    load asymmetric ones compressed, whoever wrote them (it expects zero points unpacked, and compressed-tensors 0.20 packs
    them); decompressed while loading, their values are rounded to the scales' float16, as experts' always are."""
    import transformers

    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    if config["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"]:
        experts = any("experts" in name for name in config)
        return with_transformers(folder, "float32"), ROUNDED_TOLERANCE if experts else TOLERANCE
    settings = transformers.CompressedTensorsConfig(dequantize=True)
    return with_transformers(folder, "float32", quantization_config=settings), ROUNDED_TOLERANCE


def with_gptqmodel(folder):
    import torch
    from gptqmodel import BACKEND, GPTQModel

    return GPTQModel.load(folder, device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.bfloat16).model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--logits", required=True)
    parser.add_argument("--dense")
    parser.add_argument("--compressed-tensors")
    parser.add_argument("--gptq")
    options = parser.parse_args()
    if options.gptq and not options.dense:
        parser.error("--gptq needs --dense, to know what bfloat16 alone does")
    if options.gptq:
        pretend_more_cores()

    import h5py

    with h5py.File(options.logits) as file:
        expected = file["logits"][()]
    sequences = sequences_of(options.tokens)
    failed = False

    def report(what, found, limit):
        nonlocal failed
        error, same = distance(found, expected)
        failed = failed or error > limit
        print(f"{what:45} {error:.2e} of the largest logit (at most {limit:.1e}), best token the same {100 * same:.1f}%")
        return error

    if options.dense:
        report("dense, transformers, float32", logits_of(with_transformers(options.dense, "float32"), sequences), TOLERANCE)
    if options.compressed_tensors:
        model, limit = with_compressed_tensors(options.compressed_tensors)
        report("compressed-tensors, transformers, float32", logits_of(model, sequences), limit)
    if options.gptq:
        alone = logits_of(with_transformers(options.dense, "bfloat16"), sequences)
        limit = 1.5 * report("dense, transformers, bfloat16", alone, 1.0)
        report("gptq, GPTQModel, bfloat16", logits_of(with_gptqmodel(options.gptq), sequences), limit)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
