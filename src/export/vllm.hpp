// What vLLM loads, which is less than what the formats can hold: it has kernels for some of it only.
#pragma once

#include <string>

#include "export/schemes.hpp"
#include "solver/settings.hpp"

namespace fairgptq {

/// The version that is meant here: read from its sources and tried (tests/bench/load_in_vllm.py).
inline constexpr const char* vllm_version = "0.32";

/// @param format gptq, compressed-tensors or dense
/// @returns everything for which vLLM does not load such an export with the kernels it brings; empty where it does
std::string vllm_objection(const std::string& format, const Schemes& schemes, bool scattered_groups);

/// @returns why vLLM would load no quantized export of a run with these settings; empty where it loads one
std::string vllm_objection(const SolverSettings& settings, const Schemes& schemes);

}  // namespace fairgptq
