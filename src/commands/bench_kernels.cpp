// Each kernel's rate is given as a share of this device's own matrix-product rate in the kernel's precision, measured
// around it in the same run, so that a noisy or throttled machine moves both.
#include "commands/bench_kernels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <set>

#include "model/decoder.hpp"
#include "pipeline/arithmetic.hpp"
#include "solver/solve.hpp"
#include "support/pseudorandom.hpp"

namespace fairgptq::commands {
namespace {

Family family_of(const BenchShape& shape) {
    ModelConfig config;
    config.model_type = "llama";
    config.architecture = "LlamaForCausalLM";
    config.hidden_size = shape.hidden;
    config.intermediate_size = shape.intermediate;
    config.layers = 1;
    config.heads = shape.heads;
    config.key_value_heads = shape.key_value_heads;
    config.head_dim = config.rotary_dim = shape.head_dim;
    config.vocab_size = 1;
    config.max_positions = 1 << 20;
    config.windows = {0};
    config.rotary = {true};
    return describe_family(config);
}

/// What a kernel has to do at least.
struct Work {
    double flop, bytes;
    DType type = DType::float32;  // of the products
};

double square(std::int64_t n) {
    return static_cast<double>(n) * static_cast<double>(n);
}

/// Bytes a second of a copy inside the device's memory, read and written: the best of a few.
double measure_copy_rate(Backend& backend) {
    const std::size_t bytes = std::size_t{1} << (backend.host_accessible() ? 28U : 30U);
    const Buffer from = backend.allocate(bytes);
    const Buffer to = backend.allocate(bytes);
    backend.zero(from.data(), bytes);
    double best = 0;
    for (int repeat = 0; repeat < 6; ++repeat) {
        backend.synchronize();
        const auto start = std::chrono::steady_clock::now();
        backend.copy_on_device(to.data(), from.data(), bytes);
        backend.synchronize();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        best = std::max(best, 2.0 * static_cast<double>(bytes) / seconds);
    }
    return best;
}

class Bench {
  public:
    Bench(Backend& backend, const BenchShape& shape, const BenchWork& work)
        : backend_(backend),
          family_(family_of(shape)),
          tokens_(work.tokens),
          length_(std::min(work.length, work.tokens)),
          group_size_(work.group_size),
          kernels_(work.kernels),
          type_(backend.activation_type()),
          float32_rate_(backend, DType::float32) {
        result_.copy_rate = measure_copy_rate(backend);
        result_.rate_size = float32_rate_.size();
        if (type_ != DType::float32) activation_rate_.emplace(backend, type_);
    }

    BenchResult run() {
        std::set<std::int64_t> done;
        for (const StageSpec& stage : family_.stages) {
            const std::int64_t n = stage.cols();
            if (!done.insert(n).second) continue;
            if (wanted("covariance")) covariance(n);
            if (wanted("factor")) factor(n);
        }
        for (const StageSpec& stage : family_.stages) {
            std::int64_t rows = 0;
            for (const LinearSpec& linear : stage.linears)
                rows += linear.rows;
            if (wanted("columns")) columns(rows, stage.cols(), false);
        }
        // On a GPU, whose launches overlap, also each shape of module from its Hessian to its codes.
        std::set<std::pair<std::int64_t, std::int64_t>> modules;
        for (const StageSpec& stage : family_.stages)
            for (const LinearSpec& linear : stage.linears)
                if (!backend_.host_accessible() && wanted("solve")) modules.emplace(linear.rows, linear.cols);
        for (const auto& [rows, cols] : modules)
            columns(rows, cols, true);
        offsets_ = {0};
        while (offsets_.back() < tokens_)
            offsets_.push_back(std::min(tokens_, offsets_.back() + length_));
        if (wanted("attention")) attention();
        if (wanted("forward")) stages();
        return result_;
    }

  private:
    bool wanted(const char* kernel) const { return std::ranges::find(kernels_, kernel) != kernels_.end(); }

