"""docs/files.md and slurm/README.md against the files that the program writes: nothing undocumented, nothing that is not there."""
import json
import re

import h5py
import numpy as np
import pytest
import xxhash
from safetensors.numpy import load_file
from workshop import ROOT, refused, run, seal, write_token_file, write_tokens

PAGE = (ROOT / "docs/files.md").read_text()
OPTIONS = ("--group-size", "32", "--bits", "3", "--order", "activation")


def section(title):
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}.*?\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found.group(1)


def names(text):
    return set(re.findall(r"`([A-Za-z_][A-Za-z_0-9]*)`", text))


def rows(text):
    """What the first cells of its tables name."""
    return {name for line in text.splitlines() if line.startswith("| `") for name in names(line.split("|")[1])}


def before(text, end):
    return text[:text.index(end)]


def attributes_of_modules():
    text = section("Layer file")
    return names(text[text.index("Its attributes are"):text.index("its datasets")].replace("([method.md](method.md))", ""))


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A run of three bits, its columns in scrambled groups."""
    out = tmp_path_factory.mktemp("documented") / "run"
    run(0, "quantize", "--model", tiny[0], "--tokens", tiny[1], "--out", out, *OPTIONS)
    return out


def test_layer_files(finished):
    text = section("Layer file")
    with h5py.File(finished / "layers/layer_0001.h5") as file:
        assert set(file.attrs) == names(before(text, "Each module"))
        assert (file.attrs["format"], file.attrs["version"]) == ("fairgptq-layer", 3)
        assert set(file) == set(json.loads(file.attrs["modules"]))
        for module in file.values():
            assert set(module.attrs) == attributes_of_modules()
            assert set(module) == rows(text)


def test_what_a_layer_was_made_after(finished):
    """The page's words for `hash` and `made_after`, in Python."""
    before_it = ""
    for path in sorted((finished / "layers").glob("layer_*.h5")):
        with h5py.File(path) as file:
            assert file.attrs["made_after"] == before_it
            parts = [before_it.encode(), file.attrs["source_tensors"].encode()]
            for name in json.loads(file.attrs["modules"]):
                module = file[name]
                parts += [name.encode(), module["codes"][()].tobytes(), module["scales"][()].astype(np.float32).tobytes(),
                          module["zeros"][()].tobytes(), module["group_index"][()].tobytes()]
            before_it = xxhash.xxh3_128_hexdigest(b"".join(parts))
            assert file.attrs["hash"] == before_it


def test_run_json(finished):
    row = next(line for line in section("Run").splitlines() if line.startswith("| `run.json`"))
    found = json.loads((finished / "run.json").read_text())
    assert set(found) | set(found["settings"]) == names(row.split("|")[2])
    assert (found["format"], found["version"]) == ("fairgptq-run", 3)


def test_the_lines_of_python_that_read_a_layer(tiny, finished, tmp_path):
    lines = re.search(r"In Python:\n\n((?:    .*\n)+)", PAGE).group(1)
    found = {}
    exec(re.sub("^    ", "", lines, flags=re.MULTILINE).replace("RUN/", f"{finished}/"), found)
    run(0, "export", finished, "--format", "dense", "--out", tmp_path / "dense")
    dense = load_file(str(tmp_path / "dense/model.safetensors"))["model.layers.0.self_attn.q_proj.weight"]
    assert found["q"].shape == dense.shape
    np.testing.assert_array_equal(found["q"].astype(np.float16), dense)


