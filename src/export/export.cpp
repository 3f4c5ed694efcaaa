// Every export alike: which tensors there are, in what order they are written, and the files beside them.
#include "export/export.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <system_error>
#include <utility>

#include "export/format.hpp"
#include "export/vllm.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"
#include "run/module_grids.hpp"
#include "run/quantized_model.hpp"
#include "solver/solve.hpp"
#include "support/error.hpp"
#include "support/files.hpp"
#include "support/json.hpp"
#include "support/say.hpp"

namespace fairgptq {
namespace {

namespace fs = std::filesystem;

bool is_scattered(const ModuleSolution& module) {
    for (std::int64_t col = 0; col < module.cols; ++col)
        if (module.group_index[col] != col / module.group_size) return true;
    return false;
}

/// One more than the last layer that files have: behind a model's own some predict further tokens.
std::int64_t stored_layers(const Family& family, const Checkpoint& checkpoint) {
    std::int64_t layers = family.config.layers;
    while (std::ranges::any_of(checkpoint.names(),
                               [&](const std::string& name) { return name.starts_with(family.layer(layers)); }))
        ++layers;
    return layers;
}

/// What the run says of itself, before its layers are read.
QuantizedModelInfo describe_run(const RunDirectory& run, const ModuleGrids& grids, const Family& family,
                                const Checkpoint& checkpoint) {
    QuantizedModelInfo info;
    info.schemes = find_schemes(grids, family, run.layers());
    info.within_another = family.within_another;
    std::vector<std::int64_t> beyond(static_cast<std::size_t>(stored_layers(family, checkpoint) - run.layers()));
    std::iota(beyond.begin(), beyond.end(), run.layers());
    if (!beyond.empty()) info.original.push_back(in_layers(family, beyond) + ".*");
    for (const std::string& part : family.other_parts)
        info.original.push_back(fmt::format("^(.*\\.)?{}\\..*", part));
    // Programs have names of their own for what a router is in.
    for (const std::string& linear : family.kept_linears())
        info.original.push_back(fmt::format(".*\\.{}$", last_name(linear)));
    if (family.config.has_delta() && !family.recurrent.decay_gate.empty())
        info.original.emplace_back(".*\\.in_proj_ba$");  // vLLM's name for both gates
    info.original.insert(info.original.end(), info.schemes.ignored.begin(), info.schemes.ignored.end());
    const auto quantization = run.settings().find("quantization");
    if (quantization != run.settings().end()) info.damp = quantization->value("damp", info.damp);
    return info;
}

/// @throws InvalidInput if a layer's file holds another module than the settings say
void check_module(const std::string& name, const ModuleSolution& module, const ModuleSolution& planned) {
    if (module.name != planned.name || module.rows != planned.rows || module.cols != planned.cols ||
        module.bits != planned.bits || module.group_size != planned.group_size ||
        module.symmetric != planned.symmetric || module.scales_float32 != planned.scales_float32)
        throw InvalidInput("{} is not quantized as the run's settings say", name);
}

/// Where each layer's tensors are, and which of them the run replaces.
class TensorList {
  public:
    TensorList(const Family& family, const Checkpoint& checkpoint) {
        for (const std::string& name : checkpoint.names()) {
            // A head that is the embedding itself is not stored twice.
            if (family.config.tied_embeddings && name.ends_with("lm_head.weight")) continue;
            layers_[layer_of(family, name)].push_back(name);
        }
    }
    /// Names of a layer's tensors; −1: those that belong to none.
    const std::vector<std::string>& of_layer(std::int64_t layer) const {
        static const std::vector<std::string> none;
        const auto found = layers_.find(layer);
        return found == layers_.end() ? none : found->second;
    }

