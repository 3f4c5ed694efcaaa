// A finished run as a model folder that other programs load.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "run/run_directory.hpp"
#include "support/views.hpp"

namespace fairgptq {

struct ExportOptions {
    std::string format;                             // gptq, compressed-tensors, dense
    std::optional<DType> dtype;                     // of the quantized weights; dense only (float16 if not given)
    std::uint64_t max_shard_bytes = 5'000'000'000;  // as Hugging Face's tools count: 5 GB
};

/// Writes `out` with every tensor of the original model (the quantized linears in the format's form, all others as they
/// are, a tied head left out), config.json with the format's settings, and the model's tokenizer and generation files.
/// It is written under another name beside `out` and renamed when whole.
/// @throws InvalidInput: an unknown format, a run that is not finished or does not fit the format, a model that is gone
/// or changed since the run, an `out` that exists and is not empty. Failure naming file and reason (full disk, …)
void export_run(const RunDirectory& run, const std::filesystem::path& out, const ExportOptions& options);

}  // namespace fairgptq
