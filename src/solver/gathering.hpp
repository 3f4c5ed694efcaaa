// What ranks solved, each its rows of a stack of modules, brought together at every rank.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "backend/memory.hpp"
#include "comm/communicator.hpp"
#include "comm/device_collectives.hpp"
#include "solver/row_shares.hpp"
#include "solver/share.hpp"
#include "support/views.hpp"

namespace fairgptq {

/// Grids of the whole stack, in its order, on the device.
struct GatheredGrids {
    std::vector<std::shared_ptr<const Buffer>> memory;  // what the views are of
    MatrixView<const std::uint8_t> codes;               // [rows, n]
    MatrixView<const float> scales;                     // [rows, groups]
    MatrixView<const std::uint8_t> zeros;               // [rows, groups]

    /// Its parts, in a fixed order; none has gaps.
    std::array<std::span<const std::byte>, 3> parts() const;
    std::size_t bytes() const;
};

/// Begins to gather the ranks' shares. Of one rank's the grids are all there are: their memory is taken, and the
/// share's views of it stay good as long as the result.
GatheredGrids begin_gathering(MemoryOperations& memory, const RowShares& shares, Share& mine, Exchange& exchange);

enum class SharedBy : bool { rows, tiles };

/// Bytes of each rank's rows (or tiles), `width` elements each.
std::vector<std::size_t> bytes_of_ranks(const RowShares& shares, SharedBy by, std::int64_t width, std::size_t element);

/// Host values of all ranks end to end: those of the stack, in its order.
/// @param mine `width` for each of this rank's rows (or tiles)
template <class T>
std::vector<T> gather_from_ranks(Communicator& comm, const RowShares& shares, SharedBy by, std::span<const T> mine,
                                 std::int64_t width) {
    const std::vector<std::size_t> sizes = bytes_of_ranks(shares, by, width, sizeof(T));
    std::vector<T> all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}) / sizeof(T));
    comm.all_gather(std::as_bytes(mine), std::as_writable_bytes(std::span(all)), sizes);
    return all;
}

}  // namespace fairgptq
