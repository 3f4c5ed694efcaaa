"""Inputs for the tests of tools/report.py: reports, run folders with layer files, divergence files, all small and made up."""
import copy
import json

import h5py
import numpy as np
import xxhash
from token_file import write_token_file

SETTINGS = {"alpha": 0.1, "bits": 4, "group_size": 64, "solver": "joint", "hessian_from": "both", "order": "none", "alpha_map": [], "symmetric": True}
MODULES = ("self_attn.q_proj", "mlp.down_proj")
FINGERPRINT = "0123456789abcdef0123456789abcdef"


def tasks(perplexity, bias, accuracy=None):
    found = {"words": {"kind": "perplexity", "perplexity": perplexity, "tokens": 100, "sequences": 2, "data": "w",
                       "intervals": {"perplexity": [perplexity - 1, perplexity + 1]}},
             "crows": {"kind": "pair_preference", "items": 8, "stereotype_preferred": 50 + 10 * bias, "mean_abs_difference": 9 * bias,
                       "mean_abs_difference_per_token": bias, "data": "c", "per_item": {"columns": {}},
                       "by_group": {"age": {"items": 4, "mean_abs_difference_per_token": bias / 2}, "race": {"items": 4, "mean_abs_difference_per_token": None}}}}
    if accuracy is not None:
        found["piqa"] = {"kind": "multiple_choice", "items": 4, "accuracy": accuracy, "accuracy_norm": accuracy + 1, "data": "p"}
    return found


def write_report(path, found, *, run=None, model="/models/tiny", **settings):
    value = {"format": "fairgptq-report", "version": 1, "model": model, "run": None if run is None else str(run),
             "settings": None if run is None else {**SETTINGS, **settings}, "tokens_file": "tokens.h5", "tasks": copy.deepcopy(found)}
    path.write_text(json.dumps(value))
    return path


def write_run(folder, *, layers=3, planned=None, calibration=None, scale=1.0, model="/models/tiny", **settings):
    """A run whose figures follow from layer and module: reconstruction 1 + layer, bias 100 before and 40·scale after."""
    (folder / "layers").mkdir(parents=True)
    run = {"format": "fairgptq-run", "version": 3, "fingerprint": FINGERPRINT, "settings": {
        "calibration": calibration or {"digest": "d", "path": "gone.h5"}, "layers": planned or layers, "model": {
            "architecture": "LlamaForCausalLM", "path": model, "files": [{"name": "a"}]},
        "quantization": {**SETTINGS, **settings}}}
    (folder / "run.json").write_text(json.dumps(run))
    for layer in range(layers):
        with h5py.File(folder / "layers" / f"layer_{layer:04d}.h5", "w", userblock_size=512) as file:
            file.attrs.update({"format": "fairgptq-layer", "version": 3, "fingerprint": FINGERPRINT, "layer": layer, "modules": json.dumps(MODULES),
                               "source_tensors": json.dumps({f"model.layers.{layer}.norm.weight": "00"})})
            for place, name in enumerate(MODULES):
                group = file.create_group(name)
                group.attrs.update({"alpha": 0.1, "reconstruction": 1.0 + layer, "bias_before": 100.0, "bias_after": 40.0 * scale,
                                    "shift_norm": 0.1, "damp_used": 0.01, "seconds": 1.0, "rows": 2, "cols": 5, "bits": 4})
                # The largest of all is layer 2's down_proj channel 3.
                group["column_sensitivity"] = np.array([1, 2, 3, 10 * (layer + 1) + place, 0.5], np.float32)
    return folder


def write_calibration(path):
    """A token file of calibration data. @returns what run.json says of it"""
    text, first, second = [[1, 2, 3]], [[1, 4]], [[1, 5]]
    write_token_file(path, {"tokenizer_sha256": "0" * 64, "vocab_size": 9, "text": text, "pairs": {
        "stereotype": first, "anti_stereotype": second, "category": ["x"]}, "sources": [
            {"name": "pairs", "file": "pairs|of mine.csv", "sha256": "f" * 64, "seed": 0, "calibration_pairs": 1}]})
    hashes = ""
    for sequences in (text, first, second):
        ids = np.concatenate(sequences).astype(np.int32)
        offsets = np.array([0, len(sequences[0])], np.int64)
        hashes += xxhash.xxh3_128_hexdigest(ids.tobytes()) + xxhash.xxh3_128_hexdigest(offsets.tobytes())
    return {"path": str(path), "digest": xxhash.xxh3_128_hexdigest(hashes.encode())}


def write_divergence(path, other, first=(0, 5, 16, 16), tokens=16, **more):
    value = {"format": "fairgptq-divergence", "version": 1, "model": "/models/tiny", "other": str(other), "prompts": len(first),
             "continuation_tokens": tokens, "first_divergent_token": list(first), "divergent_share": [0.25] * len(first), "fdt_mean": 9.25,
             "fdt_median": 10.5, "sdt_mean": 0.25, **more}
    path.write_text(json.dumps(value))
    return path
