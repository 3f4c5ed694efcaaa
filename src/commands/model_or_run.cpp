#include "commands/model_or_run.hpp"

#include "run/quantized_model.hpp"
#include "support/error.hpp"

namespace fairgptq::commands {

void add_model_or_run(cxxopts::Options& options) {
    options.add_options()                                                             //
        ("model", "folder of the Hugging Face model", cxxopts::value<std::string>())  //
        ("run", "finished run directory of `fairgptq quantize`", cxxopts::value<std::string>());
}

namespace {

/// A run's codes mean nothing with other weights around them.
void check_same_model(const RunDirectory& run, const Checkpoint& checkpoint) {
    const nlohmann::json recorded = run.settings().at("model").value("files", nlohmann::json::array());
    nlohmann::json found = nlohmann::json::array();
    for (const Checkpoint::FileInfo& file : checkpoint.files())
        found.push_back({{"name", file.name}, {"bytes", file.bytes}, {"header_hash", file.header_hash}});
    if (recorded != found)
        throw InvalidInput("the model at {} is not the one that {} was made from: its files have changed",
                           run.model_path().string(), run.path().string());
}

}  // namespace

ModelOrRun open_model_or_run(const cxxopts::ParseResult& parsed) {
    const bool has_run = parsed.count("run") > 0;
    if (has_run == (parsed.count("model") > 0))
        throw InvalidInput("one of --model DIR and --run RUN is needed, and not both");
    std::optional<RunDirectory> run;
    std::filesystem::path model_dir;
    if (has_run) {
        run = RunDirectory::open(parsed["run"].as<std::string>());
        run->require_finished();
        model_dir = run->model_path();
    } else {
        model_dir = parsed["model"].as<std::string>();
    }
    Family family = describe_family(read_config(model_dir));
    Checkpoint checkpoint(model_dir);
    check_tensors(family, checkpoint);
    if (run) check_same_model(*run, checkpoint);
    return {model_dir, std::move(run), std::move(family), std::move(checkpoint)};
}

LayerOverride ModelOrRun::override_weights(Backend& backend) const {
    return run ? quantized_layers(backend, *run) : LayerOverride();
}

}  // namespace fairgptq::commands
