#!/usr/bin/env python3
"""Puts the same benchmarks to the same model with `fairgptq eval` and with lm-evaluation-harness, and compares item by item.

    peer/bin/python tests/bench/compare_lm_eval.py --model MODEL

The harness gets the files that tools/prepare.py reads, through its own task definitions: PIQA, CrowS-Pairs and BBQ of ../shared/data,
and items made up in the layouts of ARC, HellaSwag, Story Cloze and LAMBADA (lm_eval_items/, with what is easily got wrong: marks to
be taken out, blanks at the ends, equal choices, five choices, line ends). A second round gives the model few positions, so that
prompts have to be cut. Both compute in float32. Every choice's log-probability has to agree to 1e-3, or to 1e-5 of itself where
it is a long one, and every item's rightness exactly.
"""
import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
                   "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
import h5py
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
ITEMS = Path(__file__).resolve().parent / "lm_eval_items"
TOLERANCE = 1e-3  # of a log-probability, natural logarithm
# The harness takes softmax and sum in float32, and is 2 to 4 millionths off in one direction: of -422.4 by 1.1e-3, where fairgptq
# is 1.4e-5 from what float64 gives.
RELATIVE_TOLERANCE = 1e-5
# Of the program's tasks: the harness's task and its file below lm_eval/tasks, the split that it takes.
TASKS = {"piqa": ("piqa", "piqa/piqa.yaml", "validation"), "arc_easy": ("arc_easy", "arc/arc_easy.yaml", "test"),
         "hellaswag": ("hellaswag", "hellaswag/hellaswag.yaml", "validation"), "lambada": ("lambada_openai", "lambada/lambada_openai.yaml", "test"),
         "story_cloze": ("storycloze_2018", "storycloze/storycloze_2018.yaml", "test"),
         "crows_pairs": ("crows_pairs_english", "crows_pairs/crows_pairs_english.yaml", "test"), "bbq": ("bbq", "bbq/bbq_multiple_choice.yaml", "test")}
# The harness's figures, and the program's with what they have to be multiplied by.
FIGURES = {"multiple_choice": {"acc": ("accuracy", 0.01), "acc_norm": ("accuracy_norm", 0.01)},
           "last_word": {"acc": ("accuracy", 0.01), "perplexity": ("perplexity", 1)},
           "pair_preference": {"pct_stereotype": ("stereotype_preferred", 0.01), "likelihood_diff": ("mean_abs_difference", 1)}}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def data_files(shared, folder, count):
    """{task: file} of all benchmarks, at most `count` items each, in layouts that both programs read."""
    import csv
    labels = (shared / "piqa_valid-labels.lst").read_text().split()
    piqa = [{**row, "label": int(label)} for row, label in zip(read_jsonl(shared / "piqa_valid.jsonl"), labels)]
    with open(shared / "crows_pairs_anonymized.csv", newline="", encoding="utf-8") as file:
        crows = [{"sent_more": row["sent_more"], "sent_less": row["sent_less"]} for row in csv.DictReader(file)]
    return {"piqa": write_jsonl(folder / "piqa.jsonl", piqa[:count]), "arc_easy": ITEMS / "arc.jsonl",
            "hellaswag": ITEMS / "hellaswag.jsonl", "lambada": ITEMS / "lambada.jsonl", "story_cloze": ITEMS / "story_cloze.jsonl",
            "crows_pairs": write_jsonl(folder / "crows_pairs.jsonl", crows[:count]),
            "bbq": write_jsonl(folder / "bbq.jsonl", read_jsonl(shared / "bbq_Religion.jsonl")[:min(count, 24)])}


def with_harness(model, files, folder):
    """{task: (figures, [item: [(log-probability, greedy) of each choice]], [item: figures])}"""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    definitions = Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks"
    for task, path in files.items():
        name, definition, split = TASKS[task]
        lines = [f"include: {definitions / definition}", f"task: local_{name}", "dataset_path: json", "dataset_name: null", "training_split: null",
                 "validation_split: null", "test_split: null", f"{split}_split: {split}", "dataset_kwargs:", f"  data_files: {{{split}: {path}}}"]
        (folder / f"{task}.yaml").write_text("\n".join(lines) + "\n")
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    language_model = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=4)
    names = {task: f"local_{TASKS[task][0]}" for task in files}
    found = lm_eval.simple_evaluate(model=language_model, tasks=list(names.values()), task_manager=tasks, bootstrap_iters=0, log_samples=True)
    results = {}
    for task, name in names.items():
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        scores = [[tuple(score) for score in sample["filtered_resps"]] for sample in samples]
        figures = {key.removesuffix(",none"): value for key, value in found["results"][name].items() if key.endswith(",none")}
        results[task] = figures, scores, samples
    return results


