#!/usr/bin/env python3
"""Makes a token file: sentence pairs, text and benchmarks, as token ids of the model's own tokenizer.

Every sentence begins with the model's start token, where its tokenizer has one. Text is cut as is usual for perplexity: the
file is one stream, start token first, in windows. Questions and their choices are put as lm-evaluation-harness puts them.
What is picked and split at random depends on --seed alone.
"""
import random
from pathlib import Path

from bbq import read_bbq, read_targets
from model_tokens import read_model, sha256_of
from questions import read_arc, read_hellaswag, read_last_words, read_piqa, read_story_cloze
from sentence_pairs import read_crows_pairs, read_pairs, read_stereoset
from sofa import read_sofa
from support import InvalidInput, Parser, check_out, run
from tasks import choice_task, items_of, perplexity_task, probe_task, sentence_task
from texts import cut, read_running_text, windows_of
from token_file import write_token_file

USES = ("calibration", "evaluation", "split")
PAIR_SOURCES = ("stereoset", "crows_pairs", "pairs")
PAIR_SIDES = ("stereotype", "anti_stereotype", "unrelated")  # of an item's sentences; the third is StereoSet's alone
BENCHMARKS = {  # of one file and one reader each: name, kind of task, reader
    "arc_easy": ("multiple_choice", read_arc),
    "arc_challenge": ("multiple_choice", read_arc),
    "hellaswag": ("multiple_choice", read_hellaswag),
    "story_cloze": ("multiple_choice", read_story_cloze),
    "lambada": ("last_word", read_last_words),
}
SOURCES = (*PAIR_SOURCES, "text", "perplexity", "bbq", "sofa", "piqa", *BENCHMARKS)


def choose(items, count, seed, name):
    """`count` of the items, picked at random, in their own order."""
    if count >= len(items):
        return list(items)
    picked = random.Random(f"{seed}/{name}").sample(range(len(items)), count)
    return [items[index] for index in sorted(picked)]


def split(items, use, seed, name):
    """@returns (calibration, evaluation) items; `split` halves them at random, calibration taking the odd one"""
    if use != "split":
        return (items, []) if use == "calibration" else ([], items)
    if len(items) < 2:
        raise InvalidInput(f"{name} has {len(items)} item, too few to split; use --use {name}=calibration or =evaluation")
    indices = list(range(len(items)))
    random.Random(f"{seed}/{name}/split").shuffle(indices)
    middle = (len(items) + 1) // 2
    return [items[i] for i in sorted(indices[:middle])], [items[i] for i in sorted(indices[middle:])]


def pair_kind(name):
    return "stereoset" if name == "stereoset" else "pair_preference"


