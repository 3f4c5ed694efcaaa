#include "backend/cpu/blas_core.hpp"

#include <gtest/gtest.h>

namespace fairgptq {
namespace {

TEST(BlasCore, NewerProcessorsThanTheLibraryKnowsGetTheKernelsThatTheyCanUse) {
    for (const char* old : {"Prescott", "Nehalem", "Barcelona", "Sandybridge", "Generic"}) {
        EXPECT_EQ(better_blas_core(old, true, true), "SkylakeX");
        EXPECT_EQ(better_blas_core(old, true, false), "Haswell");
        EXPECT_EQ(better_blas_core(old, false, false), "");
    }
    for (const char* good : {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SAPPHIRERAPIDS"})
        EXPECT_EQ(better_blas_core(good, true, true), "") << good;
    EXPECT_FALSE(blas_core().empty());
    EXPECT_NE(better_blas_core(), blas_core());
}

}  // namespace
}  // namespace fairgptq
