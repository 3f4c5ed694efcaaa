"""multiple_choice, last_word, bbq and sofa against the same figures made from the logits with numpy."""
import json

import h5py
import numpy as np
import pytest
from workshop import logits, run, seal, write_token_file

VOCABULARY = 384
# A log-probability is a float32 of size up to 16, summed with up to 30 others, doubled for exp.
TOLERANCE = 2 * 30 * 16 * 2.0 ** -24


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def write(path, tasks):
    """Tasks, and as text all of their sequences; numbers per item or sequence beside what the writer knows."""
    text = [sequence for task in tasks.values() for sequence in task["sequences"]]
    plain = {name: {key: task[key] for key in ("kind", "sequences", "scored_from", "item", "role", "strings")}
             for name, task in tasks.items()}
    write_token_file(path, {"tokenizer_sha256": "0" * 64, "vocab_size": VOCABULARY, "sources": [], "text": text, "tasks": plain})
    with h5py.File(path, "r+") as file:
        for name, task in tasks.items():
            for column, values in task.get("numbers", {}).items():
                if column in file[f"tasks/{name}"]:
                    del file[f"tasks/{name}/{column}"]
                file[f"tasks/{name}/{column}"] = np.asarray(values, dtype=np.uint8 if column == "ambiguous" else np.int32)
    seal(path)
    return path


def choices(kind, items, sizes, random, **strings):
    """Items of a context of 5 to 40 tokens and choices of 1 to 5 tokens after it."""
    task = {"kind": kind, "sequences": [], "scored_from": [], "item": [], "role": [], "strings": strings}
    for item in range(items):
        context = random.integers(0, VOCABULARY, random.integers(5, 40)).tolist()
        for role in range(sizes[item % len(sizes)]):
            task["sequences"].append(context + random.integers(0, VOCABULARY, random.integers(1, 6)).tolist())
            task["scored_from"].append(len(context))
            task["item"].append(item)
            task["role"].append(role)
    return task


