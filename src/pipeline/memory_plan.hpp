// What a rank's memory holds during a run, buffer by buffer: the same sizes that the run allocates.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "pipeline/chunks.hpp"
#include "pipeline/quantize.hpp"

namespace fairgptq {

struct MemoryPlan {
    struct Item {
        std::string name;
        std::size_t bytes;
    };
    std::vector<Item> device;  // of the backend; on the CPU it is host memory too
    std::vector<Item> host;
    std::size_t device_peak = 0;
    std::size_t host_peak = 0;
    std::size_t shared_peak = 0;  // of both where they are the same memory: their peaks come at different times
};

/// The plan of the rank that needs most.
/// @param runs made in one pass
MemoryPlan plan_memory(const Family& family, const Chunks& chunks, std::int64_t file_tokens,
                       const QuantizeSettings& settings, int ranks, DType activation_type, std::size_t runs = 1);

}  // namespace fairgptq