def test_events(tiny, finished, tmp_path):
    """Every event and every key of the log stands in slurm/README.md."""
    text = (ROOT / "slurm/README.md").read_text()
    stopped = tmp_path / "run"
    command = ("quantize", "--model", tiny[0], "--tokens", tiny[1], "--out", stopped, *OPTIONS, "--resume")
    run(2, *command, "--stop-after-layers", "1", code=75)
    run(2, *command)
    (stopped / "layers/layer_0001.h5").unlink()
    with h5py.File(stopped / "layers/layer_0002.h5", "r+") as file:  # as if the lost one had been another
        file.attrs["made_after"] = "0" * 32
    seal(stopped / "layers/layer_0002.h5")
    run(2, *command)
    logged = [json.loads(line) for folder in (finished, stopped) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {event["event"] for event in logged} == {"start", "layer", "replayed", "discarded", "stopped", "done"}
    for event in logged:
        assert f"\n| {event['event']} |" in text
        for key in event:
            assert re.search(rf"\b{key}\b", text), f"{key} of {event['event']}"


def test_token_files(tiny, tmp_path):
    """What the writer of token files writes, and what it asks of a task."""
    text = section("Token file")
    path = write_tokens(tmp_path / "tokens.h5")
    with h5py.File(path) as file:
        assert set(file.attrs) == names(text[text.index("Attributes of the root"):text.index("| object")])
        objects = []
        file.visititems(lambda name, thing: objects.append(name) if isinstance(thing, h5py.Dataset) else None)
    for name in objects:
        group = "/".join(name.split("/")[:-1])
        assert f"`{name}`" in text or f"`{group}/…`" in text, name
    kinds = names(before(text[text.index("Kinds:"):], "\n").replace("Kinds: ", "`").replace(", ", "` `").replace(".", "`"))
    task = {"sequences": [[1, 2, 3]], "scored_from": [1], "item": [0], "role": [0], "strings": {}, "kind": "of another world"}
    write_token_file(path, {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "tasks": {"any": task}})
    known = re.search(r"known: ([a-z_, ]+)\)", refused("eval", "--model", tiny[0], "--tokens", path)).group(1)
    assert kinds == set(known.split(", "))


@pytest.mark.parametrize("kind", ["multiple_choice", "bbq", "sofa"])
def test_what_a_kind_of_task_needs(tiny, tmp_path, kind):
    """Without any of what the page says of a kind alone, a task of it is refused; with all of it, it is evaluated."""
    text = section("Token file")
    cells = [line.split("|") for line in text[text.index("Each task"):].splitlines() if line.startswith("| `")]
    needed = {name for row in cells if kind in row[3] for name in names(row[1])}
    values = {"label": [2, 2], "choice_length": [1] * 6, "unknown_choice": [2, 2], "biased_choice": [0, 0], "ambiguous": [1, 0],
              "baseline_item": [-1, 0]}
    # Two items of three sequences.
    whole = {"kind": kind, "sequences": [[1, 2, 3], [1, 2, 4], [1, 2, 5]] * 2, "scored_from": [1] * 6, "item": [0] * 3 + [1] * 3,
             "role": [0, 1, 2] * 2}
    path = tmp_path / "tokens.h5"

    def write(there):
        task = {**whole, "strings": {"group": ["any", "other"]} if "group" in there else {},
                "numbers": {name: np.array(values[name], np.uint8 if name == "ambiguous" else np.int32) for name in there - {"group"}}}
        write_token_file(path, {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "tasks": {"any": task}})

    assert needed
    for name in needed:
        write(needed - {name})
        assert name in refused("eval", "--model", tiny[0], "--tokens", path).replace(f"kind {kind}", "")
    write(needed)
    run(0, "eval", "--model", tiny[0], "--tokens", path)


def test_results_of_solve(tmp_path):
    random = np.random.default_rng(3)
    with h5py.File(tmp_path / "case.h5", "w") as file:
        file["W"] = random.standard_normal((8, 64))
        file["X"] = random.standard_normal((5, 2, 7, 64))
    run(0, "solve", tmp_path / "case.h5", "--out", tmp_path / "result.h5", "--group-size", "32")
    text = section("One matrix")
    with h5py.File(tmp_path / "result.h5") as file:
        assert set(file) == rows(text[text.index("RESULT.h5 |"):])
        assert set(file.attrs) == attributes_of_modules()
    assert {"W", "H", "C", "X"} == rows(before(text, "| dataset of RESULT.h5"))


def test_reports(tiny, finished, tmp_path):
    task = {"kind": "pair_preference", "sequences": [[1, 2, 3], [1, 2, 4]], "scored_from": [1, 1], "item": [0, 0], "role": [0, 1],
            "strings": {"group": ["any"]}}
    contents = {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "text": [list(range(40))] * 3, "tasks": {"any": task}}
    write_token_file(tmp_path / "tokens.h5", contents)
    run(0, "eval", "--run", finished, "--tokens", tmp_path / "tokens.h5", "--out", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    known = names(section("Report"))
    assert set(report) | {"kind", "intervals", "per_item", "data", "by_group"} == known
    assert known - set(report) <= set(report["tasks"]["any"])
    run(0, "diverge", "--run", finished, "--model", tiny[0], "--tokens", tmp_path / "tokens.h5", "--continuation-tokens", "4",
        "--by-module", "--out", tmp_path / "divergence.json")
    divergence = json.loads((tmp_path / "divergence.json").read_text())
    assert set(divergence) == names(section("Divergence"))
