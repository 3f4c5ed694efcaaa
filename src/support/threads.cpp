#include "support/threads.hpp"

#include <cblas.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "support/checksum.hpp"

namespace fairgptq {

int use_fair_share_of_cores(Communicator& comm) {
    int threads = omp_get_max_threads();
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) {
        const auto bytes = std::as_bytes(std::span(&mask, 1));
        const auto digest = static_cast<std::int64_t>(std::stoull(hash_of(bytes).substr(0, 15), nullptr, 16));
        // Ranks bound to cores of their own have different masks.
        const bool shared = comm.all_reduce_max(digest) == -comm.all_reduce_max(-digest);
        threads = std::max(1, CPU_COUNT(&mask) / (shared ? comm.local_size() : 1));
    }
    if (std::getenv("OMP_NUM_THREADS") == nullptr) omp_set_num_threads(threads);
    return omp_get_max_threads();
}

void choose_blas_kernels(char** argv) {
#if defined(__x86_64__)
    if (std::getenv("OPENBLAS_CORETYPE") != nullptr) return;
    const std::string_view chosen = openblas_get_corename();
    const bool avx2 = chosen == "Haswell" || chosen == "Zen";
    if (!avx2 || !__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512bw"))
        return;
    ::setenv("OPENBLAS_CORETYPE", "SKYLAKEX", 1);
    ::execv("/proc/self/exe", argv);
    // Where the restart is not possible the program still works, at AVX2's speed.
#else
    (void)argv;
#endif
}

}  // namespace fairgptq
