#!/usr/bin/env bash
# SmolLM2 as it is, rounded to nearest, and quantized with GPTQ and Fair-GPTQ, at 4 and 3 bits, with both solvers and with H from
# pairs alone and from pairs and text: 15 models, one table, one page with plots.
#   bash jobs/table.sh        or        sbatch jobs/table.sh
# Finished layers and evaluations are kept: run it again to go on. jobs/smollm2.sh names its environment (STEREOSET, MORE, …); and
#   ALPHA=A          weight of the bias term (default 0.1)
#   BITS="4 3"       bits to measure
#SBATCH --job-name=fairgptq-table
#SBATCH --ntasks=2
#SBATCH --signal=USR1@120
#SBATCH --requeue
set -euo pipefail
# sbatch copies a script elsewhere: what it was submitted from is the repository then.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
job=table
[[ -f jobs/smollm2.sh ]] || { echo "$job: $PWD is not the repository: submit it from there" >&2; exit 2; }
# shellcheck source=jobs/smollm2.sh
source jobs/smollm2.sh
alpha=${ALPHA:-0.1}
read -r -a all_bits <<<"${BITS:-4 3}"
[[ ${BITS:-4 3} =~ ^[2348](\ [2348])*$ ]] || fail "BITS=${BITS-} is not a list of 2, 3, 4 and 8"
is_number ALPHA "$alpha"
work=${WORK:-work/table${stereoset:+-stereoset}}

prepare_all
say "original"
evaluate original --model "$work/model"
reports=("$work/original.json")
runs=()
add() { # NAME [options]
    measure "$@"
    reports+=("$work/$1.json")
    runs+=("$work/$1")
}
for bits in "${all_bits[@]}"; do
    # Damped so far that H is a multiple of the identity, no column's error is passed on to others: rounding to nearest.
    add "nearest-$bits" --bits "$bits" --alpha 0 --damp 1e9
    for from in pairs both; do
        add "gptq-$from-$bits" --bits "$bits" --alpha 0 --hessian-from "$from"
        for solver in reference joint; do
            add "fair-$solver-$from-$bits" --bits "$bits" --alpha "$alpha" --solver "$solver" --hessian-from "$from"
        done
    done
done

say "Table"
"$python" tools/table.py "${reports[@]}" | tee "$work/table.md"
"$python" tools/report.py "${reports[@]}" "${runs[@]}" --title "SmolLM2-135M-Instruct" --out "$work/report.html"
echo "in $work/table.md and $work/report.html"
