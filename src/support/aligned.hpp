// Where parts of one piece of memory begin.
#pragma once

#include <cstddef>

namespace fairgptq {

/// Bytes after which the next part may begin: whole cache lines.
constexpr std::size_t aligned(std::size_t bytes) {
    constexpr std::size_t line = 64;
    return (bytes + line - 1) / line * line;
}

}  // namespace fairgptq
