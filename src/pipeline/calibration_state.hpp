// What a rank holds between stages: its chunks' hidden states and stage inputs, and the running sums of H and C.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "backend/backend.hpp"
#include "comm/device_collectives.hpp"
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

/// H and C of one stage: summed over this rank's chunks, then over ranks. First H of all chunks, then C of all chunks:
/// H's sums travel between ranks while C is made.
class StageStatistics {
  public:
    StageStatistics(Backend& backend, DeviceCollectives& collectives, const Family& family, const Chunks& chunks);

    /// Adds one chunk's stage inputs to H's sums, then to C's.
    void add_to_hessian(const Chunk& chunk, TensorView inputs);
    void add_to_covariance(const Chunk& chunk, TensorView inputs);
    /// Begins to sum over ranks; nothing is added until finish(). Charges what came before to `covariance`, and the
    /// time here to `all_reduce`.
    void begin_hessian_sum(std::int64_t cols, PhaseClock& clock);
    void begin_covariance_sum(std::int64_t cols, PhaseClock& clock);
    /// Waits for the sums, divides by columns (method.md "The method": both are means over columns), and starts the
    /// sums anew. Charges the wait to `all_reduce`, the rest to `covariance`.
    void finish(std::int64_t cols, PhaseClock& clock);
    /// Valid until the next sum is begun. The covariance is empty where there are no pairs.
    MatrixView<const float> hessian() const { return hessian_; }
    MatrixView<const float> covariance() const { return covariance_; }

    /// The sums' bytes, then those of H and C and their scratch, for `plan`.
    static std::size_t sum_bytes(const Family& family, bool pairs);
    static std::size_t matrix_bytes(const Family& family, bool pairs);
    static std::size_t difference_bytes(const Family& family, std::int64_t max_pair_columns);

  private:
    void clear();
    void begin_sum(const Buffer& sum, std::int64_t cols, PhaseClock& clock);
    Backend& backend_;
    DeviceCollectives& collectives_;
    std::int64_t hessian_tokens_, pair_columns_;
    Buffer hessian_sum_, covariance_sum_, hessian_buffer_, covariance_buffer_, differences_;
    MatrixView<float> hessian_, covariance_;
    std::optional<Exchange> exchange_;  // after the memory that it works on
};

}  // namespace fairgptq
