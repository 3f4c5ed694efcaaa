#include "commands/model_or_run.hpp"

#include "run/quantized_model.hpp"
#include "support/error.hpp"

namespace fairgptq::commands {

void add_model_or_run(cxxopts::Options& options) {
    options.add_options()                                                             //
        ("model", "folder of the Hugging Face model", cxxopts::value<std::string>())  //
        ("run", "finished run directory of `fairgptq quantize`", cxxopts::value<std::string>());
}

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
    if (run) check_model_unchanged(*run, checkpoint);
    return {model_dir, std::move(run), std::move(family), std::move(checkpoint)};
}

LayerOverride ModelOrRun::override_weights(Backend& backend) const {
    return run ? quantized_layers(backend, *run) : LayerOverride();
}

}  // namespace fairgptq::commands
