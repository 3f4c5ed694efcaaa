#!/usr/bin/env python3
"""Times `fairgptq eval` and transformers in turns on one task's sequences, and compares their log-probabilities.

transformers gets what its users give it: batches in the file's order, padded to their longest sequence, float32. Its time is that
of the scoring alone; fairgptq's is that of the whole command, reading the model included. Where others work on the machine,
processor time says more than the clock, and one thread (--threads 1) more than two.

    peer/bin/python tests/bench/compare_transformers.py --model MODEL --tokens tokens.h5 --task crows_pairs
"""
import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]


def read_task(path, name):
    """Sequences, the first scored token of each, and their items and roles."""
    with h5py.File(path) as file:
        task = file[f"tasks/{name}"]
        ids, offsets = task["token_ids"][()], task["offsets"][()]
        sequences = [ids[begin:end].tolist() for begin, end in zip(offsets[:-1], offsets[1:])]
        return sequences, task["scored_from"][()], task["item"][()], task["role"][()]


def with_transformers(model, sequences, scored_from, batch_size):
    """Summed log-probability of each sequence's scored tokens."""
    totals = []
    with torch.inference_mode():
        for first in range(0, len(sequences), batch_size):
            batch = sequences[first:first + batch_size]
            longest = max(map(len, batch))
            ids = torch.tensor([sequence + [0] * (longest - len(sequence)) for sequence in batch])
            mask = torch.tensor([[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in batch])
            chances = torch.log_softmax(model(input_ids=ids, attention_mask=mask).logits[:, :-1].float(), dim=-1)
            chosen = chances.gather(2, ids[:, 1:, None])[:, :, 0]
            places = torch.arange(1, longest)
            start = torch.tensor(scored_from[first:first + len(batch)])[:, None]
            counted = (places >= start) & (mask[:, 1:] == 1)
            totals.extend((chosen * counted).sum(dim=1).tolist())
    return np.array(totals)


def with_fairgptq(binary, arguments, folder, threads):
    """Seconds of the whole command, by the clock and of the processor, and its report on the task."""
    out = Path(folder) / "report.json"
    command = [binary, "eval", "--model", arguments.model, "--tokens", arguments.tokens, "--tasks", arguments.task, "--out", out]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used, json.loads(out.read_text())["tasks"][arguments.task]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--task", default="crows_pairs", help="a task of the kind pair_preference")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--binary", default=str(ROOT / "build/release/fairgptq"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sequences, scored_from, item, role = read_task(arguments.tokens, arguments.task)
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    print(f"{len(sequences)} sequences, {sum(map(len, sequences))} tokens, {arguments.threads} threads, "
          f"torch {torch.__version__}, transformers {transformers.__version__}, batches of {arguments.batch}")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            ours, ours_used, report = with_fairgptq(arguments.binary, arguments, folder, arguments.threads)
            start, before = time.perf_counter(), time.process_time()
            totals = with_transformers(model, sequences, scored_from, arguments.batch)
            theirs, theirs_used = time.perf_counter() - start, time.process_time() - before
            ratios.append((theirs / ours, theirs_used / ours_used))
            print(f"fairgptq {ours:.1f} s ({ours_used:.1f} s of processor time), transformers {theirs:.1f} s ({theirs_used:.1f} s): "
                  f"{theirs / ours:.2f} times as fast ({theirs_used / ours_used:.2f} in processor time)", flush=True)
    difference = np.zeros(item.max() + 1)
    np.add.at(difference, item, np.where(role == 0, totals, -totals))
    found = np.array(report["per_item"]["columns"]["difference"])
    print("median {:.2f} times as fast ({:.2f} in processor time)".format(*np.median(ratios, axis=0)))
    print(f"stereotype preferred: {100 * np.mean(difference > 0):.2f} % (transformers), {report['stereotype_preferred']:.2f} % (fairgptq)")
    print(f"mean |difference|: {np.abs(difference).mean():.4f} and {report['mean_abs_difference']:.4f}; "
          f"largest deviation of an item {np.abs(difference - found).max():.2e}")


if __name__ == "__main__":
    main()
