// `fairgptq eval`: a token file's tasks, scored by a model or a run.
#include <fmt/format.h>

#include <algorithm>
#include <cxxopts.hpp>
#include <memory>
#include <optional>

#include "calibration/tokens.hpp"
#include "commands/command.hpp"
#include "commands/model_or_run.hpp"
#include "commands/options.hpp"
#include "eval/metrics.hpp"
#include "eval/model_scorer.hpp"
#include "eval/report.hpp"
#include "support/files.hpp"

namespace fairgptq::commands {
namespace {

cxxopts::Options make_options() {
    cxxopts::Options options("fairgptq eval", "Perplexity and bias of a model, or of a run's quantized weights");
    add_model_or_run(options);
    options.add_options()                                                                                //
        ("tokens", "token file with tasks, written by tools/prepare.py", cxxopts::value<std::string>())  //
        ("tasks", "only these tasks: a list of names", cxxopts::value<std::vector<std::string>>())       //
        ("out", "report to write (JSON)", cxxopts::value<std::string>())                                 //
        ("device", "auto, cpu or cuda", cxxopts::value<std::string>()->default_value("auto"))            //
        ("h,help", "show this");
    return options;
}

/// The tasks asked for, in the file's order; all of them if none is named.
std::vector<Task> choose_tasks(TokenFile tokens, const std::vector<std::string>& names) {
    const std::string file = tokens.path.string();
    if (tokens.tasks.empty()) throw InvalidInput("{} holds no tasks to evaluate", file);
    const auto wanted = [&](const std::string& name) {
        return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
    };
    std::string known;
    for (const Task& task : tokens.tasks)
        known += (known.empty() ? "" : ", ") + task.name;
    for (const std::string& name : names)
        if (std::none_of(tokens.tasks.begin(), tokens.tasks.end(), [&](const Task& task) { return task.name == name; }))
            throw InvalidInput("--tasks: {} has no task '{}' (it has {})", file, name, known);
    std::erase_if(tokens.tasks, [&](const Task& task) { return !wanted(task.name); });
    for (const Task& task : tokens.tasks)
        check_task(task);
    return std::move(tokens.tasks);
}

/// A report's file, made before the work so that a folder that cannot be written is found before hours have gone by.
class ReportFile {
  public:
    explicit ReportFile(const std::filesystem::path& path)
        : path_(path), temporary_(temporary_name(path)), guard_(temporary_) {
        if (std::filesystem::is_directory(path)) throw InvalidInput("--out {} is a folder, not a file", path.string());
        try {
            file_ = create_file(temporary_);
        } catch (const Failure& failure) {
            throw InvalidInput("--out: {}", failure.what());
        }
    }
    void write(const std::string& text) {
        write_all(file_, text, path_);
        flush_to_disk(file_, path_);
        rename_into_place(temporary_, path_);
        guard_.keep();
    }

  private:
    std::filesystem::path path_, temporary_;
    RemovedOnFailure guard_;
    FileDescriptor file_;
};

/// Everything that a user can get wrong is found while this is made.
struct Work {
    ModelOrRun subject;
    std::filesystem::path tokens_path;
    std::vector<Task> tasks;
    std::unique_ptr<Backend> backend;
    std::unique_ptr<ReportFile> out;  // rank 0's
};

void prepare(std::optional<Work>& work, int argc, char** argv, bool first_rank) {
    cxxopts::Options options = make_options();
    const auto parsed = parse(options, argc, argv, first_rank);
    if (!parsed) return;
    const std::filesystem::path tokens_path = required_path(*parsed, "tokens");
    ModelOrRun subject = open_model_or_run(*parsed);
    TokenFile tokens = read_token_file(tokens_path);
    check_against_model(tokens, subject.family.config.vocab_size, subject.family.config.max_positions,
                        subject.model_dir);
    std::vector<std::string> names;
    if (parsed->count("tasks") > 0) names = (*parsed)["tasks"].as<std::vector<std::string>>();
    std::vector<Task> tasks = choose_tasks(std::move(tokens), names);
    work.emplace(Work{std::move(subject), tokens_path, std::move(tasks),
                      make_backend((*parsed)["device"].as<std::string>()), nullptr});
    if (parsed->count("out") > 0) refuse_overwriting(required_path(*parsed, "out"), required_path(*parsed, "tokens"));
    if (parsed->count("out") > 0 && first_rank) work->out = std::make_unique<ReportFile>(required_path(*parsed, "out"));
}

Subject describe(const ModelOrRun& opened) {
    const auto absolute = [](const std::filesystem::path& path) {
        return std::filesystem::absolute(path).lexically_normal().string();
    };
    Subject subject{absolute(opened.model_dir), "", nullptr};
    if (opened.run) {
        subject.run = absolute(opened.run->path());
        subject.settings = opened.run->settings().at("quantization");
    }
    return subject;
}

}  // namespace

int eval(int argc, char** argv, Communicator& comm) {
    use_fair_share_of_cores(comm);
    std::optional<Work> work;
    together(comm, [&] { prepare(work, argc, argv, comm.rank() == 0); });
    if (!work) return exit_done;
    ModelScorer scorer({*work->backend, work->subject.family, work->subject.checkpoint,
                        work->subject.override_weights(*work->backend)});
    const std::vector<LogLikelihoods> scores = log_likelihoods(work->tasks, scorer, comm);
    together(comm, [&] {
        if (comm.rank() != 0) return;
        const nlohmann::ordered_json report =
            make_report(describe(work->subject), std::filesystem::absolute(work->tokens_path).lexically_normal(),
                        work->tasks, scores);
        const std::vector<nlohmann::json> reports{report};
        if (work->out) work->out->write(report.dump(2) + "\n");
        fmt::print("{}", comparison_table(reports, report_titles(reports)));
    });
    return exit_done;
}

}  // namespace fairgptq::commands
