#include "pipeline/arithmetic.hpp"

#include <algorithm>
#include <chrono>
#include <set>
#include <span>
#include <vector>

namespace fairgptq {

Arithmetic count_arithmetic(const Family& family, const Chunks& chunks, const AlphaPolicy& alpha, std::int64_t layers,
                            int ranks) {
    Arithmetic sum;
    double tokens = 0;
    double squared_lengths = 0;
    for (const Chunk& chunk : chunks.all) {
        tokens += static_cast<double>(chunk.tokens.tokens());
        for (std::size_t s = 0; s + 1 < chunk.tokens.offsets.size(); ++s) {
            const auto length = static_cast<double>(chunk.tokens.offsets[s + 1] - chunk.tokens.offsets[s]);
            squared_lengths += length * length;
        }
    }
    const bool pairs = chunks.pair_columns > 0;
    const auto width = static_cast<double>(family.config.heads * family.config.head_dim);
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        sum.forward += 2 * squared_lengths * width;
        for (const StageSpec& stage : family.stages) {
            const auto n = static_cast<double>(stage.cols());
            sum.statistics += n * n * static_cast<double>(chunks.hessian_tokens + chunks.pair_columns);
            std::set<double> alphas;
            for (const LinearSpec& linear : stage.linears) {
                const auto rows = static_cast<double>(linear.rows);
                const double value = alpha(layer, linear.name);
                alphas.insert(value);
                sum.forward += 2 * rows * n * tokens;
                sum.columns += rows * n * n;
                if (value != 0 && pairs) sum.shift += 4 * rows * n * n;
                sum.figures += (pairs ? 3 : 1) * 2 * rows * n * n;
            }
            sum.factor += static_cast<double>(alphas.size()) * 2 / 3 * n * n * n * ranks;
        }
    }
    return sum;
}

double measure_matrix_rate(Backend& backend) {
    constexpr std::int64_t n = 1024;
    const DType type = backend.activation_type();
    const auto bytes = static_cast<std::size_t>(n * n) * size_of(type);
    const Buffer a = backend.allocate(bytes), b = backend.allocate(bytes), c = backend.allocate(bytes);
    const std::vector<float> ones(static_cast<std::size_t>(n * n), 0.5F);
    backend.upload(a.tensor(type, n, n), ones.data(), DType::float32);
    backend.upload(b.tensor(type, n, n), ones.data(), DType::float32);
    double best = 0;
    for (int repeat = 0; repeat < 6; ++repeat) {
        backend.synchronize();
        const auto start = std::chrono::steady_clock::now();
        backend.linear(a.tensor(type, n, n), b.tensor(type, n, n), nullptr, c.tensor(type, n, n), false);
        backend.synchronize();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        best = std::max(best, 2.0 * static_cast<double>(n * n * n) / seconds);
    }
    return best;
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
