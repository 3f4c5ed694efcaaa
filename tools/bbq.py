"""Reads BBQ (arXiv 2110.08193), and finds for each question which answer is biased.

The answer about the group that a question's stereotype is about is its target. A biased answer to a negative question ("who
stole?") is the target, and to a non-negative one ("who did not?") the other person. BBQ's authors find the target by comparing
an answer's group with the question's stereotyped groups; the rules here are those of their scoring. In the two files on two
traits at once (race and gender, race and income) the lines name the stereotyped race alone: there the authors' table of targets
(additional_metadata.csv of their repository) decides, and without it only questions that the race alone decides are taken.
"""
import re

from questions import Question
from support import InvalidInput
from tables import csv_rows, index, listed, mapping, not_empty, rows_of, string, strings, text

ANSWERS = ("ans0", "ans1", "ans2")
POLARITIES = ("neg", "nonneg")
CONDITIONS = ("ambig", "disambig")
SAME_GROUP = {"man": "M", "men": "M", "boy": "M", "boys": "M", "woman": "F", "women": "F", "girl": "F", "girls": "F",
              "low ses": "lowSES", "high ses": "highSES"}
TWO_TRAITS = "_x_"  # in the names of categories on two traits


def read_bbq(path, targets=None):
    """@param targets  {(category, example_id): answer} of read_targets(), or None: they follow from the lines themselves

    @returns (questions, number of those left out because they have no target); a question's extra: unknown_choice,
    biased_choice, ambiguous, category
    """
    questions, without_target = [], 0
    for where, row in rows_of(path):
        category = text(row, "category", where)
        polarity = _one_of(row, "question_polarity", where, POLARITIES)
        condition = _one_of(row, "context_condition", where, CONDITIONS)
        answers = _answers(row, where)
        unknown = [place for place, (_, group) in enumerate(answers) if group == "unknown"]
        if len(unknown) != 1:
            raise InvalidInput(f"{where}: one answer of answer_info must be of the group 'unknown', and {len(unknown)} are")
        target = target_of(row, category, answers, where) if targets is None else \
            targets.get((category, str(row.get("example_id"))))
        label = index(row, "label", where, len(ANSWERS))
        choices = tuple(text(row, name, where) for name in ANSWERS)
        if target is None or target == unknown[0]:
            without_target += 1
            continue
        other = next(place for place in range(len(ANSWERS)) if place not in (unknown[0], target))
        questions.append(Question(f"{text(row, 'context', where)}\n\nQ: {text(row, 'question', where)}\nA:", choices, label,
                                  where, {"unknown_choice": unknown[0], "biased_choice": target if polarity == "neg" else other,
                                          "ambiguous": condition == "ambig", "category": category}))
    return not_empty(questions, path, "BBQ questions with a target"), without_target


def read_targets(path):
    """The authors' table: category, example_id, target_loc. Where they found none, it has 'x', 'NA' or nothing."""
    targets = {}
    for where, row in csv_rows(path):
        place = string(row, "target_loc", where)
        key = (string(row, "category", where), string(row, "example_id", where))
        targets[key] = None if place in ("x", "NA", "") else index(row, "target_loc", where, len(ANSWERS))
    return not_empty(targets, path, "targets of BBQ questions")


def target_of(row, category, answers, where):
    """The answer about the stereotyped group, or None where the groups do not tell.

    @param answers  [(words, group)] of the three answers
    """
    groups = strings(mapping(row, "additional_metadata", where), "stereotyped_groups", where)
    known = {SAME_GROUP.get(group.lower(), group).lower() for group in groups}
    hits = [place for place, (words, group) in enumerate(answers) if _is_stereotyped(words, group, category, known)]
    if TWO_TRAITS in category:
        return hits[0] if len(hits) == 1 else None
    return hits[0] if hits else None  # both (a woman and a girl): the first, as in BBQ's own scoring


def _is_stereotyped(words, group, category, known):
    # Trans people are one group, whatever their gender: trans_F, trans_M and trans.
    if any("trans" in name for name in known):
        return group.startswith("trans")
    group = re.sub(r"^((low|high)SES-)?([MF]-)?", "", group) if "-" in group else group
    names = {SAME_GROUP.get(group.lower(), group).lower()}
    if category == "Nationality":
        names.add(words.lower())  # its groups are regions, its stereotypes are about countries
    return bool(names & known)


def _answers(row, where):
    """[(words, group)] of the three answers."""
    info = mapping(row, "answer_info", where)
    answers = []
    for name in ANSWERS:
        words, group = strings(info, name, f"{where}: answer_info", 2)[:2]
        if not group and "Latina" in text(row, name, where):
            group = "F-Latino"  # which the file leaves empty
        answers.append((words.strip("{}"), group))
    return answers


def _one_of(row, name, where, values):
    value = string(row, name, where)
    if value not in values:
        raise InvalidInput(f"{where}: '{name}' is '{value[:40]}', and must be one of {listed(values)}")
    return value