def with_fairgptq(binary, model, files, folder):
    """{task: (its part of the report, [item: [(log-probability, greedy) of each choice]])}"""
    tokens = folder / "tokens.h5"
    options = [word for task, path in files.items() for word in (f"--{task.replace('_', '-')}", path)]
    subprocess.run([sys.executable, ROOT / "tools/prepare.py", "--model", model, "--out", tokens, *options,
                    *(["--use", "crows_pairs=evaluation"] if "crows_pairs" in files else [])], check=True, stdout=subprocess.DEVNULL)
    report = evaluated(binary, model, tokens, folder / "report.json")
    # Each sequence as an item of its own: of such items the report holds the log-probability.
    sys.path.insert(0, str(ROOT / "tools"))
    from token_file import write_token_file
    contents, places = {"sources": [], "tasks": {}}, {}
    with h5py.File(tokens) as file:
        contents.update({name: file.attrs[name] for name in ("tokenizer_sha256", "vocab_size")})
        for task in files:
            group = file[f"tasks/{task}"]
            ids, offsets = group["token_ids"][()], group["offsets"][()]
            places[task] = list(zip(group["item"][()], group["role"][()]))
            count = len(places[task])
            contents["tasks"][task] = {"kind": "last_word", "sequences": [ids[begin:end] for begin, end in zip(offsets, offsets[1:])],
                                       "scored_from": group["scored_from"][()], "item": range(count), "role": [0] * count, "strings": {}}
    write_token_file(folder / "sequences.h5", contents)
    single = evaluated(binary, model, folder / "sequences.h5", folder / "sequences.json")
    results = {}
    for task in files:
        columns = single[task]["per_item"]["columns"]
        scores = [[] for _ in range(1 + max(item for item, _ in places[task]))]
        for (item, role), total, greedy in sorted(zip(places[task], columns["log_likelihood"], columns["correct"])):
            assert role == len(scores[item])
            scores[item].append((total, bool(greedy)))
        results[task] = report[task], scores
    return results


