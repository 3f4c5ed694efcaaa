#pragma once

#include <cstdint>
#include <span>

#include "support/views.hpp"

namespace fairgptq {

class EmbeddingOperations {
  public:
    virtual ~EmbeddingOperations() = default;

    /// output[t] = table[ids[t]], or output[t] += table[ids[t]] if `accumulate` (learned positions).
    /// @param table  [entries, features] on the device
    /// @param ids    host; each in [0, entries)
    /// @param output [ids.size(), features], written
    virtual void embed(TensorView table, std::span<const std::int32_t> ids, TensorView output, bool accumulate) = 0;
};

}  // namespace fairgptq
