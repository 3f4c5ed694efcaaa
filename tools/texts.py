"""Reads running text, and cuts its tokens in sequences for calibration and in windows for perplexity."""
from pathlib import Path

from support import InvalidInput, read_text
from tables import rows_of, string


def read_running_text(path):
    """A plain text file as it is; of JSON lines or Parquet the column 'text', rows with two line ends between them, as GPTQ's
    authors join WikiText-2's."""
    if Path(path).suffix.lower() in (".jsonl", ".json", ".parquet"):
        text = "\n\n".join(string(row, "text", where) for where, row in rows_of(path))
    else:
        text = read_text(path)
    if not text.strip():
        raise InvalidInput(f"{path} holds no text")
    return text


def cut(ids, length, keep_rest):
    """A stream in sequences of `length` tokens; a shorter rest of at least two tokens is kept on request."""
    sequences = [ids[begin:begin + length] for begin in range(0, len(ids), length)]
    shortest = 2 if keep_rest else length
    return [sequence for sequence in sequences if len(sequence) >= shortest]


def windows_of(ids, length, stride):
    """Windows for perplexity: [(token ids, index of the first token that counts)].

    Without a stride, windows stand side by side, and a rest shorter than a window is left out. With one, each window begins
    `stride` tokens after the one before, and only those of its tokens count that were in none before: every token of the
    stream but the first counts once, with at least length − stride tokens before it (but for the first window's).
    """
    if stride is None:
        return [(window, 1) for window in cut(ids, length, keep_rest=False)]
    windows, counted = [], 0
    for begin in range(0, len(ids), stride):
        window = ids[begin:begin + length]
        first = max(1, counted - begin)
        if first < len(window):
            windows.append((window, first))
        counted = begin + len(window)
        if counted == len(ids):
            break
    return windows
