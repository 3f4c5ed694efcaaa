"""What the tests of tools/prepare.py share: model folders with small tokenizers, and token files read back."""
import json

import numpy as np
from running import run_tool
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WORDS = "the a nurse doctor said he she was late green happy young old man woman . text has more words than one".split()
START, POSITIONS = 1, 64


def write_model_folder(folder, tokenizer, vocab_size, positions):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
    (folder / "config.json").write_text(json.dumps({"vocab_size": vocab_size, "max_position_embeddings": positions}))
    return folder


def words_model(folder):
    """A model whose tokens are whole words."""
    vocabulary = {"<unk>": 0, "<s>": START, **{word: index for index, word in enumerate(dict.fromkeys(WORDS), 2)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return write_model_folder(folder, tokenizer, len(vocabulary) + 5, POSITIONS)


def bytes_model(folder, *, merges=(), adds_start=False, positions=1024, end=False):
    """A model whose tokens are bytes and the merges of two of them, so that ids decode to the text they came from.

    @param adds_start  whether the tokenizer itself puts the start token before a text, as Llama's does
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if adds_start:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", START)])
    write_model_folder(folder, tokenizer, len(vocabulary), positions)
    if end:
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "eos_token": "</s>"}))
    return folder


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prepare(model, out, *arguments):
    process = run_tool("prepare.py", "--model", model, "--out", out, *arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout


def sequences(group):
    ids, offsets = group["token_ids"][()], group["offsets"][()]
    assert ids.dtype == np.int32 and offsets.dtype == np.int64
    assert offsets[0] == 0 and offsets[-1] == len(ids) and (np.diff(offsets) > 0).all()
    return [ids[begin:end].tolist() for begin, end in zip(offsets, offsets[1:])]


def encode(model, text):
    return Tokenizer.from_file(str(model / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def scored_texts(model, task):
    """[(item, role, text before, text that is scored)] of a task's sequences."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=False)
    return [(int(item), int(role), decode(ids[:begin]), decode(ids[begin:])) for ids, begin, item, role in
            zip(sequences(task), task["scored_from"][()], task["item"][()], task["role"][()])]
