"""tools/prepare.py: what it writes, that it writes it again byte for byte, and that it refuses in one sentence."""
import csv
import json
import os

import h5py
import pyarrow
import pyarrow.parquet
import pytest
import xxhash
from preparing import POSITIONS, START, encode, prepare, scored_texts, sequences, write_jsonl
from running import refused, run_tool
from tokenizers import Tokenizer


def triples(count):
    return [{"id": str(i), "bias_type": "gender" if i % 2 else "age", "target": f"term{i // 3}", "context": "the BLANK",
             "stereotype": f"the nurse said she was late {'. ' * i}", "anti_stereotype": f"the nurse said he was late {'. ' * i}",
             "unrelated": "the nurse said green"} for i in range(count)]


def write_original_stereoset(path, rows):
    """The same triples in the nested form of StereoSet's dev.json."""
    labels = {"unrelated": "unrelated", "anti-stereotype": "anti_stereotype", "stereotype": "stereotype"}
    items = [{"id": row["id"], "bias_type": row["bias_type"], "target": row["target"], "context": row["context"],
              "sentences": [{"id": "x", "gold_label": label, "sentence": row[key], "labels": []}
                            for label, key in labels.items()]} for row in rows]
    path.write_text(json.dumps({"version": "1.0", "data": {"intrasentence": items}}))
    return path


def write_crows_pairs(path, count):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "sent_more", "sent_less", "stereo_antistereo", "bias_type"])
        for i in range(count):
            writer.writerow([i, f"the old man was {'late ' * (i + 1)}", f"the young man was {'late ' * (i + 1)}", "stereo", "age"])
    return path


def test_stereoset_is_halved(model, tmp_path):
    rows = triples(9)
    source = write_jsonl(tmp_path / "triples.jsonl", rows)
    prepare(model, tmp_path / "out.h5", "--stereoset", source)
    with h5py.File(tmp_path / "out.h5") as file:
        assert (file.attrs["format"], file.attrs["version"], file.attrs["vocab_size"]) == (
            "fairgptq-tokens", 1, json.loads((model / "config.json").read_text())["vocab_size"])
        task = file["tasks/stereoset"]
        assert task.attrs["kind"] == "stereoset"
        assert len(file["pairs/category"]) == 5 and len(task["group"]) == 4
        assert task["role"][()].tolist() == [0, 1, 2] * 4
        assert task["item"][()].tolist() == [item for item in range(4) for _ in range(3)]
        assert (task["scored_from"][()] == 1).all()
        calibration = list(zip(sequences(file["pairs/stereotype"]), sequences(file["pairs/anti_stereotype"])))
        evaluation = sequences(task)
        by_stereotype = {tuple([START] + encode(model, row["stereotype"])): row for row in rows}
        seen = []
        for stereotype, anti_stereotype in calibration:
            row = by_stereotype[tuple(stereotype)]
            seen.append(row["id"])
            assert anti_stereotype == [START] + encode(model, row["anti_stereotype"])
        for index, group in enumerate(task["group"].asstr()):
            row = by_stereotype[tuple(evaluation[3 * index])]
            seen.append(row["id"])
            assert (group, task["bias_type"].asstr()[index]) == (row["target"], row["bias_type"])
            assert evaluation[3 * index + 1] == [START] + encode(model, row["anti_stereotype"])
            assert evaluation[3 * index + 2] == [START] + encode(model, row["unrelated"])
        assert sorted(seen) == sorted(row["id"] for row in rows)  # each item is in one half alone


def test_original_stereoset_is_the_same_as_its_triples(model, tmp_path):
    rows = triples(7)
    outs = []
    for source in (write_jsonl(tmp_path / "a.jsonl", rows), write_original_stereoset(tmp_path / "dev.json", rows)):
        outs.append(tmp_path / f"{source.stem}.h5")
        prepare(model, outs[-1], "--stereoset", source)
    with h5py.File(outs[0]) as first, h5py.File(outs[1]) as second:
        for name in ("pairs/stereotype", "pairs/anti_stereotype", "tasks/stereoset"):
            assert sequences(first[name]) == sequences(second[name])


