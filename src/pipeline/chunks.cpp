#include "pipeline/chunks.hpp"

#include <algorithm>
#include <span>

#include "support/deal.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

std::span<const std::int32_t> sequence(const Sequences& sequences, std::int64_t index) {
    return std::span(sequences.ids)
        .subspan(static_cast<std::size_t>(sequences.offsets[index]), static_cast<std::size_t>(sequences.length(index)));
}

std::int32_t append(ChunkTokens& chunk, std::span<const std::int32_t> ids) {
    if (chunk.offsets.empty()) chunk.offsets.push_back(0);
    const auto first = static_cast<std::int32_t>(chunk.tokens());
    chunk.ids.insert(chunk.ids.end(), ids.begin(), ids.end());
    chunk.offsets.push_back(chunk.tokens());
    return first;
}

/// How many chunks a part of the data is cut into: within the budget, and a count that deals out evenly, unless that
/// would make chunks too short for matrix products to run at full rate.
std::int64_t chunk_count(std::int64_t total_tokens, std::int64_t chunk_tokens) {
    const std::int64_t least = (total_tokens + chunk_tokens - 1) / chunk_tokens;
    for (const std::int64_t divisor : {12, 4, 2}) {
        const std::int64_t count = (least + divisor - 1) / divisor * divisor;
        if (total_tokens / std::max<std::int64_t>(count, 1) >= std::min<std::int64_t>(1024, chunk_tokens)) return count;
    }
    return std::max<std::int64_t>(least, 1);
}

/// Fills chunks with items (a text sequence, a pair of sentences) in order: a new chunk begins where the running total
/// reaches the next equal share, or where the item would not fit the budget.
template <class Length, class Add>
void fill(Chunks& chunks, std::int64_t items, std::int64_t total, std::int64_t chunk_tokens, bool in_hessian,
          const Length& length, const Add& add) {
    if (items == 0) return;
    const double share = static_cast<double>(total) / static_cast<double>(chunk_count(total, chunk_tokens));
    std::int64_t done = 0;
    std::int64_t in_chunk = 0;
    double next_cut = 0;
    for (std::int64_t item = 0; item < items; ++item) {
        const std::int64_t tokens = length(item);
        const double middle = static_cast<double>(done) + 0.5 * static_cast<double>(tokens);
        if (middle >= next_cut || in_chunk + tokens > chunk_tokens) {
            chunks.all.emplace_back();
            chunks.all.back().in_hessian = in_hessian;
            in_chunk = 0;
            while (next_cut <= middle)
                next_cut += share;
        }
        add(chunks.all.back(), item);
        done += tokens;
        in_chunk += tokens;
    }
}

}  // namespace

Chunks make_chunks(const TokenFile& tokens, HessianSource source, PairAlignment alignment, std::int64_t chunk_tokens) {
    const std::int64_t pairs = tokens.stereotype.count();
    const bool wants_text = source != HessianSource::pairs;
    if (source != HessianSource::text && pairs == 0)
        throw InvalidInput(
            "{} has no pairs: make H from its text (--hessian-from text), or add pairs with tools/prepare.py",
            tokens.path.string());
    if (wants_text && tokens.text.count() == 0)
        throw InvalidInput(
            "{} has no calibration text: make H from its pairs (--hessian-from pairs), or add a text with "
            "tools/prepare.py --text",
            tokens.path.string());
    if (chunk_tokens < 1) throw InvalidInput("--chunk-tokens must be at least 1, not {}", chunk_tokens);

    Chunks chunks;
    fill(
        chunks, pairs, tokens.stereotype.tokens() + tokens.anti_stereotype.tokens(), chunk_tokens,
        source != HessianSource::text,
        [&](std::int64_t pair) { return tokens.stereotype.length(pair) + tokens.anti_stereotype.length(pair); },
        [&](Chunk& chunk, std::int64_t pair) {
            const auto ids0 = sequence(tokens.stereotype, pair);
            const auto ids1 = sequence(tokens.anti_stereotype, pair);
            const std::int32_t first0 = append(chunk.tokens, ids0);
            const std::int32_t first1 = append(chunk.tokens, ids1);
            align_pair(alignment, ids0, first0, ids1, first1, chunk.pair_columns);
        });
    if (wants_text)
        fill(
            chunks, tokens.text.count(), tokens.text.tokens(), chunk_tokens, true,
            [&](std::int64_t index) { return tokens.text.length(index); },
            [&](Chunk& chunk, std::int64_t index) { append(chunk.tokens, sequence(tokens.text, index)); });
    for (const Chunk& chunk : chunks.all) {
        if (chunk.in_hessian) chunks.hessian_tokens += chunk.tokens.tokens();
        const auto columns = static_cast<std::int64_t>(chunk.pair_columns.size());
        chunks.pair_columns += columns;
        chunks.max_tokens = std::max(chunks.max_tokens, chunk.tokens.tokens());
        chunks.max_pair_columns = std::max(chunks.max_pair_columns, columns);
    }
    return chunks;
}

std::vector<std::vector<std::size_t>> deal_chunks(const Chunks& chunks, int ranks) {
    std::vector<std::int64_t> tokens;
    for (const Chunk& chunk : chunks.all)
        tokens.push_back(chunk.tokens.tokens());
    const std::vector<int> owners = deal(tokens, ranks);
    std::vector<std::vector<std::size_t>> dealt(static_cast<std::size_t>(ranks));
    for (std::size_t chunk = 0; chunk < owners.size(); ++chunk)
        dealt[static_cast<std::size_t>(owners[chunk])].push_back(chunk);
    return dealt;
}

}  // namespace fairgptq
