#include "solver/gathering.hpp"

#include <algorithm>

namespace fairgptq {

std::vector<std::size_t> bytes_of_ranks(const RowShares& shares, SharedBy by, std::int64_t width, std::size_t element) {
    std::vector<std::size_t> sizes;
    for (int rank = 0; rank < shares.ranks(); ++rank)
        sizes.push_back(
            static_cast<std::size_t>((by == SharedBy::tiles ? shares.tiles_of(rank) : shares.rows_of(rank)) * width) *
            element);
    return sizes;
}

void begin_gathering(const RowShares& shares, MatrixView<const std::uint8_t> codes, MatrixView<const float> scales,
                     MatrixView<const std::uint8_t> zeros, GatheredGrids& all, Exchange& exchange) {
    const auto begin = [&]<class T>(MatrixView<const T> mine, std::vector<T>& gathered) {
        const std::vector<std::size_t> sizes = bytes_of_ranks(shares, SharedBy::rows, mine.cols, sizeof(T));
        gathered.resize(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}) / sizeof(T));
        const std::span<const T> values(mine.data, static_cast<std::size_t>(mine.rows * mine.cols));
        exchange.all_gather(std::as_bytes(values), std::as_writable_bytes(std::span(gathered)), sizes);
    };
    begin(codes, all.codes);
    begin(scales, all.scales);
    begin(zeros, all.zeros);
}

void restore_column_order(std::span<const std::int32_t> order, std::vector<std::uint8_t>& codes) {
    const auto n = std::ssize(order);
    const auto rows = static_cast<std::int64_t>(codes.size()) / n;
#pragma omp parallel
    {
        std::vector<std::uint8_t> in_loop_order(static_cast<std::size_t>(n));
#pragma omp for schedule(static)
        for (std::int64_t row = 0; row < rows; ++row) {
            std::uint8_t* values = codes.data() + row * n;
            std::copy(values, values + n, in_loop_order.begin());
            for (std::int64_t i = 0; i < n; ++i)
                values[order[i]] = in_loop_order[i];
        }
    }
}

}  // namespace fairgptq
