#include "pipeline/calibration_state.hpp"

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

namespace fairgptq {
namespace {
std::size_t size(std::int64_t rows, std::int64_t cols, std::size_t element) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * element;
}
}  // namespace

std::size_t CalibrationState::hidden_bytes(const Family& family, std::int64_t tokens, DType type) {
    return size(tokens, family.config.hidden_size, size_of(type));
}
std::size_t CalibrationState::inputs_bytes(const Family& family, std::int64_t tokens, DType type,
                                           std::int64_t experts_at_once) {
    return size(tokens, Decoder::inputs_of_token(family, experts_at_once), size_of(type));
}

std::int64_t CalibrationState::resident(const Chunks& chunks, const std::vector<std::size_t>& mine,
                                        std::int64_t resident_tokens) {
    std::int64_t tokens = 0;
    for (const std::size_t index : mine) {
        const std::int64_t more = tokens + chunks.all[index].tokens.tokens();
        if (more > resident_tokens) break;
        tokens = more;
    }
    return tokens;
}

CalibrationState::CalibrationState(Backend& backend, const Family& family, const Chunks& chunks,
                                   const std::vector<std::size_t>& mine, std::int64_t resident_tokens,
                                   std::int64_t experts_at_once)
    : backend_(backend), family_(family), of_token_(Decoder::inputs_of_token(family, experts_at_once)) {
    const DType type = backend.activation_type();
    const std::int64_t on_device = resident(chunks, mine, resident_tokens);
    std::int64_t tokens = 0;
    for (const std::size_t index : mine)
        tokens += chunks.all[index].tokens.tokens();
    hidden_ = backend.allocate(hidden_bytes(family, on_device, type));
    inputs_ = backend.allocate(size(on_device, of_token_, size_of(type)));
    const TensorView hidden = hidden_.tensor(type, on_device, family.config.hidden_size);
    if (on_device < tokens) {
        slot_tokens_ = chunks.max_tokens;
        slot_hidden_ = backend.allocate(hidden_bytes(family, slots * slot_tokens_, type));
        slot_inputs_ = backend.allocate(size(slots * slot_tokens_, of_token_, size_of(type)));
        incoming_ = backend.make_transfers();
        outgoing_ = backend.make_transfers();
        host_hidden_ = incoming_->allocate_host(hidden_bytes(family, tokens - on_device, type));
        host_inputs_ = incoming_->allocate_host(size(tokens - on_device, of_token_, size_of(type)));
    }
    std::int64_t first = 0;
    for (const std::size_t index : mine) {
        const Chunk& chunk = chunks.all[index];
        const std::int64_t count = chunk.tokens.tokens();
        if (first < on_device) {
            resident_.push_back({&chunk, state_of(chunk, hidden.rows_from(first, count), inputs_, first)});
        } else {
            const std::int64_t before = first - on_device;
            spilled_.push_back({&chunk, host_hidden_.as<std::byte>() + hidden_bytes(family, before, type),
                                host_inputs_.as<std::byte>() + size(before, of_token_, size_of(type))});
        }
        first += count;
    }
}

/// @param all inputs of several chunks, of which this one's begin at token `first`
ChunkState CalibrationState::state_of(const Chunk& chunk, TensorView hidden, const Buffer& all,
                                      std::int64_t first) const {
    // Rows lie as far apart on any number of ranks, so that products of them are the same; what experts that are dealt
    // need of the memory is behind them.
    const DType type = backend_.activation_type();
    std::byte* own = all.as<std::byte>() + size(first, of_token_, size_of(type));
    ChunkState state;
    state.hidden = hidden;
    state.inputs = {own, type, hidden.rows, Decoder::widest_input(family_)};
    state.room = hidden.rows * of_token_;
    state.offsets = chunk.tokens.offsets;
    return state;
}

/// Slots are taken in turns.
ChunkState CalibrationState::in_slot(const Spilled& item, std::size_t turn) const {
    const std::int64_t first = static_cast<std::int64_t>(turn % slots) * slot_tokens_;
    const TensorView hidden =
        slot_hidden_.tensor(backend_.activation_type(), slots * slot_tokens_, family_.config.hidden_size);
    ChunkState state = state_of(*item.chunk, hidden.rows_from(first, item.chunk->tokens.tokens()), slot_inputs_, first);
    state.routing = item.routing;
    return state;
}

/// The first columns of a chunk's inputs, or all of its memory as rows of so many.
TensorView CalibrationState::inputs_of(const ChunkState& state, std::int64_t cols) {
    const TensorView& inputs = state.inputs;
    return cols <= inputs.cols ? inputs.cols_from(0, cols) : TensorView(inputs.data, inputs.type, inputs.rows, cols);
}

void CalibrationState::fetch(const Spilled& item, const ChunkState& state, const StateUse& use) {
    if (use.reads_hidden) incoming_->fetch(state.hidden, item.hidden);
    if (use.reads_inputs > 0) incoming_->fetch(inputs_of(state, use.reads_inputs), item.inputs);
}

void CalibrationState::store(const Spilled& item, const ChunkState& state, const StateUse& use) {
    if (use.writes_hidden) outgoing_->store(item.hidden, state.hidden);
    if (use.writes_inputs > 0) outgoing_->store(item.inputs, inputs_of(state, use.writes_inputs));
}

void CalibrationState::for_each(const StateUse& use, const std::function<void(const Chunk&, ChunkState&)>& work,
                                const std::function<bool(const Chunk&)>& wanted) {
    for (Resident& item : resident_)
        if (!wanted || wanted(*item.chunk)) work(*item.chunk, item.state);
    std::vector<const Spilled*> items;
    for (const Spilled& item : spilled_)
        if (!wanted || wanted(*item.chunk)) items.push_back(&item);
    if (items.empty()) return;
    incoming_->follow_device();  // the slots may still be in use by the step before
    fetch(*items.front(), in_slot(*items.front(), 0), use);
    for (std::size_t turn = 0; turn < items.size(); ++turn) {
        incoming_->lead_device();    // this chunk has come
        incoming_->follow_device();  // the next one goes into the slot of the one before, when that is computed
        ChunkState state = in_slot(*items[turn], turn);
        work(*items[turn]->chunk, state);
        outgoing_->finish();  // and when that has been put back
        if (turn + 1 < items.size()) fetch(*items[turn + 1], in_slot(*items[turn + 1], turn + 1), use);
        outgoing_->follow_device();
        store(*items[turn], state, use);
    }
    outgoing_->finish();  // the next step fetches what this one put back
}

}  // namespace fairgptq
