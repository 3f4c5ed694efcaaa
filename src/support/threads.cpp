#include "support/threads.hpp"

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <span>
#include <string>

#include "comm/shared_limits.hpp"
#include "support/checksum.hpp"
#include "support/error.hpp"
#include "support/machine.hpp"

namespace fairgptq {

int use_fair_share_of_cores(Communicator& comm) {
    constexpr int most = 4096;  // more do not start everywhere, and no machine has so many cores
    int threads = omp_get_max_threads();
    if (threads > most) throw InvalidInput("OMP_NUM_THREADS asks for {} threads, more than {}", threads, most);
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) {
        const auto bytes = std::as_bytes(std::span(&mask, 1));
        const auto digest = static_cast<std::int64_t>(std::stoull(hash_of(bytes).substr(0, 15), nullptr, 16));
        // Ranks bound to cores of their own have different masks.
        const bool shared = comm.all_reduce_max(digest) == -comm.all_reduce_max(-digest);
        threads = std::max(1, CPU_COUNT(&mask) / (shared ? comm.local_size() : 1));
    }
    for (const SharedLimit& quota : shared_limits(core_limits(), comm))
        threads = std::min(threads, std::max(1, static_cast<int>(quota.share())));
    if (std::getenv("OMP_NUM_THREADS") == nullptr) omp_set_num_threads(threads);
    return omp_get_max_threads();
}

void restart_for_libraries(char** argv, const std::string& blas_core) {
    const bool spins = std::getenv("OMP_WAIT_POLICY") == nullptr && std::getenv("GOMP_SPINCOUNT") == nullptr;
    const bool kernels = !blas_core.empty() && std::getenv("OPENBLAS_CORETYPE") == nullptr;
    if (!spins && !kernels) return;
    if (spins) ::setenv("GOMP_SPINCOUNT", "5000", 0);  // some 10 microseconds
    if (kernels) ::setenv("OPENBLAS_CORETYPE", blas_core.c_str(), 0);
    ::execv("/proc/self/exe", argv);  // returns only if it cannot: then all goes on as it is
}

}  // namespace fairgptq
