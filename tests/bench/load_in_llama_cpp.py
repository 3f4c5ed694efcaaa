#!/usr/bin/env python3
r"""Loads GGUF files that tools/to_gguf.py made in llama.cpp, on the CPU, and compares the log-probabilities that it gives to a
text with fairgptq's own.

    fairgptq logits --run RUN --tokens TOKENS.h5 --out LOGITS.h5
    fairgptq logits --model MODEL --tokens TOKENS.h5 --out ORIGINAL.h5
    to_gguf.py RUN --base MODEL.gguf --out RUN.gguf
    load_in_llama_cpp.py --tokens TOKENS.h5 --logits LOGITS.h5 --original ORIGINAL.h5 RUN.gguf

Not for CI: pip install llama-cpp-python h5py compiles llama.cpp, for several minutes. Its source package also holds
convert_hf_to_gguf.py, which makes MODEL.gguf (and wants torch and transformers).

llama.cpp rounds activations to 8 bits before it multiplies them by quantized weights. What it computes has to be nearer to the
run than the original model is: by half and more.
"""
import argparse

import h5py
import numpy as np


def sequences_of(path, most):
    with h5py.File(path) as file:
        ids, offsets = file["text/token_ids"][()], file["text/offsets"][()]
    return [(begin, ids[begin:end].tolist()) for begin, end in zip(offsets[:most], offsets[1:most + 1])]


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def by_fairgptq(path, sequences):
    with h5py.File(path) as file:
        return np.concatenate([log_probabilities(file["logits"][begin:begin + len(ids)]) for begin, ids in sequences])


def by_llama_cpp(path, sequences):
    from llama_cpp import Llama

    model = Llama(model_path=path, logits_all=True, n_ctx=max(len(ids) for _, ids in sequences) + 1, verbose=False)
    found = []
    for _, ids in sequences:
        model.reset()
        model.eval(ids)
        found.append(log_probabilities(np.array(model.scores[:len(ids)])))
    return np.concatenate(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--logits", required=True, help="of the run")
    parser.add_argument("--original", required=True, help="of the model")
    parser.add_argument("--sequences", type=int, default=60)
    parser.add_argument("files", nargs="+", metavar="FILE.gguf")
    options = parser.parse_args()
    sequences = sequences_of(options.tokens, options.sequences)
    run, original = (by_fairgptq(path, sequences) for path in (options.logits, options.original))
    failed = False
    for file in options.files:
        found = by_llama_cpp(file, sequences)
        off, apart = np.abs(found - run).mean(), np.abs(found - original).mean()
        likeliest = (found.argmax(axis=1) == run.argmax(axis=1)).mean()
        print(f"{file}: log-probabilities off by {off:.4f} in the mean from the run's, by {apart:.4f} from the original's; the same likeliest token "
              f"after {100 * likeliest:.1f}% of {len(found)}", flush=True)
        failed |= not off < apart / 2
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
