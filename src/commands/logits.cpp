// `fairgptq logits`: what a model, or a run's quantized model, says about each token of a text; for comparing with
// other programs.
#include <fmt/format.h>

#include <cxxopts.hpp>
#include <numeric>

#include "calibration/tokens.hpp"
#include "commands/command.hpp"
#include "commands/model_or_run.hpp"
#include "commands/options.hpp"
#include "model/forward.hpp"
#include "support/hdf5_rows.hpp"

namespace fairgptq::commands {
namespace {

cxxopts::Options make_options() {
    cxxopts::Options options("fairgptq logits", "Writes the logits of every token of a token file's /text");
    options.add_options()                                                                                     //
        ("tokens", "token file", cxxopts::value<std::string>())                                               //
        ("out", "HDF5 file to write: `logits` [tokens, vocabulary], float32", cxxopts::value<std::string>())  //
        ("chunk-tokens", "tokens that go through a layer at once",
         cxxopts::value<std::int64_t>()->default_value("8192"))  //
        ("rotary-frequencies",
         "exact; weights: rounded to the weights' type, as in programs that convert a whole model to it",
         cxxopts::value<std::string>()->default_value("exact"))                              //
        ("device", "auto, cpu, cuda", cxxopts::value<std::string>()->default_value("auto"))  //
        ("h,help", "show this");
    add_model_or_run(options);
    return options;
}

}  // namespace

int logits(int argc, char** argv, Communicator& comm) {
    cxxopts::Options options = make_options();
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    const std::filesystem::path out = required_path(*parsed, "out");
    const std::filesystem::path tokens_path = required_path(*parsed, "tokens");
    check_output(out, {tokens_path});
    const auto chunk_tokens = (*parsed)["chunk-tokens"].as<std::int64_t>();
    if (chunk_tokens < 1) throw InvalidInput("--chunk-tokens must be at least 1, not {}", chunk_tokens);
    const bool round_frequencies =
        choose(*parsed, "rotary-frequencies", Names<bool, 2>{{{false, "exact"}, {true, "weights"}}});
    use_share_of_cores(comm);

    const TokenFile tokens = read_token_file(tokens_path);
    if (tokens.text.count() == 0) throw InvalidInput("{} has no /text to compute logits of", tokens.path.string());
    ModelOrRun subject = open_model_or_run(*parsed);
    ModelConfig& config = subject.family.config;
    const auto backend = make_backend((*parsed)["device"].as<std::string>(), comm.local_rank(), config.weight_type());
    check_against_model(tokens, config.vocab_size, config.max_positions, subject.model_dir);
    if (round_frequencies) config.rope.frequency_type = config.window_rope.frequency_type = config.weight_type();
    std::optional<h5::RowWriter> writer;
    try {
        writer.emplace(out, "logits", tokens.text.tokens(), config.vocab_size);
    } catch (const Failure& failure) {
        throw InvalidInput("--out: {}", failure.what());
    }

    const auto chunks = cut_into_chunks(tokens.text.ids, tokens.text.offsets, chunk_tokens);
    const ForwardModel model{*backend, subject.family, subject.checkpoint, subject.override_weights(*backend)};
    std::vector<float> rows;
    std::vector<std::int32_t> columns(static_cast<std::size_t>(config.vocab_size));
    std::iota(columns.begin(), columns.end(), 0);
    Buffer converted;
    run_model(model, chunks, [&](const FinishedChunk& chunk) {
        visit_logits(*backend, chunk, [&](std::int64_t, TensorView values) {
            rows.resize(static_cast<std::size_t>(values.rows * values.cols));
            const void* source = values.data;
            if (values.type != DType::float32) {
                if (converted.bytes() < rows.size() * sizeof(float))
                    converted = backend->allocate(rows.size() * sizeof(float));
                const MatrixView<float> view = converted.matrix<float>(values.rows, values.cols);
                backend->gather_columns(values, columns, {}, view);
                source = view.data;
            }
            backend->synchronize();
            backend->copy_to_host(rows.data(), source, rows.size() * sizeof(float));
            writer->append(rows);
        });
    });
    writer->finish();
    return exit_done;
}

}  // namespace fairgptq::commands
