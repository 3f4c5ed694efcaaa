// `fairgptq bench`: each kernel's rate as a share of this device's own matrix-product rate in the kernel's precision,
// measured around it in the same run, so that a noisy or throttled machine moves both; and the least bytes that it has
// to move as a share of this device's own copy rate.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cxxopts.hpp>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/solver_options.hpp"
#include "model/decoder.hpp"
#include "pipeline/arithmetic.hpp"
#include "solver/solve.hpp"

namespace fairgptq::commands {
namespace {

struct Shape {
    const char* name;
    std::int64_t hidden, intermediate, heads, key_value_heads, head_dim;
};
constexpr std::array shapes{
    Shape{"smollm2-135m", 576, 1536, 9, 3, 64}, Shape{"llama-7b", 4096, 11008, 32, 32, 128},
    Shape{"8b", 4096, 14336, 32, 8, 128},       Shape{"13b", 5120, 13824, 40, 40, 128},
    Shape{"70b", 8192, 28672, 64, 8, 128},
};

Family family_of(const Shape& shape) {
    ModelConfig config;
    config.model_type = "llama";
    config.architecture = "LlamaForCausalLM";
    config.hidden_size = shape.hidden;
    config.intermediate_size = shape.intermediate;
    config.layers = 1;
    config.heads = shape.heads;
    config.key_value_heads = shape.key_value_heads;
    config.head_dim = shape.head_dim;
    config.vocab_size = 1;
    config.max_positions = 1 << 20;
    config.windows = {0};
    return describe_family(config);
}

struct Row {
    std::string kernel, size;
    double seconds, flop, share;  // of the matrix-product rate
    double bytes, copy_share;     // of the copy rate
};

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
    Bench(Backend& backend, const Shape& shape, std::int64_t tokens, std::int64_t length)
        : backend_(backend),
          family_(family_of(shape)),
          tokens_(tokens),
          length_(std::min(length, tokens)),
          type_(backend.activation_type()),
          copy_rate_(measure_copy_rate(backend)),
          float32_rate_(backend, DType::float32) {
        if (type_ != DType::float32) activation_rate_.emplace(backend, type_);
    }

    std::vector<Row> run(std::int64_t group_size) {
        for (const StageSpec& stage : family_.stages) {
            const std::int64_t n = stage.cols();
            if (std::find(done_.begin(), done_.end(), n) != done_.end()) continue;
            done_.push_back(n);
            covariance(n);
            factor(n);
        }
        done_.clear();
        for (const StageSpec& stage : family_.stages) {
            std::int64_t rows = 0;
            for (const LinearSpec& linear : stage.linears)
                rows += linear.rows;
            columns(rows, stage.cols(), group_size, false);
        }
        // On a GPU, whose launches overlap, also each shape of module from its Hessian to its codes.
        std::set<std::pair<std::int64_t, std::int64_t>> modules;
        for (const StageSpec& stage : family_.stages)
            for (const LinearSpec& linear : stage.linears)
                if (!backend_.host_accessible()) modules.emplace(linear.rows, linear.cols);
        for (const auto& [rows, cols] : modules)
            columns(rows, cols, group_size, true);
        stages();
        return rows_;
    }

    double best_float32_rate() const { return best_float32_rate_; }
    /// 0 where activations are float32, too.
    double best_activation_rate() const { return best_activation_rate_; }
    double copy_rate() const { return copy_rate_; }
    std::int64_t rate_size() const { return float32_rate_.size(); }

  private:
    double matrix_rate(DType type) {
        const bool activations = type != DType::float32;
        const double rate = activations ? activation_rate_->measure() : float32_rate_.measure();
        double& best = activations ? best_activation_rate_ : best_float32_rate_;
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
        rows_.push_back(
            {kernel, size, seconds, least.flop, median(shares), least.bytes, least.bytes / seconds / copy_rate_});
    }

    Buffer random_matrix(std::int64_t rows, std::int64_t cols, float scale) {
        Buffer buffer = backend_.allocate(static_cast<std::size_t>(rows * cols) * size_of(backend_.activation_type()));
        std::vector<float> values(static_cast<std::size_t>(rows * cols));
        std::uint32_t state = 12345;
        for (float& value : values) {  // a plain generator: billions of normal variates would take minutes
            state = state * 1664525U + 1013904223U;
            value = scale * (static_cast<float>(state >> 8U) * 0x1p-23F - 1.0F);
        }
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
    void columns(std::int64_t rows, std::int64_t n, std::int64_t group_size, bool with_factorization) {
        const Buffer original = hessian(n);
        const Buffer inverse = backend_.allocate(original.bytes());
        backend_.copy_on_device(inverse.data(), original.data(), original.bytes());
        if (!backend_.factor_upper(inverse.matrix<float>(n, n))) throw Failure("the benchmark's matrix did not factor");
        backend_.invert_upper(inverse.matrix<float>(n, n));
        const std::int64_t group = resolve_group_size(group_size, n, fmt::format("a row of {}", n));
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
        std::uint32_t state = 99;
        for (float& value : weights) {
            state = state * 1664525U + 1013904223U;
            value = 0.05F * (static_cast<float>(state >> 8U) * 0x1p-23F - 1.0F);
        }
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
        std::vector<std::int64_t> offsets{0};
        while (offsets.back() < tokens_)
            offsets.push_back(std::min(tokens_, offsets.back() + length_));
        const Buffer hidden = random_matrix(tokens_, family_.config.hidden_size, 1);
        const Buffer inputs = random_matrix(tokens_, Decoder::widest_input(family_), 1);
        ChunkState state{hidden.tensor(type, tokens_, family_.config.hidden_size),
                         inputs.tensor(type, tokens_, Decoder::widest_input(family_)), offsets};
        Decoder decoder(backend_, family_, tokens_);
        double attention = 0;
        for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
            const auto length = static_cast<double>(offsets[s + 1] - offsets[s]);
            attention += 2 * length * length * static_cast<double>(family_.config.heads * family_.config.head_dim);
        }
        // Weights in, hidden states in and out.
        const double bytes = (weights + 2 * static_cast<double>(tokens_ * family_.config.hidden_size)) *
                             static_cast<double>(size_of(type));
        measure(
            "stage forward", fmt::format("{} tokens of {}", tokens_, length_),
            {2 * weights * static_cast<double>(tokens_) + attention, bytes, type}, [] {},
            [&] {
                decoder.begin_layer(layer, state);
                for (int stage = 0; stage < 4; ++stage)
                    decoder.run_stage(stage, layer, state);
            });
    }

