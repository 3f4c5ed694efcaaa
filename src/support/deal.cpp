#include "support/deal.hpp"

#include <algorithm>
#include <numeric>

namespace fairgptq {

std::vector<int> deal(std::span<const std::int64_t> costs, int ranks) {
    std::vector<std::size_t> order(costs.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return costs[a] > costs[b]; });
    std::vector<std::int64_t> load(static_cast<std::size_t>(ranks));
    std::vector<int> owners(costs.size());
    for (const std::size_t piece : order) {
        const auto least = std::ranges::min_element(load);
        *least += costs[piece];
        owners[piece] = static_cast<int>(least - load.begin());
    }
    return owners;
}

}  // namespace fairgptq