    double matrix_rate(DType type) {
        const bool activations = type != DType::float32;
        const double rate = activations ? activation_rate_->measure() : float32_rate_.measure();
        double& best = activations ? result_.activation_rate : result_.float32_rate;
        best = std::max(best, rate);
        return rate;
    }

    /// Runs `work` a few times (once, if it is long) between measurements of the matrix-product rate. Both are the best
    /// of a few calls in a row: an interruption of milliseconds, which would be most of a short kernel's time, spoils
    /// neither.
    void measure(const std::string& kernel, const std::string& size, const Work& least,
                 const std::function<void()>& prepare, const std::function<void()>& work) {
        std::vector<double> shares, times;
        double spent = 0;
        for (int repeat = 0; repeat < 6 && (repeat < 2 || spent < 3.0); ++repeat) {
            const double before = matrix_rate(least.type);
            double seconds = std::numeric_limits<double>::infinity();
            double sampled = 0;
            for (int call = 0; call < 100 && sampled < 0.05; ++call) {
                prepare();
                backend_.synchronize();
                const auto start = std::chrono::steady_clock::now();
                work();
                backend_.synchronize();
                const double one = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
                seconds = std::min(seconds, one);
                sampled += one;
            }
            const double rate = 0.5 * (before + matrix_rate(least.type));
            spent += sampled;
            if (repeat == 0) continue;  // warm-up
            times.push_back(seconds);
            shares.push_back(least.flop / seconds / rate);
        }
        const auto median = [](std::vector<double> values) {
            std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                             values.end());
            return values[values.size() / 2];
        };
        const double seconds = median(times);
        result_.rows.push_back({kernel, size, seconds, least.flop, median(shares), least.bytes,
                                least.bytes / seconds / result_.copy_rate});
    }

    Buffer random_matrix(std::int64_t rows, std::int64_t cols, float scale) {
        Buffer buffer = backend_.allocate(static_cast<std::size_t>(rows * cols) * size_of(backend_.activation_type()));
        std::vector<float> values(static_cast<std::size_t>(rows * cols));
        fill_pseudorandom(values, scale, 12345);
        backend_.upload(buffer.tensor(backend_.activation_type(), rows, cols), values.data(), DType::float32);
        return buffer;
    }

    void covariance(std::int64_t n) {
        const Buffer inputs = random_matrix(tokens_, n, 1);
        const Buffer scratch = backend_.allocate(static_cast<std::size_t>(n * n) * sizeof(float));
        const Buffer sum =
            backend_.allocate(static_cast<std::size_t>(PackedLower<double>::elements(n)) * sizeof(double));
        backend_.zero(sum.data(), sum.bytes());
        // Inputs in; one triangle of the float64 sum in and out.
        const double bytes = static_cast<double>(tokens_ * n) * static_cast<double>(size_of(type_)) + 8 * square(n);
        measure(
            "covariance", fmt::format("{} x {} tokens", n, tokens_),
            {square(n) * static_cast<double>(tokens_), bytes, type_}, [] {},
            [&] {
                backend_.accumulate_gram(inputs.tensor(backend_.activation_type(), tokens_, n),
                                         scratch.matrix<float>(n, n), {sum.as<double>(), n});
            });
    }

    /// A well-conditioned Hessian, the identity plus a constant: dense, and without factors that decay into subnormals.
    Buffer hessian(std::int64_t n) {
        std::vector<float> values(static_cast<std::size_t>(n * n), 0.5F);
        for (std::int64_t i = 0; i < n; ++i)
            values[static_cast<std::size_t>(i * n + i)] += 1.0F;
        Buffer buffer = backend_.allocate(values.size() * sizeof(float));
        backend_.copy_to_device(buffer.data(), values.data(), buffer.bytes());
        return buffer;
    }