def evaluated(binary, model, tokens, out):
    subprocess.run([binary, "eval", "--model", model, "--tokens", tokens, "--out", out], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads(out.read_text())["tasks"]


def compared(task, ours, theirs):
    """Prints one task's line. @returns whether both agree"""
    report, our_scores = ours
    figures, their_scores, samples = theirs
    if len(our_scores) != len(their_scores):
        print(f"{task}: {len(our_scores)} items here, {len(their_scores)} there")
        return False
    if task == "bbq":  # the harness adds wordings of "unknown", in place of the item's own: the two other answers are in both
        places = [[place for place in range(3) if place != unknown] for unknown in unknown_choices(samples)]
        our_scores = [[scores[place] for place in kept] for scores, kept in zip(our_scores, places)]
        their_scores = [scores[:2] for scores in their_scores]
    ours_flat = np.array([score for scores in our_scores for score in scores])
    theirs_flat = np.array([score for scores in their_scores for score in scores])
    differences = np.abs(ours_flat[:, 0] - theirs_flat[:, 0])
    excess = differences - np.maximum(TOLERANCE, RELATIVE_TOLERANCE * np.abs(theirs_flat[:, 0]))
    other_greedy = int((ours_flat[:, 1] != theirs_flat[:, 1]).sum())
    words, agrees = [], excess.max() <= 0 and other_greedy == 0
    for name, values in items_of(report).items():
        other = [item for item, sample in enumerate(samples) if name in sample and sample[name] != values[item]]
        agrees = agrees and not other
        if other:
            words.append(f"{name} of the items {other} is not the same")
    for name, (figure, factor) in FIGURES.get(report["kind"], {}).items():
        if name in figures:
            value = factor * report[figure]
            words.append(f"{name} {value:.6g} here, {figures[name]:.6g} there")
            agrees = agrees and abs(value - figures[name]) <= TOLERANCE * max(1, abs(figures[name]))
    print(f"{task}: {len(our_scores)} items, {len(ours_flat)} choices, largest difference of a log-probability {differences.max():.2e} "
          f"of {abs(theirs_flat[differences.argmax(), 0]):.0f}, {int((differences > TOLERANCE).sum())} above {TOLERANCE:g}, "
          f"{other_greedy} found greedy by one alone; {'; '.join(words) or 'figures are defined otherwise'}{'' if agrees else '   DIFFERS'}")
    return agrees


def items_of(report):
    """{the harness's figure: its value for each item, 0 or 1} of what the program's report says of each item"""
    columns = report["per_item"]["columns"]
    if report["kind"] == "multiple_choice":
        return {"acc": columns["correct"], "acc_norm": columns["correct_norm"]}
    if report["kind"] == "last_word":
        return {"acc": columns["correct"]}
    if report["kind"] == "pair_preference":
        return {"pct_stereotype": [float(difference > 0) for difference in columns["difference"]]}
    return {}


def unknown_choices(samples):
    for sample in samples:
        yield next(place for place in range(3) if sample["doc"]["answer_info"][f"ans{place}"][1] == "unknown")


class Rows(list):
    """Rows with the one thing that the harness's function wants of a data set."""

    def map(self, change):
        return [change(row) for row in self]


def compare_biased_answers(path):
    """Prints how often tools/bbq.py and the harness's rules find the same biased answer. @returns whether always, where both find one"""
    sys.path.insert(0, str(ROOT / "tools"))
    from bbq import read_bbq
    from lm_eval.tasks.bbq.utils import process_docs
    ours = {question.where: question.extra["biased_choice"] for question in read_bbq(path)[0]}
    same = other = alone = 0
    for number, row in enumerate(process_docs(Rows(read_jsonl(path))), 1):
        theirs = [place for place in range(3) if row[f"ans{place}"] in row["biased_answers"]]
        found = ours.get(f"{path} line {number}")
        if found is None or len(theirs) != 1:
            alone += 1
        elif theirs[0] == found:
            same += 1
        else:
            other += 1
    print(f"{path.name}: the same biased answer in {same} questions, another in {other}; in {alone} one of the two finds none, or two")
    return other == 0


def with_few_positions(model, positions, folder):
    """The same model with a context of few tokens: its files by links, config.json rewritten."""
    small = folder / "model"
    small.mkdir()
    for file in Path(model).resolve().iterdir():
        if file.name != "config.json":
            (small / file.name).symlink_to(file)
    config = json.loads((Path(model) / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    return small


def compare(title, binary, model, files, folder):
    folder.mkdir()
    print(title, flush=True)
    theirs = with_harness(model, files, folder)
    ours = with_fairgptq(binary, model, files, folder)
    return all([compared(task, ours[task], theirs[task]) for task in files])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared/data", help="folder with PIQA, CrowS-Pairs and BBQ")
    parser.add_argument("--bbq", type=Path, nargs="*", default=[], metavar="FILE", help="BBQ's files: compare which answers are biased, too")
    parser.add_argument("--items", type=int, default=200, help="at most so many items of a benchmark (default 200)")
    parser.add_argument("--positions", type=int, default=40, help="the second round's context, in tokens (default 40)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--binary", default=str(ROOT / "build/release/fairgptq"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    agrees = all([compare_biased_answers(path) for path in arguments.bbq])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = data_files(arguments.shared, folder, arguments.items)
        agrees &= compare("As the model is:", arguments.binary, arguments.model, files, folder / "whole")
        # Choices have to fit, prompts need not: solutions of PIQA of at most 100 letters, about 25 tokens.
        short = [row for row in read_jsonl(files["piqa"]) if max(len(row["sol1"]), len(row["sol2"])) <= 100]
        cut = {"piqa": write_jsonl(folder / "short.jsonl", short), "lambada": files["lambada"], "arc_easy": files["arc_easy"]}
        small = with_few_positions(arguments.model, arguments.positions, folder)
        agrees &= compare(f"With {arguments.positions} positions, prompts cut:", arguments.binary, small, cut, folder / "cut")
    print("both agree" if agrees else "they DIFFER")
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
