# One machine without modules: ranks share its cores (also the local two-node Slurm of slurm/local-cluster.sh).
# shellcheck disable=SC2034  # used by slurm/environment.sh
launch_options=(--oversubscribe --bind-to none)
