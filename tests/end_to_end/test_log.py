"""log.jsonl says where every rank's time went, and `watch` shows a run from it alone."""
import json
import os
import signal
import subprocess
import time

import pytest
from workshop import BINARY, held, refused, run, start

PHASES = {"setup", "read", "forward", "covariance", "all_reduce", "factor", "columns", "figures", "exchange", "write"}


def quantize(model_and_tokens, out, *more):
    model, tokens = model_and_tokens
    return ("quantize", "--model", model, "--tokens", tokens, "--out", out, "--group-size", "32", *more)


def events(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("ranks", [0, 2])
def test_the_parts_of_every_rank_add_up(small, tmp_path, ranks):
    out = tmp_path / "run"
    process = run(ranks, *quantize(small, out, "--max-layers", "3"))
    assert "all_reduce" in process.stderr or not ranks
    assert "% accounted for" in process.stderr
    for event in events(out):
        if event["event"] not in ("layer", "done"):
            continue
        assert set(event["phases"]) == PHASES
        # On a loaded machine a rank may lose some time between two looks at the clock, for want of a core.
        slack = 0.05
        assert 0.98 - slack / event["seconds"] <= event["accounted"] <= 1
        rows = event["ranks"] if ranks else {phase: [seconds] for phase, seconds in event["phases"].items()}
        for phase, row in rows.items():
            assert len(row) == max(ranks, 1) and sum(row) / len(row) == pytest.approx(event["phases"][phase], abs=1e-5)
        of_rank = [sum(row[rank] for row in rows.values()) for rank in range(max(ranks, 1))]
        # The seconds of a layer are those of the slowest rank, the seconds of the run those of rank 0.
        assert (max(of_rank) if event["event"] == "layer" else of_rank[0]) == pytest.approx(event["seconds"], rel=0.02, abs=slack)
    done = events(out)[-1]
    assert done["event"] == "done"
    for phase in ("setup", "forward", "covariance", "factor", "columns", "figures"):
        assert done["phases"][phase] > 0
    layers = sum(event["seconds"] for event in events(out) if event["event"] == "layer")
    assert layers < done["seconds"]


def test_watch_follows_a_run_to_its_end(small, tmp_path):
    out = tmp_path / "run"
    process = start(2, *quantize(small, out))
    while not (out / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    # What a login node sees is the log: nothing else of the run is there.
    seen = tmp_path / "seen"
    seen.mkdir()
    (seen / "log.jsonl").symlink_to(out / "log.jsonl")
    with held(process):
        watch = subprocess.Popen([BINARY, "watch", str(seen), "--interval", "0.05"], stdout=subprocess.PIPE, text=True)
        first = watch.stdout.readline()
    text = first + watch.communicate(timeout=300)[0]
    assert process.wait() == 0
    assert watch.returncode == 0, text
    blocks = [line for line in text.splitlines() if not line.startswith(" ")]
    assert len(blocks) >= 4 and all(": running, " in line for line in blocks[:-1])
    assert ": done, 6 of 6 layers" in blocks[-1] and "s left" in text
    assert "waiting for other ranks: rank 0" in text


def test_watch_says_how_a_run_ended(tiny, tmp_path):
    out = tmp_path / "run"
    run(0, *quantize(tiny, out, "--stop-after-layers", "1"), code=75)
    assert "stopped, 1 of 3 layers" in run(0, "watch", out, code=75).stdout
    assert "stopped" in run(0, "watch", out, "--once").stdout
    run(0, *quantize(tiny, out, "--resume"))
    assert "done, 3 of 3" in run(0, "watch", out).stdout


def test_watch_says_why_a_run_failed(small, tmp_path):
    out = tmp_path / "run"
    process = start(2, *quantize(small, out))
    while not list(out.glob("layers/layer_*.h5")):
        assert process.poll() is None
        time.sleep(0.01)
    (out / "layers/layer_0004.h5").mkdir()
    (out / "layers/layer_0004.h5/in_the_way").touch()
    process.communicate(timeout=120)
    assert process.returncode == 1
    shown = run(0, "watch", out, code=1).stdout
    assert "failed" in shown and "rank 0: " in shown and "layer_0004" in shown


def test_a_killed_run_is_dead(small, tmp_path):
    """Also in its first layer, of which nobody knows how long it takes."""
    out = tmp_path / "run"
    process, log = start(2, *quantize(small, out)), out / "log.jsonl"
    while not log.exists() or "start" not in log.read_text():  # which the job's lock comes before
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while "dead, " not in (shown := run(0, "watch", out, "--once").stdout) and time.monotonic() < deadline:
        time.sleep(0.2)  # the ranks end a little after their mpirun
    assert "is gone without a word" in shown and "--resume" in shown
    assert "dead, " in run(0, "watch", out, code=1).stdout
    run(2, *quantize(small, out, "--resume"))
    assert "done, 6 of 6" in run(0, "watch", out).stdout


def test_a_killed_run_is_stalled(tiny, tmp_path):
    out = tmp_path / "run"
    run(0, *quantize(tiny, out))
    lines = (out / "log.jsonl").read_text().splitlines()[:-2]
    old = [json.dumps({**json.loads(line), "time": "2026-01-01T00:00:00.000Z"}) for line in lines]
    (out / "log.jsonl").write_text("\n".join(old) + "\n")
    shown = run(0, "watch", out, "--once").stdout
    assert "stalled, 2 of 3 layers" in shown and "--resume" in shown


def test_watch_refuses_what_is_no_run(tmp_path):
    assert "log.jsonl" in refused("watch", tmp_path)
    assert "missing" in refused("watch")
    (tmp_path / "log.jsonl").write_text("{}\n")
    assert "log.jsonl" in refused("watch", tmp_path)
    assert "--interval" in refused("watch", tmp_path, "--interval", "0")
