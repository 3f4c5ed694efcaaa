#include "commands/run_options.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "commands/options.hpp"
#include "commands/residency.hpp"
#include "commands/solver_options.hpp"
#include "commands/sweep_options.hpp"
#include "export/vllm.hpp"
#include "model/weights.hpp"
#include "solver/solve.hpp"
#include "support/say.hpp"

namespace fairgptq::commands {

void add_run_options(cxxopts::Options& options) {
    const auto text = [](const char* preset) { return cxxopts::value<std::string>()->default_value(preset); };
    options.add_options("run")                                                                            //
        ("model", "folder of the Hugging Face model", cxxopts::value<std::string>())                      //
        ("tokens", "token file written by tools/prepare.py", cxxopts::value<std::string>())               //
        ("alpha-modules", "modules that get the bias term: all, or a list like --ignore's", text("all"))  //
        ("alpha-layers", "layers that get it: all, a list like 0-3,30, or lower:10%, upper:10%, lower+upper:10%",
         text("all"))  //
        ("alpha-map", "JSON file of module patterns and their alpha; first match wins, over the above",
         cxxopts::value<std::string>())  //
        ("ignore", "modules that stay as they are: a list like q_proj,mlp.down_proj,model.layers.0.*",
         cxxopts::value<std::vector<std::string>>())  //
        ("module-map",
         "JSON file of module patterns and their bits, group_size, sym; first match wins, over --bits and the others, "
         "below --ignore",
         cxxopts::value<std::string>())  //
        ("hessian-from", "pairs, text or both (default: what the file has)",
         cxxopts::value<std::string>())  //
        ("inputs", "sequential: statistics from the partly quantized model; original: from the original one",
         text("sequential"))  //
        ("pairs", "as-given; controls: shuffled (other partners), unrelated (StereoSet's unrelated sentences)",
         text("as-given"))  //
        ("pair-alignment",
         "position (token by token), common (prefix and suffix matched), context (the suffix alone) or mean",
         text("position"))  //
        ("chunk-tokens", "most tokens in a unit of calibration work",
         cxxopts::value<std::int64_t>()->default_value("8192"))                                          //
        ("max-layers", "quantize only the first N layers (for trials)", cxxopts::value<std::int64_t>())  //
        ("device-memory", "GiB of its device that a rank may use (default: all that a GPU has free)",
         cxxopts::value<Real>())                       //
        ("device", "auto, cpu or cuda", text("auto"))  //
        ("comm", "how ranks exchange: auto (nccl where every rank has a GPU of its own), mpi or nccl", text("auto"));
}

namespace {

constexpr Names<HessianSource, 3> hessian_sources{
    {{HessianSource::pairs, "pairs"}, {HessianSource::text, "text"}, {HessianSource::both, "both"}}};
constexpr Names<InputsFrom, 2> input_sources{
    {{InputsFrom::sequential, "sequential"}, {InputsFrom::original, "original"}}};
constexpr Names<PairAlignment, 4> pair_alignments{{{PairAlignment::position, "position"},
                                                   {PairAlignment::common, "common"},
                                                   {PairAlignment::context, "context"},
                                                   {PairAlignment::mean, "mean"}}};
constexpr Names<PairControl, 3> pair_controls{
    {{PairControl::as_given, "as-given"}, {PairControl::shuffled, "shuffled"}, {PairControl::unrelated, "unrelated"}}};

QuantizeSettings read_settings(const cxxopts::ParseResult& parsed, const TokenFile& tokens, const Family& family) {
    QuantizeSettings settings;
    settings.solver = read_solver_settings(parsed);
    // Of several, the largest says whether any needs pairs.
    settings.alpha.alpha = parsed.count("alphas") > 0 ? std::ranges::max(read_alphas(parsed)) : read_alpha(parsed);
    settings.alpha.modules = parsed["alpha-modules"].as<std::string>();
    settings.alpha.layers = parsed["alpha-layers"].as<std::string>();
    if (parsed.count("alpha-map") > 0) settings.alpha.map = read_alpha_map(parsed["alpha-map"].as<std::string>());
    settings.hessian_from = tokens.text.count() == 0         ? HessianSource::pairs
                            : tokens.stereotype.count() == 0 ? HessianSource::text
                                                             : HessianSource::both;
    if (parsed.count("hessian-from") > 0) settings.hessian_from = choose(parsed, "hessian-from", hessian_sources);
    settings.inputs = choose(parsed, "inputs", input_sources);
    settings.alignment = choose(parsed, "pair-alignment", pair_alignments);
    settings.pairs = choose(parsed, "pairs", pair_controls);
    if (settings.alignment == PairAlignment::context && settings.pairs == PairControl::shuffled)
        throw InvalidInput(
            "--pairs shuffled leaves sentences that end alike by chance alone; the control of --pair-alignment context "
            "is --pairs unrelated");
    settings.chunk_tokens = parsed["chunk-tokens"].as<std::int64_t>();
    settings.layers = family.config.layers;
    if (parsed.count("max-layers") > 0) {
        settings.layers = parsed["max-layers"].as<std::int64_t>();
        if (settings.layers < 1 || settings.layers > family.config.layers)
            throw InvalidInput("--max-layers must be from 1 to this model's {}, not {}", family.config.layers,
                               settings.layers);
    }
    return settings;
}

ModuleSettings read_modules(const cxxopts::ParseResult& parsed) {
    ModuleSettings modules;
    if (parsed.count("ignore") > 0) {
        modules.ignore = parsed["ignore"].as<std::vector<std::string>>();
        if (modules.ignore == std::vector<std::string>(modules.ignore.size()))
            throw InvalidInput("--ignore names no module: leave it out to quantize all");
    }
    if (parsed.count("module-map") > 0) modules.map = read_module_settings(parsed["module-map"].as<std::string>());
    return modules;
}

/// @throws InvalidInput naming the first module whose groups do not divide its row
void check_group_sizes(const ModuleGrids& grids, const Family& family) {
    for_each_linear(family, family.config.layers, [&](std::int64_t layer, const StageSpec&, const LinearSpec& linear) {
        const std::optional<Grid> grid = grids(layer, linear.name);
        if (!grid) return;
        try {
            resolve_group_size(grid->group_size, linear.cols, family.layer(layer) + linear.name);
        } catch (const InvalidInput& error) {
            throw InvalidInput("{}; or leave it as it is with --ignore", error.what());
        }
    });
}

}  // namespace

RunInputs read_run_inputs(const cxxopts::ParseResult& parsed, Weights weights) {
    const std::filesystem::path model_dir = required_path(parsed, "model");
    const std::filesystem::path token_path = required_path(parsed, "tokens");
    const CommChoice comm = read_comm_choice(parsed);
    const std::optional<std::size_t> device_memory = read_device_memory(parsed);
    const Family family = read_family(model_dir);
    TokenFile tokens = read_token_file(token_path);
    check_against_model(tokens, family.config.vocab_size, family.config.max_positions, model_dir);
    QuantizeSettings settings = read_settings(parsed, tokens, family);
    apply_pair_control(settings.pairs, tokens);
    const AlphaPolicy alpha(settings.alpha, family);
    ModuleSettings modules = read_modules(parsed);
    ModuleGrids grids(settings.solver, modules, family);
    const std::string ignored = fmt::format("--ignore {}", fmt::join(modules.ignore, ","));
    if (widest_quantized(grids, family, settings.layers) == 0)
        throw InvalidInput("{} leaves no module to quantize{}", ignored,
                           settings.layers < family.config.layers ? " in the first layers (--max-layers)" : "");
    const bool biased = alpha.any(grids);
    if (!biased && alpha.any(ModuleGrids(settings.solver, {}, family)))
        throw InvalidInput("{} leaves no module that gets the bias term; for plain GPTQ give {} 0 and no --alpha-map",
                           ignored, parsed.count("alphas") > 0 ? "--alphas" : "--alpha");
    if (biased && tokens.stereotype.count() == 0)
        throw InvalidInput("{} has no pairs, which the bias term needs; use {} 0 for plain GPTQ, or add pairs",
                           token_path.string(), parsed.count("alphas") > 0 ? "--alphas" : "--alpha");
    check_group_sizes(grids, family);
    Chunks chunks = make_chunks(tokens, settings.hessian_from, settings.alignment, settings.chunk_tokens);
    if (biased && chunks.pair_columns == 0)
        throw InvalidInput(
            "no pair of {} ends in tokens that both of its sentences have, of which --pair-alignment context makes C; "
            "use another alignment",
            token_path.string());
    const bool without = weights == Weights::if_there && !Checkpoint::is_in(model_dir);
    Checkpoint checkpoint = without ? Checkpoint() : Checkpoint(model_dir);
    if (!without) check_tensors(family, checkpoint);
    RunInputs inputs{model_dir,
                     token_path,
                     family,
                     std::move(checkpoint),
                     config_hash(model_dir),
                     tokens.digest,
                     tokens.text.tokens() + tokens.stereotype.tokens() + tokens.anti_stereotype.tokens(),
                     std::move(chunks),
                     std::move(settings),
                     std::move(modules),
                     std::move(grids),
                     comm,
                     device_memory};
    if (inputs.settings.pairs == PairControl::unrelated) inputs.unrelated_digest = tokens.unrelated_digest;
    return inputs;
}

void warn_of_settings(const RunInputs& inputs) {
    if (const std::vector<std::string>& idle = inputs.grids.idle(); !idle.empty())
        warn("--module-map: '{}'{} no effect: --ignore and patterns before it have all modules that it fits",
             idle.front(), idle.size() == 1 ? " has" : fmt::format(" and {} more have", idle.size() - 1));
    const std::string objection =
        vllm_objection(inputs.settings.solver, find_schemes(inputs.grids, inputs.family, inputs.settings.layers));
    if (!objection.empty())
        warn("vLLM ({}) will load no export of this run but a dense one: {}", vllm_version, objection);
}

nlohmann::json run_settings(const RunInputs& inputs) {
    const QuantizeSettings& settings = inputs.settings;
    nlohmann::json files = nlohmann::json::array();
    for (const auto& file : inputs.checkpoint.files())
        files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"header_hash", file.header_hash}});
    nlohmann::json map = nlohmann::json::array();
    for (const auto& [pattern, alpha] : settings.alpha.map)
        map.push_back({pattern, alpha});
    nlohmann::json quantization = to_json(settings.solver);
    quantization.update({{"alpha", settings.alpha.alpha},
                         {"alpha_modules", settings.alpha.modules},
                         {"alpha_layers", settings.alpha.layers},
                         {"alpha_map", map},
                         {"hessian_from", name_of(hessian_sources, settings.hessian_from)},
                         {"inputs", name_of(input_sources, settings.inputs)},
                         {"pair_alignment", name_of(pair_alignments, settings.alignment)},
                         {"chunk_tokens", settings.chunk_tokens}});
    add_to_json(inputs.modules, quantization);
    // Only where it is not the default: runs made before there were controls go on.
    if (settings.pairs != PairControl::as_given) quantization["pairs"] = name_of(pair_controls, settings.pairs);
    if (!inputs.unrelated_digest.empty()) quantization["unrelated_digest"] = inputs.unrelated_digest;
    return {{"model",
             {{"path", std::filesystem::absolute(inputs.model_dir).lexically_normal().string()},
              {"architecture", inputs.family.config.architecture},
              {"layers", inputs.family.config.layers},
              {"config_hash", inputs.config_hash},
              {"files", files}}},
            {"calibration",
             {{"path", std::filesystem::absolute(inputs.token_path).lexically_normal().string()},
              {"digest", inputs.calibration_digest}}},
            {"layers", settings.layers},
            {"quantization", quantization}};
}

}  // namespace fairgptq::commands
