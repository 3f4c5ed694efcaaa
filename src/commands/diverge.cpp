// `fairgptq diverge`: how soon and how often a quantized model leaves the original's greedy continuations.
#include <fmt/format.h>

#include <algorithm>
#include <cxxopts.hpp>
#include <memory>
#include <optional>

#include "calibration/tokens.hpp"
#include "comm/exchange_choice.hpp"
#include "commands/command.hpp"
#include "commands/options.hpp"
#include "eval/divergence.hpp"
#include "eval/model_scorer.hpp"
#include "model/generate.hpp"
#include "run/quantized_model.hpp"
#include "support/files.hpp"
#include "support/json.hpp"
#include "support/progress_bar.hpp"

namespace fairgptq::commands {
namespace {

enum class ByModule : std::uint8_t { no, kinds, modules };

cxxopts::Options make_options() {
    cxxopts::Options options("fairgptq diverge",
                             "Where a run, or another model, leaves the original's greedy continuations of a text");
    const auto number = [](const char* preset) { return cxxopts::value<std::int64_t>()->default_value(preset); };
    options.add_options()                                                                        //
        ("model", "folder of the original model", cxxopts::value<std::string>())                 //
        ("run", "finished run directory of `fairgptq quantize`", cxxopts::value<std::string>())  //
        ("other", "folder of another model of the same vocabulary, in place of --run",
         cxxopts::value<std::string>())  //
        ("tokens", "token file with a text: prompts are the beginnings of its sequences",
         cxxopts::value<std::string>())                                                        //
        ("prompts", "at most so many prompts, from the first", number("64"))                   //
        ("prompt-tokens", "tokens of a prompt; shorter sequences are left out", number("32"))  //
        ("continuation-tokens", "tokens that follow each prompt", number("100"))               //
        ("by-module",
         "also with one module of the run quantized at a time: kinds (a kind of all layers together) or modules (each "
         "by "
         "itself)",
         cxxopts::value<std::string>()->implicit_value("kinds"))                               //
        ("out", "report to write (JSON)", cxxopts::value<std::string>())                       //
        ("device", "auto, cpu or cuda", cxxopts::value<std::string>()->default_value("auto"))  //
        ("h,help", "show this");
    return options;
}

struct Model {
    std::filesystem::path dir;
    Family family;
    Checkpoint checkpoint;
};

Model open_model(const std::filesystem::path& dir) {
    Model model{dir, read_family(dir), Checkpoint(dir)};
    check_tensors(model.family, model.checkpoint);
    return model;
}

/// Everything that a user can get wrong is found while this is made.
struct Work {
    Model original;
    std::optional<RunDirectory> run;
    std::optional<ModuleGrids> grids;  // of the run
    TensorHashes recorded;             // what the run's layers were made of
    std::optional<Model> other;
    std::vector<std::vector<std::int32_t>> prompts;
    std::int64_t prompt_tokens = 0, continuation_tokens = 0;
    ByModule by_module = ByModule::no;
    std::filesystem::path out;  // empty: none
    std::unique_ptr<Backend> backend;
};

std::int64_t at_least_one(const cxxopts::ParseResult& parsed, const char* option) {
    const auto value = parsed[option].as<std::int64_t>();
    if (value < 1) throw InvalidInput("--{} must be at least 1, not {}", option, value);
    return value;
}

std::vector<std::vector<std::int32_t>> read_prompts(const TokenFile& tokens, std::int64_t length, std::int64_t most) {
    std::vector<std::vector<std::int32_t>> prompts;
    for (std::int64_t index = 0; index < tokens.text.count() && static_cast<std::int64_t>(prompts.size()) < most;
         ++index) {
        if (tokens.text.length(index) < length) continue;
        const auto first = tokens.text.ids.begin() + tokens.text.offsets[index];
        prompts.emplace_back(first, first + length);
    }
    if (prompts.empty())
        throw InvalidInput(
            "{} has no text with a sequence of at least {} tokens (--prompt-tokens): add one with "
            "tools/prepare.py --text",
            tokens.path.string(), length);
    return prompts;
}

void prepare(std::optional<Work>& work, int argc, char** argv, const Communicator& comm) {
    const bool first_rank = comm.rank() == 0;
    cxxopts::Options options = make_options();
    const auto parsed = parse(options, argc, argv, first_rank);
    if (!parsed) return;
    if ((parsed->count("run") > 0) == (parsed->count("other") > 0))
        throw InvalidInput("one of --run RUN and --other DIR is needed, and not both");
    Work found{open_model(required_path(*parsed, "model")), {}, {}, {}, {}, {}, 0, 0, ByModule::no, {}, nullptr};
    if (parsed->count("by-module") > 0) {
        constexpr Names<ByModule, 2> words{{{ByModule::kinds, "kinds"}, {ByModule::modules, "modules"}}};
        found.by_module = choose(*parsed, "by-module", words);
        if (parsed->count("run") == 0) throw InvalidInput("--by-module takes a run's codes: give --run, not --other");
    }
    if (parsed->count("run") > 0) {
        found.run = RunDirectory::open(required_path(*parsed, "run"));
        found.recorded = found.run->require_finished();
        found.run->set_model_path(found.original.dir);
        try {
            check_model_unchanged(*found.run, found.original.checkpoint);
        } catch (const InvalidInput&) {
            throw InvalidInput("--model {} is not the model that {} quantized, or its files have changed since",
                               found.original.dir.string(), found.run->path().string());
        }
        found.grids = recorded_grids(found.run->settings(), found.original.family);
    } else {
        found.other = open_model(required_path(*parsed, "other"));
        if (found.other->family.config.vocab_size != found.original.family.config.vocab_size)
            throw InvalidInput("--other {} has a vocabulary of {} tokens, --model {} has {}", found.other->dir.string(),
                               found.other->family.config.vocab_size, found.original.dir.string(),
                               found.original.family.config.vocab_size);
    }
    found.prompt_tokens = at_least_one(*parsed, "prompt-tokens");
    found.continuation_tokens = at_least_one(*parsed, "continuation-tokens");
    for (const Model* model : {&found.original, found.other ? &*found.other : &found.original})
        if (found.prompt_tokens + found.continuation_tokens > model->family.config.max_positions)
            throw InvalidInput("{} takes at most {} tokens: --prompt-tokens {} and --continuation-tokens {} are more",
                               model->dir.string(), model->family.config.max_positions, found.prompt_tokens,
                               found.continuation_tokens);
    const TokenFile tokens = read_token_file(required_path(*parsed, "tokens"));
    check_against_model(tokens, found.original.family.config.vocab_size, found.original.family.config.max_positions,
                        found.original.dir);
    found.prompts = read_prompts(tokens, found.prompt_tokens, at_least_one(*parsed, "prompts"));
    found.backend = make_backend((*parsed)["device"].as<std::string>(), comm.local_rank(),
                                 found.original.family.config.weight_type());
    if (parsed->count("out") > 0) {
        found.out = required_path(*parsed, "out");
        if (first_rank) check_output(found.out, {tokens.path});
    }
    work = std::move(found);
}

/// This rank's prompts with what the original says after them.
std::vector<std::vector<std::int32_t>> continue_prompts(const Work& work, const WeightsOverride& original,
                                                        Communicator& comm) {
    const std::size_t count = work.prompts.size();
    const auto ranks = static_cast<std::size_t>(comm.size());
    const auto rank = static_cast<std::size_t>(comm.rank());
    const auto mine =
        std::span(work.prompts).subspan(count * rank / ranks, count * (rank + 1) / ranks - count * rank / ranks);
    const int sharing = ranks_on_device(gather_devices(*work.backend, comm), comm.rank());
    ProgressBar bar("generating", comm.rank() == 0);
    const auto continuations = generate_greedily(
        {*work.backend, work.original.family, work.original.checkpoint, original}, mine, work.continuation_tokens,
        [&](double share) { bar.at(share); }, sharing);
    std::vector<std::vector<std::int32_t>> sequences(mine.begin(), mine.end());
    for (std::size_t index = 0; index < sequences.size(); ++index)
        sequences[index].insert(sequences[index].end(), continuations[index].begin(), continuations[index].end());
    return sequences;
}

/// One module of the run, or one kind of them.
struct Selection {
    std::string name;
    std::string linear;
    std::int64_t layer = -1;  // all
};

std::vector<Selection> selections(const Work& work) {
    std::vector<Selection> result;
    const Family& family = work.original.family;
    for_each_linear(family, work.run->layers(), [&](std::int64_t layer, const StageSpec&, const LinearSpec& linear) {
        if (!(*work.grids)(layer, linear.name)) return;
        if (work.by_module == ByModule::modules)
            result.push_back({family.layer(layer) + linear.name, linear.name, layer});
        else if (const std::string kind = kind_of_linear(linear.name);
                 std::ranges::none_of(result, [&](const Selection& one) { return one.linear == kind; }))
            result.push_back({kind, kind, -1});
    });
    return result;
}

/// The run's weights in the place of the original's, all or those that are selected.
WeightsOverride quantize(const Work& work, LinearChoice which = {}) {
    return quantized_layers(*work.backend, *work.run, *work.grids, work.original.family, work.original.checkpoint,
                            work.recorded, std::move(which));
}

LinearChoice choice(const Selection& selection) {
    return [selection](std::int64_t layer, const std::string& linear) {
        return selection.layer < 0 ? kind_of_linear(linear) == selection.linear
                                   : linear == selection.linear && selection.layer == layer;
    };
}

}  // namespace

int diverge(int argc, char** argv, Communicator& comm) {
    use_share_of_cores(comm);
    std::optional<Work> work;
    together(comm, [&] { prepare(work, argc, argv, comm); });
    if (!work) return exit_done;
    const WeightsOverride original =
        work->run ? original_layers(*work->run, work->original.checkpoint, work->recorded) : WeightsOverride();
    const auto sequences = continue_prompts(*work, original, comm);
    const Model& other = work->other ? *work->other : work->original;
    const auto measure = [&](WeightsOverride override_weights) {
        ModelScorer scorer({*work->backend, other.family, other.checkpoint, std::move(override_weights)});
        return measure_divergence(sequences, work->prompt_tokens, scorer, comm);
    };
    const Divergence whole = measure(work->run ? quantize(*work) : WeightsOverride());
    DivergenceByModule by_module;
    if (work->by_module != ByModule::no) {
        ProgressBar bar("checking modules", comm.rank() == 0);
        const std::vector<Selection> all = selections(*work);
        for (const Selection& selection : all) {
            by_module.emplace_back(selection.name, measure(quantize(*work, choice(selection))));
            bar.at(static_cast<double>(by_module.size()) / static_cast<double>(all.size()));
        }
    }
    together(comm, [&] {
        if (comm.rank() != 0) return;
        const auto absolute = [](const std::filesystem::path& path) {
            return std::filesystem::absolute(path).lexically_normal().string();
        };
        const auto report =
            divergence_report(absolute(work->original.dir), absolute(work->run ? work->run->path() : other.dir),
                              work->continuation_tokens, whole, by_module);
        if (!work->out.empty()) write_file_atomically(work->out, readable(report) + "\n");
        fmt::print("{} prompts of {} tokens, continuations of {}\n\n{}", work->prompts.size(), work->prompt_tokens,
                   work->continuation_tokens, divergence_table(whole, by_module));
    });
    return exit_done;
}

}  // namespace fairgptq::commands
