#include "model/chunks.hpp"

#include <algorithm>

namespace fairgptq {

std::vector<ChunkTokens> cut_into_chunks(std::span<const std::int32_t> ids, std::span<const std::int64_t> offsets,
                                         std::int64_t max_tokens) {
    std::vector<ChunkTokens> chunks;
    for (std::size_t sequence = 0; sequence + 1 < offsets.size(); ++sequence) {
        const auto tokens = ids.subspan(static_cast<std::size_t>(offsets[sequence]),
                                        static_cast<std::size_t>(offsets[sequence + 1] - offsets[sequence]));
        if (chunks.empty() || chunks.back().tokens() + static_cast<std::int64_t>(tokens.size()) > max_tokens)
            chunks.push_back({{}, {0}});
        ChunkTokens& chunk = chunks.back();
        chunk.ids.insert(chunk.ids.end(), tokens.begin(), tokens.end());
        chunk.offsets.push_back(chunk.tokens());
    }
    return chunks;
}

std::vector<std::int64_t> positions_of(std::span<const std::int64_t> offsets, std::span<const RowRange> prefixes) {
    std::vector<std::int64_t> positions;
    for (std::size_t sequence = 0; sequence + 1 < offsets.size(); ++sequence) {
        const std::int64_t first = prefixes.empty() ? 0 : prefixes[sequence].size();
        for (std::int64_t token = offsets[sequence]; token < offsets[sequence + 1]; ++token)
            positions.push_back(first + token - offsets[sequence]);
    }
    return positions;
}

std::int64_t largest_chunk(std::span<const ChunkTokens> chunks) {
    std::int64_t largest = 0;
    for (const ChunkTokens& chunk : chunks)
        largest = std::max(largest, chunk.tokens());
    return largest;
}

}  // namespace fairgptq
