#!/usr/bin/env bash
# Which α? A grid or a random search as a Slurm job array, and a job that gathers: a table, the Pareto plot of bias against ability,
# the best α under a given loss of ability, and the file for quantize --alpha-map.
#   sbatch jobs/alpha_sweep.sh                                  from the repository's folder, after editing the lines below
#   MODEL=DIR TOKENS=FILE.h5 RANKS=2 bash jobs/alpha_sweep.sh   the same without Slurm, one α after the other
#   sbatch --gpus-per-node=0 …, with SBATCH_TASK=--gpus-per-node=0, on CPU nodes
# Run it again to retry what failed: finished α are skipped, the others go on where they were. (Where every α is one number and
# --inputs original will do, `fairgptq sweep` makes all runs in one pass.)
# Options for one α's job are those of this script's own #SBATCH lines, or SBATCH_TASK="--nodes=2 …".
#SBATCH --job-name=alpha_sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=12
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

# ---- edit these, or set them in the environment ----
export MODEL=${MODEL:-models/Llama-3.1-8B-Instruct}
export TOKENS=${TOKENS:-work/alpha_sweep/tokens.h5}
export OUT=${OUT:-work/alpha_sweep}
export GRID=${GRID-0,0.01,0.03,0.1,0.3,1}  # empty: none
export RANDOM_POINTS=${RANDOM_POINTS:-0} SCOPE=${SCOPE:-model} SEED=${SEED:-0} LOW=${LOW:-0.001} HIGH=${HIGH:-10}
#   RANDOM_POINTS log-uniform draws from LOW to HIGH; SCOPE: one α for the model, for each kind of module, or for each layer
export QUANTIZE=${QUANTIZE:---bits 4 --group-size 128 --order group --scale-search mse}
export MAX_LOSS=${MAX_LOSS:-0.05} # largest loss of ability against α = 0: 0.05 is 5 % of perplexity
export TRIES=${TRIES:-3}          # of each α, before it counts as failed
export AT_ONCE=${AT_ONCE:-8}      # array tasks at the same time
# -----------------------------------------------------

home=${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}
[[ -f $home/slurm/environment.sh ]] || { echo "alpha_sweep: submit it from the repository's folder" >&2; exit 2; }
cd "$home"
source slurm/environment.sh
ranks=${RANKS:-${SLURM_NTASKS:-1}}
check_positive RANKS "$ranks"
read -r -a quantize <<<"$QUANTIZE"
tokens=$TOKENS

one_point() { # NAME: quantizes and evaluates; an exit code other than 0 where that failed
    local name=$1 try code=0
    if is_made "$OUT/reports/$name.json"; then return 0; fi
    for ((try = 1; try <= TRIES; try++)); do
        code=0
        run_resumable launch "$ranks" "$program" quantize --model "$MODEL" --tokens "$TOKENS" --out "$OUT/runs/$name" "${quantize[@]}" \
            --alpha-map "$OUT/points/$name.json" --resume || code=$?
        ((code != 0)) || run_is_done "$OUT/runs/$name" || code=1
        if ((code == 0)); then
            make_once "$OUT/reports/$name.json" \
                launch "$ranks" "$program" eval --run "$OUT/runs/$name" --tokens "$TOKENS" --out "$OUT/reports/$name.json" >/dev/null || code=$?
        fi
        # 2: it would be refused again; 75: it was asked to stop.
        ((code != 0 && code != 2 && code != 75)) || break
        echo "$name: try $try of $TRIES ended with exit code $code"
    done
    ((code == 0)) || echo "$name failed with exit code $code"
    return "$code"
}
original() {
    make_once "$OUT/reports/original.json" \
        launch "$ranks" "$program" eval --model "$MODEL" --tokens "$TOKENS" --out "$OUT/reports/original.json" >/dev/null
}
gather() {
    "$python" tools/sweep_results.py "$OUT" --max-loss "$MAX_LOSS" | tee "$OUT/summary.partial"
    mv "$OUT/summary.partial" "$OUT/summary.txt"
}
point_name() { printf 'point_%03d' "$1"; }

case "${1:-submit}" in
    submit)
        [[ -f $MODEL/config.json ]] || die "MODEL=$MODEL has no config.json: give the folder of a Hugging Face model"
        [[ -f $TOKENS ]] || die "TOKENS=$TOKENS does not exist: tools/prepare.py makes it"
        check_positive TRIES "$TRIES"
        check_positive AT_ONCE "$AT_ONCE"
        mkdir -p "$OUT/reports" "$OUT/runs"
        # Points of other settings would stand in one table.
        settings="MODEL=$(realpath "$MODEL") TOKENS=$(realpath "$TOKENS") QUANTIZE=$QUANTIZE"
        [[ ! -f $OUT/settings || $(<"$OUT/settings") == "$settings" ]] ||
            die "OUT=$OUT has the sweep of $(<"$OUT/settings"): give another OUT"
        echo "$settings" >"$OUT/settings"
        count=$("$python" tools/alpha_points.py --out "$OUT/points" ${GRID:+--grid "$GRID"} --random "$RANDOM_POINTS" --scope "$SCOPE" \
            --seed "$SEED" --low "$LOW" --high "$HIGH" --model "$MODEL")
        # The first point's settings are checked before hours are asked for.
        "$program" plan --model "$MODEL" --tokens "$TOKENS" --ranks "$ranks" "${quantize[@]}" --alpha-map "$OUT/points/point_000.json"
        original # here, as it finds out whether the token file has anything to evaluate on
        if [[ -z $under_slurm ]]; then
            for ((index = 0; index < count; index++)); do
                one_point "$(point_name "$index")" || true
                [[ -z $stop_asked ]] || exit 75
            done
            gather
            exit
        fi
        read -r -a task <<<"${SBATCH_TASK:-}"
        array=$(sbatch --parsable --array="0-$((count - 1))%$AT_ONCE" "${task[@]}" jobs/alpha_sweep.sh task)
        # afterany: the table of what succeeded, with the names of what did not.
        sbatch --parsable --dependency="afterany:$array" "${task[@]}" jobs/alpha_sweep.sh gather >"$OUT/gather.job"
        echo "$count values of α as job $array; job $(<"$OUT/gather.job") gathers them into $OUT/summary.txt"
        ;;
    task) one_point "$(point_name "$SLURM_ARRAY_TASK_ID")" ;;
    gather) gather ;;
    *) die "usage: sbatch jobs/alpha_sweep.sh" ;;
esac
