#include "solver/gathering.hpp"

#include <utility>

namespace fairgptq {

std::vector<std::size_t> bytes_of_ranks(const RowShares& shares, SharedBy by, std::int64_t width, std::size_t element) {
    std::vector<std::size_t> sizes;
    for (int rank = 0; rank < shares.ranks(); ++rank)
        sizes.push_back(
            static_cast<std::size_t>((by == SharedBy::tiles ? shares.tiles_of(rank) : shares.rows_of(rank)) * width) *
            element);
    return sizes;
}

std::array<std::span<const std::byte>, 3> GatheredGrids::parts() const {
    const auto bytes_of = []<class T>(MatrixView<T> view) {
        return std::as_bytes(std::span(view.data, static_cast<std::size_t>(view.rows * view.cols)));
    };
    return {bytes_of(scales), bytes_of(codes), bytes_of(zeros)};
}

std::size_t GatheredGrids::bytes() const {
    std::size_t total = 0;
    for (const std::span<const std::byte> part : parts())
        total += part.size();
    return total;
}

GatheredGrids begin_gathering(MemoryOperations& memory, const RowShares& shares, Share& mine, Exchange& exchange) {
    GatheredGrids all;
    const auto begin = [&]<class T>(MatrixView<T> rows, Buffer& own, MatrixView<const T>& gathered) {
        if (shares.ranks() == 1) {
            all.memory.push_back(std::make_shared<const Buffer>(std::move(own)));
            gathered = rows;
            return;
        }
        const std::vector<std::size_t> sizes = bytes_of_ranks(shares, SharedBy::rows, rows.cols, sizeof(T));
        const std::size_t bytes = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
        const Buffer& buffer = *all.memory.emplace_back(std::make_shared<const Buffer>(memory.allocate(bytes)));
        gathered = buffer.matrix<const T>(rows.cols == 0 ? 0 : static_cast<std::int64_t>(bytes / sizeof(T)) / rows.cols,
                                          rows.cols);
        exchange.all_gather(std::as_bytes(std::span(rows.data, static_cast<std::size_t>(rows.rows * rows.cols))),
                            {buffer.as<std::byte>(), bytes}, sizes);
    };
    begin(mine.codes, mine.code_buffer, all.codes);
    begin(mine.scales, mine.scale_buffer, all.scales);
    begin(mine.zeros, mine.zero_buffer, all.zeros);
    return all;
}

}  // namespace fairgptq
