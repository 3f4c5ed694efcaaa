"""The jobs as a user submits them, on two nodes, disturbed in every way that a cluster knows."""
import csv
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from conftest import ROOT, until
from workshop import read_run, write_model

TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")


def variables(small, out):
    return {"MODEL": small[0], "TOKENS": small[1], "OUT": out, "QUANTIZE": "--group-size 64"}


def layers(out):
    return len(list(out.glob("run/layers/layer_????.h5")))


def test_the_70b_job_preempted_twice_on_two_nodes(cluster, small, expected, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    job = cluster.submit(log, *TWO_NODES, "jobs/fairgptq_llama70b.sh", **variables(small, out))
    until(lambda: layers(out) >= 1, "the first layer")
    cluster.call("scontrol", "requeue", job)  # as a preempting job makes Slurm do
    until(lambda: cluster.state(job)[1] == 1 and cluster.state(job)[0] == "RUNNING", "the restart", 60)
    # What Slurm sends before the time limit (#SBATCH --signal=B:USR1@300).
    until(lambda: '"replayed"' in (out / "run/log.jsonl").read_text(), "the resumed run")
    cluster.call("scancel", "--signal=USR1", "--batch", job)
    text = cluster.wait(job, log=log)
    assert cluster.state(job)[1] == 2
    assert text.count("resuming after layer") >= 1 and "back into the queue" in text
    assert read_run(out / "run") == expected
    summary = (out / "summary.txt").read_text()
    for part in ("done, 6 of 6 layers", "perplexity", "Fair-GPTQ", f"job        {job}, started 2 times again"):
        assert part in summary
    assert (out / "gptq/config.json").is_file()


def test_a_node_that_dies(cluster, small, expected, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    job = cluster.submit(log, *TWO_NODES, "jobs/fairgptq_llama70b.sh", **variables(small, out))
    until(lambda: layers(out) >= 1, "the first layer")
    daemon = int((cluster.folder / "slurmd-n2.pid").read_text())
    ranks = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            if b"SLURMD_NODENAME=n2" in environment and f"SLURM_JOB_ID={job}\0".encode() in environment:
                ranks.append(int(process.name))
        except OSError:
            continue
    for pid in [daemon, *ranks]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        until(lambda: cluster.state(job)[0] != "RUNNING", "the end of the job on a dead node")
    finally:
        assert cluster.local("node", "n2").returncode == 0
    cluster.wait(job, log=log)
    assert cluster.state(job)[1] >= 1
    assert read_run(out / "run") == expected


def test_two_jobs_on_one_run(cluster, small, tmp_path):
    long = (write_model(tmp_path / "model", layers=30, hidden=256, intermediate=640), small[1])
    out = tmp_path / "out"
    one_rank = ("--nodes=1", "--cpus-per-task=1", "--ntasks-per-node=1", "jobs/fairgptq_llama8b.sh")
    first = cluster.submit(tmp_path / "first", *one_rank, **variables(long, out))
    until(lambda: layers(out) >= 1, "the first layer")
    second = cluster.submit(tmp_path / "second", *one_rank, **variables(long, out))
    text = cluster.wait(second, states=("FAILED",), log=tmp_path / "second")
    assert "is in use by process" in text and f", job {first}, since" in text
    cluster.wait(first, log=tmp_path / "first")


def test_a_time_limit_that_comes_near(cluster, small, tmp_path):
    """Slurm itself sends the signal, some seconds early or late; a layer that takes for ever stands in for a long run."""
    program = tmp_path / "fairgptq"
    program.write_text(f"""#!/bin/bash
if [[ $1 == quantize && ! -e {tmp_path}/first ]]; then
    touch {tmp_path}/first
    trap 'exit 75' USR1
    sleep 1000 & wait
fi
exec {cluster.environment["FAIRGPTQ"]} "$@"
""")
    program.chmod(0o755)
    log = tmp_path / "log"
    job = cluster.submit(log, "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=1", "--time=1", "--signal=B:USR1@50",
                         "jobs/fairgptq_llama8b.sh", **{**variables(small, tmp_path / "out"), "FAIRGPTQ": program})
    text = cluster.wait(job, 150, log=log)
    assert "back into the queue" in text and cluster.state(job)[1] == 1
    assert "done, 6 of 6 layers" in (tmp_path / "out/summary.txt").read_text()


def test_srun_starts_ranks_that_know_each_other(cluster, small, expected, tmp_path):
    shown = cluster.call("srun", "--mpi=pmix", "--nodes=1", "--ntasks=2", cluster.environment["FAIRGPTQ"], "quantize", "--model",
                         small[0], "--tokens", small[1], "--out", tmp_path / "run", "--group-size", "64")
    assert read_run(tmp_path / "run") == expected, shown


def test_the_profile_of_a_gpu_cluster(cluster, small, expected, tmp_path):
    """Its launcher, its signals and its environment on one node with GPUs by name only; the backend is the CPU."""
    out, log = tmp_path / "out", tmp_path / "log"
    job = cluster.submit(log, "--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=2", "jobs/fairgptq_llama70b.sh",
                         **variables(small, out), SITE="gpu-cluster")
    until(lambda: layers(out) >= 1, "the first layer")
    cluster.call("scancel", "--signal=USR1", "--batch", job)
    text = cluster.wait(job, log=log)
    assert cluster.state(job)[1] == 1 and "back into the queue" in text and "resuming after layer" in text
    assert read_run(out / "run") == expected
    assert "2 ranks" in (out / "summary.txt").read_text()


def test_the_alpha_sweep_names_what_failed_and_ends_with_its_tables(cluster, small, tmp_path):
    out = tmp_path / "out"
    settings = {**variables(small, out), "GRID": "0,0.1", "RANDOM_POINTS": "1", "SCOPE": "module", "SEED": "3", "LOW": "0.01",
                "HIGH": "1", "MAX_LOSS": "9", "RANKS": "1", "SBATCH_TASK": f"--output={tmp_path}/task-%A_%a --cpus-per-task=1"}
    (out / "runs/point_001").mkdir(parents=True)
    (out / "runs/point_001/thesis.tex").touch()  # somebody's folder: this value of α cannot be done
    for failed in (True, False):
        submit = cluster.submit(tmp_path / "submit", "--cpus-per-task=1", "jobs/alpha_sweep.sh", **settings)
        cluster.wait(submit, log=tmp_path / "submit")
        cluster.wait((out / "gather.job").read_text().strip())
        summary = (out / "summary.txt").read_text()
        assert ("without a result: point_001" in summary) == failed, summary
        if failed:
            (out / "runs/point_001/thesis.tex").unlink()
    with open(out / "sweep.csv", encoding="utf-8") as file:
        rows = {row["point"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"point_000", "point_001", "point_002"}
    best = json.loads((out / "best_alpha_map.json").read_text())
    least = min(rows.values(), key=lambda row: float(row["bias"]))["point"]
    assert best == json.loads((out / f"points/{least}.json").read_text())
    assert len(json.loads((out / "points/point_002.json").read_text())) == 7  # one α for each kind of module
    try:
        import matplotlib  # noqa: F401
        assert (out / "pareto.svg").stat().st_size > 1000
    except ImportError:
        assert "no plot" in summary


def test_a_task_of_an_array_goes_back_alone(cluster, tmp_path):
    """The last one, which has the array's own id."""
    script = tmp_path / "array.sh"
    script.write_text(f"""#!/bin/bash
cd {ROOT}
source slurm/environment.sh
echo "$SLURM_ARRAY_TASK_ID" >>{tmp_path}/ran
[[ $SLURM_ARRAY_TASK_ID == 1 && ${{SLURM_RESTART_COUNT:-0}} == 0 ]] || exit 0
run_resumable sleep 1000
""")
    job = cluster.submit(f"{tmp_path}/log-%a", "--array=0-1%1", "--cpus-per-task=1", "--ntasks=1", "--requeue", script)
    ran = tmp_path / "ran"
    until(lambda: ran.exists() and "1" in ran.read_text(), "the last task")
    cluster.call("scancel", "--signal=USR1", "--batch", f"{job}_1")
    until(lambda: ran.read_text().count("1") == 2, "the last task's second try", 100)
    cluster.wait(f"{job}_1")
    assert sorted(ran.read_text().split()) == ["0", "1", "1"]


def test_a_sweep_by_the_profile_of_a_gpu_cluster(cluster, small, tmp_path):
    """As it stands, but for what no machine of the tests has: 12 processors, a GPU."""
    out = tmp_path / "out"
    task = f"--output={tmp_path}/task-%A_%a --cpus-per-task=2"
    settings = {**variables(small, out), "GRID": "0.1", "SITE": "gpu-cluster", "SBATCH_TASK": task}
    cluster.wait(cluster.submit(tmp_path / "submit", *task.split()[1:], "jobs/alpha_sweep.sh", **settings), log=tmp_path / "submit")
    cluster.wait((out / "gather.job").read_text().strip())
    assert "point_000" in (out / "summary.txt").read_text()


def job_without_slurm(name, cluster, code=0, **settings):
    environment = {key: value for key, value in cluster.environment.items() if key != "SLURM_CONF"}
    process = subprocess.run(["bash", f"jobs/{name}.sh"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
                             env={**environment, "RANKS": "1", **{key: str(value) for key, value in settings.items()}})
    assert process.returncode == code, process.stdout + process.stderr
    return process.stdout + process.stderr


def test_what_was_made_of_other_inputs_is_not_kept(cluster, small, tmp_path):
    """Reports of an older token file are made again; points of other settings do not come into a sweep's table."""
    tokens = tmp_path / "tokens.h5"
    shutil.copy(small[1], tokens)
    settings = {"MODEL": small[0], "TOKENS": tokens, "OUT": tmp_path / "out", "GRID": "0,0.1", "QUANTIZE": "--bits 4 --group-size 64"}
    job_without_slurm("alpha_sweep", cluster, **settings)
    reports = [tmp_path / f"out/reports/{name}.json" for name in ("original", "point_000", "point_001")]
    made = [report.stat().st_mtime_ns for report in reports]
    job_without_slurm("alpha_sweep", cluster, **settings)
    assert [report.stat().st_mtime_ns for report in reports] == made
    tokens.touch()
    job_without_slurm("alpha_sweep", cluster, **settings)
    assert all(report.stat().st_mtime_ns > before for report, before in zip(reports, made))
    said = job_without_slurm("alpha_sweep", cluster, code=2, **settings | {"QUANTIZE": "--bits 3 --group-size 64"})
    assert "has the sweep of MODEL=" in said and "--bits 4" in said
    assert "FORMAT=gguf is not" in job_without_slurm("fairgptq_llama8b", cluster, code=2, **settings | {"FORMAT": "gguf"})
    assert "FAIRGPTQ=/nowhere is not a program" in job_without_slurm("fairgptq_llama8b", cluster, code=2, **settings | {"FAIRGPTQ": "/nowhere"})


def test_the_same_file_without_slurm(small, expected, tmp_path, cluster):
    out = tmp_path / "out"
    environment = {name: value for name, value in cluster.environment.items() if name != "SLURM_CONF"}
    process = subprocess.run(["bash", "jobs/fairgptq_llama8b.sh"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
                             env={**environment, **{k: str(v) for k, v in variables(small, out).items()}, "RANKS": "2"})
    assert process.returncode == 0, process.stdout + process.stderr
    assert read_run(out / "run") == expected
    assert "Fair-GPTQ" in (out / "summary.txt").read_text()


def test_where_there_are_gpus_a_job_takes_a_program_for_them(tmp_path):
    """It stands in a copy of the repository's scripts, whose builds are put there one after the other."""
    home = tmp_path / "home"
    for folder in ("jobs", "slurm"):
        shutil.copytree(ROOT / folder, home / folder)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").symlink_to("/bin/false")
    variables = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "MODEL": str(tmp_path / "none"), "OUT": str(tmp_path / "out")}

    def refusal(**more):
        process = subprocess.run(["bash", home / "jobs/fairgptq_llama8b.sh"], env=variables | more, capture_output=True, text=True, check=False)
        assert process.returncode == 2, process.stderr
        return process.stderr

    def build(preset, version):
        program = home / "build" / preset / "fairgptq"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 'fairgptq 0.1.0 ({version})'\n", encoding="utf-8")
        program.chmod(0o755)

    under_slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_GPUS": "0,1", "SLURM_SUBMIT_DIR": str(home), "SITE": "laptop"}
    build("release", "CPU")
    assert "none has no config.json" in refusal()
    assert "none has no config.json" in refusal(**under_slurm | {"SLURM_JOB_GPUS": ""})
    assert "none has no config.json" in refusal(**under_slurm | {"SLURM_JOB_GPUS": "", "SLURM_GPUS_ON_NODE": "0"})
    for gpus in ({}, {"SLURM_JOB_GPUS": "0"}, {"SLURM_JOB_GPUS": "", "SLURM_GPUS_ON_NODE": "2"}):
        assert "build/cuda/fairgptq: build it (bash jobs/setup.sh; cmake --preset cuda; " in refusal(**under_slurm | gpus)
    (tmp_path / "bin/nvidia-smi").unlink()
    (tmp_path / "bin/nvidia-smi").symlink_to("/bin/true")
    assert "build/cuda/fairgptq: build it" in refusal()
    assert "none has no config.json" in refusal(FAIRGPTQ=str(home / "build/release/fairgptq"))
    assert "none has no config.json" in refusal(**under_slurm | {"SLURM_JOB_GPUS": ""})  # a job on a GPU node that asked for none
    build("cuda", "CPU")
    assert "is built for CPUs alone" in refusal(**under_slurm)
    shutil.rmtree(home / "build/cuda")
    build("cuda", "CPU, CUDA, NCCL")
    assert "none has no config.json" in refusal(**under_slurm)
    assert "none has no config.json" in refusal()