  private:
    static std::int64_t layer_of(const Family& family, const std::string& name) {
        for (std::int64_t layer = 0; layer < family.config.layers; ++layer)
            if (name.starts_with(family.layer(layer))) return layer;
        return -1;
    }
    std::map<std::int64_t, std::vector<std::string>> layers_;
};

/// The family of the model that a run quantized. @throws InvalidInput if it is another one now
Family unchanged_family(const RunDirectory& run, const Checkpoint& checkpoint) {
    Family family = read_family(run.model_path());
    if (family.config.layers != run.model_layers())
        throw InvalidInput("the model in {} has {} layers, and had {} when it was quantized", run.model_path().string(),
                           family.config.layers, run.model_layers());
    check_model_unchanged(run, checkpoint);
    return family;
}

class Exporter {
  public:
    Exporter(const RunDirectory& run, const ExportOptions& options)
        : run_(run),
          options_(options),
          format_(make_format(options)),
          checkpoint_(run.model_path()),
          family_(unchanged_family(run, checkpoint_)),
          tensors_(family_, checkpoint_),
          grids_(recorded_grids(run.settings(), family_)) {
        source_tensors_ = run.require_finished();
    }

    void write_to(const fs::path& folder) {
        info_ = describe_run(run_, grids_, family_, checkpoint_);
        SafetensorsWriter writer(folder, plan(), options_.max_shard_bytes);
        for (std::int64_t layer = -1; layer < family_.config.layers; ++layer)
            write_layer_tensors(writer, layer);
        writer.finish();
        write_config(folder);
        copy_other_files(folder);
    }

    void warn_of_vllm() const {
        if (const std::string objection = objection_of_vllm(); !objection.empty())
            warn("vLLM ({}) does not load this export: {}", vllm_version, objection);
        const std::int64_t context = family_.config.original_context;
        if (context == 0) return;
        if (family_.config.rope.type == "longrope")
            warn(
                "serve it with vLLM's --max-model-len {}, the original context: with more it rotates all positions by "
                "longrope's long factors, and the model was quantized and measured with the short ones",
                context);
        else
            warn(
                "serve it with vLLM's --max-model-len {}, the original context: beyond it the model's queries grow, "
                "for which vLLM ({}) does not look in a Hugging Face config.json",
                context, vllm_version);
    }

    void warn_of_layers() const {
        if (run_.layers() < run_.model_layers())
            warn("{} of the model's {} layers are left as they are: the run was of the first {} (--max-layers)",
                 run_.model_layers() - run_.layers(), run_.model_layers(), run_.layers());
    }

    /// Programs that read an architecture in fewer forms than a format has.
    void warn_of_programs() const {
        const std::string& type = family_.config.model_type;
        const Schemes& schemes = info_.schemes;
        if (options_.format == "compressed-tensors" && family_.is_mixture() &&
            !(schemes.experts_everywhere && schemes.experts_symmetric))
            warn(
                "transformers (5.24) does not load this export{}: it reads quantized experts where they are symmetric, "
                "and "
                "quantized alike in every layer",
                unlike_vllm());
        if (type == "youtu" && options_.format != "dense")
            warn("vLLM ({}) does not know this architecture", vllm_version);
        if (family_.config.has_latent() && !family_.router_bias.empty()) warn_of_router();
        if (options_.format != "gptq") return;
        if (!schemes.others.empty() || !schemes.ignored.empty())
            warn(
                "transformers with Optimum (2.3) does not read from config.json which linears of this export are "
                "quantized otherwise or not at all; GPTQModel does, and transformers reads compressed-tensors");
        if (type == "glm4")
            warn(
                "neither vLLM ({}) nor GPTQModel (7.7) loads this export: they expect gate and up in two linears where "
                "the model has one; --format compressed-tensors loads",
                vllm_version);
        const auto only_vllm = [&](const std::string& why) {
            warn("GPTQModel (7.7) does not read this export as it is{}: {}", unlike_vllm(), why);
        };
        if (type == "glm") only_vllm("it expects gate and up in two linears where the model has one");
        if (type == "mixtral" || type.starts_with("minimax"))
            only_vllm("it has other names for its experts than the model's files");
        if (type.starts_with("qwen") && !family_.dense_stages.empty())
            only_vllm("it takes layers without experts for such that were not quantized");
        if (type.starts_with("glm4_moe")) only_vllm("its router is not the one of transformers (5.24)");
        if (type == "ernie4_5_moe") only_vllm("it has another name for the router's correction than the model's files");
    }

