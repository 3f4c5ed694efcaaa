// What a rank holds between stages: its chunks' hidden states and stage inputs, and the running sums of H and C.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "backend/transfers.hpp"
#include "comm/device_collectives.hpp"
#include "model/decoder.hpp"
#include "pipeline/chunks.hpp"
#include "support/phase_clock.hpp"

namespace fairgptq {

/// Which parts of a chunk's state a step reads and which it writes: what travels where they are in host memory.
struct StateUse {
    bool reads_hidden = false, writes_hidden = false;
    std::int64_t reads_inputs = 0, writes_inputs = 0;  // the first so many columns (Decoder::input_cols)
};

/// This rank's chunks: on the device, and beyond what is resident in host memory. All memory is allocated by the
/// constructor.
class CalibrationState {
  public:
    /// @param experts_at_once as the Decoder's
    CalibrationState(Backend& backend, const Family& family, const Chunks& chunks, const std::vector<std::size_t>& mine,
                     std::int64_t resident_tokens, std::int64_t experts_at_once);

    /// Calls `work` for each chunk, in the order of the chunks, with its state on the device. A chunk in host memory is
    /// fetched while the one before it is computed, and put back while the next one is.
    /// @param wanted which chunks; all if it is empty
    void for_each(const StateUse& use, const std::function<void(const Chunk&, ChunkState&)>& work,
                  const std::function<bool(const Chunk&)>& wanted = {});

    static std::size_t hidden_bytes(const Family& family, std::int64_t tokens, DType type);
    static std::size_t inputs_bytes(const Family& family, std::int64_t tokens, DType type,
                                    std::int64_t experts_at_once);
    /// Chunks on their way to and from host memory that have room on the device.
    static constexpr std::int64_t slots = 2;
    /// Tokens of the first chunks that together have at most `resident_tokens`.
    static std::int64_t resident(const Chunks& chunks, const std::vector<std::size_t>& mine,
                                 std::int64_t resident_tokens);

  private:
    struct Resident {
        const Chunk* chunk;
        ChunkState state;
    };
    /// In host memory: rows of `hidden_size`, and rows of as many columns as were written last.
    struct Spilled {
        const Chunk* chunk;
        std::byte *hidden, *inputs;
        std::shared_ptr<Routing> routing = std::make_shared<Routing>();
    };
    ChunkState state_of(const Chunk& chunk, TensorView hidden, const Buffer& all, std::int64_t first) const;
    ChunkState in_slot(const Spilled& item, std::size_t turn) const;
    static TensorView inputs_of(const ChunkState& state, std::int64_t cols);
    void fetch(const Spilled& item, const ChunkState& state, const StateUse& use);
    void store(const Spilled& item, const ChunkState& state, const StateUse& use);

    Backend& backend_;
    const Family& family_;
    std::int64_t of_token_;  // Decoder::inputs_of_token
    Buffer hidden_, inputs_;
    std::vector<Resident> resident_;

    Buffer slot_hidden_, slot_inputs_;
    std::int64_t slot_tokens_ = 0;
    Buffer host_hidden_, host_inputs_;
    std::unique_ptr<Transfers> incoming_, outgoing_;  // which wait for copies of all that is above when they go
    std::vector<Spilled> spilled_;
};

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
    /// @param root the rank that gets them, if not all do
    void clear(std::int64_t cols, std::optional<int> root = {});
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
    /// Valid until the next clear() for all ranks, or the next finish() that is for this one. The covariance is empty
    /// where there are no pairs.
    MatrixView<const float> hessian() const { return hessian_; }
    MatrixView<const float> covariance() const { return covariance_; }
    /// Device memory for who uses H and C, until the next clear(): that of H's sums, at least a float32 matrix as large
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
    std::optional<int> root_;           // the rank that gets the sums, if not all do
    std::optional<Exchange> exchange_;  // after the memory that it works on
};

}  // namespace fairgptq
