#!/usr/bin/env bash
# What each option of fairgptq quantize is worth: SmolLM2 quantized with Fair-GPTQ as it is by default, then with one option changed,
# then with the best of them together; perplexity and bias of each, beside the default's.
#   bash jobs/options.sh        or        sbatch jobs/options.sh
# Finished layers and evaluations are kept: run it again to go on. jobs/smollm2.sh names its environment (STEREOSET, QUANTIZE, …); and
#   ALPHA=A          weight of the bias term (default 0.1)
#   BITS=N           bits of a code (default 4)
#SBATCH --job-name=fairgptq-options
#SBATCH --ntasks=2
#SBATCH --signal=USR1@120
#SBATCH --requeue
set -euo pipefail
# sbatch copies a script elsewhere: what it was submitted from is the repository then.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
job=options
[[ -f jobs/smollm2.sh ]] || { echo "$job: $PWD is not the repository: submit it from there" >&2; exit 2; }
# shellcheck source=jobs/smollm2.sh
source jobs/smollm2.sh
alpha=${ALPHA:-0.1}
bits=${BITS:-4}
work=${WORK:-work/options${stereoset:+-stereoset}}

prepare_all
say "original"
evaluate original --model "$work/model"
reports=("original=$work/original.json")
try() { # TITLE [options]
    local title=$1 name
    shift
    name=$bits-$(tr -cs 'a-z0-9\n' - <<<"${title,,}")
    measure "$name" --bits "$bits" --alpha "$alpha" "$@"
    reports+=("$title=$work/$name.json")
}
try "default"
try "order group" --order group
try "order activation" --order activation
try "order activation, static groups" --order activation --static-groups
try "static groups" --static-groups
try "scale search mse" --scale-search mse
try "asym" --asym
try "group size 32" --group-size 32
try "damp 0.001" --damp 0.001
try "damp 0.1" --damp 0.1
try "inputs original" --inputs original
try "order group, scale search mse" --order group --scale-search mse
try "order group, scale search mse, asym" --order group --scale-search mse --asym
# Without the bias term, to tell what the options do from what it does.
try "GPTQ" --alpha 0
try "GPTQ, order group, scale search mse" --alpha 0 --order group --scale-search mse

say "What each option is worth, in brackets compared with the default"
columns=perplexity.perplexity,crows_pairs.mean_abs_difference_per_token
if [[ -n $stereoset ]]; then columns+=,stereoset.mean_abs_difference_per_token,stereoset.relative_difference,stereoset.lms; fi
"$python" tools/table.py "${reports[@]}" --relative-to "$work/$bits-default.json" --columns "$columns" | tee "$work/options-$bits.md"
echo "in $work/options-$bits.md"
