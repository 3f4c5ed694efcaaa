// What a rank holds between stages: its chunks' hidden states and stage inputs, and the running sums of H and C.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.hpp"
#include "comm/communicator.hpp"
#include "model/decoder.hpp"
#include "pipeline/chunks.hpp"
#include "support/phase_clock.hpp"

namespace fairgptq {

/// This rank's chunks on the device. All memory is allocated by the constructor.
class CalibrationState {
  public:
    CalibrationState(Backend& backend, const Family& family, const Chunks& chunks,
                     const std::vector<std::size_t>& mine);

    struct Item {
        const Chunk* chunk;
        ChunkState state;
    };
    std::vector<Item>& items() { return items_; }
    std::int64_t tokens() const { return tokens_; }

    static std::size_t hidden_bytes(const Family& family, std::int64_t tokens, DType type);
    static std::size_t inputs_bytes(const Family& family, std::int64_t tokens, DType type);

  private:
    std::int64_t tokens_ = 0;
    Buffer hidden_, inputs_;
    std::vector<Item> items_;
};

/// H and C of one stage: summed over this rank's chunks, then over ranks.
class StageStatistics {
  public:
    StageStatistics(Backend& backend, const Family& family, const Chunks& chunks);

    /// Adds one chunk's stage inputs to the sums.
    void accumulate(const Chunk& chunk, TensorView inputs);
    /// Sums over ranks, divides by columns (method.md "The method": both are means over columns), and starts the sums
    /// anew. Charges the sums to `all_reduce`, the rest to `covariance`.
    void reduce(Communicator& comm, std::int64_t cols, PhaseClock& clock);
    /// Valid until the next reduce. The covariance is empty where there are no pairs.
    MatrixView<const float> hessian() const { return hessian_; }
    MatrixView<const float> covariance() const { return covariance_; }

    /// The sums' bytes, then those of H and C and their scratch, for `plan`.
    static std::size_t sum_bytes(const Family& family, bool pairs);
    static std::size_t matrix_bytes(const Family& family, bool pairs);
    static std::size_t difference_bytes(const Family& family, std::int64_t max_pair_columns);

  private:
    void clear();
    Backend& backend_;
    std::int64_t hessian_tokens_, pair_columns_;
    Buffer hessian_sum_, covariance_sum_, hessian_buffer_, covariance_buffer_, differences_;
    MatrixView<float> hessian_, covariance_;
};

}  // namespace fairgptq
