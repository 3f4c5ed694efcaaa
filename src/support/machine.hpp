// Which machine this is, and what this process may take of it: cgroups (containers, a Slurm job's) give less than there
// is.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace fairgptq {

std::string host_name();

/// Of this boot of the machine: containers on it may have host names of their own, and share its memory and GPUs.
std::string machine_id();

/// What a group of processes may take together.
struct Limit {
    double amount = 0;   // bytes, or cores
    std::string holder;  // the same for all processes of the group, and for no others of the machine
    std::string cgroup;  // for messages; empty: the machine itself
};

/// Of memory, in bytes: the machine's own (with its swap), then those of the cgroups that this process is in, the
/// outermost first. Versions 1 and 2 of cgroups, one beside the other too; what cannot be read limits nothing.
/// @param proc where the kernel tells a process about itself; another folder for tests
std::vector<Limit> memory_limits(const std::filesystem::path& proc = "/proc/self");

/// What Linux says new work may take without swapping, in bytes, and no more than the cgroups allow; 0 if it does not
/// say.
double available_memory();

/// What `ulimit -v` and `ulimit -d` leave of this process's address space, in bytes; infinite without a limit.
double address_space_left();

/// Of processor time, in cores: quotas alone. Which cores a process may run on is its affinity.
std::vector<Limit> core_limits(const std::filesystem::path& proc = "/proc/self");

/// What this process may take at most; never more than the machine has.
double smallest_amount(const std::vector<Limit>& limits);

}  // namespace fairgptq
