#include "pipeline/stage_statistics.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

namespace fairgptq {
namespace {

std::size_t floats(std::int64_t rows, std::int64_t cols) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * sizeof(float);
}

}  // namespace

std::size_t StageStatistics::packed_bytes(std::int64_t cols) {
    constexpr std::size_t alignment = 256;  // of what may come behind
    const auto bytes = static_cast<std::size_t>(PackedLower<double>::elements(cols)) * sizeof(double);
    return (bytes + alignment - 1) / alignment * alignment;
}
std::size_t StageStatistics::hessian_sum_bytes(std::int64_t widest, std::int64_t widest_dealt) {
    return std::max(packed_bytes(widest), packed_bytes(widest_dealt) + matrix_bytes(widest_dealt, false));
}
std::size_t StageStatistics::sum_bytes(std::int64_t widest, std::int64_t widest_dealt, bool pairs) {
    return hessian_sum_bytes(widest, widest_dealt) + (pairs ? packed_bytes(widest) : 0);
}
std::size_t StageStatistics::matrix_bytes(std::int64_t widest, bool pairs) {
    return floats(widest, widest) * (pairs ? 2 : 1);
}
std::size_t StageStatistics::difference_bytes(std::int64_t widest, std::int64_t max_pair_columns) {
    return floats(max_pair_columns, widest);
}

StageStatistics::StageStatistics(Backend& backend, DeviceCollectives& collectives, int rank, std::int64_t widest,
                                 std::int64_t widest_dealt, const Chunks& chunks)
    : backend_(backend),
      collectives_(collectives),
      rank_(rank),
      hessian_tokens_(chunks.hessian_tokens),
      pair_columns_(chunks.pair_columns) {
    const bool pairs = pair_columns_ > 0;
    const std::size_t matrix = matrix_bytes(widest, false);
    hessian_sum_ = backend.allocate(hessian_sum_bytes(widest, widest_dealt));
    hessian_buffer_ = backend.allocate(matrix);
    if (pairs) {
        covariance_sum_ = backend.allocate(packed_bytes(widest));
        covariance_buffer_ = backend.allocate(matrix);
        differences_ = backend.allocate(difference_bytes(widest, chunks.max_pair_columns));
    }
}

// A chunk's product is made where H will be, which is free until the sums are finished; or, where this rank may already
// have the H of the stage that is its own, behind the sums.
void StageStatistics::begin(std::int64_t cols, std::optional<int> owner) {
    const std::size_t bytes = packed_bytes(cols);
    backend_.zero(hessian_sum_.data(), bytes);
    if (covariance_sum_.bytes() > 0) backend_.zero(covariance_sum_.data(), bytes);
    owner_ = owner;
    product_ = hessian_buffer_.matrix<float>(cols, cols);
    if (!owner_) return;
    if (bytes + matrix_bytes(cols, false) > hessian_sum_.bytes())
        throw Failure("there is no room for sums of {} columns that are dealt", cols);
    product_ = {reinterpret_cast<float*>(hessian_sum_.as<std::byte>() + bytes), cols, cols};
}

void StageStatistics::add_to_hessian(TensorView inputs) {
    const std::int64_t n = inputs.cols;
    backend_.accumulate_gram(inputs, product_, {hessian_sum_.as<double>(), n});
}

void StageStatistics::add_to_covariance(std::span<const PairColumn> columns, TensorView inputs) {
    const std::int64_t n = inputs.cols;
    const MatrixView<float> differences = differences_.matrix<float>(std::ssize(columns), n);
    backend_.pair_differences(inputs, columns, differences);
    backend_.accumulate_gram(differences, product_, {covariance_sum_.as<double>(), n});
}

void StageStatistics::begin_sum(const Buffer& sum, std::int64_t cols, PhaseClock& clock) {
    clock.enter(Phase::all_reduce);
    if (!exchange_) exchange_.emplace(collectives_);
    const std::span<double> values(sum.as<double>(), static_cast<std::size_t>(PackedLower<double>::elements(cols)));
    if (owner_)
        exchange_->reduce_sum(values, *owner_);
    else
        exchange_->all_reduce_sum(values);
    clock.enter(Phase::covariance);
}

void StageStatistics::begin_hessian_sum(std::int64_t cols, PhaseClock& clock) {
    begin_sum(hessian_sum_, cols, clock);
}

void StageStatistics::begin_covariance_sum(std::int64_t cols, PhaseClock& clock) {
    if (pair_columns_ > 0) begin_sum(covariance_sum_, cols, clock);
}

void StageStatistics::finish(std::int64_t cols, bool reached, PhaseClock& clock) {
    clock.enter(Phase::all_reduce);
    exchange_->finish();
    exchange_.reset();
    clock.enter(Phase::covariance);
    if (owner_ && *owner_ != rank_) return;
    const auto mean = [&](const Buffer& sum, const Buffer& out, std::int64_t columns) {
        const MatrixView<float> matrix = out.matrix<float>(cols, cols);
        backend_.finish_gram({sum.as<const double>(), cols}, reached ? 2.0 / static_cast<double>(columns) : 0, matrix);
        return matrix;
    };
    hessian_ = mean(hessian_sum_, hessian_buffer_, hessian_tokens_);
    if (pair_columns_ > 0) covariance_ = mean(covariance_sum_, covariance_buffer_, pair_columns_);
    if (reached) return;
    // Dead columns get 1 on the diagonal, and here all are dead; the sums are zero, and as large as the matrix.
    std::vector<std::int32_t> order(static_cast<std::size_t>(cols));
    std::iota(order.begin(), order.end(), 0);
    backend_.combine(hessian_sum_.matrix<const float>(cols, cols), {}, 0, 0, order, hessian_);
}

}  // namespace fairgptq
