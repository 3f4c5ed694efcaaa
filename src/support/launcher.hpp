// What the program that started the ranks says of them in their environment.
#pragma once

#include <optional>

namespace fairgptq {

/// This rank's number on its node, as Open MPI, MPICH and Intel MPI, MVAPICH, Cray's PALS, Flux or Slurm tell it;
/// nothing where none does. Slurm comes last: whatever another launcher starts inside a job inherits Slurm's answer,
/// the same for all its ranks.
std::optional<int> launcher_local_rank();

/// How many ranks an MPI launcher started (of MPICH and Intel MPI, on this node), as it tells each of them; 1 where
/// none does. Slurm's own answers are not asked: a shell that srun started has them, too.
int launcher_ranks();

}  // namespace fairgptq