    void factor(std::int64_t n) {
        const Buffer original = hessian(n);
        const Buffer work = backend_.allocate(original.bytes());
        // One triangle in and out.
        measure(
            "factor + inverse", fmt::format("{}", n), {2.0 / 3 * square(n) * static_cast<double>(n), 4 * square(n)},
            [&] { backend_.copy_on_device(work.data(), original.data(), original.bytes()); },
            [&] {
                if (!backend_.factor_upper(work.matrix<float>(n, n)))
                    throw Failure("the benchmark's matrix did not factor");
                backend_.invert_upper(work.matrix<float>(n, n));
            });
    }

    /// The column loop, alone or with the factorization before it.
    void columns(std::int64_t rows, std::int64_t n, bool with_factorization) {
        const Buffer original = hessian(n);
        const Buffer inverse = backend_.allocate(original.bytes());
        backend_.copy_on_device(inverse.data(), original.data(), original.bytes());
        if (!backend_.factor_upper(inverse.matrix<float>(n, n))) throw Failure("the benchmark's matrix did not factor");
        backend_.invert_upper(inverse.matrix<float>(n, n));
        const std::int64_t group = resolve_group_size(group_size_, n, fmt::format("a row of {}", n));
        const std::int64_t groups = n / group;
        std::vector<std::int32_t> group_of_column(static_cast<std::size_t>(n));
        for (std::int64_t i = 0; i < n; ++i)
            group_of_column[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i / group);
        const auto count = [](std::int64_t a, std::int64_t b) {
            return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
        };
        const Buffer index = backend_.allocate(group_of_column.size() * sizeof(std::int32_t));
        backend_.copy_to_device(index.data(), group_of_column.data(), index.bytes());
        std::vector<float> weights(count(rows, n));
        fill_pseudorandom(weights, 0.05F, 99);
        const Buffer targets = backend_.allocate(count(rows, n) * sizeof(float));
        backend_.copy_to_device(targets.data(), weights.data(), targets.bytes());
        const Buffer work = backend_.allocate(targets.bytes());
        const Buffer codes = backend_.allocate(count(rows, n));
        const Buffer scales = backend_.allocate(count(rows, groups) * sizeof(float));
        const Buffer zeros = backend_.allocate(count(rows, groups));
        ColumnProblem problem;
        problem.weights = work.matrix<float>(rows, n);
        problem.inverse = inverse.matrix<float>(n, n);
        problem.grid.group_size = group;
        problem.group_of_column = index.as<std::int32_t>();
        problem.codes = codes.matrix<std::uint8_t>(rows, n);
        problem.scales = scales.matrix<float>(rows, groups);
        problem.zeros = zeros.matrix<std::uint8_t>(rows, groups);
        const auto elements = static_cast<double>(rows) * static_cast<double>(n);
        // Weights in and out, codes out, one triangle of R in.
        const Work loop{elements * static_cast<double>(n), 9 * elements + 2 * square(n)};
        if (!with_factorization) {
            measure(
                "columns", fmt::format("{} x {}", rows, n), loop,
                [&] { backend_.copy_on_device(work.data(), targets.data(), work.bytes()); },
                [&] { backend_.quantize_columns(problem); });
            return;
        }
        const MatrixView<float> factor = inverse.matrix<float>(n, n);
        measure(
            "solve", fmt::format("{} x {}", rows, n),
            {loop.flop + 2.0 / 3 * square(n) * static_cast<double>(n), loop.bytes + 4 * square(n)},
            [&] {
                backend_.copy_on_device(work.data(), targets.data(), work.bytes());
                backend_.copy_on_device(inverse.data(), original.data(), original.bytes());
            },
            [&] {
                if (!backend_.factor_upper(factor)) throw Failure("the benchmark's matrix did not factor");
                backend_.invert_upper(factor);
                backend_.quantize_columns(problem);
            });
    }

