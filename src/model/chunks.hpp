// Chunks: the unit of work of every forward pass (architecture: "A chunk is the unit of calibration work").
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/attention.hpp"

namespace fairgptq {

/// Whole sequences, end to end.
struct ChunkTokens {
    std::vector<std::int32_t> ids;      // [tokens]
    std::vector<std::int64_t> offsets;  // [sequences + 1], from 0 to tokens
    /// [sequences], or empty where none has any: rows of this chunk that stand before a sequence's own, so that a
    /// beginning that several sequences share is there once. A prefix begins a sequence that has none itself.
    std::vector<RowRange> prefixes = {};
    std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
};

/// Cuts sequences, in order, into chunks of at most `max_tokens` tokens; a longer sequence has a chunk to itself.
/// @param ids     [tokens]; @param offsets [sequences + 1], from 0 to tokens
std::vector<ChunkTokens> cut_into_chunks(std::span<const std::int32_t> ids, std::span<const std::int64_t> offsets,
                                         std::int64_t max_tokens);

/// Each token's place in its sequence, prefix included.
std::vector<std::int64_t> positions_of(std::span<const std::int64_t> offsets, std::span<const RowRange> prefixes);

/// Tokens of the largest chunk, 0 if there is none: what a Decoder needs room for.
std::int64_t largest_chunk(std::span<const ChunkTokens> chunks);

}  // namespace fairgptq
