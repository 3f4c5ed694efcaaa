// Results must not depend on the number of threads.
#pragma once

#include <omp.h>

namespace fairgptq::testing {

/// @returns whether `compute()` gives equal results, bit for bit, with 1, 2 and 3 threads
template <class Function>
bool same_for_any_threads(const Function& compute) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    const auto expected = compute();
    bool same = true;
    for (const int threads : {2, 3}) {
        omp_set_num_threads(threads);
        same = same && compute() == expected;
    }
    omp_set_num_threads(before);
    return same;
}

}  // namespace fairgptq::testing
