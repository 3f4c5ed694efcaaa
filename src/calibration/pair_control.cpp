#include "calibration/pair_control.hpp"

#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "support/error.hpp"

namespace fairgptq {
namespace {

constexpr std::uint64_t seed = 1;

std::vector<std::int64_t> cycle(std::int64_t count) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::mt19937_64 generator(seed);
    for (std::uint64_t last = order.size() - 1; last > 0; --last)
        std::swap(order[last], order[(generator() >> 32U) * last >> 32U]);
    return order;
}

Sequences reordered(const Sequences& sequences, const std::vector<std::int64_t>& order) {
    Sequences result;
    for (const std::int64_t index : order) {
        const auto first = sequences.ids.begin() + sequences.offsets[index];
        result.ids.insert(result.ids.end(), first, first + sequences.length(index));
        result.offsets.push_back(result.tokens());
    }
    return result;
}

}  // namespace

void apply_pair_control(PairControl control, TokenFile& tokens) {
    const std::int64_t pairs = tokens.stereotype.count();
    switch (control) {
        case PairControl::as_given:
            return;
        case PairControl::shuffled:
            if (pairs < 2)
                throw InvalidInput("--pairs shuffled: {} has {} pair{}, and at least 2 are needed",
                                   tokens.path.string(), pairs, pairs == 1 ? "" : "s");
            tokens.anti_stereotype = reordered(tokens.anti_stereotype, cycle(pairs));
            break;
        case PairControl::unrelated:
            if (tokens.unrelated.count() == 0)
                throw InvalidInput(
                    "--pairs unrelated: {} has no /pairs/unrelated; tools/prepare.py writes it where pairs "
                    "come from StereoSet alone",
                    tokens.path.string());
            tokens.anti_stereotype = tokens.unrelated;
            break;
    }
}

}  // namespace fairgptq
