"""A two-node Slurm of the tests' own (slurm/local-cluster.sh), and the models that the end-to-end tests use."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/end_to_end"))
import workshop  # noqa: E402


class Cluster:
    """Commands as a user of the cluster types them."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {**workshop.ENVIRONMENT, "FAIRGPTQ_CLUSTER": str(folder), "FAIRGPTQ_CLUSTER_PORT": str(20000 + os.getpid() % 5000 * 4),
                            "SLURM_CONF": str(folder / "slurm.conf"), "FAIRGPTQ": workshop.BINARY, "SITE": "laptop",
                            "PYTHON": sys.executable, "OMPI_MCA_btl_tcp_if_include": "lo"}  # as `local-cluster.sh env` has it

    def local(self, *arguments):
        return subprocess.run([ROOT / "slurm/local-cluster.sh", *arguments], env=self.environment, capture_output=True,
                              text=True, check=False, timeout=120)

    def call(self, *arguments, **variables):
        process = subprocess.run(list(map(str, arguments)), env={**self.environment, **variables}, capture_output=True,
                                 text=True, check=False, timeout=60, cwd=ROOT)
        assert process.returncode == 0, f"{arguments}: {process.stdout}{process.stderr}"
        return process.stdout.strip()

    def submit(self, log, *arguments, **variables):
        return self.call("sbatch", "--parsable", f"--output={log}", *arguments,
                         **{name: str(value) for name, value in variables.items()}).split(";")[0]

    def state(self, job):
        shown = self.call("scontrol", "show", "job", job)
        return shown.split("JobState=")[1].split()[0], int(shown.split("Restarts=")[1].split()[0])

    def wait(self, job, seconds=100, states=("COMPLETED",), log=None):
        """Until the job has ended, which must be in one of these states."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state, _ = self.state(job)
            if state not in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "SIGNALING"):
                break
            time.sleep(0.2)
        text = log.read_text() if log and log.exists() else ""
        assert state in states, f"job {job} is {state}\n{text}"
        return text


def until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("the local Slurm's daemons must be started by root")
    for program in ("slurmctld", "slurmd", "munged", "sbatch"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (apt-get install slurm-wlm munge)")
    found = Cluster(tmp_path_factory.mktemp("slurm") / "cluster")
    started = found.local("start")
    assert started.returncode == 0, started.stdout + started.stderr
    yield found
    found.local("stop")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A model whose run takes some seconds, and tokens to calibrate and to evaluate on."""
    import numpy as np
    folder = tmp_path_factory.mktemp("small")
    model = workshop.write_model(folder / "model", layers=6, hidden=256, intermediate=640)
    random = np.random.default_rng(3)

    def draw(count, length):
        return [random.integers(0, 384, length).tolist() for _ in range(count)]

    def task(kind, sequences, roles, **strings):
        return {"kind": kind, "sequences": sequences, "scored_from": [1] * len(sequences),
                "item": [i // roles for i in range(len(sequences))], "role": [i % roles for i in range(len(sequences))],
                "strings": strings}
    pairs = draw(100, 15)
    workshop.write_token_file(folder / "tokens.h5", {
        "tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "text": draw(30, 150),
        "pairs": {"stereotype": pairs, "anti_stereotype": [pair[:7] + [5] + pair[8:] for pair in pairs],
                  "category": ["any"] * len(pairs)},
        "tasks": {"pairs": task("pair_preference", draw(40, 12), 2, group=["any"] * 20),
                  "words": task("perplexity", draw(10, 40), 1)}})
    return model, folder / "tokens.h5"


@pytest.fixture(scope="session")
def expected(small, tmp_path_factory):
    """What two undisturbed ranks give."""
    out = tmp_path_factory.mktemp("expected") / "run"
    workshop.run(2, "quantize", "--model", small[0], "--tokens", small[1], "--out", out, "--group-size", "64")
    return workshop.read_run(out)
