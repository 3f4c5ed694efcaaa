#include "commands/model_or_run.hpp"

#include "run/quantized_model.hpp"
#include "support/error.hpp"

namespace fairgptq::commands {

void add_model_or_run(cxxopts::Options& options) {
    options.add_options()  //
        ("model", "folder of the Hugging Face model (with --run: where that run's model is now, if it has moved)",
         cxxopts::value<std::string>())  //
        ("run", "finished run directory of `fairgptq quantize`", cxxopts::value<std::string>());
}

RunDirectory open_run_with_model(const std::filesystem::path& path, const std::filesystem::path& moved_model) {
    RunDirectory run = RunDirectory::open(path);
    if (!moved_model.empty()) {
        if (!std::filesystem::is_directory(moved_model))
            throw InvalidInput("--model: {} is not a folder; give the folder where the model of {} is now",
                               moved_model.string(), path.string());
        run.set_model_path(moved_model);
    }
    if (!std::filesystem::is_directory(run.model_path()))
        throw InvalidInput("the model of {} is not in {}: say with --model where it is now", path.string(),
                           run.model_path().string());
    return run;
}

ModelOrRun open_model_or_run(const cxxopts::ParseResult& parsed) {
    const bool has_model = parsed.count("model") > 0;
    if (!has_model && parsed.count("run") == 0) throw InvalidInput("--model DIR or --run RUN is needed");
    std::optional<RunDirectory> run;
    TensorHashes recorded;
    std::filesystem::path model_dir;
    if (has_model) model_dir = parsed["model"].as<std::string>();
    if (parsed.count("run") > 0) {
        run = open_run_with_model(parsed["run"].as<std::string>(), model_dir);
        recorded = run->require_finished();
        model_dir = run->model_path();
    }
    Family family = read_family(model_dir);
    Checkpoint checkpoint(model_dir);
    check_tensors(family, checkpoint);
    if (run) check_model_unchanged(*run, checkpoint);
    return {model_dir, std::move(run), std::move(recorded), std::move(family), std::move(checkpoint)};
}

WeightsOverride ModelOrRun::override_weights(Backend& backend) const {
    if (!run) return {};
    return quantized_layers(backend, *run, recorded_grids(run->settings(), family), family, checkpoint, recorded);
}

}  // namespace fairgptq::commands
