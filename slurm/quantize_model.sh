# From a model to a fair 4-bit model, its report and a summary: what jobs/fairgptq_llama*.sh do after their settings. Source it.
# shellcheck disable=SC2154  # the settings are the job's, the rest is environment.sh's
# Every step is skipped where its result is there, so a job that starts again goes on where it was.
check_positive RANKS "$ranks"
[[ $format =~ ^(gptq|compressed-tensors|dense)$ ]] || die "FORMAT=$format is not gptq, compressed-tensors or dense"
[[ -f $model/config.json ]] || die "MODEL=$model has no config.json: give the folder of a Hugging Face model"
mkdir -p "$out"
summary=$out/summary.txt

if [[ ! -f $tokens ]]; then
    ((${#prepare[@]} > 0)) || die "TOKENS=$tokens does not exist, and there are no sources in PREPARE to make it of"
    say "Token file: $tokens"
    run_anew "$python" "$fairgptq_home/tools/prepare.py" --model "$model" --out "$tokens" "${prepare[@]}"
fi

say "Plan: $ranks ranks"
"$program" plan --model "$model" --tokens "$tokens" --ranks "$ranks" ${device_memory:+--device-memory "$device_memory"} \
    "${quantize[@]}" | tee "$out/plan.txt"
# The run and the export hold about a third of the model each; an interrupted export may leave another.
need=$(($(du -sLk "$model" | cut -f1)))
# Of 8-bit floats they are parts of twice as much.
! grep -q '"quantization_config"' "$model/config.json" || need=$((2 * need))
free=$(($(df -Pk "$out" | awk 'NR == 2 {print $4}')))
((free >= need)) || [[ -f $out/run/run.json ]] ||
    die "$out has $((free / 1048576)) GiB free where about $((need / 1048576 + 1)) GiB are needed: name another OUT"

ended() { # EXIT-CODE: goes on after 0 alone
    requeue_after_failure "$1"
    (($1 == 0)) || exit "$1"
}
evaluate() { # REPORT OPTION PATH
    local code=0
    make_once "$1" launch "$ranks" "$program" eval "$2" "$3" --tokens "$tokens" --out "$1" || code=$?
    ended "$code"
}

# First, as it finds out whether the token file has anything to evaluate on.
say "Evaluate the original model"
evaluate "$out/original.json" --model "$model"

say "Quantize (finished layers are kept; fairgptq watch $out/run shows progress)"
code=0
run_resumable launch "$ranks" "$program" quantize --model "$model" --tokens "$tokens" --out "$out/run" \
    ${device_memory:+--device-memory "$device_memory"} "${quantize[@]}" --resume || code=$?
((code != 0)) || run_is_done "$out/run" || code=1
ended "$code"

say "Export: $out/$format"
[[ -d $out/$format ]] || run_anew "$program" export "$out/run" --format "$format" --out "$out/$format"

say "Evaluate the 4-bit model"
evaluate "$out/fair.json" --run "$out/run"

say "Summary: $summary"
{
    echo "model      $model"
    echo "tokens     $tokens"
    echo "quantize   ${quantize[*]}"
    echo "run        $out/run    export $out/$format"
    echo "job        ${SLURM_JOB_ID:-none}, started ${SLURM_RESTART_COUNT:-0} times again, $ranks ranks"
    "$program" watch "$out/run" --once
    echo
    "$program" compare "$out/original.json" "$out/fair.json"
} | tee "$summary.partial"
mv "$summary.partial" "$summary"
