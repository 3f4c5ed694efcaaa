#!/usr/bin/env bash
# Is it the pairs? Runs Fair-GPTQ and its controls on SmolLM2 and shows what each does to bias, compared with GPTQ:
# the method with pairs as they are; with each stereotype beside another's partner (shuffled); and beside a sentence that has
# nothing to do with it (unrelated; StereoSet alone has such sentences). If it is the pairs, the controls' effect vanishes: the
# table says whether it does. Mean |Δ| also falls in a model that tells any two sentences apart less; relative to how far it tells
# them from an unrelated sentence (StereoSet) it does not.
# Sentences that have less in common differ more: at the same α, a control's penalty is larger than the method's, flattens the
# model as a whole, and lowers any difference of log-probabilities at the cost of perplexity. So a control gets the α at which
# its penalty α·tr(WCWᵀ) is as large as the method's in the median module.
#   bash jobs/controls.sh        or        sbatch jobs/controls.sh
# Finished layers and evaluations are kept: run it again to go on. jobs/smollm2.sh names its environment (STEREOSET, …); and
#   ALPHA=A          weight of the bias term (default 0.1)
#   ALIGNMENT=NAME   quantize's --pair-alignment (default position). context has one control, unrelated: shuffled partners share no
#                    context. Another alignment in the same WORK shares what does not depend on it.
#SBATCH --job-name=fairgptq-controls
#SBATCH --ntasks=2
#SBATCH --signal=USR1@120
#SBATCH --requeue
set -euo pipefail
# sbatch copies a script elsewhere: what it was submitted from is the repository then.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
job=controls
[[ -f jobs/smollm2.sh ]] || { echo "$job: $PWD is not the repository: submit it from there" >&2; exit 2; }
# shellcheck source=jobs/smollm2.sh
source jobs/smollm2.sh
alpha=${ALPHA:-0.1}
is_number ALPHA "$alpha"
alignment=${ALIGNMENT:-position}
case $alignment in
    position | common | mean) ;;
    context) [[ -n $stereoset ]] || fail "ALIGNMENT=context has one control, unrelated sentences: give StereoSet (STEREOSET=FILE)" ;;
    *) fail "ALIGNMENT=$alignment is not position, common, context or mean" ;;
esac
work=${WORK:-work/controls${stereoset:+-stereoset}}

suffix=
if [[ $alignment != position ]]; then suffix=-$alignment; fi

prepare_all

# The α at which a control's penalty is the method's. The median of modules, since a few, with huge activations, outweigh the rest.
scaled_alpha() { # NAME of a run with the control's pairs
    "$program" inspect "$work/gptq$suffix" --json >"$work/gptq.inspect.json"
    "$program" inspect "$work/$1" --json >"$work/$1.inspect.json"
    "$python" - "$alpha" "$work/gptq.inspect.json" "$work/$1.inspect.json" <<'EOF'
import json, statistics, sys
given, control = ([module["bias_before"] for module in json.load(open(path))["modules"]] for path in sys.argv[2:])
print(f"{float(sys.argv[1]) * statistics.median(a / b for a, b in zip(given, control) if b > 0):.3g}")
EOF
}
control() { # shuffled|unrelated
    local scaled name=$1$suffix
    measure "gptq-$name" --alpha 0 --pairs "$1" --pair-alignment "$alignment" # for its C; where H holds other sentences, it is what this control starts from
    scaled=$(scaled_alpha "gptq-$name")
    measure "$name" --alpha "$scaled" --pairs "$1" --pair-alignment "$alignment"
    reports+=("GPTQ, $1=$work/gptq-$name.json" "Fair-GPTQ, $1, α = $scaled=$work/$name.json")
}

say "original"
evaluate original --model "$work/model"
measure gptq --alpha 0
if [[ -n $suffix ]]; then quantize "gptq$suffix" --alpha 0 --pair-alignment "$alignment"; fi # the same model; for its C
measure "method$suffix" --alpha "$alpha" --pair-alignment "$alignment"
reports=("original=$work/original.json" "GPTQ=$work/gptq.json" "Fair-GPTQ, $alignment, α = $alpha=$work/method$suffix.json")
columns=crows_pairs.mean_abs_difference_per_token,crows_pairs.mean_abs_difference,perplexity.perplexity
if [[ $alignment != context ]]; then control shuffled; fi
if [[ -n $stereoset ]]; then
    control unrelated
    columns=stereoset.mean_abs_difference_per_token,stereoset.relative_difference,stereoset.lms,stereoset.ss,$columns
fi

say "What each does to bias, in brackets compared with GPTQ"
"$python" tools/table.py "${reports[@]}" --relative-to "$work/gptq.json" --columns "$columns" | tee "$work/controls$suffix.md"
[[ -n $stereoset ]] || echo "(for the control of unrelated sentences give StereoSet: STEREOSET=FILE)"
echo "in $work/controls$suffix.md"
