// What `fairgptq bench` times: the kernels of a layer, at a model's shapes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.hpp"

namespace fairgptq::commands {

struct BenchShape {
    const char* name;
    std::int64_t hidden, intermediate, heads, key_value_heads, head_dim;
};
inline constexpr std::array bench_shapes{
    BenchShape{"smollm2-135m", 576, 1536, 9, 3, 64}, BenchShape{"llama-7b", 4096, 11008, 32, 32, 128},
    BenchShape{"8b", 4096, 14336, 32, 8, 128},       BenchShape{"13b", 5120, 13824, 40, 40, 128},
    BenchShape{"70b", 8192, 28672, 64, 8, 128},
};

/// What may be asked for by name.
inline constexpr std::array bench_kernels{"covariance", "factor", "columns", "solve", "attention", "forward"};

struct BenchRow {
    std::string kernel, size;
    double seconds, flop, share;  // of the matrix-product rate
    double bytes, copy_share;     // of the copy rate
};
struct BenchResult {
    std::vector<BenchRow> rows;
    double float32_rate = 0;     // products, FLOP a second: the best that was measured
    double activation_rate = 0;  // the same in the type of activations; 0 where that is float32
    double copy_rate = 0;        // bytes a second, read and written
    std::int64_t rate_size = 0;  // of the products that the rates are of
};

struct BenchWork {
    std::int64_t tokens, length;       // of the chunk, and of each sequence in it
    std::int64_t group_size;           // of the column loop
    std::vector<std::string> kernels;  // of bench_kernels
};

/// Each kernel's time and its share of this device's own rates, measured around it.
BenchResult run_bench(Backend& backend, const BenchShape& shape, const BenchWork& work);

}  // namespace fairgptq::commands
