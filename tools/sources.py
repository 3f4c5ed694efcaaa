"""Reads sentence sources: StereoSet, CrowS-Pairs, and pairs of the user's own. Each becomes a list of Item."""
import csv
import io
import json
from dataclasses import dataclass

from support import InvalidInput, read_text


@dataclass(frozen=True)
class Item:
    """Sentences that are compared with each other: stereotype, anti-stereotype, and for StereoSet an unrelated one."""

    sentences: tuple
    group: str  # what a metric averages over: StereoSet's target term, else the category
    category: str  # kind of bias
    where: str  # file and line, for messages


STEREOSET_ROLES = ("stereotype", "anti-stereotype", "unrelated")
PAIR_COLUMNS = (("stereotype", "anti_stereotype"), ("sent_more", "sent_less"))
CATEGORY_COLUMNS = ("category", "bias_type")


def read_stereoset(path):
    """Intrasentence items of StereoSet: its original JSON, or JSON lines with a triple each."""
    text = read_text(path)
    try:
        whole = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        whole = None
    original = isinstance(whole, dict) and "data" in whole
    items = _original_stereoset(path, whole) if original else _stereoset_lines(path, text)
    return _not_empty(items, path, "StereoSet intrasentence items")


def read_crows_pairs(path):
    """CrowS-Pairs: sent_more is the sentence that stereotypes more, whichever group it speaks of."""
    return read_pairs(path, ("sent_more", "sent_less"))


def read_pairs(path, columns=None):
    """Two sentence columns of a CSV file with a header line, or of JSON lines; a category column is taken where there is one.

    @param columns  names of the stereotypical and the anti-stereotypical column; None: the first of PAIR_COLUMNS present
    """
    rows = list(_json_lines(path, read_text(path)) if str(path).endswith((".jsonl", ".json")) else _csv_rows(path))
    _not_empty(rows, path, "sentence pairs")
    names = rows[0][1].keys()
    if columns is None:
        columns = next((pair for pair in PAIR_COLUMNS if set(pair) <= set(names)), None)
        if columns is None:
            raise InvalidInput(f"{path} has the columns {_listed(names)}; say with --pair-columns which two hold the sentences")
    category_column = next((name for name in CATEGORY_COLUMNS if name in names), None)
    items = []
    for where, row in rows:
        category = _string(row, category_column, where) if category_column else ""
        items.append(Item(tuple(_sentence(row, column, where) for column in columns), category, category, where))
    return items


def _original_stereoset(path, whole):
    """StereoSet's dev.json: data.intrasentence[].sentences[] with gold_label."""
    data = whole["data"]
    entries = data.get("intrasentence") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise InvalidInput(f"{path} lacks data.intrasentence, which StereoSet's original JSON has")
    items = []
    for index, entry in enumerate(entries):
        where = f"{path}: data.intrasentence[{index}]"
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if not isinstance(sentences, list) or not all(isinstance(sentence, dict) for sentence in sentences):
            raise InvalidInput(f"{where} lacks its list of sentences")
        by_label = {_string(sentence, "gold_label", where): sentence for sentence in sentences}
        if len(sentences) != len(STEREOSET_ROLES) or set(by_label) != set(STEREOSET_ROLES):
            raise InvalidInput(f"{where} must have one sentence of each gold_label: {_listed(STEREOSET_ROLES)}")
        items.append(Item(tuple(_sentence(by_label[role], "sentence", where) for role in STEREOSET_ROLES),
                          _string(entry, "target", where), _string(entry, "bias_type", where), where))
    return items


def _stereoset_lines(path, text):
    """One triple a line: stereotype, anti_stereotype, unrelated, target, bias_type."""
    return [Item(tuple(_sentence(row, role.replace("-", "_"), where) for role in STEREOSET_ROLES),
                 _string(row, "target", where), _string(row, "bias_type", where), where)
            for where, row in _json_lines(path, text)]


def _json_lines(path, text):
    """Yields (where, object) of each line that is not blank."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InvalidInput(f"{where} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InvalidInput(f"{where} is not a JSON object")
        yield where, row


def _csv_rows(path):
    """Yields (where, {column: text}) of each row below the header."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            where = f"{path} line {reader.line_num}"
            if None in row or None in row.values():
                raise InvalidInput(f"{where} has not as many fields as the header has columns ({len(reader.fieldnames)})")
            yield where, row
    except csv.Error as error:
        raise InvalidInput(f"{path} line {reader.line_num} is not CSV: {error}") from None


def _string(row, name, where):
    value = row.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"{where} lacks a text '{name}'; it has {_listed(row)}")
    return value


def _sentence(row, name, where):
    value = _string(row, name, where).strip()
    if not value:
        raise InvalidInput(f"{where}: '{name}' is empty")
    return value


def _listed(names):
    return ", ".join(f"'{name}'" for name in names) or "none"


def _not_empty(items, path, what):
    if not items:
        raise InvalidInput(f"{path} holds no {what}")
    return items