    /// A dense export is in float16 where nobody says otherwise.
    void warn_of_float16() const {
        const bool float16 = options_.format == "dense" && options_.dtype.value_or(DType::float16) == DType::float16;
        if (float16 && !family_.fits_float16 && family_.config.dtype != "float16")
            warn(
                "{}'s activations can overflow float16, and what embeddings are multiplied by may differ there: "
                "--dtype bf16 or f32 keeps the model what it was",
                family_.config.architecture);
    }

  private:
    void warn_of_router() const {
        const nlohmann::json config = read_json_object(run_.model_path() / "config.json");
        if (config.contains("topk_method") && config.contains("scoring_func")) return;
        warn(
            "vLLM ({}) takes this model for another one: it looks for \"topk_method\": \"noaux_tc\" and "
            "\"scoring_func\": \"sigmoid\" in config.json, as published models have them; add what is missing to "
            "the export's",
            vllm_version);
    }

    std::string objection_of_vllm() const {
        return vllm_objection(options_.format, info_.schemes, info_.scattered_groups);
    }
    const char* unlike_vllm() const { return objection_of_vllm().empty() ? ", vLLM does" : ""; }

    std::string name_in_export(const std::string& name) const {
        return format_->names_as_loaded() ? family_.loaded_name(name) : name;
    }

    /// A layer's modules as the settings have them, in the order in which a run's files do.
    std::vector<ModuleSolution> planned_modules(std::int64_t layer) const {
        std::vector<ModuleSolution> modules;
        if (layer < 0 || layer >= run_.layers()) return modules;
        for (const StageSpec& stage : family_.stages_of(layer))
            for (const LinearSpec& linear : stage.linears)
                if (const std::optional<Grid> grid = grids_(layer, linear.name))
                    modules.push_back(record_of(linear.name, linear.rows, linear.cols, *grid));
        return modules;
    }

    /// Every tensor of the export.
    std::vector<TensorPlan> plan() {
        std::vector<TensorPlan> plans;
        for (std::int64_t layer = -1; layer < family_.config.layers; ++layer) {
            std::set<std::string> replaced;
            for (const ModuleSolution& module : planned_modules(layer)) {
                const std::string name = family_.layer(layer) + module.name;
                format_->check(info_, name, module);
                checkpoint_.tensor(name + ".weight", std::array<std::int64_t, 2>{module.rows, module.cols});
                replaced.insert(name + ".weight");
                for (TensorPlan& tensor : format_->plan(name_in_export(name), module))
                    plans.push_back(std::move(tensor));
            }
            for (const std::string& name : tensors_.of_layer(layer)) {
                if (replaced.contains(name)) continue;
                const HostTensor& tensor = checkpoint_.tensor(name);
                plans.push_back(
                    {name_in_export(name), tensor.scales != nullptr ? "BF16" : tensor.dtype_name, tensor.shape});
            }
        }
        return plans;
    }

