"""Evaluation tasks as the token file holds them: sequences, where scoring begins, and what an item's roles mean.

The sequences of an item stand next to each other, so that a prefix they share is computed once.
"""
import numpy as np


def new_task(kind):
    """A task without sequences, in the form that write_token_file() takes."""
    return {"kind": kind, "sequences": [], "scored_from": [], "item": [], "role": [], "strings": {}, "numbers": {}}


def add(task, item, role, ids, scored_from):
    task["sequences"].append(ids)
    task["scored_from"].append(scored_from)
    task["item"].append(item)
    task["role"].append(role)


def items_of(task):
    """Number of items."""
    return task["item"][-1] + 1


def sentence_task(model, items, kind):
    """Sentences that are compared within each item, from their second token on, or from where their context ends.

    @param kind  stereoset or pair_preference
    """
    task = new_task(kind)
    task["strings"]["group"] = [item.group for item in items]
    if kind == "stereoset":
        task["strings"]["bias_type"] = [item.category for item in items]
    for index, item in enumerate(items):
        for role, sentence in enumerate(item.sentences):
            if item.context:
                (ids, begin), = model.continuations([(item.context, " " + sentence, item.where)], model.start)
                add(task, index, role, ids, begin)
            else:
                add(task, index, role, model.sentence(sentence, item.where), 1)
    return task


def choice_task(model, questions, kind):
    """Questions whose choices are compared as continuations of the prompt.

    @param kind  multiple_choice, bbq, or last_word (questions of one choice, the right one)
    """
    task = new_task(kind)
    pairs = [(question.context, " " + choice, question.where) for question in questions for choice in question.choices]
    encoded = iter(model.continuations(pairs, model.prefix))
    for index, question in enumerate(questions):
        for role in range(len(question.choices)):
            add(task, index, role, *next(encoded))
    numbers = task["numbers"]
    if kind == "multiple_choice":
        numbers["choice_length"] = np.array([len(choice) for question in questions for choice in question.choices], np.int32)
    if kind != "last_word":
        numbers["label"] = np.array([question.label for question in questions], np.int32)
    if kind == "bbq":
        for name, number in (("unknown_choice", np.int32), ("biased_choice", np.int32), ("ambiguous", np.uint8)):
            numbers[name] = np.array([question.extra[name] for question in questions], number)
        task["strings"]["group"] = [question.extra["category"] for question in questions]
    return task


def probe_task(model, probe_sets):
    """SOFA's probes: an item for the identities alone wherever they are new, then the items of the stereotypes."""
    task = new_task("sofa")
    first = model.start or model.end  # an identity may be one token: something must stand before it
    baselines, groups, baseline_items = {}, [], []

    def add_item(texts, one, baseline):
        index = len(groups)
        for role, ids in enumerate(model.all_tokens_of(texts)):
            add(task, index, role, model.checked(first + ids, one.where), 1)
        groups.append(one.category)
        baseline_items.append(baseline)
        return index

    for one in probe_sets:
        key = (one.category, one.identities)
        if key not in baselines:
            baselines[key] = add_item(one.identities, one, -1)
        add_item(one.probes, one, baselines[key])
    task["strings"]["group"] = groups
    task["numbers"]["baseline_item"] = np.array(baseline_items, np.int32)
    return task


def perplexity_task(windows):
    """Windows of text. @param windows  [(file's name, token ids, index of the first token that counts)]"""
    task = new_task("perplexity")
    task["strings"]["group"] = [name for name, _, _ in windows]
    for index, (_, ids, begin) in enumerate(windows):
        add(task, index, 0, ids, begin)
    return task
