"""What the jobs that measure SmolLM2 refuse before they begin, run in place and as sbatch runs them: from a copy elsewhere."""
import os
import shutil
import subprocess

import pytest
from running import ROOT


def start(script, **environment):
    return subprocess.run(["bash", str(script)], env={**os.environ, **environment}, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("job", ["controls", "table"])
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


@pytest.mark.parametrize("job", ["controls", "table"])
def test_submitted_from_elsewhere_they_say_so(job, tmp_path):
    process = start(ROOT / "jobs" / f"{job}.sh", SLURM_SUBMIT_DIR=str(tmp_path))
    assert process.returncode == 2 and "is not the repository" in process.stderr