def test_intersentence_items_are_scored_after_their_context(letters, tmp_path):
    rows = triples(4)
    source = write_original_stereoset(tmp_path / "dev.json", rows)
    whole = json.loads(source.read_text())
    labels = ("unrelated", "anti-stereotype", "stereotype")
    whole["data"]["intersentence"] = [{"id": "i", "bias_type": "race", "target": "Arab", "context": "He is from there. ", "sentences": [
        {"gold_label": label, "sentence": f" One {label} more."} for label in labels]}]
    source.write_text(json.dumps(whole))
    for use, expected in (("calibration", set()), ("split", {"stereoset", "stereoset_intersentence"})):
        prepare(letters, tmp_path / "out.h5", "--stereoset", source, "--use", f"stereoset={use}")
        with h5py.File(tmp_path / "out.h5") as file:
            assert set(file.get("tasks", {})) == expected
    with h5py.File(tmp_path / "out.h5") as file:
        task = file["tasks/stereoset_intersentence"]
        assert task.attrs["kind"] == "stereoset"
        assert (task["group"].asstr()[()].tolist(), task["bias_type"].asstr()[()].tolist()) == (["Arab"], ["race"])
        assert scored_texts(letters, task) == [(0, role, "<s>He is from there.", f" One {label} more.")
                                               for role, label in enumerate(("stereotype", "anti-stereotype", "unrelated"))]


def test_unrelated_sentences_come_along_if_every_pair_has_one(model, tmp_path):
    rows = triples(5)
    source = write_jsonl(tmp_path / "triples.jsonl", rows)
    crows = write_crows_pairs(tmp_path / "crows.csv", 4)
    prepare(model, tmp_path / "out.h5", "--stereoset", source, "--use", "stereoset=calibration")
    with h5py.File(tmp_path / "out.h5") as file:
        assert sequences(file["pairs/unrelated"]) == [[START] + encode(model, row["unrelated"]) for row in rows]
    prepare(model, tmp_path / "out.h5", "--stereoset", source, "--crows-pairs", crows)
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file["pairs"]) == {"stereotype", "anti_stereotype", "category"}


@pytest.mark.parametrize("use, calibration, evaluation", [("calibration", 6, 0), ("evaluation", 0, 6), ("split", 3, 3)])
def test_use_says_what_pairs_are_for(model, tmp_path, use, calibration, evaluation):
    source = write_crows_pairs(tmp_path / "crows.csv", 6)
    prepare(model, tmp_path / "out.h5", "--crows-pairs", source, "--use", f"crows-pairs={use}")
    with h5py.File(tmp_path / "out.h5") as file:
        assert ("pairs" in file) == (calibration > 0) and ("tasks/crows_pairs" in file) == (evaluation > 0)
        if calibration:
            assert len(sequences(file["pairs/stereotype"])) == len(file["pairs/category"]) == calibration
        if evaluation:
            task = file["tasks/crows_pairs"]
            assert task.attrs["kind"] == "pair_preference" and len(task["group"]) == evaluation
            assert set(task["group"].asstr()) == {"age"}
            first = sequences(task)[:2]
            if use == "evaluation":
                assert first == [[START] + encode(model, f"the {age} man was late") for age in ("old", "young")]


def test_own_pairs_csv_and_jsonl_agree(model, tmp_path):
    rows = [{"less": f"he was {'late ' * i}", "more": f"she was {'late ' * i}", "category": "gender"} for i in (1, 2, 3, 4)]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_jsonl(tmp_path / "b.jsonl", rows)
    for name in ("a.csv", "b.jsonl"):
        prepare(model, tmp_path / f"{name}.h5", "--pairs", tmp_path / name, "--pair-columns", "more,less",
                "--use", "pairs=calibration")
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert sequences(file["pairs/stereotype"]) == [[START] + encode(model, row["more"]) for row in rows]
            assert sequences(file["pairs/anti_stereotype"]) == [[START] + encode(model, row["less"]) for row in rows]
            assert file["pairs/category"].asstr()[()].tolist() == ["gender"] * 4


