#!/usr/bin/env python3
"""Makes a token file: sentence pairs and text, as token ids of the model's own tokenizer, for calibration and evaluation.

Every sentence begins with the model's start token, where its tokenizer has one. Text is cut as is usual for perplexity: the
file is one stream, start token first, in windows of fixed length. What is picked and split at random depends on --seed alone.
"""
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from sources import read_crows_pairs, read_pairs, read_stereoset
from support import InvalidInput, Parser, read_json_object, read_text, run
from token_file import write_token_file

USES = ("calibration", "evaluation", "split")
PAIR_SOURCES = ("stereoset", "crows_pairs", "pairs")


@dataclass
class Model:
    """What a token file needs to know of a model."""

    tokenizer: Tokenizer
    tokenizer_sha256: str
    start: list  # the start token's id, or nothing
    vocab_size: int
    max_positions: int

    def tokens_of(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def sentence(self, text, where):
        """Token ids of a sentence, start token first."""
        ids = self.start + self.tokens_of(text)
        if len(ids) < 2:
            raise InvalidInput(f"{where}: a sentence of {len(ids)} tokens has nothing to score; at least 2 are needed")
        if len(ids) > self.max_positions:
            raise InvalidInput(f"{where}: a sentence has {len(ids)} tokens, and the model takes {self.max_positions}")
        return ids


def read_model(folder):
    """Tokenizer and sizes from a Hugging Face model folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(f"--model {folder} is not a folder")
    config = read_json_object(folder / "config.json")
    sizes = {}
    for name in ("vocab_size", "max_position_embeddings"):
        sizes[name] = config.get(name)
        if not isinstance(sizes[name], int) or sizes[name] <= 0:
            raise InvalidInput(f"{folder / 'config.json'} lacks a positive whole number '{name}'")
    path = folder / "tokenizer.json"
    text = read_text(path)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise InvalidInput(f"{path} is not a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= sizes["vocab_size"]:
        raise InvalidInput(f"{path} has the token id {largest}, beyond config.json's vocab_size {sizes['vocab_size']}: "
                           "tokenizer and model do not belong together")
    return Model(tokenizer, sha256_of(path), start_token(folder, config, tokenizer), sizes["vocab_size"],
                 sizes["max_position_embeddings"])


def start_token(folder, config, tokenizer):
    """The start token's id as a list, empty for a model without one: tokenizer_config.json says, or else config.json."""
    path = folder / "tokenizer_config.json"
    if not path.exists():
        token = config.get("bos_token_id")
        return [] if token is None else [token]
    token = read_json_object(path).get("bos_token")
    if isinstance(token, dict):  # an AddedToken written out
        token = token.get("content")
    if token is None:
        return []
    index = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if index is None:
        raise InvalidInput(f"{path}: the bos_token {token!r} is not in tokenizer.json's vocabulary")
    return [index]


def sha256_of(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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


def cut(ids, length, keep_rest):
    """A stream in windows of `length` tokens; a shorter rest of at least two tokens is kept on request."""
    windows = [ids[begin:begin + length] for begin in range(0, len(ids), length)]
    shortest = 2 if keep_rest else length
    return [window for window in windows if len(window) >= shortest]


def sentence_task(model, items, name):
    """An evaluation task of sentences that are compared within each item."""
    task = {"kind": "stereoset" if name == "stereoset" else "pair_preference", "sequences": [], "scored_from": [],
            "item": [], "role": [], "strings": {"group": [item.group for item in items]}}
    if name == "stereoset":
        task["strings"]["bias_type"] = [item.category for item in items]
    for index, item in enumerate(items):
        for role, sentence in enumerate(item.sentences):
            task["sequences"].append(model.sentence(sentence, item.where))
            task["scored_from"].append(1)
            task["item"].append(index)
            task["role"].append(role)
    return task


def perplexity_task(windows):
    """An evaluation task of fixed windows. @param windows  [(file's name, token ids)]"""
    count = len(windows)
    return {"kind": "perplexity", "sequences": [ids for _, ids in windows], "scored_from": [1] * count,
            "item": list(range(count)), "role": [0] * count, "strings": {"group": [name for name, _ in windows]}}


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
        print(f"{name}: {Path(path).name}: " + ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items()))

    def add_pairs(self, name, path, items):
        """Pairs for calibration (of StereoSet: without the unrelated sentence), items for evaluation, or some of each."""
        read = len(items)
        items = choose(items, self.options.max_pairs or read, self.options.seed, name)
        calibration, evaluation = split(items, self.uses.get(name, "split"), self.options.seed, name)
        if calibration:
            pairs = self.contents.setdefault("pairs", {"stereotype": [], "anti_stereotype": [], "category": []})
            for item in calibration:
                pairs["stereotype"].append(self.model.sentence(item.sentences[0], item.where))
                pairs["anti_stereotype"].append(self.model.sentence(item.sentences[1], item.where))
                pairs["category"].append(item.category)
        if evaluation:
            self.contents["tasks"][name] = sentence_task(self.model, evaluation, name)
        self.add_source(name, path, items_read=read, calibration_pairs=len(calibration), evaluation_items=len(evaluation))

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
        ids = self.model.tokens_of(read_text(path))
        if not ids:
            raise InvalidInput(f"{path} holds no text")
        return self.model.start + ids

    def cut_windows(self, path, ids):
        windows = cut(ids, self.options.window, keep_rest=False)
        if not windows:
            raise InvalidInput(f"{path} gives {len(ids)} tokens for perplexity, less than one window; "
                               f"use a longer text or a --window below {self.options.window}")
        return [(Path(path).name, window) for window in windows]

    def finish(self):
        """Keeps as much text as was asked for, and prints what the file will hold."""
        options = self.options
        self.contents["text"] = limit(self.contents["text"], options.max_text_tokens, options.sequence_length,
                                      options.seed, "--max-text-tokens")
        windows = limit(self.windows, options.max_perplexity_tokens, options.window, options.seed, "--max-perplexity-tokens")
        if windows:
            self.contents["tasks"]["perplexity"] = perplexity_task(windows)
        pairs = self.contents.get("pairs", {"stereotype": [], "anti_stereotype": []})
        calibration = {"text": self.contents["text"], "pairs": pairs["stereotype"] + pairs["anti_stereotype"]}
        for name, sequences in calibration.items():
            print(f"calibration, {name}: {len(sequences):,} sequences, {sum(map(len, sequences)):,} tokens")
        for name, task in self.contents["tasks"].items():
            print(f"evaluation, {name}: {len(task['strings']['group']):,} items, {sum(map(len, task['sequences'])):,} tokens")
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
    parser = Parser(description="Turns sentence pairs and text into a token file for fairgptq.")
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder; its tokenizer.json and config.json are read")
    parser.add_argument("--out", required=True, metavar="FILE.h5", help="token file to write; an existing one is replaced when the new one is whole")
    parser.add_argument("--stereoset", metavar="FILE", help="StereoSet's original JSON, or JSON lines with a triple each")
    parser.add_argument("--crows-pairs", metavar="CSV", help="CrowS-Pairs")
    parser.add_argument("--pairs", metavar="FILE", help="your own pairs: CSV with a header line, or JSON lines (.jsonl)")
    parser.add_argument("--pair-columns", metavar="A,B", help="columns of --pairs with the stereotypical and the anti-stereotypical sentence (default: stereotype,anti_stereotype or sent_more,sent_less)")
    parser.add_argument("--text", nargs="+", metavar="FILE", help="plain text for calibration")
    parser.add_argument("--perplexity", nargs="+", metavar="FILE", help="plain text for the perplexity task")
    parser.add_argument("--use", action="append", default=[], metavar="NAME=USE", help="what a source is for: NAME stereoset, crows_pairs, pairs or text; USE calibration, evaluation or split (default: pairs split, text calibration)")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--max-pairs", type=positive, metavar="N", help="use at most N items of each source of pairs, picked at random")
    parser.add_argument("--sequence-length", type=positive, metavar="N", help="tokens of a calibration sequence (default 512)")
    parser.add_argument("--max-text-tokens", type=positive, default=32768, metavar="N", help="calibration text in all, picked at random (default 32768)")
    parser.add_argument("--window", type=positive, metavar="N", help="tokens of a perplexity window (default 2048)")
    parser.add_argument("--max-perplexity-tokens", type=positive, metavar="N", help="perplexity text in all, picked at random (default: all)")
    return parser.parse_args()


def check_options(options, model):
    """Fills in what depends on the model, and refuses what contradicts itself."""
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
    if not any((options.stereoset, options.crows_pairs, options.pairs, options.text, options.perplexity)):
        raise InvalidInput("there is nothing to prepare: give --stereoset, --crows-pairs, --pairs, --text or --perplexity")
    texts = [*(options.text or []), *(options.perplexity or [])]
    digests = {}
    for path in texts:
        read_text(path)
        other = digests.setdefault(sha256_of(path), path)
        if other is not path:
            raise InvalidInput(f"{path} and {other} are the same text: calibration and evaluation must be kept apart "
                               "(--use text=split halves one text)")
    if not Path(options.out).parent.is_dir():
        raise InvalidInput(f"--out {options.out}: the folder {Path(options.out).parent} does not exist")


def main():
    options = parse_options()
    model = read_model(options.model)
    check_options(options, model)
    preparation = Preparation(model, options)
    if options.stereoset:
        preparation.add_pairs("stereoset", options.stereoset, read_stereoset(options.stereoset))
    if options.crows_pairs:
        preparation.add_pairs("crows_pairs", options.crows_pairs, read_crows_pairs(options.crows_pairs))
    if options.pairs:
        preparation.add_pairs("pairs", options.pairs, read_pairs(options.pairs, options.pair_columns))
    for path in options.text or []:
        preparation.add_text(path)
    for path in options.perplexity or []:
        preparation.add_perplexity(path)
    write_token_file(options.out, preparation.finish())
    print(f"{options.out}: written")


if __name__ == "__main__":
    run(main)