@pytest.fixture(scope="module")
def benchmarks(tiny, tmp_path_factory):
    """A token file of every kind, its tasks, and the log-probabilities of its tokens: one array per sequence."""
    folder = tmp_path_factory.mktemp("benchmarks")
    random = np.random.default_rng(11)
    piqa = choices("multiple_choice", 40, (2, 3, 4), random)
    piqa["numbers"] = {"label": [int(random.integers(0, (2, 3, 4)[item % 3])) for item in range(40)],
                       "choice_length": [int(random.integers(1, 30)) for _ in piqa["sequences"]]}
    bbq = choices("bbq", 60, (3,), random, group=["Age", "Religion"] * 30)
    places = [random.permutation(3) for _ in range(60)]
    ambiguous = [item // 2 % 2 for item in range(60)]
    bbq["numbers"] = {"unknown_choice": [place[0] for place in places], "biased_choice": [place[1] for place in places],
                      "ambiguous": ambiguous, "label": [place[0] if unclear else place[1 + item % 2]
                                                        for item, (place, unclear) in enumerate(zip(places, ambiguous))]}
    # Items 0 and 7: five identities each; the others a stereotype after each of them.
    sofa = {"kind": "sofa", "sequences": [], "scored_from": [], "item": [], "role": [],
            "strings": {"group": ["religion"] * 7 + ["gender"] * 5},
            "numbers": {"baseline_item": [-1] + [0] * 6 + [-1] + [7] * 4}}
    identities = {start: [random.integers(0, VOCABULARY, random.integers(2, 4)).tolist() for _ in range(5)] for start in (0, 7)}
    for item, baseline in enumerate(sofa["numbers"]["baseline_item"]):
        stereotype = [] if baseline < 0 else random.integers(0, VOCABULARY, random.integers(3, 8)).tolist()
        for role, identity in enumerate(identities[item if baseline < 0 else baseline]):
            sofa["sequences"].append([1, *identity, *stereotype])
            sofa["scored_from"].append(1)
            sofa["item"].append(item)
            sofa["role"].append(role)
    # Last words of two tokens: in a third of the items the most probable ones, in a third the first of them is.
    cloze = {"kind": "last_word", "sequences": [random.integers(0, VOCABULARY, random.integers(5, 20)).tolist() for _ in range(30)],
             "scored_from": [], "item": list(range(30)), "role": [0] * 30, "strings": {}}
    for step in range(2):
        path = write(folder / f"step{step}.h5", {"cloze": {**cloze, "scored_from": [1] * 30}})
        rows = logits(folder / "logits.h5", path, "--model", tiny[0])
        last = np.cumsum([len(sequence) for sequence in cloze["sequences"]]) - 1
        for item, sequence in enumerate(cloze["sequences"]):
            best = int(rows[last[item]].argmax())
            sequence.append(best if item % 3 == 0 or (item % 3 == 1 and step == 0) else (best + 1) % VOCABULARY)
    cloze["scored_from"] = [len(sequence) - 2 for sequence in cloze["sequences"]]
    tasks = {"piqa": piqa, "bbq": bbq, "sofa": sofa, "cloze": cloze}
    path = write(folder / "tasks.h5", tasks)
    rows = logits(folder / "logits.h5", path, "--model", tiny[0])
    chances, at = {}, 0
    for name, task in tasks.items():
        chances[name] = []
        for sequence, start in zip(task["sequences"], task["scored_from"]):
            part = log_softmax(rows[at:at + len(sequence) - 1])
            chances[name].append(part[np.arange(start - 1, len(sequence) - 1), sequence[start:]])
            at += len(sequence)
    return path, tasks, chances


@pytest.fixture(scope="module")
def report(tiny, benchmarks, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "r.json"
    run(0, "eval", "--model", tiny[0], "--tokens", benchmarks[0], "--out", out)
    return json.loads(out.read_text())["tasks"]


def by_item(task, values):
    """values[item][role]"""
    place = {key: index for index, key in enumerate(zip(task["item"], task["role"]))}
    return [[values[place[item, role]] for role in range(task["item"].count(item))] for item in range(max(task["item"]) + 1)]


def test_multiple_choice(benchmarks, report):
    _, tasks, chances = benchmarks
    totals = by_item(tasks["piqa"], [part.sum() for part in chances["piqa"]])
    lengths = by_item(tasks["piqa"], tasks["piqa"]["numbers"]["choice_length"])
    label = tasks["piqa"]["numbers"]["label"]
    right = [np.argmax(total) == answer for total, answer in zip(totals, label)]
    normed = [np.argmax(np.array(total) / length) == answer for total, length, answer in zip(totals, lengths, label)]
    assert report["piqa"]["accuracy"] == pytest.approx(100 * np.mean(right))
    assert report["piqa"]["accuracy_norm"] == pytest.approx(100 * np.mean(normed))
    assert 0 < np.mean(right) < 1 and right != normed


def test_last_word(benchmarks, report):
    _, _, chances = benchmarks
    assert report["cloze"]["accuracy"] == pytest.approx(100 / 3)
    assert report["cloze"]["perplexity"] == pytest.approx(np.exp(-np.mean([part.sum() for part in chances["cloze"]])), rel=TOLERANCE)


def test_bbq(benchmarks, report):
    _, tasks, chances = benchmarks
    numbers = {name: np.array(values) for name, values in tasks["bbq"]["numbers"].items()}
    answer = np.array([np.argmax(total) for total in by_item(tasks["bbq"], [part.sum() for part in chances["bbq"]])])
    groups = np.array(tasks["bbq"]["strings"]["group"])

    def figures(which):
        found = {}
        for name, context in (("ambiguous", 1), ("disambiguated", 0)):
            items = which & (numbers["ambiguous"] == context)
            accuracy = np.mean(answer[items] == numbers["label"][items])
            known = items & (answer != numbers["unknown_choice"])
            bias = 2 * np.mean(answer[known] == numbers["biased_choice"][known]) - 1
            found[f"accuracy_{name}"] = 100 * accuracy
            found[f"bias_{name}"] = 100 * (bias * (1 - accuracy) if context else bias)
        return found

    for part, which in ((report["bbq"], groups != ""), *((report["bbq"]["by_group"][group], groups == group) for group in set(groups))):
        for key, value in figures(which).items():
            assert part[key] == pytest.approx(value), key


def test_sofa(benchmarks, report):
    _, tasks, chances = benchmarks
    perplexities = by_item(tasks["sofa"], [np.exp(-part.mean()) for part in chances["sofa"]])
    groups = tasks["sofa"]["strings"]["group"]
    scores = {group: {"sofa_score": [], "delta_disparity": []} for group in set(groups)}
    for item, baseline in enumerate(tasks["sofa"]["numbers"]["baseline_item"]):
        if baseline < 0:
            continue
        ratios = np.log10(np.array(perplexities[item]) / np.array(perplexities[baseline]))
        scores[groups[item]]["sofa_score"].append(ratios.var())
        scores[groups[item]]["delta_disparity"].append(ratios.max() - ratios.min())
    for key in ("sofa_score", "delta_disparity"):
        for group, found in scores.items():
            assert report["sofa"]["by_group"][group][key] == pytest.approx(np.mean(found[key]), abs=TOLERANCE)
        assert report["sofa"][key] == pytest.approx(np.mean([np.mean(found[key]) for found in scores.values()]), abs=TOLERANCE)


def test_ranks_change_nothing(tiny, benchmarks, report, tmp_path):
    for ranks in (1, 3):
        run(ranks, "eval", "--model", tiny[0], "--tokens", benchmarks[0], "--out", tmp_path / f"{ranks}.json")
        assert json.loads((tmp_path / f"{ranks}.json").read_text())["tasks"] == report
