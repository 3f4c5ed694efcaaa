"""Two jobs on one run by mistake, and what a killed job's lock does to the next."""
import json
import os
import signal
import time

import pytest
from workshop import held, read_run, refused, run, start


def arguments(small, out, *more):
    model, tokens = small
    return ("quantize", "--model", model, "--tokens", tokens, "--out", out, "--group-size", "64", *more)


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_a_second_job_is_refused_and_names_the_first(small, tmp_path, more):
    out = tmp_path / "run"
    first = start(2, *arguments(small, out))
    wait_for(lambda: list(out.glob("layers/layer_*.h5")), first)
    with held(first):
        holder = json.loads(next(out.glob("lock.*")).read_text())
        begin = time.monotonic()
        sentence = refused(*arguments(small, out, *more), ranks=2)
        assert time.monotonic() - begin < 9
    for part in (str(out), f"process {holder['process']} ", holder["host"], holder["since"]):
        assert part in sentence
    text, _ = first.communicate(timeout=120)
    assert first.returncode == 0, text
    assert not list(out.glob("lock.*"))
    run(2, *arguments(small, tmp_path / "alone"))
    assert read_run(out) == read_run(tmp_path / "alone")


def test_a_killed_jobs_lock_is_taken_over_at_once(small, tmp_path):
    out = tmp_path / "run"
    first = start(0, *arguments(small, out))
    wait_for(lambda: list(out.glob("layers/layer_*.h5")), first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert list(out.glob("lock.*"))
    begin = time.monotonic()
    second = start(0, *arguments(small, out, "--resume"))
    wait_for(lambda: '"finished_layers"' in (out / "log.jsonl").read_text().splitlines()[-1]
             or (out / "log.jsonl").read_text().count('"start"') == 2, second)
    assert time.monotonic() - begin < 5
    text, _ = second.communicate(timeout=120)
    assert second.returncode == 0 and "taken over" in text, text
    assert not list(out.glob("lock.*"))


def test_refusals_leave_no_lock_behind(small, tmp_path):
    out = tmp_path / "run"
    run(0, *arguments(small, out, "--max-layers", "1"))
    refused(*arguments(small, out))
    refused(*arguments(small, out, "--resume", "--bits", "3"))
    assert not list(out.glob("lock*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    refused(*arguments(small, tmp_path / "mine", "--resume"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
