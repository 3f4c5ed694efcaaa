#include "backend/cpu/blas_core.hpp"

#include <cblas.h>
#include <strings.h>

#include <algorithm>
#include <array>

namespace fairgptq {

std::string blas_core() {
    return openblas_get_corename();
}

std::string better_blas_core(const std::string& core, bool avx2, bool avx512) {
    constexpr std::array good{"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids"};
    const bool fast =
        std::any_of(good.begin(), good.end(), [&](const char* name) { return ::strcasecmp(name, core.c_str()) == 0; });
    return fast || !avx2 ? "" : avx512 ? "SkylakeX" : "Haswell";
}

std::string better_blas_core() {
#ifdef __x86_64__
    const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    const bool avx512 = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                        __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
    return better_blas_core(blas_core(), avx2, avx512);
#else
    return {};
#endif
}

}  // namespace fairgptq
