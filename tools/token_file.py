"""Writes the token file: HDF5 under a seal that tells a whole file from a damaged one. Equal contents give equal bytes."""
import json

import h5py
import numpy as np

from seal import USER_BLOCK, sealed
from support import write_whole


def write_token_file(path, contents):
    """Makes the file in memory, since HDF5 does not survive a full disk, seals it, and writes it whole.

    @param contents  tokenizer_sha256, vocab_size, sources; and, each where there is one, text (sequences), pairs
                     (stereotype, anti_stereotype: sequences; unrelated: sequences or None; category: strings),
                     tasks {name: task}. A task has kind, sequences, scored_from, item, role; strings {dataset: one per item};
                     and numbers {dataset: array}, written with the array's type.
    """
    with h5py.File("in memory", "w", driver="core", backing_store=False, userblock_size=USER_BLOCK) as file:
        _write_contents(file, contents)
        file.flush()
        data = file.id.get_file_image()  # without the user block
    write_whole(path, sealed(data))


def _write_contents(file, contents):
    file.attrs["format"] = "fairgptq-tokens"
    file.attrs["version"] = 1
    file.attrs["tokenizer_sha256"] = contents["tokenizer_sha256"]
    file.attrs["vocab_size"] = contents["vocab_size"]
    file.attrs["sources"] = json.dumps(contents["sources"], sort_keys=True)
    if contents.get("text"):
        _write_sequences(file.create_group("text"), contents["text"])
    if contents.get("pairs"):
        pairs = contents["pairs"]
        for side in ("stereotype", "anti_stereotype", "unrelated"):
            if pairs.get(side):
                _write_sequences(file.create_group(f"pairs/{side}"), pairs[side])
        _write_strings(file["pairs"], "category", pairs["category"])
    for name, task in contents.get("tasks", {}).items():
        group = file.create_group(f"tasks/{name}")
        group.attrs["kind"] = task["kind"]
        _write_sequences(group, task["sequences"])
        for column in ("scored_from", "item", "role"):
            group[column] = np.asarray(task[column], dtype=np.int32)
        for column, numbers in task.get("numbers", {}).items():
            group[column] = numbers
        for column, strings in task["strings"].items():
            _write_strings(group, column, strings)


def _write_sequences(group, sequences):
    """Token ids end to end, and where each sequence begins; the last offset is the number of ids."""
    lengths = [len(sequence) for sequence in sequences]
    group["token_ids"] = np.concatenate([np.asarray(sequence, dtype=np.int32) for sequence in sequences])
    group["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _write_strings(group, name, strings):
    group.create_dataset(name, data=np.array(strings, dtype=object), dtype=h5py.string_dtype())
