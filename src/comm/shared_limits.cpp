#include "comm/shared_limits.hpp"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <span>
#include <string>

#include "support/checksum.hpp"
#include "support/error.hpp"

namespace fairgptq {

std::vector<SharedLimit> shared_limits(const std::vector<Limit>& mine, Communicator& comm) {
    const std::string machine = machine_id();
    const auto line = [&](const Limit& limit) { return machine + ' ' + limit.holder + '\n'; };
    std::string lines = "\n";
    for (const Limit& limit : mine)
        lines += line(limit);
    const std::vector<std::string> all = comm.gather_strings(lines);
    std::vector<SharedLimit> shared;
    for (const Limit& limit : mine)
        shared.push_back({limit, static_cast<int>(std::count_if(all.begin(), all.end(), [&](const std::string& other) {
                              return other.find('\n' + line(limit)) != std::string::npos;
                          }))});
    return shared;
}

int share_of_cores(Communicator& comm) {
    std::vector<Limit> limits = core_limits();
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) {
        const std::string holder = "cores " + hash_of(std::as_bytes(std::span(&mask, 1)));
        limits.push_back({static_cast<double>(CPU_COUNT(&mask)), holder, ""});
    }
    double cores = limits.empty() ? omp_get_max_threads() : std::numeric_limits<double>::infinity();
    for (const SharedLimit& limit : shared_limits(limits, comm))
        cores = std::min(cores, limit.share());
    return std::max(1, static_cast<int>(cores));
}

int use_share_of_cores(Communicator& comm) {
    constexpr int most = 4096;  // more do not start everywhere, and no machine has so many cores
    const int asked = omp_get_max_threads();
    if (asked > most) throw InvalidInput("OMP_NUM_THREADS asks for {} threads, more than {}", asked, most);
    const int share = share_of_cores(comm);
    if (std::getenv("OMP_NUM_THREADS") == nullptr) omp_set_num_threads(share);
    return omp_get_max_threads();
}

}  // namespace fairgptq
