"""One pass, many α: the same bytes as quantize gives alone, resumable, and refused where nothing could be shared."""
import json
import subprocess

import pytest
from workshop import ROOT, command, read_run, refused, run, write_model, write_tokens

ALPHAS = ("0", "0.05", "1")


def arguments(tiny, name, out, *more):
    model, tokens = tiny
    return (name, "--model", model, "--tokens", tokens, "--out", out, "--group-size", "32", "--inputs", "original", *more)


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """By (ranks, α): what quantize gives."""
    folder = tmp_path_factory.mktemp("alone")
    found = {}

    def get(ranks, alpha):
        if (ranks, alpha) not in found:
            out = folder / f"{ranks}_{alpha}"
            run(ranks, *arguments(tiny, "quantize", out, "--alpha", alpha))
            found[ranks, alpha] = read_run(out)
        return found[ranks, alpha]
    return get


@pytest.mark.parametrize("ranks", [0, 2, 3])  # of three runs each rank has all, one and a share of the third, or one
def test_same_bytes_as_quantize_alone(tiny, alone, tmp_path, ranks):
    run(ranks, *arguments(tiny, "sweep", tmp_path / "sweep", "--alphas", ",".join(ALPHAS)))
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["alpha_0", "alpha_0.05", "alpha_1"]
    for alpha in ALPHAS:
        assert read_run(tmp_path / f"sweep/alpha_{alpha}") == alone(ranks, alpha), alpha


@pytest.mark.parametrize("more", [(), ("--ignore", "k_proj,mlp.experts.1.up_proj,*.experts.2.*")])
def test_experts(tmp_path, more):
    tokens = write_tokens(tmp_path / "tokens.h5", pairs=20, texts=3, text_length=32, vocabulary=48)
    common = ("--model", ROOT / "tests/model/oracles/olmoe", "--tokens", tokens, "--group-size", "-1", "--inputs", "original", *more)
    run(0, "quantize", *common, "--out", tmp_path / "alone", "--alpha", "0.1")
    # Three ranks are dealt experts, two are dealt runs, also where some are there.
    run(3, "sweep", *common, "--out", tmp_path / "three", "--alphas", "0,0.1", "--stop-after-layers", "1", code=75)
    run(2, "sweep", *common, "--out", tmp_path / "three", "--alphas", "0,0.1,0.5", "--resume")
    run(2, "sweep", *common, "--out", tmp_path / "two", "--alphas", "0,0.5,0.1")
    for name in ("three", "two"):
        assert read_run(tmp_path / name / "alpha_0.1") == read_run(tmp_path / "alone"), name


def test_stopped_resumed_and_uneven(tiny, alone, tmp_path):
    out = tmp_path / "sweep"
    run(2, *arguments(tiny, "sweep", out, "--alphas", "0,0.05", "--stop-after-layers", "1"), code=75)
    for alpha in ("0", "0.05"):
        assert len(list((out / f"alpha_{alpha}/layers").iterdir())) == 1
    # One goes on alone, another is new: layers are solved only where they are missing.
    run(2, *arguments(tiny, "quantize", out / "alpha_0.05", "--alpha", "0.05", "--resume", "--stop-after-layers", "1"), code=75)
    before = (out / "alpha_0.05/layers/layer_0001.h5").stat().st_mtime_ns
    run(2, *arguments(tiny, "sweep", out, "--alphas", ",".join(ALPHAS), "--resume"))
    for alpha in ALPHAS:
        assert read_run(out / f"alpha_{alpha}") == alone(2, alpha), alpha
    assert (out / "alpha_0.05/layers/layer_0001.h5").stat().st_mtime_ns == before
    assert "already complete" in run(2, *arguments(tiny, "sweep", out, "--alphas", "0,1", "--resume")).stderr


def test_each_is_a_run_like_any_other(tiny, tmp_path):
    out = tmp_path / "sweep"
    run(0, *arguments(tiny, "sweep", out, "--alphas", "0,0.1"))
    run(0, "export", out / "alpha_0.1", "--format", "gptq", "--out", tmp_path / "export")
    assert "3 of 3 layers" in run(0, "inspect", out / "alpha_0.1").stdout
    assert "done" in run(0, "watch", out / "alpha_0.1").stdout


