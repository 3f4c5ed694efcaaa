#!/usr/bin/env bash
# A 70B model on 1 to N nodes of 8 GPUs: sbatch --nodes=N for more nodes.
#   sbatch jobs/fairgptq_llama70b.sh                                   from the repository's folder, after editing the lines below
#   MODEL=DIR TOKENS=FILE.h5 RANKS=2 bash jobs/fairgptq_llama70b.sh    the same without Slurm, on CPUs where there are no GPUs
#   sbatch --gpus-per-node=0 jobs/fairgptq_llama70b.sh                   on CPU nodes
# It plans before it computes, puts itself back into the queue before its time limit, resumes by itself, and ends with
# OUT/summary.txt. On a cluster of its own kind: copy slurm/sites/gpu-cluster.sh and set SITE.
#SBATCH --job-name=fairgptq_llama70b
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# shellcheck disable=SC2206,SC2034  # lists of words, used by what is sourced below
set -euo pipefail

# ---- edit these, or set them in the environment ----
model=${MODEL:-models/Llama-3.1-70B-Instruct}
tokens=${TOKENS:-work/fairgptq_llama70b/tokens.h5}
prepare=(${PREPARE:---stereoset data/stereoset_dev.json --crows-pairs data/crows_pairs.csv --text data/wiki.train.txt --perplexity data/wiki.test.txt})
out=${OUT:-work/fairgptq_llama70b}
quantize=(${QUANTIZE:---alpha 0.1 --bits 4 --group-size 128 --order group --scale-search mse})
format=${FORMAT:-gptq}          # or compressed-tensors, dense
device_memory=${DEVICE_MEMORY:-}   # GiB of each rank's device, 80 say: the plan then refuses what does not fit
ranks=${RANKS:-${SLURM_NTASKS:-1}}
# -----------------------------------------------------

home=${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}
[[ -f $home/slurm/environment.sh ]] || { echo "fairgptq_llama70b.sh: submit it from the repository's folder" >&2; exit 2; }
cd "$home"
source slurm/environment.sh
source slurm/quantize_model.sh