    void write_layer_tensors(SafetensorsWriter& writer, std::int64_t layer) {
        std::set<std::string> replaced;
        const std::vector<ModuleSolution> planned = planned_modules(layer);
        if (!planned.empty()) {
            const std::vector<ModuleSolution> modules = run_.layer(layer).modules;
            if (modules.size() != planned.size())
                throw InvalidInput("{} has {} modules, where the model and the run's settings have {}",
                                   run_.layer_path(layer).string(), modules.size(), planned.size());
            for (std::size_t index = 0; index < modules.size(); ++index) {
                const ModuleSolution& module = modules[index];
                const std::string name = family_.layer(layer) + module.name;
                check_module(name, module, planned[index]);
                info_.scattered_groups = info_.scattered_groups || is_scattered(module);
                format_->check(info_, name, module);
                replaced.insert(name + ".weight");
                const std::vector<TensorPlan> plans = format_->plan(name_in_export(name), module);
                const std::vector<std::vector<std::byte>> contents = format_->encode(info_, module);
                for (std::size_t i = 0; i < plans.size(); ++i)
                    writer.write(plans[i].name, contents[i]);
            }
        }
        for (const std::string& name : tensors_.of_layer(layer)) {
            if (!replaced.contains(name)) {
                const HostTensor& tensor = checkpoint_.tensor(name);
                require_same_tensors({{name, tensor.hash()}}, source_tensors_, layer, checkpoint_, run_);
                // The run has looked at no more than what it quantized, and NaN would become a number.
                if (tensor.scales != nullptr) tensor.require_finite();
                std::vector<std::byte> room;
                writer.write(name_in_export(name), tensor.values(room));
            }
            checkpoint_.done_with(name);
        }
    }

    void write_config(const fs::path& folder) const {
        const nlohmann::json original = read_json_object(run_.model_path() / "config.json");
        nlohmann::ordered_json config = parse_ordered_json(json_text(original));
        config.erase("quantization_config");  // of 8-bit floats, which are none any more
        for (const auto& [name, contents] : format_->describe(info_, config))
            write_file_atomically(folder / name, json_text(contents, 2) + "\n");
        write_file_atomically(folder / "config.json", json_text(config, 2) + "\n");
    }

    /// Tokenizer, generation settings, chat template, code that they name: whatever lies beside the weights.
    void copy_other_files(const fs::path& folder) const {
        for (const fs::directory_entry& entry : fs::directory_iterator(run_.model_path())) {
            const std::string name = entry.path().filename().string();
            const std::string extension = entry.path().extension().string();
            const bool wanted = extension == ".json" || extension == ".model" || extension == ".txt" ||
                                extension == ".py" || extension == ".jinja" || name.starts_with("tokenizer");
            const bool ours = name == "config.json" || name == "quantize_config.json" ||
                              name.ends_with(".index.json") || extension == ".safetensors";
            if (!entry.is_regular_file() || !wanted || ours) continue;
            std::error_code error;
            if (!fs::copy_file(entry.path(), folder / name, error))
                throw Failure("{} could not be copied to {}: {}", entry.path().string(), folder.string(),
                              error.message());
        }
    }

    const RunDirectory& run_;
    const ExportOptions& options_;
    std::unique_ptr<ExportFormat> format_;
    Checkpoint checkpoint_;
    Family family_;
    TensorList tensors_;
    ModuleGrids grids_;
    TensorHashes source_tensors_;
    QuantizedModelInfo info_;
};

}  // namespace

void export_run(const RunDirectory& run, const fs::path& out, const ExportOptions& options) {
    Exporter exporter(run, options);
    std::error_code error;
    if (fs::exists(out) && !(fs::is_directory(out) && fs::is_empty(out, error)))
        throw InvalidInput("{} exists and is not an empty folder: give another --out", out.string());
    // "folder/" and "folder" are the same place.
    const fs::path target = out.has_filename() ? out : out.parent_path();
    fs::create_directories(target.has_parent_path() ? target.parent_path() : fs::path("."), error);
    if (error) throw InvalidInput("the folder {} cannot be made: {}", target.parent_path().string(), error.message());
    const fs::path temporary = target.parent_path() / fmt::format(".{}.fairgptq-export", target.filename().string());
    fs::remove_all(temporary, error);  // what a killed export left
    if (!fs::create_directory(temporary, error))
        throw InvalidInput("the folder {} cannot be made: {}", temporary.string(), error.message());
    RemovedOnFailure guard(temporary);
    exporter.write_to(temporary);
    flush_folder(temporary);
    rename_into_place(temporary, target);
    guard.keep();
    exporter.warn_of_layers();
    exporter.warn_of_vllm();
    exporter.warn_of_programs();
    exporter.warn_of_float16();
}

}  // namespace fairgptq
