// What a rank holds of its chunks between stages: hidden states and stage inputs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "backend/transfers.hpp"
#include "model/decoder.hpp"
#include "pipeline/chunks.hpp"

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

}  // namespace fairgptq
