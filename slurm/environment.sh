# What the jobs share. Works under sbatch and under plain bash.
#   SITE=laptop|gpu-cluster|FILE   the site profile (slurm/sites/NAME.sh): modules, network, launcher; default: laptop outside Slurm,
#                                  under it gpu-cluster where the job has GPUs
#   FAIRGPTQ=FILE                  the program; default: build/cuda/fairgptq where there are GPUs, else build/release/fairgptq
# It gives: say, die, check_positive; run_resumable and run_anew COMMAND…, of which one may be launch RANKS COMMAND…; run_is_done RUN; is_made REPORT; make_once REPORT COMMAND…
# ($tokens is what reports are made from);
# $python, $program
fairgptq_home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
under_slurm=${SLURM_JOB_ID:-}

say() { printf '\n== %s\n' "$*"; }
die() { # SENTENCE: exit code 2, as fairgptq's own refusals
    echo "$(basename "$0" .sh): $*" >&2
    exit 2
}
check_positive() { # NAME VALUE
    [[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1=$2 is not a positive whole number"
}

# What a site profile may set or replace.
launcher=mpirun             # or srun
launch_options=()           # for the launcher, beyond the number of ranks
threads=                    # of each rank; empty: its share of the cores
site=${SITE:-laptop}
gpus=${SLURM_JOB_GPUS:-${SLURM_GPUS_ON_NODE:-}} # the first lists them, the second counts
[[ -n ${SLURM_JOB_GPUS:-} || $gpus != 0 ]] || gpus=
[[ -n ${SITE:-} || -z $gpus ]] || site=gpu-cluster
[[ $site == */* ]] || site=$fairgptq_home/slurm/sites/$site.sh
[[ -f $site ]] || die "SITE: there is no profile $site; copy one of $fairgptq_home/slurm/sites"
# shellcheck source=/dev/null
source "$site"

# shellcheck disable=SC2034  # for those that source this
python=${PYTHON:-$fairgptq_home/.venv/bin/python}
preset=release
if [[ -n $under_slurm ]]; then
    [[ -z $gpus ]] || preset=cuda
elif nvidia-smi -L >/dev/null 2>&1; then
    preset=cuda
fi
[[ -z ${FAIRGPTQ:-} || -x $FAIRGPTQ ]] || die "FAIRGPTQ=$FAIRGPTQ is not a program"
program=${FAIRGPTQ:-$fairgptq_home/build/$preset/fairgptq}
[[ -x $program ]] || program=$(command -v fairgptq) ||
    die "there is no $fairgptq_home/build/$preset/fairgptq: build it (bash jobs/setup.sh; cmake --preset $preset; cmake --build --preset $preset), or set FAIRGPTQ"
if [[ $preset == cuda && -z ${FAIRGPTQ:-} && $("$program" --version) != *CUDA* ]]; then
    die "there are GPUs, and $program is built for CPUs alone: build it with cmake --preset cuda, or set FAIRGPTQ"
fi
if [[ $EUID -eq 0 ]]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
[[ -z $threads ]] || export OMP_NUM_THREADS=$threads

launch() { # RANKS COMMAND…: only after run_resumable or run_anew, as it takes the place of their shell
    local count=$1
    shift
    if [[ $launcher == srun ]]; then
        exec srun --ntasks="$count" "${launch_options[@]}" "$@"
    else
        exec mpirun -n "$count" "${launch_options[@]}" "$@"
    fi
}

# Jobs that outlive their time. Slurm sends USR1 some minutes before the time limit (#SBATCH --signal=B:USR1@…). The job then puts
# itself back into the queue, under the same id and with the same log, and starts again from the top, where everything that is
# finished is skipped. TERM (preemption, scancel) is passed on; what comes after it is Slurm's to decide.
restart_asked=
stop_asked=
requeue() {
    echo "$(date -u +%FT%TZ) back into the queue"
    # An array's last task has the id of the array, by which all of its tasks would begin again.
    local task=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}
    scontrol requeue "${task:-$under_slurm}" && sleep 60 # until Slurm ends this job
    exit 75
}
on_signal() { # NAME
    [[ $1 == USR1 && -n $under_slurm ]] && restart_asked=1
    stop_asked=1
    interrupted=1
    # mpirun passes USR1 on to all ranks, srun to its tasks; on TERM they would give the ranks no time.
    if [[ -n ${child:-} ]]; then kill -s "${stop_signal:-TERM}" "$child" 2>/dev/null || true; fi
}
# A lost rank or node ends mpirun with an error: the job tries again from its last finished layer, a few times. What was refused (2)
# would be refused again.
requeue_after_failure() { # EXIT-CODE
    if [[ -n $under_slurm ]] && (($1 != 0 && $1 != 2 && $1 != 75 && ${SLURM_RESTART_COUNT:-0} < 5)); then requeue; fi
}
trap 'on_signal USR1' USR1
trap 'on_signal TERM' TERM
trap 'on_signal INT' INT # which what runs in the background does not get
supervise() { # STOP-SIGNAL COMMAND…: its exit code
    local code
    stop_signal=$1
    shift
    if [[ -n $stop_asked ]]; then # while the step before did its last, or between two
        [[ -z $restart_asked ]] || requeue
        return 75
    fi
    "$@" &
    child=$!
    while true; do # a trapped signal ends wait, and not the command
        interrupted=
        code=0
        wait "$child" || code=$?
        [[ -n $interrupted ]] || break
    done
    child=
    if [[ -n $restart_asked ]] && ((code != 0)); then requeue; fi
    return "$code"
}
run_resumable() { supervise USR1 "$@"; } # quantize, sweep: they finish their layer and end with 75
run_anew() { supervise TERM "$@"; }      # everything else: ended at once, done again after a restart

# Open MPI 5's mpirun ends with 0 where it lost a node, so that 0 alone says nothing: what was to be made does.
run_is_done() { # RUN: whether all of its layers are there
    local layers files
    layers=$(sed -n 's/^    "layers": \([0-9]*\).*/\1/p' "$1/run.json") # the run's, not the model's
    files=("$1"/layers/layer_*.h5)
    [[ -e ${files[0]} ]] || files=()
    [[ ${#files[@]} == "$layers" ]] || { echo "$1 has ${#files[@]} of ${layers:-?} layers" >&2 && return 1; }
}
# shellcheck disable=SC2154 # the job's
is_made() { # FILE: whether a report is there, and newer than the token file that it is made from
    [[ -s $1 && ! $tokens -nt $1 ]]
}
make_once() { # FILE COMMAND…: unless it is made; the command's exit code, or 1 where it makes none
    ! is_made "$1" || return 0
    run_anew "${@:2}" || return
    is_made "$1" || { echo "$1 was not made, though what makes it ended with 0" >&2 && return 1; }
}
