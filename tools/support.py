"""What every tool here shares: how it fails. One sentence on stderr; exit code 2 for wrong usage or unusable input, 1 else."""
import argparse
import json
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
    except (json.JSONDecodeError, RecursionError) as error:
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
