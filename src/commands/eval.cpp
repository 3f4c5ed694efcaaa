// `fairgptq eval`: a token file's tasks, scored by a model or a run. With --out an interrupted evaluation goes on: what
// it has scored is in REPORT.json.scores until the report is there.
#include <fmt/format.h>

#include <algorithm>
#include <cxxopts.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibration/tokens.hpp"
#include "commands/command.hpp"
#include "commands/model_or_run.hpp"
#include "commands/options.hpp"
#include "eval/comparison.hpp"
#include "eval/metrics.hpp"
#include "eval/model_scorer.hpp"
#include "eval/report.hpp"
#include "support/checksum.hpp"
#include "support/files.hpp"
#include "support/json.hpp"
#include "support/progress_bar.hpp"
#include "support/say.hpp"

namespace fairgptq::commands {
namespace {

cxxopts::Options make_options() {
    cxxopts::Options options("fairgptq eval", "Ability and bias of a model, or of a run's quantized weights");
    add_model_or_run(options);
    options.add_options()                                                                                //
        ("tokens", "token file with tasks, written by tools/prepare.py", cxxopts::value<std::string>())  //
        ("tasks", "only these tasks: a list of names", cxxopts::value<std::vector<std::string>>())       //
        ("out", "report to write (JSON); started again after an interruption, it goes on where it was",
         cxxopts::value<std::string>())  //
        ("chunk-tokens", "tokens that go through a layer at once",
         cxxopts::value<std::int64_t>()->default_value("8192"))                                //
        ("device", "auto, cpu or cuda", cxxopts::value<std::string>()->default_value("auto"))  //
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
        try {
            file_ = create_file(temporary_);
        } catch (const Failure& failure) {
            throw InvalidInput("--out: {}", failure.what());
        }
    }
    const std::filesystem::path& path() const { return path_; }
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
    std::int64_t chunk_tokens;
    std::unique_ptr<Backend> backend;
    std::unique_ptr<ReportFile> out;  // rank 0's
};

void prepare(std::optional<Work>& work, int argc, char** argv, const Communicator& comm) {
    const bool first_rank = comm.rank() == 0;
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
    const auto chunk_tokens = (*parsed)["chunk-tokens"].as<std::int64_t>();
    if (chunk_tokens < 1) throw InvalidInput("--chunk-tokens must be at least 1, not {}", chunk_tokens);
    auto backend =
        make_backend((*parsed)["device"].as<std::string>(), comm.local_rank(), subject.family.config.weight_type());
    work.emplace(Work{std::move(subject), tokens_path, std::move(tasks), chunk_tokens, std::move(backend), nullptr});
    if (parsed->count("out") > 0 && first_rank) {
        const std::filesystem::path out = required_path(*parsed, "out");
        check_output(out, {tokens_path});
        work->out = std::make_unique<ReportFile>(out);
    }
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

nlohmann::json size_and_time(const std::filesystem::path& file) {
    return {std::filesystem::file_size(file), std::filesystem::last_write_time(file).time_since_epoch().count()};
}

/// Names everything that decides scores. A model's files are told apart by size, header and time of change, and a run's
/// layers by size and time: reading them all would cost a minute for every hundred gigabytes.
std::string name_evaluation(const Work& work) {
    nlohmann::json parts{
        {"version", FAIRGPTQ_VERSION}, {"device", work.backend->name()}, {"chunk_tokens", work.chunk_tokens}};
    for (const Checkpoint::FileInfo& file : work.subject.checkpoint.files()) {
        parts["files"].push_back({file.name, file.header_hash, size_and_time(work.subject.model_dir / file.name)});
    }
    parts["config"] = config_hash(work.subject.model_dir);
    if (work.subject.run) {
        parts["run"] = work.subject.run->fingerprint();
        for (std::int64_t layer = 0; layer < work.subject.run->layers(); ++layer)
            parts["layers"].push_back(size_and_time(work.subject.run->layer_path(layer)));
    }
    for (const Task& task : work.tasks)
        parts["tasks"].push_back({task.name, hash_of_data(task)});
    return hash_of(json_text(parts));
}

/// Rank 0's, if a report is to be written.
std::optional<ScoreJournal> open_journal(const Work& work) {
    if (!work.out) return std::nullopt;
    std::filesystem::path file = work.out->path();
    file += ".scores";
    ScoreJournal journal(file, name_evaluation(work));
    if (!journal.finished().empty()) say("going on with what {} holds\n", file.string());
    return journal;
}

}  // namespace

int eval(int argc, char** argv, Communicator& comm) {
    use_share_of_cores(comm);
    std::optional<Work> work;
    together(comm, [&] { prepare(work, argc, argv, comm); });
    if (!work) return exit_done;
    ModelScorer scorer({*work->backend, work->subject.family, work->subject.checkpoint,
                        work->subject.override_weights(*work->backend)});
    std::optional<ScoreJournal> journal;
    together(comm, [&] { journal = open_journal(*work); });
    std::vector<LogLikelihoods> scores;
    {
        ProgressBar bar("evaluating", comm.rank() == 0);
        ScoreOptions score_options;
        score_options.chunk_tokens = work->chunk_tokens;
        score_options.journal = journal ? &*journal : nullptr;
        score_options.progress = [&](double share) { bar.at(share); };
        scores = log_likelihoods(work->tasks, scorer, comm, score_options);
    }
    together(comm, [&] {
        if (comm.rank() != 0) return;
        const nlohmann::ordered_json report =
            make_report(describe(work->subject), std::filesystem::absolute(work->tokens_path).lexically_normal(),
                        work->tasks, scores);
        const std::vector<nlohmann::json> reports{report};
        if (work->out) work->out->write(readable(report) + "\n");
        if (journal) journal->remove();
        fmt::print("{}", as_table(compare_reports(reports, report_titles(reports))));
    });
    return exit_done;
}

}  // namespace fairgptq::commands
