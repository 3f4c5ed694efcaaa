// The sums that a stage is solved with (docs/method.md "Objective").
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "backend/backend.hpp"
#include "comm/device_collectives.hpp"
#include "pipeline/chunks.hpp"
#include "support/phase_clock.hpp"

namespace fairgptq {

/// H and C of one stage: summed over this rank's chunks, then over ranks. First H of all chunks, then C of all chunks:
/// H's sums travel between ranks while C is made. Every rank has them, or one: where stages are dealt, each rank keeps
/// those of its own while it adds to the others'.
class StageStatistics {
  public:
    /// @param widest columns of the widest stage whose sums there will be (widest_quantized); @param widest_dealt of
    /// those that are dealt, or 0
    StageStatistics(Backend& backend, DeviceCollectives& collectives, int rank, std::int64_t widest,
                    std::int64_t widest_dealt, const Chunks& chunks);

    /// Begins the sums of a stage of so many columns.
    /// @param owner the rank that gets them, if not all do
    void begin(std::int64_t cols, std::optional<int> owner = {});
    /// Adds one chunk's stage inputs to H's sums, then to C's. (Chunk::in_hessian, and whether it has pair columns, say
    /// which chunks belong to which.)
    void add_to_hessian(TensorView inputs);
    void add_to_covariance(std::span<const PairColumn> columns, TensorView inputs);
    /// Begins to sum over ranks; nothing is added to those sums until finish(). Its time is of the phase `all_reduce`;
    /// what follows is `covariance` again.
    void begin_hessian_sum(std::int64_t cols, PhaseClock& clock);
    void begin_covariance_sum(std::int64_t cols, PhaseClock& clock);
    /// Waits for the sums, and, where this rank gets them, divides by columns (docs/method.md "Objective": both are
    /// means over columns).
    /// The wait is of the phase `all_reduce`, the rest `covariance`.
    /// @param reached false where no token of H's is in the sums: then H is the identity and C zero, which is rounding
    /// to nearest
    void finish(std::int64_t cols, bool reached, PhaseClock& clock);
    /// Valid until the next begin() for all ranks, or the next finish() that is for this one. The covariance is empty
    /// where there are no pairs.
    MatrixView<const float> hessian() const { return hessian_; }
    MatrixView<const float> covariance() const { return covariance_; }
    /// Device memory for who uses H and C, until the next begin(): that of H's sums, at least a float32 matrix as large
    /// as H.
    std::span<std::byte> scratch() const { return {hessian_sum_.as<std::byte>(), hessian_sum_.bytes()}; }

    /// The sums' bytes, then those of H and C and their scratch, for `plan`.
    static std::size_t sum_bytes(std::int64_t widest, std::int64_t widest_dealt, bool pairs);
    static std::size_t matrix_bytes(std::int64_t widest, bool pairs);
    static std::size_t difference_bytes(std::int64_t widest, std::int64_t max_pair_columns);

  private:
    static std::size_t packed_bytes(std::int64_t cols);
    static std::size_t hessian_sum_bytes(std::int64_t widest, std::int64_t widest_dealt);
    void begin_sum(const Buffer& sum, std::int64_t cols, PhaseClock& clock);
    Backend& backend_;
    DeviceCollectives& collectives_;
    int rank_;
    std::int64_t hessian_tokens_, pair_columns_;
    Buffer hessian_sum_, covariance_sum_, hessian_buffer_, covariance_buffer_, differences_;
    MatrixView<float> hessian_, covariance_, product_;
    std::optional<int> owner_;          // the rank that gets the sums, if not all do
    std::optional<Exchange> exchange_;  // after the memory that it works on
};

}  // namespace fairgptq
