"""Rows of the files that benchmarks come in: JSON lines, JSON, CSV and Parquet, told apart by the file's name."""
import csv
import io
import json
import re
from pathlib import Path

from support import InvalidInput, read_text


def rows_of(path):
    """Yields (where, {column: value}) of each row; `where` names file and line (or row) for messages.

    .jsonl and .json: an object a line, or one list of objects. .parquet: all columns. Anything else: CSV with a header line.
    """
    ending = Path(path).suffix.lower()
    if ending == ".parquet":
        return parquet_rows(path)
    if ending in (".jsonl", ".json"):
        return json_rows(path, read_text(path))
    return csv_rows(path)


def json_rows(path, contents):
    """Yields (where, object) of each line that is not blank, or of each entry where the file is one list."""
    whole = None
    if contents.lstrip().startswith("["):
        try:
            whole = json.loads(contents)
        except (ValueError, RecursionError):
            whole = None  # the first line's message below says what is wrong
    if isinstance(whole, list):
        for index, row in enumerate(whole):
            yield _object(f"{path} entry {index}", row)
        return
    for number, line in enumerate(contents.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{where} is not JSON: {error}") from None
        yield _object(where, row)


def csv_rows(path):
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


def parquet_rows(path):
    """Yields (where, {column: value}) of each row."""
    import pyarrow  # here, since it takes longer to load than all else, and most files are text
    import pyarrow.parquet
    if not Path(path).is_file():
        raise InvalidInput(f"{path} is not a file" if Path(path).exists() else f"{path} does not exist")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            index = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    yield f"{path} row {index}", row
                    index += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None


def string(row, name, where):
    """The text in a column."""
    value = row.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"{where} lacks a text '{name}'; it has {listed(row)}")
    return _whole(value, name, where)


def text(row, name, where):
    """The text in a column, blanks around it included; refused if there is nothing else."""
    value = string(row, name, where)
    if not value.strip():
        raise InvalidInput(f"{where}: '{name}' is empty")
    return value


def sentence(row, name, where):
    """The text in a column, without blanks around it."""
    return text(row, name, where).strip()


def strings(row, name, where, shortest=1):
    """The list of texts in a column."""
    value = row.get(name)
    if not isinstance(value, list) or len(value) < shortest or not all(isinstance(text, str) for text in value):
        raise InvalidInput(f"{where} lacks a list '{name}' of at least {shortest} texts")
    return [_whole(text, name, where) for text in value]


def mapping(row, name, where):
    """The object in a column."""
    value = row.get(name)
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} lacks an object '{name}'; it has {listed(row)}")
    return value


def index(row, name, where, count, first=0):
    """A whole number of a column, which may be written as text: one of `count` numbers from `first` on. @returns it less `first`"""
    value = row.get(name)
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not first <= value < first + count:
        raise InvalidInput(f"{where}: '{name}' must be a whole number from {first} to {first + count - 1}, "
                           f"and is {'missing' if value is None else repr(value)[:40]}")
    return value - first


def listed(names):
    return ", ".join(f"'{name}'" for name in names) or "none"


def not_empty(items, path, what):
    if not items:
        raise InvalidInput(f"{path} holds no {what}")
    return items


def _whole(text, name, where):
    """Refuses half of a surrogate pair, which JSON can escape and UTF-8 cannot hold."""
    half = re.search(r"[\ud800-\udfff]", text)
    if half:
        raise InvalidInput(f"{where}: '{name}' holds \\u{ord(half[0]):04x}, half of a surrogate pair, which is no character")
    return text


def _object(where, row):
    if not isinstance(row, dict):
        raise InvalidInput(f"{where} is not a JSON object")
    return where, row