class Preparation:
    """The token file's contents as they grow, source by source, with a line of summary for each."""

    def __init__(self, model, options):
        self.model, self.options = model, options
        self.uses = parse_uses(options)
        self.contents = {"tokenizer_sha256": model.tokenizer_sha256, "vocab_size": model.vocab_size, "sources": [],
                         "text": [], "tasks": {}}
        self.windows = []  # of the perplexity task

    def add_source(self, name, path, **counts):
        self.contents["sources"].append({"name": name, "file": Path(path).name, "sha256": sha256_of(path),
                                         "seed": self.options.seed, **counts})
        words = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())
        print(f"{name}: {Path(path).name}: {words}")

    def add_pairs(self, name, path, items):
        """Pairs for calibration, items for evaluation, or some of each."""
        read = len(items)
        items = choose(items, self.options.max_pairs or read, self.options.seed, name)
        calibration, evaluation = split(items, self.uses.get(name, "split"), self.options.seed, name)
        if calibration:
            pairs = self.contents.setdefault("pairs", {"stereotype": [], "anti_stereotype": [], "unrelated": [], "category": []})
            for item in calibration:
                for side, sentence in zip(PAIR_SIDES, item.sentences):
                    pairs[side].append(self.model.sentence(sentence, item.where))
                pairs["category"].append(item.category)
        if evaluation:
            self.contents["tasks"][name] = sentence_task(self.model, evaluation, pair_kind(name))
        self.add_source(name, path, items_read=read, calibration_pairs=len(calibration), evaluation_items=len(evaluation))

    def add_stereoset(self, path):
        """Intrasentence items as pairs; intersentence items, where the file has them, are for evaluation alone."""
        intrasentence, intersentence = read_stereoset(path)
        self.add_pairs("stereoset", path, intrasentence)
        if intersentence and self.uses.get("stereoset") != "calibration":
            name = "stereoset_intersentence"
            items = choose(intersentence, self.options.max_pairs or len(intersentence), self.options.seed, name)
            self.contents["tasks"][name] = sentence_task(self.model, items, "stereoset")
            self.add_source(name, path, items_read=len(intersentence), evaluation_items=len(items))

    def add_questions(self, name, kind, path, questions):
        """A benchmark of questions in one file."""
        kept = choose(questions, self.options.max_items or len(questions), self.options.seed, name)
        self.contents["tasks"][name] = choice_task(self.model, kept, kind)
        self.add_source(name, path, items_read=len(questions), evaluation_items=len(kept))

    def add_bbq(self, paths, targets_path):
        targets, questions = None, []
        if targets_path:
            targets = read_targets(targets_path)
            self.add_source("bbq_metadata", targets_path, targets_read=len(targets))
        for path in paths:
            found, without_target = read_bbq(path, targets)
            kept = choose(found, self.options.max_items or len(found), self.options.seed, f"bbq/{found[0].extra['category']}")
            questions += kept
            self.add_source("bbq", path, items_read=len(found) + without_target, left_out_without_target=without_target,
                            evaluation_items=len(kept))
        self.contents["tasks"]["bbq"] = choice_task(self.model, questions, "bbq")

    def add_sofa(self, path):
        sets, repeated = read_sofa(path)
        kept = choose(sets, self.options.max_items or len(sets), self.options.seed, "sofa")
        self.contents["tasks"]["sofa"] = probe_task(self.model, kept)
        self.add_source("sofa", path, stereotypes_read=len(sets), repeated_rows_left_out=repeated, evaluation_items=len(kept))

    def add_text(self, path):
        """A text for calibration, for perplexity, or its first half for the one and the second for the other."""
        ids = self.stream(path)
        use = self.uses.get("text", "calibration")
        middle = {"calibration": len(ids), "evaluation": 0, "split": len(ids) // 2}[use]
        sequences = cut(ids[:middle], self.options.sequence_length, keep_rest=True)
        if use != "evaluation" and not sequences:
            raise InvalidInput(f"{path} is too short for calibration: {len(ids)} tokens")
        windows = self.cut_windows(path, ids[middle:]) if use != "calibration" else []
        self.contents["text"] += sequences
        self.windows += windows
        self.add_source("text", path, tokens_read=len(ids), sequences_found=len(sequences), perplexity_windows_found=len(windows))

    def add_perplexity(self, path):
        ids = self.stream(path)
        windows = self.cut_windows(path, ids)
        self.windows += windows
        self.add_source("perplexity", path, tokens_read=len(ids), perplexity_windows_found=len(windows))

    def stream(self, path):
        return self.model.start + self.model.tokens_of(read_running_text(path))

    def cut_windows(self, path, ids):
        windows = windows_of(ids, self.options.window, self.options.stride)
        if not windows or len(ids) < self.options.window:
            raise InvalidInput(f"{path} gives {len(ids)} tokens for perplexity, less than one window; "
                               f"use a longer text or a --window below {self.options.window}")
        return [(Path(path).name, *window) for window in windows]

    def finish(self):
        """Keeps as much text as was asked for, and prints what the file will hold."""
        options = self.options
        self.contents["text"] = limit(self.contents["text"], options.max_text_tokens, options.sequence_length,
                                      options.seed, "--max-text-tokens")
        windows = limit(self.windows, options.max_perplexity_tokens, options.window, options.seed, "--max-perplexity-tokens")
        if windows:
            self.contents["tasks"]["perplexity"] = perplexity_task(windows)
        pairs = self.contents.get("pairs", {"stereotype": [], "anti_stereotype": [], "unrelated": []})
        if len(pairs["unrelated"]) != len(pairs["stereotype"]):
            pairs["unrelated"] = []  # a control needs an unrelated sentence for every pair
        calibration = {"text": self.contents["text"], "pairs": pairs["stereotype"] + pairs["anti_stereotype"],
                       "unrelated sentences": pairs["unrelated"]}
        for name, sequences in calibration.items():
            if sequences:
                print(f"calibration, {name}: {len(sequences):,} sequences, {sum(map(len, sequences)):,} tokens")
        for name, task in self.contents["tasks"].items():
            print(f"evaluation, {name}: {items_of(task):,} items, {sum(map(len, task['sequences'])):,} tokens")
        return self.contents


def limit(sequences, max_tokens, length, seed, option):
    """At most `max_tokens` tokens in whole sequences of `length`, picked at random from all of them."""
    if max_tokens is None or not sequences:
        return sequences
    if max_tokens < length:
        raise InvalidInput(f"{option} {max_tokens} is less than one sequence of {length} tokens")
    return choose(sequences, max_tokens // length, seed, option)


def parse_uses(options):
    """{source: use} of the --use options."""
    uses = {}
    given = {name for name in (*PAIR_SOURCES, "text") if getattr(options, name)}
    for text in options.use:
        name, _, use = text.partition("=")
        name = name.replace("-", "_")
        if name not in (*PAIR_SOURCES, "text") or use not in USES:
            raise InvalidInput(f"--use {text} is not NAME=USE with NAME one of {', '.join(PAIR_SOURCES)}, text "
                               f"and USE one of {', '.join(USES)}")
        if name not in given:
            raise InvalidInput(f"--use {text}: there is no --{name.replace('_', '-')} to use")
        uses[name] = use
    return uses


def positive(text):
    value = int(text)
    if value <= 0:
        raise ValueError
    return value


positive.__name__ = "positive whole number"  # what argparse names in its message


def parse_options():
    parser = Parser(description="Turns sentence pairs, text and benchmarks into a token file for fairgptq. "
                                "tools/DATA.md says where to get each.")
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder; its tokenizer.json and config.json are read")
    parser.add_argument("--out", required=True, metavar="FILE.h5", help="token file to write; an existing one is replaced when the new one is whole")
    pairs = parser.add_argument_group("sentence pairs, for calibration and evaluation")
    pairs.add_argument("--stereoset", metavar="FILE", help="StereoSet's original JSON, or JSON lines with a triple each")
    pairs.add_argument("--crows-pairs", metavar="CSV", help="CrowS-Pairs")
    pairs.add_argument("--pairs", metavar="FILE", help="your own pairs: CSV with a header line, JSON lines (.jsonl) or Parquet")
    pairs.add_argument("--pair-columns", metavar="A,B", help="columns of --pairs with the stereotypical and the anti-stereotypical sentence (default: stereotype,anti_stereotype or sent_more,sent_less)")
    texts = parser.add_argument_group("text: plain, or the column 'text' of JSON lines or Parquet")
    texts.add_argument("--text", nargs="+", metavar="FILE", help="text for calibration")
    texts.add_argument("--perplexity", nargs="+", metavar="FILE", help="text for the perplexity task")
    fairness = parser.add_argument_group("fairness benchmarks, for evaluation")
    fairness.add_argument("--bbq", nargs="+", metavar="FILE", help="BBQ's files of JSON lines, one or more categories")
    fairness.add_argument("--bbq-metadata", metavar="CSV", help="BBQ's additional_metadata.csv: which answer is each question's target (default: the lines themselves tell, but for part of the files on two traits)")
    fairness.add_argument("--sofa", metavar="FILE", help="SOFA's probes: CSV, JSON lines or Parquet")
    ability = parser.add_argument_group("ability benchmarks, for evaluation, with lm-evaluation-harness's prompts")
    ability.add_argument("--piqa", metavar="FILE", help="PIQA: JSON lines or Parquet")
    ability.add_argument("--piqa-labels", metavar="FILE", help="PIQA's right answers, where --piqa has no column 'label'")
    ability.add_argument("--arc-easy", metavar="FILE", help="ARC, easy: AI2's JSON lines, or the hub's Parquet")
    ability.add_argument("--arc-challenge", metavar="FILE", help="ARC, challenge: the same")
    ability.add_argument("--hellaswag", metavar="FILE", help="HellaSwag: JSON lines or Parquet")
    ability.add_argument("--story-cloze", metavar="FILE", help="Story Cloze: a CSV with the answers")
    ability.add_argument("--lambada", metavar="FILE", help="LAMBADA: a passage a line, or JSON lines or Parquet with a column 'text'")
    parser.add_argument("--use", action="append", default=[], metavar="NAME=USE", help="what a source is for: NAME stereoset, crows_pairs, pairs or text; USE calibration, evaluation or split (default: pairs split, text calibration)")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--max-pairs", type=positive, metavar="N", help="use at most N items of each source of pairs, picked at random")
    parser.add_argument("--max-items", type=positive, metavar="N", help="use at most N items of each benchmark (of BBQ: of each category), picked at random")
    parser.add_argument("--sequence-length", type=positive, metavar="N", help="tokens of a calibration sequence (default 512)")
    parser.add_argument("--max-text-tokens", type=positive, default=32768, metavar="N", help="calibration text in all, picked at random (default 32768)")
    parser.add_argument("--window", type=positive, metavar="N", help="tokens of a perplexity window (default 2048)")
    parser.add_argument("--stride", type=positive, metavar="N", help="let perplexity windows overlap, each N tokens after the one before; only new tokens count (default: side by side)")
    parser.add_argument("--max-perplexity-tokens", type=positive, metavar="N", help="perplexity text in all, picked at random (default: all)")
    return parser.parse_args()


def check_special_tokens(folder, model):
    """Refuses what may be put before a text (the end token where there is no start token) and is none of the model's tokens."""
    for name, ids in (("the bos_token", model.start), ("the eos_token", [] if model.start else model.end),
                      ("what tokenizer.json puts before a text", model.prefix)):
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < model.vocab_size:
                raise InvalidInput(f"--model {folder}: the id of {name} must be a whole number below config.json's vocab_size, "
                                   f"{model.vocab_size}, and is {repr(token)[:40]}")


def check_options(options, model):
    """Fills in what depends on the model, and refuses what contradicts itself."""
    check_out(options.out)
    check_special_tokens(options.model, model)
    for name, default, tokens in (("sequence_length", 512, options.max_text_tokens),
                                  ("window", 2048, options.max_perplexity_tokens)):
        length = getattr(options, name) or min(default, model.max_positions, tokens or default)
        if not 2 <= length <= model.max_positions:
            raise InvalidInput(f"--{name.replace('_', '-')} {length} must be from 2 to the model's {model.max_positions} positions")
        setattr(options, name, length)
    if options.pair_columns is not None:
        columns = tuple(options.pair_columns.split(","))
        if not options.pairs or len(columns) != 2 or not all(columns) or columns[0] == columns[1]:
            raise InvalidInput("--pair-columns names two different columns of --pairs, as A,B")
        options.pair_columns = columns
    if options.stride is not None:
        if not options.perplexity and parse_uses(options).get("text", "calibration") == "calibration":
            raise InvalidInput("--stride is for perplexity windows, and there is no text for perplexity")
        if options.stride > options.window:
            raise InvalidInput(f"--stride {options.stride} is more than a window of {options.window} tokens and would leave tokens out")
    for name, needs in (("piqa_labels", "piqa"), ("bbq_metadata", "bbq")):
        if getattr(options, name) and not getattr(options, needs):
            raise InvalidInput(f"--{name.replace('_', '-')} belongs to --{needs}, which is not given")
    if not any(getattr(options, name) for name in SOURCES):
        raise InvalidInput("there is nothing to prepare: give --stereoset, --crows-pairs, --pairs, --text, --perplexity or a "
                           "benchmark (--help lists them)")
    if len({Path(path).resolve() for path in options.bbq or []}) != len(options.bbq or []):
        raise InvalidInput("--bbq names the same file twice")
    texts = [*(options.text or []), *(options.perplexity or [])]
    digests = {}
    for path in texts:
        read_running_text(path)
        other = digests.setdefault(sha256_of(path), path)
        if other is not path:
            raise InvalidInput(f"{path} and {other} are the same text: calibration and evaluation must be kept apart "
                               "(--use text=split halves one text)")


def main():
    options = parse_options()
    model = read_model(options.model)
    check_options(options, model)
    preparation = Preparation(model, options)
    if options.stereoset:
        preparation.add_stereoset(options.stereoset)
    if options.crows_pairs:
        preparation.add_pairs("crows_pairs", options.crows_pairs, read_crows_pairs(options.crows_pairs))
    if options.pairs:
        preparation.add_pairs("pairs", options.pairs, read_pairs(options.pairs, options.pair_columns))
    for path in options.text or []:
        preparation.add_text(path)
    for path in options.perplexity or []:
        preparation.add_perplexity(path)
    if options.bbq:
        preparation.add_bbq(options.bbq, options.bbq_metadata)
    if options.sofa:
        preparation.add_sofa(options.sofa)
    if options.piqa:
        preparation.add_questions("piqa", "multiple_choice", options.piqa, read_piqa(options.piqa, options.piqa_labels))
        if options.piqa_labels:
            preparation.add_source("piqa_labels", options.piqa_labels, labels_read=preparation.contents["sources"][-1]["items_read"])
    for name, (kind, read) in BENCHMARKS.items():
        path = getattr(options, name)
        if path:
            preparation.add_questions(name, kind, path, read(path))
    write_token_file(options.out, preparation.finish())
    print(f"{options.out}: written")


if __name__ == "__main__":
    run(main)
