#include "pipeline/calibration_state.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace fairgptq {
namespace {
std::size_t size(std::int64_t rows, std::int64_t cols, std::size_t element) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * element;
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

StageStatistics::StageStatistics(Backend& backend, DeviceCollectives& collectives, const Family& family,
                                 const Chunks& chunks)
    : backend_(backend),
      collectives_(collectives),
      hessian_tokens_(chunks.hessian_tokens),
      pair_columns_(chunks.pair_columns) {
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

// H's own buffer is free until the sums are finished, so it serves as scratch for a chunk's product.

void StageStatistics::add_to_hessian(const Chunk& chunk, TensorView inputs) {
    if (!chunk.in_hessian) return;
    const std::int64_t n = inputs.cols;
    backend_.accumulate_gram(inputs, hessian_buffer_.matrix<float>(n, n), {hessian_sum_.as<double>(), n});
}

void StageStatistics::add_to_covariance(const Chunk& chunk, TensorView inputs) {
    if (chunk.pair_columns.empty()) return;
    const std::int64_t n = inputs.cols;
    const auto columns = static_cast<std::int64_t>(chunk.pair_columns.size());
    const MatrixView<float> differences = differences_.matrix<float>(columns, n);
    backend_.pair_differences(inputs, chunk.pair_columns, differences);
    backend_.accumulate_gram(differences, hessian_buffer_.matrix<float>(n, n), {covariance_sum_.as<double>(), n});
}

void StageStatistics::begin_sum(const Buffer& sum, std::int64_t cols, PhaseClock& clock) {
    clock.spent(Phase::covariance);
    if (!exchange_) exchange_.emplace(collectives_);
    exchange_->all_reduce_sum({sum.as<double>(), static_cast<std::size_t>(PackedLower<double>::elements(cols))});
    clock.spent(Phase::all_reduce);
}

void StageStatistics::begin_hessian_sum(std::int64_t cols, PhaseClock& clock) {
    begin_sum(hessian_sum_, cols, clock);
}

void StageStatistics::begin_covariance_sum(std::int64_t cols, PhaseClock& clock) {
    if (pair_columns_ > 0) begin_sum(covariance_sum_, cols, clock);
}

void StageStatistics::finish(std::int64_t cols, PhaseClock& clock) {
    exchange_->finish();
    exchange_.reset();
    clock.spent(Phase::all_reduce);
    const auto mean = [&](const Buffer& sum, const Buffer& out, std::int64_t columns) {
        const MatrixView<float> matrix = out.matrix<float>(cols, cols);
        backend_.finish_gram({sum.as<const double>(), cols}, 2.0 / static_cast<double>(columns), matrix);
        return matrix;
    };
    hessian_ = mean(hessian_sum_, hessian_buffer_, hessian_tokens_);
    if (pair_columns_ > 0) covariance_ = mean(covariance_sum_, covariance_buffer_, pair_columns_);
    clear();
    clock.spent(Phase::covariance);
}

}  // namespace fairgptq
