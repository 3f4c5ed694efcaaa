"""Reads multiple-choice benchmarks: PIQA, ARC, HellaSwag and Story Cloze, with prompts as lm-evaluation-harness builds them.

A prompt ends without a blank; each choice is scored with one blank before it; and a choice's length, for length-normalised
accuracy, is that of its text in characters, without the blank.
"""
import re
from dataclasses import dataclass, field
from pathlib import Path

from support import InvalidInput, read_text
from tables import index, mapping, not_empty, rows_of, string, strings, text


@dataclass(frozen=True)
class Question:
    """A prompt and the choices that are compared as its continuation."""

    context: str
    choices: tuple
    label: int  # the right choice
    where: str  # file and line, for messages
    extra: dict = field(default_factory=dict)  # what one benchmark needs beyond that


def read_piqa(path, labels_path=None):
    """PIQA: lines with goal, sol1 and sol2, and the right ones (0 or 1) in a file of their own or in a column 'label'."""
    rows = not_empty(list(rows_of(path)), path, "PIQA questions")
    if labels_path is not None:
        lines = read_text(labels_path).split()
        if len(lines) != len(rows):
            raise InvalidInput(f"{labels_path} has {len(lines)} labels, and {path} has {len(rows)} questions")
        labels = [index({"label": line}, "label", f"{labels_path} label {number}", 2) for number, line in enumerate(lines, 1)]
    elif all("label" in row for _, row in rows):
        labels = [index(row, "label", where, 2) for where, row in rows]
    else:
        raise InvalidInput(f"{path} has no column 'label'; give the right answers with --piqa-labels FILE")
    return [Question(f"Question: {text(row, 'goal', where)}\nAnswer:", _choices(row, ("sol1", "sol2"), where), label, where)
            for (where, row), label in zip(rows, labels)]


def read_arc(path):
    """ARC, easy or challenge: AI2's JSON lines (question.stem, question.choices) or the hub's columns (question, choices)."""
    questions = []
    for where, row in rows_of(path):
        if isinstance(row.get("question"), dict):
            inner = row["question"]
            asked = text(inner, "stem", where)
            entries = inner.get("choices")
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise InvalidInput(f"{where} lacks its list of choices")
            choices = [string(entry, "text", where) for entry in entries]
            labels = [string(entry, "label", where) for entry in entries]
        else:
            asked = text(row, "question", where)
            columns = mapping(row, "choices", where)
            choices, labels = strings(columns, "text", where, 2), strings(columns, "label", where, 2)
        key = string(row, "answerKey", where)
        if len(choices) < 2 or len(choices) != len(labels) or key not in labels:
            raise InvalidInput(f"{where}: the answerKey '{key}' is not the label of one of its choices")
        questions.append(Question(f"Question: {asked}\nAnswer:", _not_blank(choices, where), labels.index(key), where))
    return not_empty(questions, path, "ARC questions")


def read_hellaswag(path):
    """HellaSwag: activity_label, ctx_a, ctx_b, endings and label, as JSON lines or Parquet."""
    questions = []
    for where, row in rows_of(path):
        endings = strings(row, "endings", where, 2)
        # What follows the blank between the two parts begins with a capital, and goes on in small letters.
        story = string(row, "ctx_a", where) + " " + string(row, "ctx_b", where).capitalize()
        questions.append(Question(clean_hellaswag(string(row, "activity_label", where) + ": " + story),
                                  _not_blank([clean_hellaswag(ending) for ending in endings], where),
                                  index(row, "label", where, len(endings)), where))
    return not_empty(questions, path, "HellaSwag questions")


def clean_hellaswag(words):
    """Takes out what WikiHow's mark-up left in HellaSwag: a title's mark ends a sentence, other marks in brackets go, and then
    blanks in twos become one."""
    return re.sub(r"\[.*?\]", "", words.strip().replace(" [title]", ". ")).replace("  ", " ")


STORY_COLUMNS = ({"story": [f"InputSentence{n}" for n in range(1, 5)],
                  "endings": [f"RandomFifthSentenceQuiz{n}" for n in (1, 2)], "answer": "AnswerRightEnding"},
                 {"story": [f"input_sentence_{n}" for n in range(1, 5)],
                  "endings": [f"sentence_quiz{n}" for n in (1, 2)], "answer": "answer_right_ending"})


def read_story_cloze(path):
    """Story Cloze: four sentences and two endings, with the columns of its CSV files or of the hub."""
    rows = not_empty(list(rows_of(path)), path, "Story Cloze stories")
    names = next((names for names in STORY_COLUMNS if names["answer"] in rows[0][1]), None)
    if names is None:
        raise InvalidInput(f"{path} lacks the column AnswerRightEnding, which Story Cloze's labelled files have")
    return [Question(" ".join(text(row, name, where) for name in names["story"]), _choices(row, names["endings"], where),
                     index(row, names["answer"], where, 2, first=1), where) for where, row in rows]


def read_last_words(path):
    """LAMBADA: passages whose last word is to be found, in a column 'text' or one a line. The word is what follows the last
    blank. @returns questions of one choice"""
    if Path(path).suffix.lower() in (".jsonl", ".json", ".parquet", ".csv"):
        passages = [(where, string(row, "text", where)) for where, row in rows_of(path)]
    else:
        passages = [(f"{path} line {number}", line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1)
                    if line.strip()]
    questions = []
    for where, passage in passages:
        context, _, word = passage.rpartition(" ")
        if not context.strip() or not word.strip():
            raise InvalidInput(f"{where}: a passage needs a last word, and words before it")
        questions.append(Question(context, (word,), 0, where))
    return not_empty(questions, path, "passages")


def _choices(row, names, where):
    return tuple(text(row, name, where) for name in names)


def _not_blank(choices, where):
    if not all(choice.strip() for choice in choices):
        raise InvalidInput(f"{where}: a choice is empty")
    return tuple(choices)
