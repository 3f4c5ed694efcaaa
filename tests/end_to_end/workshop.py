"""What the end-to-end tests share: the program as a user starts it, tiny models, token files, and runs read back."""
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from seal import USER_BLOCK, sealed  # noqa: E402  (the tools are scripts, not a package)
from token_file import write_token_file  # noqa: E402

BINARY = os.environ.get("FAIRGPTQ_BINARY", str(ROOT / "build/release/fairgptq"))
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
               "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # what Open MPI 5 reads
               "OMP_NUM_THREADS": "1"}


def seal(path):
    """Gives a file that was changed the seal of what it holds now."""
    path = Path(path)
    path.write_bytes(sealed(path.read_bytes()[USER_BLOCK:]))


def command(ranks, *arguments):
    """The command line of a run on so many ranks; 0: without mpirun."""
    launcher = ["mpirun", "-n", str(ranks), "--bind-to", "none"] if ranks else []
    return [*launcher, BINARY, *map(str, arguments)]


def run(ranks, *arguments, code=0, timeout=300, **more):
    """Runs to the end, which must come with this exit code. @returns the finished process, stdout and stderr as text"""
    process = subprocess.run(command(ranks, *arguments), env=ENVIRONMENT, capture_output=True, text=True, check=False,
                             timeout=timeout, **more)
    assert process.returncode == code, f"{arguments}: exit code {process.returncode}\n{process.stdout}{process.stderr}"
    return process


def run_apart(*commands, code):
    """Runs a rank with each of these lists of arguments. @returns as run()"""
    # Not as "mpirun A : B": that ends some packages of Open MPI 5 by a segmentation fault (its issue 13303).
    cases = "".join(f"{rank}) exec {shlex.join([BINARY, *map(str, arguments)])} ;; "
                    for rank, arguments in enumerate(commands))
    process = subprocess.run(["mpirun", "-n", str(len(commands)), "--bind-to", "none", "sh", "-c",
                              f"case $OMPI_COMM_WORLD_RANK in {cases}esac"], env=ENVIRONMENT, capture_output=True, text=True,
                             check=False, timeout=60)
    assert process.returncode == code, f"{commands}: exit code {process.returncode}\n{process.stdout}{process.stderr}"
    return process


def start(ranks, *arguments):
    """Starts in a process group of its own, so that all of it can be killed."""
    return subprocess.Popen(command(ranks, *arguments), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, start_new_session=True)


def ranks_of(process):
    """Process ids of the ranks under an mpirun."""
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in listed.split()]


@contextlib.contextmanager
def held(process):
    """The ranks under an mpirun stand still meanwhile: how fast they are does not matter."""
    ranks = ranks_of(process)
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in ranks:
            os.kill(pid, signal.SIGCONT)


def complaints(text):
    """The program's sentences among what was said. (mpirun of Open MPI 5 ends its own messages with a zero byte.)"""
    return [line for line in text.replace("\0", "").splitlines() if line.startswith("fairgptq:")]


def refused(*arguments, ranks=0, **more):
    """The one sentence with which the program refuses: exit code 2."""
    lines = complaints(run(ranks, *arguments, code=2, **more).stderr)
    assert len(lines) == 1, lines
    return lines[0]


def write_model(folder, *, layers=3, hidden=64, intermediate=160, heads=4, key_value_heads=2, vocabulary=384, seed=0,
                change=None, settings=None):
    """A Llama of random float16 weights.

    @param change    gets the tensors before they are written
    @param settings  what config.json says otherwise
    """
    folder.mkdir(parents=True, exist_ok=True)
    head_dim = hidden // heads
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
              "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": key_value_heads, "head_dim": head_dim, "vocab_size": vocabulary,
              "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False,
              "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "dtype": "float16",
              "attention_bias": False, "mlp_bias": False, **(settings or {})}
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(seed)

    def matrix(rows, cols):
        return (random.standard_normal((rows, cols)) * cols ** -0.5).astype(np.float16)

    tensors = {"model.embed_tokens.weight": matrix(vocabulary, hidden), "lm_head.weight": matrix(vocabulary, hidden),
               "model.norm.weight": np.ones(hidden, np.float16)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[prefix + norm + ".weight"] = (1 + 0.1 * random.standard_normal(hidden)).astype(np.float16)
        for name, rows, cols in (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", key_value_heads * head_dim, hidden),
                                 ("self_attn.v_proj", key_value_heads * head_dim, hidden), ("self_attn.o_proj", hidden, hidden),
                                 ("mlp.gate_proj", intermediate, hidden), ("mlp.up_proj", intermediate, hidden),
                                 ("mlp.down_proj", hidden, intermediate)):
            tensors[prefix + name + ".weight"] = matrix(rows, cols)
    if change:
        change(tensors)
    save_file(tensors, str(folder / "model.safetensors"))
    return folder


def write_tokens(path, *, pairs=80, texts=20, text_length=60, vocabulary=384, seed=1):
    """Random pairs that share most of their tokens, and random text."""
    random = np.random.default_rng(seed)
    stereotype, anti_stereotype = [], []
    for _ in range(pairs):
        sentence = random.integers(0, vocabulary, random.integers(6, 20)).tolist()
        partner = list(sentence)
        partner[random.integers(1, len(partner))] = int(random.integers(0, vocabulary))
        stereotype.append(sentence)
        anti_stereotype.append(partner + random.integers(0, vocabulary, random.integers(0, 2)).tolist())
    contents = {"tokenizer_sha256": "0" * 64, "vocab_size": vocabulary, "sources": []}
    if pairs:
        contents["pairs"] = {"stereotype": stereotype, "anti_stereotype": anti_stereotype, "category": ["any"] * pairs}
    if texts:
        contents["text"] = [random.integers(0, vocabulary, text_length).tolist() for _ in range(texts)]
    write_token_file(path, contents)
    return path


def logits(out, tokens, *subject):
    """What `fairgptq logits` writes for `--model DIR` or `--run RUN`: [tokens, vocabulary]."""
    run(0, "logits", *subject, "--tokens", tokens, "--out", out)
    with h5py.File(out) as file:
        return file["logits"][()]


def read_run(folder):
    """Every dataset and attribute of every layer (but the seconds, which differ), as bytes and numbers."""
    found = {}
    for file in sorted((folder / "layers").glob("layer_*.h5")):
        with h5py.File(file, "r") as layer:
            for key in ("source_tensors", "made_after", "hash"):
                found[f"{file.name}@{key}"] = layer.attrs[key]

            def add(name, thing, file=file):
                for key, value in thing.attrs.items():
                    if key != "seconds":
                        found[f"{file.name}/{name}@{key}"] = value
                if isinstance(thing, h5py.Dataset):
                    found[f"{file.name}/{name}"] = thing[()].tobytes()
            layer.visititems(add)
    return found


def quantized(found):
    """What a run's values are made of: codes, scales, zeros, group indices."""
    return {name: value for name, value in found.items()
            if name.rsplit("/", 1)[-1] in ("codes", "scales", "zeros", "group_index")}


def agreement(one, other):
    """Share of 4-bit codes that two runs have in common."""
    same = total = 0
    for name, value in one.items():
        if not name.endswith("/codes"):
            continue
        a, b = np.frombuffer(value, np.uint8), np.frombuffer(other[name], np.uint8)
        same += int(np.sum((a & 15) == (b & 15))) + int(np.sum((a >> 4) == (b >> 4)))
        total += 2 * a.size
    return same / total
