// `fairgptq export`: a finished run as a model that other programs load.
#include "export/export.hpp"

#include <fmt/format.h>

#include <cxxopts.hpp>

#include "commands/command.hpp"
#include "commands/model_or_run.hpp"
#include "commands/options.hpp"
#include "support/say.hpp"

namespace fairgptq::commands {
namespace {

/// "5GB", "500MB", "20KB" (powers of 1000, as Hugging Face's tools count) or a number of bytes.
std::uint64_t read_size(const std::string& text) {
    std::size_t digits = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9')
        ++digits;
    const std::string unit = text.substr(digits);
    const std::uint64_t factor = unit.empty() ? 1 : unit == "KB" ? 1'000 : unit == "MB" ? 1'000'000 : 1'000'000'000;
    const bool known = unit.empty() || unit == "KB" || unit == "MB" || unit == "GB";
    if (digits == 0 || digits > 9 || !known || std::stoull(text) == 0)
        throw InvalidInput("--max-shard-size must be a size such as 5GB, 500MB or 100000, not '{}'", text);
    return std::stoull(text) * factor;
}

}  // namespace

int export_model(int argc, char** argv, Communicator&) {
    cxxopts::Options options("fairgptq export", "Writes a finished run as a model that other programs load");
    options.positional_help("RUN");
    options.add_options()                                                                               //
        ("run", "run directory", cxxopts::value<std::string>())                                         //
        ("format", "gptq, compressed-tensors or dense", cxxopts::value<std::string>())                  //
        ("out", "folder to make", cxxopts::value<std::string>())                                        //
        ("model", "where the run's model is now, if it has moved", cxxopts::value<std::string>())       //
        ("dtype", "f16, bf16 or f32: type of the weights of --format dense (f16 if not given)",         //
         cxxopts::value<std::string>())                                                                 //
        ("max-shard-size", "largest weight file", cxxopts::value<std::string>()->default_value("5GB"))  //
        ("h,help", "show this");
    options.parse_positional({"run"});
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    ExportOptions wanted;
    wanted.format = required_path(*parsed, "format").string();
    constexpr Names<DType, 3> types{{{DType::float16, "f16"}, {DType::bfloat16, "bf16"}, {DType::float32, "f32"}}};
    if (parsed->count("dtype") > 0) wanted.dtype = choose(*parsed, "dtype", types);
    wanted.max_shard_bytes = read_size((*parsed)["max-shard-size"].as<std::string>());
    const std::filesystem::path out = required_path(*parsed, "out");
    if (parsed->count("run") == 0)
        throw InvalidInput("the run directory is missing: fairgptq export RUN --format … --out DIR");
    std::filesystem::path moved_model;
    if (parsed->count("model") > 0) moved_model = required_path(*parsed, "model");
    export_run(open_run_with_model((*parsed)["run"].as<std::string>(), moved_model), out, wanted);
    say("{} written ({})\n", out.string(), wanted.format);
    return exit_done;
}

}  // namespace fairgptq::commands
