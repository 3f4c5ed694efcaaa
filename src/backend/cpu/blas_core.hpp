// Which of OpenBLAS's kernels compute: it chooses by the processor's model number, and of a model that is newer than
// the library takes those of 2004.
#pragma once

#include <string>

namespace fairgptq {

/// The kernels in use, as OpenBLAS calls them: "Haswell".
std::string blas_core();

/// Kernels that this processor could use in place of slower ones, for OPENBLAS_CORETYPE, which OpenBLAS reads before
/// main; empty where those in use are as good.
std::string better_blas_core();

/// The same for a processor. @param core as blas_core() @param avx2 with fused multiply-add
std::string better_blas_core(const std::string& core, bool avx2, bool avx512);

}  // namespace fairgptq