def test_text_is_cut_in_sequences_and_windows(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("text has more words than one .\n" * 10)  # 70 tokens, and the start token
    other = tmp_path / "other.txt"
    other.write_text("the nurse said " * 10)  # 30 tokens, and the start token
    prepare(model, tmp_path / "out.h5", "--text", text, "--perplexity", other, "--sequence-length", 16, "--window", 8)
    with h5py.File(tmp_path / "out.h5") as file:
        stream = [START] + encode(model, text.read_text())
        assert sequences(file["text"]) == [stream[i:i + 16] for i in range(0, 71, 16)]
        task = file["tasks/perplexity"]
        assert task.attrs["kind"] == "perplexity"
        stream = [START] + encode(model, other.read_text())
        assert sequences(task) == [stream[i:i + 8] for i in (0, 8, 16)]  # the rest, 7 tokens, is no whole window
        assert task["scored_from"][()].tolist() == [1] * 3 and task["item"][()].tolist() == [0, 1, 2]
        assert task["group"].asstr()[()].tolist() == ["other.txt"] * 3


@pytest.mark.parametrize("window, stride", [(8, 8), (8, 3), (8, 1), (5, 2), (31, 4)])
def test_with_a_stride_every_token_counts_once(model, tmp_path, window, stride):
    text = tmp_path / "text.txt"
    text.write_text("the nurse said he was " * 6)  # 30 tokens, and the start token
    prepare(model, tmp_path / "out.h5", "--perplexity", text, "--window", window, "--stride", stride)
    stream = [START] + encode(model, text.read_text())
    counted, begin = [], 0
    with h5py.File(tmp_path / "out.h5") as file:
        task = file["tasks/perplexity"]
        for ids, first in zip(sequences(task), task["scored_from"][()]):
            assert ids == stream[begin:begin + window]
            assert begin == 0 or first == 1 or first >= window - stride  # enough before what counts
            counted += range(begin + first, begin + len(ids))
            begin += stride
    expected = [place for place in range(1, 31) if window != stride or place % window]  # side by side: no token before a window's first
    assert counted == expected


def test_text_in_rows_is_one_text(model, tmp_path):
    rows = ["he was late", "", "she was late"]
    write_jsonl(tmp_path / "a.jsonl", [{"text": row} for row in rows])
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n\n".join(rows))
    found = []
    for name in ("a.jsonl", "a.parquet", "a.txt"):
        prepare(model, tmp_path / "out.h5", "--text", tmp_path / name)
        with h5py.File(tmp_path / "out.h5") as file:
            found.append(sequences(file["text"]))
    assert found[0] == found[1] == found[2] == [[START] + encode(model, "he was late she was late")]


def test_split_text_is_kept_apart(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("he " * 31 + "she " * 32)
    prepare(model, tmp_path / "out.h5", "--text", text, "--use", "text=split", "--sequence-length", 8, "--window", 8)
    he, she = encode(model, "he she")
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file["text/token_ids"][()]) == {START, he}
        assert set(file["tasks/perplexity/token_ids"][()]) == {she}


def test_limits(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("text has more words than one .\n" * 40)
    source = write_crows_pairs(tmp_path / "crows.csv", 20)
    prepare(model, tmp_path / "out.h5", "--crows-pairs", source, "--max-pairs", 5, "--text", text, "--sequence-length", 10,
            "--max-text-tokens", 35, "--perplexity", write_text(tmp_path / "b.txt", "he was late " * 40), "--window", 12,
            "--max-perplexity-tokens", 24)
    with h5py.File(tmp_path / "out.h5") as file:
        assert len(sequences(file["pairs/stereotype"])) == 3 and len(file["tasks/crows_pairs/group"]) == 2
        assert [len(ids) for ids in sequences(file["text"])] == [10] * 3
        assert [len(ids) for ids in sequences(file["tasks/perplexity"])] == [12] * 2


def write_text(path, text):
    path.write_text(text)
    return path


def test_same_seed_same_bytes_and_a_valid_seal(model, tmp_path):
    source = write_jsonl(tmp_path / "triples.jsonl", triples(20))
    contents = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        prepare(model, tmp_path / name, "--stereoset", source, "--seed", seed)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] and contents[0] != contents[2]
    magic, size, checksum = contents[0][:512].rstrip(b"\0").decode().split()
    assert (magic, int(size)) == ("fairgptq-sealed", len(contents[0]) - 512)
    assert checksum == xxhash.xxh3_64_hexdigest(contents[0][512:])


def test_a_model_without_start_token_gets_none(model, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (plain / name).write_bytes((model / name).read_bytes())
    (plain / "tokenizer_config.json").write_text('{"bos_token": null}')
    source = write_crows_pairs(tmp_path / "crows.csv", 2)
    prepare(plain, tmp_path / "out.h5", "--crows-pairs", source, "--use", "crows_pairs=calibration")
    with h5py.File(tmp_path / "out.h5") as file:
        assert sequences(file["pairs/stereotype"])[0] == encode(model, "the old man was late")


REFUSALS = [
    ("missing file", ["--stereoset", "nowhere.json"], "nowhere.json does not exist"),
    ("not JSON", ["--stereoset", ("a.json", "{not json}")], "a.json line 1 is not JSON"),
    ("a JSON list", ["--stereoset", ("a.json", "[1, 2]")], "entry 0 is not a JSON object"),
    ("no intrasentence items", ["--stereoset", ("a.json", '{"data": {"intersentence": []}}')], "lacks data.intrasentence"),
    ("two sentences of one label", ["--stereoset", ("a.json", json.dumps({"data": {"intrasentence": [{
        "target": "t", "bias_type": "b", "sentences": [{"gold_label": "stereotype", "sentence": "a"}] * 2}]}}))], "gold_label"),
    ("empty JSONL", ["--stereoset", ("a.jsonl", "\n\n")], "holds no StereoSet intrasentence items"),
    ("missing key", ["--stereoset", ("a.jsonl", '{"stereotype": "a"}')], "lacks a text 'anti_stereotype'"),
    ("wrong CSV columns", ["--crows-pairs", ("a.csv", "one,two\nx,y\n")], "lacks a text 'sent_more'"),
    ("unknown pair columns", ["--pairs", ("a.csv", "one,two\nx,y\n")], "'one', 'two'"),
    ("short CSV row", ["--pairs", ("a.csv", "sent_more,sent_less\nx\n")], "line 2 has not as many fields"),
    ("long CSV row", ["--pairs", ("a.csv", "sent_more,sent_less\nx,y,z\n")], "line 2 has not as many fields"),
    ("broken CSV quote", ["--pairs", ("a.csv", 'sent_more,sent_less\n"x,y\n')], "is not CSV"),
    ("not Parquet", ["--pairs", ("a.parquet", "PAR1 and nothing more")], "is not a readable Parquet file"),
    ("a Parquet file that is not there", ["--pairs", "nowhere.parquet"], "nowhere.parquet does not exist"),
    ("header alone", ["--pairs", ("a.csv", "sent_more,sent_less\n")], "holds no sentence pairs"),
    ("an empty sentence", ["--pairs", ("a.csv", "sent_more,sent_less\nhe, \n")], "'sent_less' is empty"),
    ("a number for a sentence", ["--pairs", ("a.jsonl", '{"sent_more": 1, "sent_less": "x"}')], "lacks a text 'sent_more'"),
    ("one pair to split", ["--pairs", ("a.csv", "sent_more,sent_less\nhe,she\n")], "too few to split"),
    ("a sentence too long", ["--pairs", ("a.csv", f"sent_more,sent_less\nhe,she\n{'he ' * POSITIONS},she\n")], "line 3: a sentence has 65"),
    ("one pair column", ["--pairs", ("a.csv", "a,b\nx,y\n"), "--pair-columns", "a"], "--pair-columns"),
    ("pair columns without pairs", ["--text", ("a.txt", "he"), "--pair-columns", "a,b"], "--pair-columns"),
    ("not UTF-8", ["--text", ("a.txt", b"\xff\xfe\x00")], "not UTF-8"),
    ("empty text", ["--text", ("a.txt", " \n")], "holds no text"),
    ("less than a window", ["--perplexity", ("a.txt", "he was late")], "less than one window"),
    ("the same text twice", ["--text", ("a.txt", "he was late " * 99), "--perplexity", ("b.txt", "he was late " * 99)], "same text"),
    ("a window beyond the model", ["--perplexity", ("a.txt", "he"), "--window", "65"], "the model's 64 positions"),
    ("a stride beyond its window", ["--perplexity", ("a.txt", "he was late"), "--window", "2", "--stride", "3"], "--stride 3 is more"),
    ("a stride for nothing", ["--text", ("a.txt", "he was late"), "--stride", "3"], "no text for perplexity"),
    ("less text than a sequence", ["--text", ("a.txt", "he was"), "--sequence-length", "9", "--max-text-tokens", "8"], "--max-text-tokens 8"),
    ("nothing", [], "nothing to prepare"),
    ("half a surrogate pair", ["--pairs", ("a.jsonl", '{"sent_more": "he \\ud83d", "sent_less": "she"}')], "line 1: 'sent_more' holds \\ud83d"),
    ("half a surrogate pair in a category", ["--pairs", ("a.jsonl", '{"sent_more": "he was", "sent_less": "she was", "category": "\\udc00"}')],
     "'category' holds \\udc00"),
    ("half a surrogate pair in a list", ["--hellaswag", ("a.jsonl", json.dumps({
        "activity_label": "a", "ctx_a": "he", "ctx_b": "was", "endings": ["late", "\ud83d"], "label": 0}))], "'endings' holds \\ud83d"),
    ("an unknown use", ["--text", ("a.txt", "he"), "--use", "text=testing"], "--use text=testing"),
    ("a use of nothing", ["--text", ("a.txt", "he"), "--use", "pairs=split"], "there is no --pairs"),
    ("a seed that is no number", ["--text", ("a.txt", "he"), "--seed", "x"], "--seed"),
    ("no pairs at most", ["--text", ("a.txt", "he"), "--max-pairs", "0"], "positive whole number"),
    ("an unknown option", ["--texts", "a"], "--texts"),
]


@pytest.mark.parametrize("arguments, sentence", [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_bad_input_is_refused_and_nothing_written(model, tmp_path, arguments, sentence):
    arguments = list(arguments)
    for index, argument in enumerate(arguments):
        if isinstance(argument, tuple):
            name, content = argument
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            arguments[index] = tmp_path / name
    before = sorted(tmp_path.iterdir())
    assert sentence in refused(run_tool("prepare.py", "--model", model, "--out", tmp_path / "out.h5", *arguments))
    assert sorted(tmp_path.iterdir()) == before


def copy_of(model, folder, tokenizer=None, **settings):
    """The model's folder with another tokenizer, or with other settings in config.json."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text()) | settings))
    return folder


def test_added_tokens_that_the_model_does_not_know(model, tmp_path):
    """As Gemma's for pictures: no harm, unless a text holds one."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_tokens([f"<more{index}>" for index in range(10)])
    changed = copy_of(model, tmp_path / "changed", tokenizer)
    text = write_text(tmp_path / "text.txt", "he was late")
    prepare(changed, tmp_path / "out.h5", "--text", text)
    text.write_text("he was <more9> late")
    sentence = refused(run_tool("prepare.py", "--model", changed, "--out", tmp_path / "other.h5", "--text", text))
    assert "'<more9>'" in sentence and str(tokenizer.token_to_id("<more9>")) in sentence
    assert not (tmp_path / "other.h5").exists()


@pytest.mark.parametrize("form", [
    {"original_max_position_embeddings": 32, "rope_scaling": {"type": "su", "short_factor": [1.0]}},
    {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 32}},
    {"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 32, "llama_4_scaling_beta": 0.1}},
    {"rope_parameters": {"full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 32},
                         "sliding_attention": {"rope_type": "default"}}}])
def test_longrope_is_for_its_original_context(model, tmp_path, form):
    changed = copy_of(model, tmp_path / "changed", **form)
    text = write_text(tmp_path / "text.txt", "he was late " * 30)
    arguments = ("--text", text, "--sequence-length")
    sentence = refused(run_tool("prepare.py", "--model", changed, "--out", tmp_path / "out.h5", *arguments, "33"))
    assert "32 positions" in sentence
    prepare(changed, tmp_path / "out.h5", *arguments, "32")


def test_a_model_that_takes_pictures_has_its_text_settings_inside(model, tmp_path):
    sizes = json.loads((model / "config.json").read_text())
    changed = copy_of(model, tmp_path / "changed", text_config={"vocab_size": sizes["vocab_size"], "max_position_embeddings": 24},
                      vocab_size=1, max_position_embeddings=None)
    text = write_text(tmp_path / "text.txt", "he was late " * 30)
    arguments = ("--text", text, "--sequence-length")
    sentence = refused(run_tool("prepare.py", "--model", changed, "--out", tmp_path / "out.h5", *arguments, "25"))
    assert "24 positions" in sentence
    prepare(changed, tmp_path / "out.h5", *arguments, "24")
    # Gemma 3's, as they are published, leave both sizes out.
    gemma = copy_of(changed, tmp_path / "gemma", model_type="gemma3", text_config={"hidden_size": 8})
    prepare(gemma, tmp_path / "of_gemma.h5", *arguments, "25")
    with h5py.File(tmp_path / "of_gemma.h5") as file:
        assert file.attrs["vocab_size"] == 262208


@pytest.mark.parametrize("name, content, sentence", [
    ("config.json", None, "config.json does not exist"),
    ("config.json", "[]", "does not hold a JSON object"),
    ("config.json", '{"vocab_size": 100}', "max_position_embeddings"),
    ("config.json", '{"vocab_size": 4, "max_position_embeddings": 64}', "do not belong together"),
    ("tokenizer.json", None, "tokenizer.json does not exist"),
    ("tokenizer.json", "{}", "is not a tokenizer"),
    ("config.json", '{"vocab_size": ' + "9" * 5000 + "}", "config.json is not JSON"),
    ("tokenizer_config.json", '{"bos_token": "<other>"}', "'<other>' is not in tokenizer.json"),
])
def test_an_unusable_model_is_refused(model, tmp_path, name, content, sentence):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    if content is None:
        (broken / name).unlink()
    else:
        (broken / name).write_text(content)
    text = write_text(tmp_path / "text.txt", "he was late")
    assert sentence in refused(run_tool("prepare.py", "--model", broken, "--out", tmp_path / "out.h5", "--text", text))
    assert not (tmp_path / "out.h5").exists()


def test_mistral_s_own_tokenizer_is_not_read(model, tmp_path):
    changed = copy_of(model, tmp_path / "changed")
    (changed / "tokenizer.json").rename(changed / "tekken.json")
    text = write_text(tmp_path / "text.txt", "he was late")
    assert "tekken.json is not read" in refused(run_tool("prepare.py", "--model", changed, "--out", tmp_path / "out.h5", "--text", text))


def test_a_folder_that_does_not_exist_is_refused(model, tmp_path):
    text = write_text(tmp_path / "text.txt", "he was late")
    out = tmp_path / "nowhere" / "out.h5"
    assert "does not exist" in refused(run_tool("prepare.py", "--model", model, "--out", out, "--text", text))


@pytest.mark.parametrize("out", ["", ".", "folder", "pipe"])
def test_what_is_no_file_is_refused_before_any_work(model, tmp_path, monkeypatch, out):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    process = run_tool("prepare.py", "--model", model, "--out", out, "--text", write_text(tmp_path / "text.txt", "he was late"))
    assert "name a file to write" in refused(process) and not process.stdout


def test_what_was_there_stays_on_a_full_disk(model, tmp_path):
    text, out = write_text(tmp_path / "text.txt", "he was late"), write_text(tmp_path / "out.h5", "what was there")
    assert "cannot be written" in refused(run_tool("prepare.py", "--model", model, "--out", out, "--text", text, largest_file=2000))
    assert out.read_text() == "what was there" and sorted(tmp_path.iterdir()) == [out, text]


@pytest.mark.parametrize("role, token", [("bos_token", "x"), ("bos_token", 5000), ("bos_token", True), ("eos_token", -1)])
def test_special_tokens_are_the_models(model, tmp_path, role, token):
    changed = copy_of(model, tmp_path / "changed", **{f"{role}_id": token})
    (changed / "tokenizer_config.json").unlink()
    text = write_text(tmp_path / "text.txt", "he was late")
    sentence = refused(run_tool("prepare.py", "--model", changed, "--out", tmp_path / "out.h5", "--text", text))
    assert role in sentence and "whole number below" in sentence
    assert not (tmp_path / "out.h5").exists()


def test_the_shared_data_are_read(model, shared, tmp_path):
    data = shared / "data"
    printed = prepare(model, tmp_path / "out.h5", "--stereoset", data / "stereoset_dev.jsonl", "--crows-pairs",
                      data / "crows_pairs_anonymized.csv", "--max-pairs", 40)
    assert "1,294 items read" in printed and "1,508 items read" in printed
