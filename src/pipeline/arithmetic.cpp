#include "pipeline/arithmetic.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "support/pseudorandom.hpp"

namespace fairgptq {

namespace {

/// What does not depend on the layer.
void add_layer(const Family& family, const Chunks& chunks, const ModuleGrids& grids, const Lengths& lengths,
               std::span<const AlphaPolicy> alphas, std::int64_t layer, Arithmetic& sum) {
    const bool pairs = chunks.pair_columns > 0;
    const ModelConfig& config = family.config;
    // Linear attention reads its state once and changes it once for each token.
    sum.forward += config.is_recurrent(layer)
                       ? lengths.tokens * static_cast<double>(6 * config.delta.state_elements() +
                                                              2 * config.convolution_width * config.convolved_cols())
                       : lengths.squared * static_cast<double>(config.heads * (config.head_dim + config.value_size()));
    for (const StageSpec& stage : family.stages_of(layer)) {
        const auto n = static_cast<double>(stage.cols());
        // Of tokens and pairs, experts have an equal share; of a pair both sentences seldom reach the same one.
        const double reached = stage.is_routed() ? static_cast<double>(family.config.experts_per_token) /
                                                       static_cast<double>(family.config.experts)
                                                 : 1;
        std::vector<std::pair<const LinearSpec*, Grid>> quantized;
        for (const LinearSpec& linear : stage.linears) {
            sum.forward += 2 * static_cast<double>(linear.rows) * n * reached * lengths.tokens;
            if (const std::optional<Grid> grid = grids(layer, linear.name)) quantized.emplace_back(&linear, *grid);
        }
        if (quantized.empty()) continue;
        sum.statistics += n * n * reached * static_cast<double>(chunks.hessian_tokens + chunks.pair_columns);
        for (const AlphaPolicy& alpha : alphas) {
            std::vector<std::pair<double, Grid>> factors;
            for (const auto& [linear, grid] : quantized) {
                const auto rows = static_cast<double>(linear->rows);
                const double value = alpha(layer, linear->name);
                if (std::ranges::find(factors, std::pair(value, grid)) == factors.end())
                    factors.emplace_back(value, grid);
                sum.columns += rows * n * n;
                if (value != 0 && pairs) sum.shift += 4 * rows * n * n;
                // The bias before comes with the shift.
                sum.figures += (!pairs ? 1 : value != 0 ? 2 : 3) * 2 * rows * n * n;
            }
            sum.factor += static_cast<double>(factors.size()) * 2 / 3 * n * n * n;
        }
    }
}

}  // namespace

Lengths::Lengths(const Chunks& chunks) {
    for (const Chunk& chunk : chunks.all) {
        tokens += static_cast<double>(chunk.tokens.tokens());
        for (std::size_t s = 0; s + 1 < chunk.tokens.offsets.size(); ++s) {
            const auto length = static_cast<double>(chunk.tokens.offsets[s + 1] - chunk.tokens.offsets[s]);
            squared += length * length;
        }
    }
}

Arithmetic count_arithmetic(const Family& family, const Chunks& chunks, const ModuleGrids& grids,
                            std::span<const AlphaPolicy> alphas, std::int64_t layers) {
    const Lengths lengths(chunks);
    Arithmetic sum;
    for (std::int64_t layer = 0; layer < layers; ++layer)
        add_layer(family, chunks, grids, lengths, alphas, layer, sum);
    return sum;
}

std::vector<double> layer_work(const Family& family, const Chunks& chunks, const ModuleGrids& grids,
                               std::span<const AlphaPolicy> alphas, std::int64_t layers) {
    if (family.kinds_of_layers().size() == 1 && grids.uniform()) return {};
    const Lengths lengths(chunks);
    std::vector<double> work;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        Arithmetic one;
        add_layer(family, chunks, grids, lengths, alphas, layer, one);
        work.push_back(one.total());
    }
    const double most = *std::ranges::max_element(work);
    for (double& part : work)
        part /= most;
    return work;
}

MatrixRate::MatrixRate(Backend& backend, DType type) : backend_(backend), type_(type) {
    constexpr std::int64_t largest = 8192;
    constexpr double long_enough = 1e-3;
    make_matrices(backend.host_accessible() ? 1024 : 256);
    if (backend.host_accessible()) return;
    const auto warm_seconds = [&] {  // the first of each size may load kernels, for longer than they run
        seconds_of_one();
        return seconds_of_one();
    };
    while (n_ < largest && warm_seconds() < long_enough)
        make_matrices(2 * n_);
}

void MatrixRate::make_matrices(std::int64_t n) {
    n_ = n;
    const std::int64_t first_rows = std::min<std::int64_t>(n, 64);  // the rest repeats them, copied on the device
    std::vector<float> values(static_cast<std::size_t>(first_rows * n));
    fill_pseudorandom(values, 1, 1);
    for (Buffer* buffer : {&left_, &right_, &product_}) {
        *buffer = backend_.allocate(static_cast<std::size_t>(n * n) * size_of(type_));
        const TensorView all = buffer->tensor(type_, n, n);
        backend_.upload(all.rows_from(0, first_rows), values.data(), DType::float32);
        for (std::int64_t row = first_rows; row < n; row += first_rows)
            backend_.copy_on_device(all.row(row), all.row(0),
                                    static_cast<std::size_t>(std::min(first_rows, n - row) * n) * size_of(type_));
    }
}

double MatrixRate::seconds_of_one() {
    backend_.synchronize();
    const auto start = std::chrono::steady_clock::now();
    backend_.linear(left_.tensor(type_, n_, n_), right_.tensor(type_, n_, n_), nullptr, product_.tensor(type_, n_, n_),
                    false);
    backend_.synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double MatrixRate::measure() {
    double best = 0;
    for (int repeat = 0; repeat < 6; ++repeat)
        best = std::max(best, 2.0 * static_cast<double>(n_ * n_ * n_) / seconds_of_one());
    return best;
}

double measure_matrix_rate(Backend& backend) {
    return MatrixRate(backend, backend.activation_type()).measure();
}

double measure_matrix_rate(Backend& backend, Communicator& comm) {
    comm.barrier();
    const double mine = measure_matrix_rate(backend);
    std::vector<double> all(static_cast<std::size_t>(comm.size()));
    const std::vector<std::size_t> sizes(all.size(), sizeof(double));
    comm.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), sizes);
    double sum = 0;
    for (const double rate : all)
        sum += rate;
    return sum;
}

}  // namespace fairgptq
