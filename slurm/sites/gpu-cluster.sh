# An example for a cluster of nodes with 8 GPUs: copy it to slurm/sites/NAME.sh, change what differs, and set SITE=NAME.
# shellcheck disable=SC2034  # used by slurm/environment.sh
# module load gcc/12 openmpi/4.1 cuda/12          # whatever the site calls them

launcher=srun
# One rank per GPU, next to its cores. --mpi=pmix, or ranks would not know of each other; --kill-on-bad-exit ends the others when one
# is lost, so that none waits in a collective. (Under srun the ranks' GPUs are told apart by their local rank.)
launch_options=(--mpi=pmix --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} --cpu-bind=cores --gpu-bind=none)
threads=${SLURM_CPUS_PER_TASK:-}

# NCCL and Open MPI over the fast network, not the management one: `ip -br addr` on a node shows the names.
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-ib0} NCCL_IB_HCA=${NCCL_IB_HCA:-mlx5}
export OMPI_MCA_btl_tcp_if_include=${OMPI_MCA_btl_tcp_if_include:-ib0}
