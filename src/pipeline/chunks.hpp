// The unit of calibration work: whole sequences up to a token budget, fixed by the data and the settings, never by the
// number of ranks. Chunks are dealt to ranks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/pair_differences.hpp"
#include "calibration/pairs.hpp"
#include "calibration/tokens.hpp"
#include "model/decoder.hpp"

namespace fairgptq {

enum class HessianSource : std::uint8_t { pairs, text, both };

struct Chunk {
    ChunkTokens tokens;
    std::vector<PairColumn> pair_columns;  // columns of D; empty for text
    bool in_hessian = true;                // whether its tokens count in H
};

struct Chunks {
    std::vector<Chunk> all;
    std::int64_t hessian_tokens = 0;  // N of H = (2/N)·XᵀX
    std::int64_t pair_columns = 0;    // P of C = (2/P)·DᵀD
    std::int64_t max_tokens = 0;      // of any chunk
    std::int64_t max_pair_columns = 0;
};

/// Cuts the calibration data into chunks. A pair's two sentences always share a chunk; a sequence longer than the
/// budget has a chunk of its own. Chunks are of nearly equal size, and as many as deal out evenly to 2, 3, 4, 6 or 12
/// ranks where there is work enough.
/// @throws InvalidInput if `source` wants pairs or text that the file does not have
Chunks make_chunks(const TokenFile& tokens, HessianSource source, PairAlignment alignment, std::int64_t chunk_tokens);

/// The chunks of each rank, in ascending order: largest first to the rank with the fewest tokens so far.
std::vector<std::vector<std::size_t>> deal_chunks(const Chunks& chunks, int ranks);

}  // namespace fairgptq
