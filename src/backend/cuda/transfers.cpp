#include "backend/cuda/transfers.hpp"

#include <algorithm>
#include <cstring>

#include "backend/cuda/check.hpp"
#include "backend/cuda/convert.hpp"

namespace fairgptq::cuda {
namespace {

std::size_t row_bytes(TensorView view) {
    return static_cast<std::size_t>(view.cols) * size_of(view.type);
}
std::size_t pitch(TensorView view) {
    return static_cast<std::size_t>(view.stride) * size_of(view.type);
}

/// By as many threads as OpenMP gives the calling one: one does not reach what a GPU takes in.
void copy_on_host(std::byte* to, const std::byte* from, std::size_t bytes) {
    constexpr std::size_t block = std::size_t{2} << 20U;
#pragma omp parallel for
    for (std::size_t begin = 0; begin < bytes; begin += block)
        std::memcpy(to + begin, from + begin, std::min(block, bytes - begin));
}

}  // namespace

void StreamTransfers::upload(TensorView to, const void* host, DType type) {
    if (to.empty()) return;
    memory_.use();
    const std::size_t row = static_cast<std::size_t>(to.cols) * size_of(type);
    const auto most_rows = static_cast<std::int64_t>(piece_bytes / row);
    if (most_rows == 0) throw Failure("a row of {} bytes is longer than what is uploaded at once", row);
    const auto* source = static_cast<const std::byte*>(host);
    for (std::int64_t first = 0; first < to.rows; first += most_rows) {
        const TensorView rows = to.rows_from(first, std::min(most_rows, to.rows - first));
        const std::size_t bytes = static_cast<std::size_t>(rows.rows) * row;
        Piece& piece = pieces_[next_++ % pieces];
        piece.travelled.wait();
        if (piece.host.bytes() < bytes) {
            piece.host = Buffer();  // before more is taken
            piece.host = allocate_host(bytes);
        }
        copy_on_host(piece.host.as<std::byte>(), source, bytes);
        source += bytes;
        if (type == to.type) {
            check(cudaMemcpy2DAsync(rows.data, pitch(rows), piece.host.data(), row, row,
                                    static_cast<std::size_t>(rows.rows), cudaMemcpyHostToDevice, stream_.get()),
                  "cudaMemcpy2DAsync (upload)");
        } else {
            if (piece.device.bytes() < bytes) {
                piece.device = Buffer();
                piece.device = memory_.allocate(bytes);
            }
            check(cudaMemcpyAsync(piece.device.data(), piece.host.data(), bytes, cudaMemcpyHostToDevice, stream_.get()),
                  "cudaMemcpyAsync (upload)");
            check(convert(piece.device.data(), type, rows.data, rows.type, rows.rows, rows.cols, rows.stride,
                          stream_.get()),
                  "convert (upload)");
        }
        piece.travelled.record(stream_.get());
    }
}

void StreamTransfers::fetch(TensorView to, const void* host) {
    if (to.empty()) return;
    memory_.use();
    check(cudaMemcpy2DAsync(to.data, pitch(to), host, row_bytes(to), row_bytes(to), static_cast<std::size_t>(to.rows),
                            cudaMemcpyHostToDevice, stream_.get()),
          "cudaMemcpy2DAsync (fetch)");
}

void StreamTransfers::store(void* host, TensorView from) {
    if (from.empty()) return;
    memory_.use();
    check(cudaMemcpy2DAsync(host, row_bytes(from), from.data, pitch(from), row_bytes(from),
                            static_cast<std::size_t>(from.rows), cudaMemcpyDeviceToHost, stream_.get()),
          "cudaMemcpy2DAsync (store)");
}

void StreamTransfers::store_bytes(void* host, const void* device, std::size_t bytes) {
    if (bytes == 0) return;
    memory_.use();
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_.get()), "cudaMemcpyAsync (store)");
}

void StreamTransfers::follow_device() {
    memory_.use();
    device_has_come_.record(memory_.stream());
    device_has_come_.delay(stream_.get());
}

void StreamTransfers::lead_device() {
    memory_.use();
    copies_have_come_.record(stream_.get());
    copies_have_come_.delay(memory_.stream());
}

void StreamTransfers::finish() {
    memory_.use();
    check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize (copies)");
}

}  // namespace fairgptq::cuda
