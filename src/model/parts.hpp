// Parts of a decoder's memory that lie side by side.
#pragma once

#include <cstdint>

namespace fairgptq {

/// Columns that let what comes behind them be as aligned as what is before.
inline std::int64_t part(std::int64_t cols) {
    constexpr std::int64_t alignment = 16;
    return (cols + alignment - 1) / alignment * alignment;
}

}  // namespace fairgptq
