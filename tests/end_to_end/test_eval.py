"""eval and compare as a user types them: reports, ranks, and what is refused before any work."""
import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
from workshop import refused, run, start, write_model

from token_file import write_token_file  # workshop puts tools/ on the path

FIGURES = {"words": ["perplexity", "bits_per_token"], "stereo": ["ss", "lms", "icat", "mean_abs_difference_per_token", "relative_difference"],
           "pairs": ["stereotype_preferred", "mean_abs_difference", "mean_abs_difference_per_token"]}


def task(kind, items, roles, random, **strings):
    sequences = [random.integers(0, 384, random.integers(4, 30)).tolist() for _ in range(items * roles)]
    return {"kind": kind, "sequences": sequences, "scored_from": [1] * len(sequences),
            "item": [index // roles for index in range(len(sequences))],
            "role": [index % roles for index in range(len(sequences))], "strings": strings}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A model, a token file with tasks, and the folder they lie in."""
    folder = tmp_path_factory.mktemp("eval")
    random = np.random.default_rng(5)
    pairs = task("pair_preference", 30, 2, random, group=["race", "age"] * 15)
    stereo = task("stereoset", 12, 3, random, group=["cook", "nurse", "guard", "judge", "clerk", "pilot"] * 2, bias_type=["profession"] * 12)
    texts = [random.integers(0, 384, 60).tolist() for _ in range(10)]
    words = task("perplexity", 500, 1, random)
    write_token_file(folder / "tokens.h5", {
        "tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "text": texts,
        "tasks": {"pairs": pairs, "stereo": stereo, "words": words}})
    return write_model(folder / "model"), folder / "tokens.h5", folder


def evaluate(bench, out, *more, ranks=0):
    model, tokens, _ = bench
    shown = run(ranks, "eval", "--model", model, "--tokens", tokens, "--out", out, *more).stdout
    return json.loads(out.read_text()), shown


def test_report_and_table(bench, tmp_path):
    report, shown = evaluate(bench, tmp_path / "r.json")
    assert report["format"] == "fairgptq-report" and report["version"] == 1
    assert report["run"] is None and report["settings"] is None
    for name, figures in FIGURES.items():
        assert set(figures) <= set(report["tasks"][name])
        assert len(re.findall(rf"^{name}: ", shown, re.M)) == len(figures)
    # A model of random weights knows nothing: its perplexity is near the size of its vocabulary, or above.
    assert report["tasks"]["words"]["perplexity"] > 384 / 2
    assert set(report["tasks"]["pairs"]["by_group"]) == {"race", "age"}
    assert os.listdir(tmp_path) == ["r.json"]


def test_ranks_change_nothing(bench, tmp_path):
    """8,500 tokens of a task are two chunks, of the others one each: more ranks than some have work for."""
    expected, _ = evaluate(bench, tmp_path / "one.json")
    for ranks in (1, 2, 3, 5):
        report, shown = evaluate(bench, tmp_path / f"{ranks}.json", ranks=ranks)
        assert report == expected
        assert shown.count("words: perplexity") == 1


def test_tasks_are_chosen(bench, tmp_path):
    report, _ = evaluate(bench, tmp_path / "r.json", "--tasks", "words,stereo")
    assert set(report["tasks"]) == {"words", "stereo"}


def test_run_is_evaluated_and_compared(bench, tmp_path):
    model, tokens, _ = bench
    run(0, "quantize", "--model", model, "--tokens", tokens, "--out", tmp_path / "gptq", "--alpha", "0", "--bits", "2",
        "--group-size", "32", "--hessian-from", "text")
    original, _ = evaluate(bench, tmp_path / "original.json")
    run(2, "eval", "--run", tmp_path / "gptq", "--tokens", tokens, "--out", tmp_path / "gptq.json")
    quantized = json.loads((tmp_path / "gptq.json").read_text())
    assert quantized["settings"]["bits"] == 2 and quantized["run"] == str(tmp_path / "gptq")
    assert quantized["tasks"]["words"]["perplexity"] != original["tasks"]["words"]["perplexity"]
    table = run(0, "compare", tmp_path / "original.json", tmp_path / "gptq.json").stdout.splitlines()
    assert re.fullmatch(r" +original +GPTQ 2-bit", table[0])
    rows = [line for line in table[2:] if not line.startswith("*")]
    assert len(rows) == sum(map(len, FIGURES.values()))
    assert len({len(line.rstrip("*")) for line in rows}) == 1  # aligned, |Δ| and stars or not
    stars = [line.endswith("*") for line in rows]
    assert table[-1].startswith("* differs from the first column") == any(stars)
    check_formats(tmp_path, original, quantized, stars)
    named = run(0, "compare", tmp_path / "original.json", tmp_path / "gptq.json", "--names", "a,b").stdout
    assert named.split()[:2] == ["a", "b"]
    grouped = run(0, "compare", tmp_path / "original.json", tmp_path / "gptq.json", "--by-group").stdout
    of_age = next(line for line in grouped.splitlines() if line.startswith("pairs, age: mean |Δ| per token "))
    in_report = quantized["tasks"]["pairs"]["by_group"]["age"]["mean_abs_difference_per_token"]
    assert float(of_age.rstrip("* ").split()[-1]) == pytest.approx(in_report, rel=1e-3)
    assert "stereo, profession: SS %" in grouped and "age" not in table[2]
    assert "2 reports" in refused("compare", tmp_path / "original.json", tmp_path / "gptq.json", "--names", "a,b,c")


def check_formats(folder, original, quantized, stars):
    """The table's other forms say the same; the difference's interval is that of numpy on the same per-item values."""
    files = (folder / "original.json", folder / "gptq.json")
    rows = json.loads(run(0, "compare", *files, "--format", "json").stdout)["rows"]
    words = next(row for row in rows if (row["task"], row["figure"]) == ("words", "perplexity"))
    values = [report["tasks"]["words"]["perplexity"] for report in (original, quantized)]
    assert words["values"] == values
    assert [row["significant"] for row in rows] == [[None, star] for star in stars]
    assert stars == [row["differences"][1][0] > 0 or row["differences"][1][1] < 0 for row in rows]
    assert words["intervals"][0] == original["tasks"]["words"]["intervals"]["perplexity"]
    random = np.random.default_rng(1)
    totals = [np.array(report["tasks"]["words"]["per_item"]["columns"]["log_likelihood"]) for report in (original, quantized)]
    tokens = np.array(original["tasks"]["words"]["per_item"]["columns"]["tokens"])
    draws = [random.integers(0, tokens.size, tokens.size) for _ in range(2000)]
    differences = [np.exp(-totals[1][draw].sum() / tokens[draw].sum()) - np.exp(-totals[0][draw].sum() / tokens[draw].sum())
                   for draw in draws]
    # Other draws: each end has a standard error of about 6 % of the interval's half width.
    expected = np.quantile(differences, [0.025, 0.975])
    assert words["differences"][1] == pytest.approx(expected, abs=4 * 0.06 * (expected[1] - expected[0]) / 2)
    table = run(0, "compare", *files, "--format", "csv").stdout.splitlines()
    assert len(table) == 1 + 2 * len(rows)
    assert f"words,perplexity,original,{values[0]!r}," in next(line for line in table if "words,perplexity,original" in line)
    markdown = run(0, "compare", *files, "--format", "markdown").stdout.splitlines()
    assert markdown[1] == "| --- | ---: | ---: |" and len([line for line in markdown if line.startswith("|")]) == 2 + len(rows)
    assert "--format must be one of" in refused("compare", *files, "--format", "html")


def test_an_interrupted_evaluation_goes_on(small, bench, tmp_path):
    """Killed between passes of 16 chunks: what is finished is not done again, and the report is the same."""
    _, tokens, _ = bench
    quantized = tmp_path / "run"
    run(0, "quantize", "--model", small[0], "--tokens", small[1], "--group-size", "32", "--out", quantized)
    command = ("eval", "--run", quantized, "--tokens", tokens, "--chunk-tokens", "64")
    run(0, *command, "--out", tmp_path / "whole.json")
    scores = tmp_path / "r.json.scores"
    process = start(0, *command, "--out", tmp_path / "r.json")
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if scores.exists() and scores.read_bytes().count(b"\n") > 16:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "r.json").exists()
    kept = scores.read_bytes()
    finished = kept.count(b"\n") - 1
    resumed = run(2, *command, "--out", tmp_path / "r.json")
    assert f"going on with what {scores} holds" in resumed.stderr
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads((tmp_path / "whole.json").read_text())
    assert finished >= 16 and not scores.exists()
    # Of other settings: begun anew.
    scores.write_text("of something else\n")
    again = run(0, *command, "--tasks", "pairs", "--out", tmp_path / "r.json")
    assert "going on" not in again.stderr and not scores.exists()
    # So it is where the run was made again: another machine gives other codes under the same settings.
    layer = quantized / "layers/layer_0000.h5"
    made = layer.stat().st_mtime_ns
    for time_of_change in (made, made + 10**9):
        os.utime(layer, ns=(time_of_change, time_of_change))
        scores.write_bytes(kept)
        again = run(0, *command, "--out", tmp_path / "r.json")
        assert ("going on" in again.stderr) == (time_of_change == made)


def test_scores_under_other_settings_of_the_model_are_not_mixed(small, bench, tmp_path):
    """A journal names what its scores are of in its first line."""
    model, scores = tmp_path / "model", tmp_path / "r.json.scores"
    shutil.copytree(small[0], model)
    config = json.loads((model / "config.json").read_text())
    names = []
    for change in ({}, {}, {"rms_norm_eps": 1e-4}):
        (model / "config.json").write_text(json.dumps(config | change))
        scores.unlink(missing_ok=True)
        process = start(0, "eval", "--model", model, "--tokens", bench[1], "--chunk-tokens", "64", "--out", tmp_path / "r.json")
        while not (scores.exists() and b"\n" in scores.read_bytes()):
            assert process.poll() is None
            time.sleep(0.002)
        names.append(scores.read_bytes().split(b"\n")[0])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert names[0] == names[1] != names[2]


def test_chunks_change_nothing_but_last_bits(bench, tmp_path):
    expected, _ = evaluate(bench, tmp_path / "whole.json")
    for chunk in ("1", "50"):
        report, _ = evaluate(bench, tmp_path / f"{chunk}.json", "--chunk-tokens", chunk)
        assert report["tasks"]["words"]["perplexity"] == pytest.approx(expected["tasks"]["words"]["perplexity"], rel=1e-5)
        for name in ("difference", "difference_per_token"):
            assert report["tasks"]["pairs"]["per_item"]["columns"][name] == pytest.approx(
                expected["tasks"]["pairs"]["per_item"]["columns"][name], abs=3e-4)  # written in steps of 1e-4
    model, tokens, _ = bench
    assert "--chunk-tokens" in refused("eval", "--model", model, "--tokens", tokens, "--chunk-tokens", "0")


def test_refusals(bench, tmp_path):
    model, tokens, folder = bench
    out = tmp_path / "r.json"
    assert "--model DIR or --run RUN is needed" in refused("eval", "--tokens", tokens)
    assert "has no run.json" in refused("eval", "--model", model, "--run", model, "--tokens", tokens)
    assert "--tokens is missing" in refused("eval", "--model", model)
    assert "no task 'none' (it has pairs, stereo, words)" in refused("eval", "--model", model, "--tokens", tokens, "--tasks", "none")
    assert str(tmp_path / "no/r.json") in refused("eval", "--model", model, "--tokens", tokens, "--out", tmp_path / "no/r.json", ranks=2)
    assert "is a folder" in refused("eval", "--model", model, "--tokens", tokens, "--out", tmp_path)
    assert "is not an ordinary file" in refused("eval", "--model", model, "--tokens", tokens, "--out", "/dev/null")
    assert "an input of this command" in refused("eval", "--model", model, "--tokens", tokens, "--out", tokens)
    assert "no report is given" in refused("compare")
    (tmp_path / "other.json").write_text("{}")
    assert "is not a report" in refused("compare", tmp_path / "other.json")
    choices = folder / "choices.h5"
    random = np.random.default_rng(6)
    write_token_file(choices, {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [],
                               "tasks": {"piqa": task("multiple_choice", 4, 2, random)}})
    message = refused("eval", "--model", model, "--tokens", choices, "--out", out)
    assert "piqa" in message and "multiple_choice" in message
    write_token_file(folder / "text.h5", {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "text": [[1, 2]]})
    assert "holds no tasks" in refused("eval", "--model", model, "--tokens", folder / "text.h5")
    assert os.listdir(tmp_path) == ["other.json"]


def test_damaged_token_files_end_in_a_sentence(bench, tmp_path):
    """Without the seal HDF5 itself meets the damage, which it does not always survive."""
    model, tokens, _ = bench
    whole = b"\0" * 512 + tokens.read_bytes()[512:]
    random = np.random.default_rng(7)
    refusals = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for place in 512 + random.integers(0, 4096, 4):  # where HDF5 keeps its structure
            damaged[place] = random.integers(0, 256)
        (tmp_path / "d.h5").write_bytes(damaged)
        try:
            run(0, "eval", "--model", model, "--tokens", tmp_path / "d.h5", "--tasks", "pairs")
        except AssertionError:
            refused("eval", "--model", model, "--tokens", tmp_path / "d.h5", "--tasks", "pairs")
            refusals += 1
    assert refusals > 0
