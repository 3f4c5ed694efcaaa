// What ranks solved, each its rows of a stack of modules, brought together at every rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/device_collectives.hpp"
#include "solver/row_shares.hpp"
#include "support/views.hpp"

namespace fairgptq {

/// Grids of all ranks' rows, at the host of every rank: those of the stack, in its order.
struct GatheredGrids {
    std::vector<std::uint8_t> codes;  // [rows, n], in the order of the loop until restore_column_order
    std::vector<float> scales;        // [rows, groups]
    std::vector<std::uint8_t> zeros;  // [rows, groups]
};

/// Begins to gather this rank's codes [its rows, n], scales and zeros [its rows, groups], on the device.
void begin_gathering(const RowShares& shares, MatrixView<const std::uint8_t> codes, MatrixView<const float> scales,
                     MatrixView<const std::uint8_t> zeros, GatheredGrids& all, Exchange& exchange);

/// codes[r, order[i]] = codes[r, i], in place.
void restore_column_order(std::span<const std::int32_t> order, std::vector<std::uint8_t>& codes);

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