    /// Of scores and sums, the half that causality leaves.
    double attention_flop() const {
        double flop = 0;
        for (std::size_t s = 0; s + 1 < offsets_.size(); ++s) {
            const auto length = static_cast<double>(offsets_[s + 1] - offsets_[s]);
            flop += 2 * length * length * static_cast<double>(family_.config.heads * family_.config.head_dim);
        }
        return flop;
    }

    void attention() {
        const ModelConfig& config = family_.config;
        const std::int64_t query_cols = config.heads * config.head_dim;
        const std::int64_t key_cols = config.key_value_heads * config.head_dim;
        const Buffer query = random_matrix(tokens_, query_cols, 1);
        const Buffer key = random_matrix(tokens_, key_cols, 1);
        const Buffer value = random_matrix(tokens_, key_cols, 1);
        const Buffer output = backend_.allocate(query.bytes());
        const AttentionShape shape{config.heads, config.key_value_heads, config.head_dim,
                                   1 / std::sqrt(static_cast<float>(config.head_dim)), 0};
        const double bytes =
            static_cast<double>(tokens_ * (2 * query_cols + 2 * key_cols)) * static_cast<double>(size_of(type_));
        measure(
            "attention", fmt::format("{} tokens of {}", tokens_, length_), {attention_flop(), bytes, type_}, [] {},
            [&] {
                backend_.attention(query.tensor(type_, tokens_, query_cols), key.tensor(type_, tokens_, key_cols),
                                   value.tensor(type_, tokens_, key_cols), offsets_, shape,
                                   output.tensor(type_, tokens_, query_cols));
            });
    }

    /// The four stages of a block over one chunk of sequences.
    void stages() {
        const DType type = backend_.activation_type();
        LayerWeights layer;
        layer.layer = 0;
        double weights = 0;
        for (const StageSpec& stage : family_.stages)
            for (const LinearSpec& linear : stage.linears) {
                layer.memory.push_back(random_matrix(linear.rows, linear.cols, 0.02F));
                layer.linears[linear.name] = {layer.memory.back().tensor(type, linear.rows, linear.cols), nullptr};
                weights += static_cast<double>(linear.rows) * static_cast<double>(linear.cols);
            }
        const std::vector<float> ones(static_cast<std::size_t>(family_.config.hidden_size), 1.0F);
        layer.memory.push_back(backend_.allocate(ones.size() * sizeof(float)));
        backend_.copy_to_device(layer.memory.back().data(), ones.data(), layer.memory.back().bytes());
        layer.input_norm.weight = layer.mlp_norm.weight = layer.memory.back().as<float>();
        const Buffer hidden = random_matrix(tokens_, family_.config.hidden_size, 1);
        const Buffer inputs = random_matrix(tokens_, Decoder::widest_input(family_), 1);
        ChunkState state{hidden.tensor(type, tokens_, family_.config.hidden_size),
                         inputs.tensor(type, tokens_, Decoder::widest_input(family_)), offsets_};
        Decoder decoder(backend_, family_, tokens_);
        // Weights in, hidden states in and out.
        const double bytes = (weights + 2 * static_cast<double>(tokens_ * family_.config.hidden_size)) *
                             static_cast<double>(size_of(type));
        measure(
            "stage forward", fmt::format("{} tokens of {}", tokens_, length_),
            {2 * weights * static_cast<double>(tokens_) + attention_flop(), bytes, type}, [] {},
            [&] { decoder.run_layer(layer, state); });
    }

    Backend& backend_;
    Family family_;
    std::int64_t tokens_, length_, group_size_;
    std::vector<std::string> kernels_;
    DType type_;
    MatrixRate float32_rate_;
    std::optional<MatrixRate> activation_rate_;
    std::vector<std::int64_t> offsets_;
    BenchResult result_;
};

}  // namespace

BenchResult run_bench(Backend& backend, const BenchShape& shape, const BenchWork& work) {
    return Bench(backend, shape, work).run();
}

}  // namespace fairgptq::commands
