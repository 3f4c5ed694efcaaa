"""What the jobs that measure SmolLM2 refuse before they begin, run in place and as sbatch runs them: from a copy elsewhere; and what
jobs do where their launcher takes a lost node for success."""
import json
import os
import shutil
import subprocess
import sys

import pytest
from running import ROOT


def start(script, **environment):
    return subprocess.run(["bash", str(script)], env={**os.environ, **environment}, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("job", ["controls", "options", "table"])
@pytest.mark.parametrize("environment, sentence", [
    ({"RANKS": "none"}, "RANKS=none is not a positive whole number"),
    ({"STEREOSET": "/nowhere.json"}, "STEREOSET=/nowhere.json is not a file"),
])
def test_wrong_settings_are_refused(job, environment, sentence, tmp_path):
    copy = shutil.copy(ROOT / "jobs" / f"{job}.sh", tmp_path / "slurm_script")
    for script, more in ((ROOT / "jobs" / f"{job}.sh", {}), (copy, {"SLURM_SUBMIT_DIR": str(ROOT)})):
        process = start(script, WORK=str(tmp_path / "work"), **environment, **more)
        assert (process.returncode, process.stderr.strip()) == (2, f"{job}: {sentence}")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("alignment, sentence", [
    ("diagonal", "ALIGNMENT=diagonal is not position, common, context or mean"),
    ("context", "ALIGNMENT=context has one control, unrelated sentences: give StereoSet (STEREOSET=FILE)"),
])
def test_controls_refuses_alignments_without_a_control(alignment, sentence, tmp_path):
    process = start(ROOT / "jobs" / "controls.sh", ALIGNMENT=alignment, STEREOSET="", WORK=str(tmp_path / "work"))
    assert (process.returncode, process.stderr.strip()) == (2, f"controls: {sentence}")


@pytest.mark.parametrize("job", ["controls", "options", "table"])
def test_submitted_from_elsewhere_they_say_so(job, tmp_path):
    process = start(ROOT / "jobs" / f"{job}.sh", SLURM_SUBMIT_DIR=str(tmp_path))
    assert process.returncode == 2 and "is not the repository" in process.stderr


@pytest.mark.parametrize("layers, complete", [((), False), ((0, 1), False), ((0, 1, 2), True)])
def test_a_run_is_done_when_its_layers_are_there(layers, complete, tmp_path):
    """Whatever its log says last: a run that was killed after its last layer is complete."""
    (tmp_path / "layers").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"layers": 3, "model": {"layers": 9}, "quantization": {}}}, indent=2))
    (tmp_path / "layers/layer_0002.h5.damaged").touch()
    for layer in layers:
        (tmp_path / f"layers/layer_{layer:04}.h5").touch()
    script = 'source "$1/slurm/environment.sh"; run_is_done "$2" && echo done'
    environment = {**os.environ, "FAIRGPTQ": "/bin/true", "PYTHON": sys.executable, "SITE": "laptop"}
    process = subprocess.run(["bash", "-c", script, "job", str(ROOT), str(tmp_path)], env=environment, capture_output=True, text=True,
                             check=False)
    assert (process.stdout == "done\n") == complete, process.stderr
    assert process.stderr == ("" if complete else f"{tmp_path} has {len(layers)} of 3 layers\n")


def test_no_report_after_success_is_a_failure(tmp_path):
    """As Open MPI 5's mpirun makes it look like where a node is lost: the program here does nothing and ends with 0."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (tmp_path / "tokens.h5").touch()
    environment = {**os.environ, "MODEL": str(model), "TOKENS": str(tmp_path / "tokens.h5"), "OUT": str(tmp_path / "out"), "RANKS": "1",
                   "FAIRGPTQ": "/bin/true", "PYTHON": sys.executable, "SITE": "laptop"}
    process = subprocess.run(["bash", "jobs/fairgptq_llama8b.sh"], env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert process.returncode == 1, process.stdout + process.stderr
    assert process.stderr.splitlines()[-1] == f"{tmp_path / 'out/original.json'} was not made, though what makes it ended with 0"
    assert "Evaluate the original model" in process.stdout and "Quantize" not in process.stdout


@pytest.mark.parametrize("job, asked", [("7", "requeue 7"), ("", None)])
def test_a_signal_that_comes_too_late_for_a_step_holds_before_the_next(job, asked, tmp_path):
    """The step ends with 0 all the same. Under Slurm the job goes back into the queue, elsewhere it ends; nothing new begins."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\nexit 1\n')  # 1: this script is not waited for
    scontrol.chmod(0o755)
    step = "trap : USR1; kill -USR1 $PPID; sleep 0.2"  # it has passed the point where it would have stopped
    script = f"""set -e; source "$1/slurm/environment.sh"
        run_resumable bash -c '{step}'; echo finished; run_anew touch {tmp_path}/begun"""
    environment = {**os.environ, "FAIRGPTQ": "/bin/true", "PYTHON": sys.executable, "SITE": "laptop", "SLURM_JOB_ID": job,
                   "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.run(["bash", "-c", script, "job", str(ROOT)], env=environment, capture_output=True, text=True, check=False,
                             timeout=30)
    assert (process.returncode, process.stdout.splitlines()[0]) == (75, "finished"), process.stdout + process.stderr
    assert not (tmp_path / "begun").exists()
    assert (tmp_path / "asked").read_text().strip() == asked if asked else not (tmp_path / "asked").exists()
