// Tiles are shared out by OpenMP, so OpenBLAS must not start threads of its own inside them.
#include "backend/cpu/backend.hpp"

#include <cblas.h>
#include <omp.h>

#include <algorithm>

#include "support/error.hpp"
#include "support/machine.hpp"

namespace fairgptq {

namespace {
/// Threads that OpenBLAS has mapped its buffers for when it was loaded.
int threads_at_load() {
    static const int threads = openblas_get_num_threads();
    return threads;
}
}  // namespace

CpuBackend::CpuBackend() {
    static const bool checked = (check_address_space(0), true);  // once: later its buffers are there
    (void)checked;
    // OpenBLAS built on OpenMP sets OpenMP's own thread count along with its own: put that back.
    const int threads = omp_get_max_threads();
    openblas_set_num_threads(1);
    omp_set_num_threads(threads);
}

void check_address_space(std::size_t bytes) {
    // OpenBLAS maps 128 MiB for each thread, and where it gets none asks again without end; malloc reserves 64 MiB.
    constexpr double of_openblas = 128.0 * (1U << 20U), of_malloc = 64.0 * (1U << 20U), gibibyte = 1U << 30U;
    const int threads = omp_get_max_threads();
    const double left = address_space_left();
    const double needed =
        static_cast<double>(bytes) + of_openblas * std::max(0, threads - (threads_at_load() - 1)) + of_malloc * threads;
    if (needed > left)
        throw InvalidInput(
            "ulimit -v or -d leaves this process {:.2f} GiB of address space, where {:.2f} are needed with {} "
            "thread{}: "
            "raise it{}",
            std::max(left, 0.0) / gibibyte, needed / gibibyte, threads, threads == 1 ? "" : "s",
            threads == 1 ? "" : ", or take fewer threads (OMP_NUM_THREADS)");
}

std::string CpuBackend::name() const {
    return "cpu";
}

}  // namespace fairgptq
