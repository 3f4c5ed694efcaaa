#include "pipeline/calibration_state.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace fairgptq {
namespace {
std::size_t size(std::int64_t rows, std::int64_t cols, std::size_t element) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * element;
}

/// MPI adds what the host can read: a GPU's sums pass through its memory, a piece at a time.
void add_over_ranks(Backend& backend, Communicator& comm, const Buffer& sum, std::size_t elements) {
    if (backend.host_accessible()) return comm.all_reduce_sum({sum.as<double>(), elements});
    if (comm.size() == 1) return;
    constexpr std::size_t piece = std::size_t{1} << 24U;
    std::vector<double> values(std::min(piece, elements));
    for (std::size_t begin = 0; begin < elements; begin += piece) {
        const std::span<double> part(values.data(), std::min(piece, elements - begin));
        backend.copy_to_host(part.data(), sum.as<double>() + begin, part.size_bytes());
        comm.all_reduce_sum(part);
        backend.copy_to_device(sum.as<double>() + begin, part.data(), part.size_bytes());
    }
}
}  // namespace

std::size_t CalibrationState::hidden_bytes(const Family& family, std::int64_t tokens, DType type) {
    return size(tokens, family.config.hidden_size, size_of(type));
}
std::size_t CalibrationState::inputs_bytes(const Family& family, std::int64_t tokens, DType type) {
    return size(tokens, Decoder::widest_input(family), size_of(type));
}

CalibrationState::CalibrationState(Backend& backend, const Family& family, const Chunks& chunks,
                                   const std::vector<std::size_t>& mine) {
    for (const std::size_t index : mine)
        tokens_ += chunks.all[index].tokens.tokens();
    const DType type = backend.activation_type();
    hidden_ = backend.allocate(hidden_bytes(family, tokens_, type));
    inputs_ = backend.allocate(inputs_bytes(family, tokens_, type));
    const TensorView hidden = hidden_.tensor(type, tokens_, family.config.hidden_size);
    const TensorView inputs = inputs_.tensor(type, tokens_, Decoder::widest_input(family));
    std::int64_t first = 0;
    for (const std::size_t index : mine) {
        const Chunk& chunk = chunks.all[index];
        const std::int64_t count = chunk.tokens.tokens();
        items_.push_back(
            {&chunk, {hidden.rows_from(first, count), inputs.rows_from(first, count), chunk.tokens.offsets}});
        first += count;
    }
}

std::size_t StageStatistics::sum_bytes(const Family& family, bool pairs) {
    const auto one =
        static_cast<std::size_t>(PackedLower<double>::elements(Decoder::widest_input(family))) * sizeof(double);
    return pairs ? 2 * one : one;
}
std::size_t StageStatistics::matrix_bytes(const Family& family, bool pairs) {
    const std::int64_t n = Decoder::widest_input(family);
    return size(n, n, sizeof(float)) * (pairs ? 2 : 1);
}
std::size_t StageStatistics::difference_bytes(const Family& family, std::int64_t max_pair_columns) {
    return size(max_pair_columns, Decoder::widest_input(family), sizeof(float));
}

StageStatistics::StageStatistics(Backend& backend, const Family& family, const Chunks& chunks)
    : backend_(backend), hessian_tokens_(chunks.hessian_tokens), pair_columns_(chunks.pair_columns) {
    const bool pairs = pair_columns_ > 0;
    const std::size_t sums = sum_bytes(family, false);
    const std::size_t matrix = matrix_bytes(family, false);
    hessian_sum_ = backend.allocate(sums);
    hessian_buffer_ = backend.allocate(matrix);
    if (pairs) {
        covariance_sum_ = backend.allocate(sums);
        covariance_buffer_ = backend.allocate(matrix);
        differences_ = backend.allocate(difference_bytes(family, chunks.max_pair_columns));
    }
    clear();
}

void StageStatistics::clear() {
    backend_.zero(hessian_sum_.data(), hessian_sum_.bytes());
    if (covariance_sum_.bytes() > 0) backend_.zero(covariance_sum_.data(), covariance_sum_.bytes());
}

void StageStatistics::accumulate(const Chunk& chunk, TensorView inputs) {
    // H's own buffer is free until the sums are reduced, so it serves as scratch for a chunk's product.
    const std::int64_t n = inputs.cols;
    const MatrixView<float> scratch = hessian_buffer_.matrix<float>(n, n);
    if (chunk.in_hessian) backend_.accumulate_gram(inputs, scratch, {hessian_sum_.as<double>(), n});
    if (chunk.pair_columns.empty()) return;
    const auto columns = static_cast<std::int64_t>(chunk.pair_columns.size());
    const MatrixView<float> differences = differences_.matrix<float>(columns, n);
    backend_.pair_differences(inputs, chunk.pair_columns, differences);
    backend_.accumulate_gram(differences, scratch, {covariance_sum_.as<double>(), n});
}

void StageStatistics::reduce(Communicator& comm, std::int64_t cols, PhaseClock& clock) {
    const auto elements = static_cast<std::size_t>(PackedLower<double>::elements(cols));
    const auto finish = [&](const Buffer& sum, const Buffer& out, std::int64_t columns) {
        clock.spent(Phase::covariance);
        add_over_ranks(backend_, comm, sum, elements);
        clock.spent(Phase::all_reduce);
        const MatrixView<float> matrix = out.matrix<float>(cols, cols);
        backend_.finish_gram({sum.as<const double>(), cols}, 2.0 / static_cast<double>(columns), matrix);
        return matrix;
    };
    hessian_ = finish(hessian_sum_, hessian_buffer_, hessian_tokens_);
    if (pair_columns_ > 0) covariance_ = finish(covariance_sum_, covariance_buffer_, pair_columns_);
    clear();
    clock.spent(Phase::covariance);
}

}  // namespace fairgptq