def test_its_folder_shows_all_of_them(tiny, tmp_path):
    out = tmp_path / "sweep"
    run(0, *arguments(tiny, "sweep", out, "--alphas", "0.05,10,0", "--stop-after-layers", "1"), code=75)
    run(0, *arguments(tiny, "sweep", out, "--alphas", "0.05", "--resume"))
    (out / "alpha_soon").mkdir()  # by hand
    (out / "alpha_2").mkdir()  # not begun
    shown = run(0, "watch", out, code=75).stdout
    assert shown.startswith(f"{out}/alpha_0: stopped, 1 of 3 layers") and "  stopped: alpha_10\n" in shown and "  done: alpha_0.05\n" in shown, shown
    failed = (out / "alpha_10/log.jsonl").read_text()
    (out / "alpha_10/log.jsonl").write_text(failed + json.dumps({"event": "failed", "time": "2026-01-01T00:00:00Z", "message": "the disk is full"}) + "\n")
    shown = run(0, "watch", out, code=1).stdout
    assert "alpha_10: failed, 1 of 3 layers" in shown and "the disk is full" in shown and "  stopped: alpha_0\n" in shown, shown
    (out / "alpha_10/log.jsonl").write_text(failed)
    (out / "alpha_nan").mkdir()
    (out / "alpha_nan/run.json").touch()
    lines = run(0, "inspect", out).stdout.splitlines()
    assert lines[0].startswith(f"{out}: 3 runs of a sweep")
    rows = [line.split() for line in lines if line.startswith("alpha_")]
    assert [row[:4] for row in rows] == [[f"alpha_{alpha}", *done, "3"] for alpha, done in (("0", ("1", "of")), ("0.05", ("3", "of")), ("10", ("1", "of")))]
    whole = json.loads(run(0, "inspect", out, "--json").stdout)
    assert whole["sweep"] == str(out) and [report["finished_layers"] for report in whole["runs"]] == [1, 3, 1]
    alone = json.loads(run(0, "inspect", out / "alpha_0.05", "--json").stdout)
    assert whole["runs"][1] == alone
    left = sum(total["bias_after"] for total in alone["totals"].values()) / sum(total["bias_before"] for total in alone["totals"].values())
    assert rows[1][-2] == f"{100 * left:.1f}%"
    run(0, *arguments(tiny, "sweep", out, "--alphas", "0,10", "--resume"))
    assert "done, 3 of 3" in run(0, "watch", out).stdout
    assert "is not a run" in refused("inspect", tmp_path)
    (out / "alpha_2/run.json").write_text("{")
    shown = run(0, "inspect", out)
    assert "alpha_2/run.json" in shown.stderr and len([line for line in shown.stdout.splitlines() if line.startswith("alpha_")]) == 3
    assert "done, 3 of 3" in run(0, "watch", out).stdout  # that has no log


def test_what_cannot_be_shared_is_refused(tiny, tmp_path):
    model, tokens = tiny
    basic = ("sweep", "--model", model, "--tokens", tokens, "--out", tmp_path / "sweep", "--group-size", "32")
    for more in ((), ("--inputs", "sequential")):
        sentence = refused(*basic, "--alphas", "0,1", *more)
        assert "--inputs original" in sentence and "statistics" in sentence
    original = (*basic, "--inputs", "original")
    assert "--alphas" in refused(*original)
    assert "--alpha " in refused(*original, "--alphas", "0,1", "--alpha", "0.5")
    for wrong in ("", ",", "0,", "0,x", "-1", "nan", "inf", "0.1;0.2", "0 ,1", "0,1e7"):
        assert "--alphas" in refused(*original, f"--alphas={wrong}"), wrong
    assert "twice" in refused(*original, "--alphas", "0.1,1,0.10")
    assert not (tmp_path / "sweep").exists()
    # A later one of the folders is not empty: none is made.
    (tmp_path / "sweep/alpha_0.1/notes").mkdir(parents=True)
    for ranks in (0, 2):
        assert "alpha_0.1 exists and is not empty" in refused(*original, "--alphas", "0,0.1", ranks=ranks)
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["alpha_0.1"]


def test_damping_is_told_of_runs_that_other_ranks_solve(tmp_path):
    """Two sentences of four tokens cannot fill a Hessian of 64 columns. Of two runs each rank solves one."""
    def kill_channel(tensors):
        tensors["model.layers.0.input_layernorm.weight"][3] = 0
    inputs = (write_model(tmp_path / "model", change=kill_channel), write_tokens(tmp_path / "tokens.h5", pairs=1, texts=0))
    for ranks in (0, 2):
        said = run(ranks, *arguments(inputs, "sweep", tmp_path / f"sweep{ranks}", "--alphas", "0,100", "--damp", "1e-12")).stderr
        found = {name: read_run(tmp_path / f"sweep{ranks}/alpha_{name}")["layer_0000.h5/mlp.down_proj@damp_used"] for name in ("0", "100")}
        for damp in found.values():
            assert damp > 1e-12 and f"layer 0, mlp.down_proj: its Hessian did not factor; damped by {damp:g}" in said, said


def test_without_pairs_all_alphas_are_0(tiny, tmp_path):
    model, _ = tiny
    tokens = write_tokens(tmp_path / "text.h5", pairs=0)
    inputs = (model, tokens)
    asked = ("--hessian-from", "text", "--alphas")
    plan = ("plan", *arguments(inputs, "", "")[1:5], "--group-size", "32", "--inputs", "original", "--ranks", "2")
    for words in (arguments(inputs, "sweep", tmp_path / "sweep"), plan):
        assert "--alphas 0" in refused(*words, *asked, "0,0.1")
    assert not (tmp_path / "sweep").exists()
    run(0, *plan, *asked, "0")
    run(0, *arguments(inputs, "sweep", tmp_path / "sweep", *asked, "0"))
    run(0, *arguments(inputs, "quantize", tmp_path / "alone", "--hessian-from", "text", "--alpha", "0"))
    assert read_run(tmp_path / "sweep/alpha_0") == read_run(tmp_path / "alone")


def test_two_sweeps_into_one_folder(tiny, tmp_path):
    first = subprocess.Popen(command(0, *arguments(tiny, "sweep", tmp_path / "sweep", "--alphas", "0,1")),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second = subprocess.run(command(0, *arguments(tiny, "sweep", tmp_path / "sweep", "--alphas", "0,1")),
                            capture_output=True, text=True, check=False)
    assert sorted((first.wait(), second.returncode)) == [0, 2]
