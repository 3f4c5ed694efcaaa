"""Reads sentences that are compared with each other: StereoSet, CrowS-Pairs, and pairs of the user's own."""
import json
from dataclasses import dataclass

from support import InvalidInput, read_text
from tables import json_rows, listed, not_empty, rows_of, sentence, string


@dataclass(frozen=True)
class Item:
    """Sentences that are compared with each other: stereotype, anti-stereotype, and for StereoSet an unrelated one."""

    sentences: tuple
    group: str  # what a metric averages over: StereoSet's target term, else the category
    category: str  # kind of bias
    where: str  # file and line, for messages
    context: str = ""  # what is said before each of the sentences, and not scored


STEREOSET_ROLES = ("stereotype", "anti-stereotype", "unrelated")
PAIR_COLUMNS = (("stereotype", "anti_stereotype"), ("sent_more", "sent_less"))
CATEGORY_COLUMNS = ("category", "bias_type")


def read_stereoset(path):
    """StereoSet: its original JSON, or JSON lines with an intrasentence triple each.

    @returns (intrasentence items, intersentence items); only the original JSON has the latter
    """
    text = read_text(path)
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and "data" in whole:
        intrasentence, intersentence = _original_stereoset(path, whole)
    else:
        intrasentence, intersentence = _stereoset_lines(path, text), []
    return not_empty(intrasentence, path, "StereoSet intrasentence items"), intersentence


def read_crows_pairs(path):
    """CrowS-Pairs: sent_more is the sentence that stereotypes more, whichever group it speaks of."""
    return read_pairs(path, ("sent_more", "sent_less"))


def read_pairs(path, columns=None):
    """Two sentence columns of a table; a category column is taken where there is one.

    @param columns  names of the stereotypical and the anti-stereotypical column; None: the first of PAIR_COLUMNS present
    """
    rows = not_empty(list(rows_of(path)), path, "sentence pairs")
    names = rows[0][1].keys()
    if columns is None:
        columns = next((pair for pair in PAIR_COLUMNS if set(pair) <= set(names)), None)
        if columns is None:
            raise InvalidInput(f"{path} has the columns {listed(names)}; say with --pair-columns which two hold the sentences")
    category_column = next((name for name in CATEGORY_COLUMNS if name in names), None)
    items = []
    for where, row in rows:
        category = string(row, category_column, where) if category_column else ""
        items.append(Item(tuple(sentence(row, column, where) for column in columns), category, category, where))
    return items


def _original_stereoset(path, whole):
    """StereoSet's dev.json: data.intrasentence and data.intersentence, each a list of entries with three sentences."""
    data = whole["data"]
    if not isinstance(data, dict) or not isinstance(data.get("intrasentence"), list):
        raise InvalidInput(f"{path} lacks data.intrasentence, which StereoSet's original JSON has")
    if not isinstance(data.get("intersentence", []), list):
        raise InvalidInput(f"{path}: data.intersentence is not a list")
    return tuple([_original_item(f"{path}: data.{part}[{index}]", entry, part == "intersentence")
                  for index, entry in enumerate(data.get(part, []))] for part in ("intrasentence", "intersentence"))


def _original_item(where, entry, has_context):
    sentences = entry.get("sentences") if isinstance(entry, dict) else None
    if not isinstance(sentences, list) or not all(isinstance(one, dict) for one in sentences):
        raise InvalidInput(f"{where} lacks its list of sentences")
    by_label = {string(one, "gold_label", where): one for one in sentences}
    if len(sentences) != len(STEREOSET_ROLES) or set(by_label) != set(STEREOSET_ROLES):
        raise InvalidInput(f"{where} must have one sentence of each gold_label: {listed(STEREOSET_ROLES)}")
    return Item(tuple(sentence(by_label[role], "sentence", where) for role in STEREOSET_ROLES),
                string(entry, "target", where), string(entry, "bias_type", where), where,
                sentence(entry, "context", where) if has_context else "")


def _stereoset_lines(path, text):
    """One triple a line: stereotype, anti_stereotype, unrelated, target, bias_type."""
    return [Item(tuple(sentence(row, role.replace("-", "_"), where) for role in STEREOSET_ROLES),
                 string(row, "target", where), string(row, "bias_type", where), where)
            for where, row in json_rows(path, text)]