    Backend& backend_;
    Family family_;
    std::int64_t tokens_, length_;
    DType type_;
    double copy_rate_;
    MatrixRate float32_rate_;
    std::optional<MatrixRate> activation_rate_;
    std::vector<Row> rows_;
    std::vector<std::int64_t> done_;
    double best_float32_rate_ = 0;
    double best_activation_rate_ = 0;
};

}  // namespace

int bench(int argc, char** argv, Communicator& comm) {
    cxxopts::Options options("fairgptq bench",
                             "Each kernel's rate, as a share of this machine's own matrix-product rate");
    options.add_options()  //
        ("model-shape", "smollm2-135m, llama-7b, 8b, 13b or 70b",
         cxxopts::value<std::string>()->default_value("8b"))                                                  //
        ("tokens", "tokens in the chunk", cxxopts::value<std::int64_t>()->default_value("8192"))              //
        ("sequence-length", "tokens of each sequence", cxxopts::value<std::int64_t>()->default_value("512"))  //
        ("group-size", "columns that share a scale", cxxopts::value<std::int64_t>()->default_value("64"))     //
        ("device", "auto, cpu or cuda", cxxopts::value<std::string>()->default_value("auto"))                 //
        ("json", "print JSON")("h,help", "show this");
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    const std::string wanted = (*parsed)["model-shape"].as<std::string>();
    const auto shape = std::find_if(shapes.begin(), shapes.end(), [&](const Shape& one) { return wanted == one.name; });
    if (shape == shapes.end())
        throw InvalidInput("--model-shape must be one of smollm2-135m, llama-7b, 8b, 13b, 70b, not '{}'", wanted);
    const auto tokens = (*parsed)["tokens"].as<std::int64_t>();
    const auto length = (*parsed)["sequence-length"].as<std::int64_t>();
    if (tokens < 1 || tokens > (1 << 20) || length < 1)
        throw InvalidInput("--tokens must be from 1 to 1048576 and --sequence-length at least 1");
    const int threads = use_fair_share_of_cores(comm);
    const auto backend = make_backend((*parsed)["device"].as<std::string>());
    Bench benchmark(*backend, *shape, tokens, length);
    const std::vector<Row> rows = benchmark.run((*parsed)["group-size"].as<std::int64_t>());
    if (parsed->count("json") > 0) {
        nlohmann::json json{{"device", backend->name()},
                            {"threads", threads},
                            {"model_shape", wanted},
                            {"matrix_rate", benchmark.best_float32_rate()},
                            {"activation_matrix_rate", benchmark.best_activation_rate()},
                            {"copy_rate", benchmark.copy_rate()},
                            {"kernels", nlohmann::json::array()}};
        for (const Row& row : rows)
            json["kernels"].push_back({{"kernel", row.kernel},
                                       {"size", row.size},
                                       {"seconds", row.seconds},
                                       {"flop_per_second", row.flop / row.seconds},
                                       {"share_of_matrix_rate", row.share},
                                       {"bytes", row.bytes},
                                       {"share_of_copy_rate", row.copy_share}});
        fmt::print("{}\n", json.dump(2));
        return exit_done;
    }
    fmt::print("{}, {} threads, shapes of {}; matrix product of {}, float32: {:.0f} GFLOP/s", backend->name(), threads,
               wanted, benchmark.rate_size(), benchmark.best_float32_rate() * 1e-9);
    if (benchmark.best_activation_rate() > 0)
        fmt::print(", activations' type: {:.0f}", benchmark.best_activation_rate() * 1e-9);
    fmt::print("; copy: {:.0f} GB/s\n\n", benchmark.copy_rate() * 1e-9);
    fmt::print("{:<18}{:<22}{:>12}{:>12}{:>24}{:>10}{:>20}\n", "kernel", "size", "time, ms", "GFLOP/s",
               "share of matrix rate", "GB", "share of copy rate");
    for (const Row& row : rows)
        fmt::print("{:<18}{:<22}{:>12.2f}{:>12.0f}{:>22.0f} %{:>10.2f}{:>18.0f} %\n", row.kernel, row.size,
                   row.seconds * 1e3, row.flop / row.seconds * 1e-9, row.share * 100, row.bytes * 1e-9,
                   row.copy_share * 100);
    return exit_done;
}

}  // namespace fairgptq::commands
