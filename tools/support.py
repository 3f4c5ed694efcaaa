"""What every tool here shares: how it fails. One sentence on stderr; exit code 2 for wrong usage or unusable input, 1 else."""
import argparse
import contextlib
import json
import os
import sys
from pathlib import Path


class InvalidInput(Exception):
    """Something the user can put right; the message names the file or option and what would be right."""


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before an error: errors are one sentence."""

    def error(self, message):
        raise InvalidInput(f"{message} (--help lists the options)")


def run(main):
    """Calls main() and ends the program with the exit code that its outcome stands for."""
    try:
        main()
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell counts an end by Ctrl-C


def check_out(path, option="--out"):
    """Refuses what no file can be written as, before the work that would be lost."""
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"{option} {path} is a folder; name a file to write")
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{option} {path} is not an ordinary file; name a file to write")
    if not path.parent.is_dir():
        raise InvalidInput(f"{option} {path}: the folder {path.parent} does not exist")


def write_whole(path, data, option="--out"):
    """Writes a file of these bytes under a temporary name, and gives it its own when all is on the disk."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise InvalidInput(f"{option} {path} cannot be written: {error.strerror or error}".lstrip()) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def read_text(path):
    """A whole UTF-8 file, refused with a sentence if it is missing, is no file or is not UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    try:
        # newline="": what the file holds; csv and JSON take either line ending.
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None


def read_json_object(path):
    """The JSON object that a file holds."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError itself: a number of more digits than Python takes
        raise InvalidInput(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} does not hold a JSON object")
    return value


# What transformers takes where a text model's settings leave it out, as Gemma 3's with pictures do.
TEXT_DEFAULTS = {"gemma3_text": {"vocab_size": 262208, "max_position_embeddings": 131072, "num_attention_heads": 8, "num_key_value_heads": 4,
                                 "head_dim": 256}}


def text_config(config):
    """Of a model's config.json the settings of its text model, which are an object of their own where it takes pictures, too."""
    text = config.get("text_config")
    text = {"model_type": f"{config.get('model_type')}_text", **text} if isinstance(text, dict) else config
    given = {name: value for name, value in text.items() if value is not None}
    return {**TEXT_DEFAULTS.get(text.get("model_type"), {}), **given}
