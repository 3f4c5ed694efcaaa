#include "run/run_directory.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "run/run_lock.hpp"
#include "support/error.hpp"
#include "support/files.hpp"
#include "support/json.hpp"
#include "support/problem.hpp"
#include "support/say.hpp"
#include "support/utc_time.hpp"

namespace fairgptq {
namespace {

namespace fs = std::filesystem;

constexpr const char* run_format = "fairgptq-run";
constexpr int run_version = 3;

/// Keeps a damaged file for whoever wants to look at it, under a name that nothing reads.
void move_aside(const fs::path& file) {
    fs::path aside = file;
    aside += ".damaged";
    for (int number = 2; fs::exists(aside); ++number) {
        aside = file;
        aside += fmt::format(".damaged{}", number);
    }
    rename_into_place(file, aside);
    warn("{} is kept as {}; its layer is done again", file.string(), aside.filename().string());
}

}  // namespace

RunDirectory::RunDirectory(fs::path path, nlohmann::json settings)
    : path_(std::move(path)), settings_(std::move(settings)), fingerprint_(fingerprint_of(settings_)) {}

void RunDirectory::require_empty(const fs::path& path) {
    std::error_code error;
    if (!fs::exists(path, error)) return;
    if (!fs::is_directory(path, error)) throw InvalidInput("{} is not a folder", path.string());
    const fs::path unfinished = temporary_name(path / "run.json");  // of a run that ended before it began
    for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error))
        if (entry->path() != unfinished && !RunLock::is_lock(entry->path()))
            throw InvalidInput(
                "{} exists and is not empty: give another folder, or --resume to go on with the run in it",
                path.string());
    if (error) throw InvalidInput("the folder {} cannot be read: {}", path.string(), error.message());
}

RunDirectory RunDirectory::create(const fs::path& path, const nlohmann::json& settings) {
    make_folder(path);
    require_empty(path);
    if (::access(path.c_str(), W_OK | X_OK) != 0)
        throw InvalidInput("the folder {} cannot be written: {}", path.string(), std::strerror(errno));
    RunDirectory run(path, settings);
    const nlohmann::ordered_json contents{{"format", run_format},
                                          {"version", run_version},
                                          {"fingerprint", run.fingerprint_},
                                          {"settings", run.settings_}};
    write_file_atomically(path / "run.json", json_text(contents, 2) + "\n");
    make_folder(path / "layers");
    return run;
}

bool RunDirectory::begun(const fs::path& path) {
    return fs::exists(path / "run.json");
}

RunDirectory RunDirectory::open(const fs::path& path) {
    const fs::path file = path / "run.json";
    if (!fs::exists(file)) throw InvalidInput("{} is not a run: it has no run.json", path.string());
    const nlohmann::json contents = read_json_object(file);
    if (contents.value("format", nlohmann::json()) != run_format)
        throw InvalidInput("{} is not a run's: it does not say \"format\": \"{}\"", file.string(), run_format);
    if (contents.value("version", nlohmann::json()) != run_version)
        throw InvalidInput(
            "{} has the format version {} where this program reads {}: go on with the fairgptq that made the run, or "
            "quantize anew into another folder",
            file.string(), json_text(contents.value("version", nlohmann::json())), run_version);
    if (!contents.contains("settings") || !contents["settings"].is_object())
        throw InvalidInput("{} is damaged: it has no settings", file.string());
    RunDirectory run(path, contents["settings"]);
    if (contents.value("fingerprint", nlohmann::json()) != run.fingerprint_)
        throw InvalidInput("{} was changed: its fingerprint is not that of its settings ({})", file.string(),
                           run.fingerprint_);
    return run;
}

RunDirectory RunDirectory::resume(const fs::path& path, const nlohmann::json& settings) {
    RunDirectory run = open(path);
    if (const std::string difference = differences(run.settings_, settings); !difference.empty())
        throw InvalidInput("{} cannot be resumed with other settings: {}", path.string(), difference);
    make_folder(path / "layers");  // missing where the run ended between its first two steps
    return run;
}

fs::path RunDirectory::layer_path(const fs::path& run, std::int64_t layer) {
    return run / "layers" / fmt::format("layer_{:04}.h5", layer);
}

fs::path RunDirectory::model_path() const {
    const nlohmann::json::json_pointer pointer("/model/path");
    if (!settings_.contains(pointer) || !settings_[pointer].is_string())
        throw InvalidInput("{} does not say model.path", (path_ / "run.json").string());
    return settings_[pointer].get<std::string>();
}

void RunDirectory::set_model_path(const fs::path& folder) {
    settings_["model"]["path"] = folder.string();
}

std::int64_t RunDirectory::setting(const char* pointer) const {
    const nlohmann::json::json_pointer where(pointer);
    constexpr std::int64_t largest = 1 << 20;
    if (!settings_.contains(where) || !settings_[where].is_number_integer() || settings_[where] < 0 ||
        settings_[where] > largest)
        throw InvalidInput("{} has no settings{} between 0 and {}", (path_ / "run.json").string(), pointer, largest);
    return settings_[where].get<std::int64_t>();
}

std::int64_t RunDirectory::model_layers() const {
    return setting("/model/layers");
}
std::int64_t RunDirectory::layers() const {
    return setting("/layers");
}

FinishedLayers RunDirectory::finished_layers(bool repair, TensorHashes* source_tensors) const {
    FinishedLayers finished(layers());
    for (std::int64_t layer = 0; layer < finished.layers(); ++layer) {
        const fs::path file = layer_path(layer);
        if (!fs::exists(file)) continue;
        // What cannot be read just now is not damaged.
        if (FileDescriptor(::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)).get() < 0) {
            const std::error_code problem(errno, std::generic_category());
            const std::string sentence = fmt::format("{} cannot be opened: {}", file.string(), problem.message());
            if (is_a_users(problem)) throw InvalidInput("{}", sentence);
            throw Failure("{}", sentence);
        }
        try {
            LayerRecord header = read_layer_header(file);
            if (header.fingerprint != fingerprint_ || header.layer != layer)
                throw InvalidInput("{} is layer {} of another run ({})", file.string(), header.layer,
                                   header.fingerprint);
            finished.add(layer, std::move(header.made_after), std::move(header.hash));
            // Ended between a layer that came out differently and those after it.
            if (layer > 0 && finished.is_there(layer - 1) && !finished.is_done(layer)) {
                finished.forget_from(layer);
                warn_of_layers_from(layer, repair);
                if (repair) remove_layers_from(layer);
                break;
            }
            if (source_tensors != nullptr) source_tensors->merge(header.source_tensors);
        } catch (const InvalidInput& problem) {
            warn_text(problem.what());
            if (repair) move_aside(file);
        }
    }
    if (repair) {
        for (const fs::directory_entry& entry : fs::directory_iterator(path_ / "layers"))
            if (entry.path().extension() == temporary_name("").native()) fs::remove(entry.path());
    }
    return finished;
}

void RunDirectory::warn_of_layers_from(std::int64_t first, bool done_now) const {
    warn(
        "{} came out differently than when layer {} was made after it (on another device, with other libraries, "
        "or of a model that has changed): {} layers from {} on again",
        layer_path(first - 1).string(), first, done_now ? "this run does" : "`fairgptq quantize --resume` does", first);
}

void RunDirectory::remove_layers_from(std::int64_t first) const {
    for (std::int64_t layer = first; layer < layers(); ++layer)
        fs::remove(layer_path(layer));
}

TensorHashes RunDirectory::require_finished() const {
    TensorHashes source_tensors;
    const FinishedLayers finished = finished_layers(false, &source_tensors);
    if (!finished.is_complete())
        throw InvalidInput("{} has {} of {} layers: finish it first with quantize --resume", path_.string(),
                           finished.count(), layers());
    return source_tensors;
}

LayerRecord RunDirectory::layer(std::int64_t index) const {
    LayerRecord record = read_layer_file(layer_path(index));
    if (record.fingerprint != fingerprint_ || record.layer != index)
        throw InvalidInput("{} is layer {} of another run ({})", layer_path(index).string(), record.layer,
                           record.fingerprint);
    return record;
}

void RunDirectory::log(nlohmann::json event) const {
    const fs::path file = path_ / "log.jsonl";
    event["time"] = now_in_utc();
    const FileDescriptor out(::open(file.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (out.get() < 0) throw Failure("{} cannot be opened: {}", file.string(), std::strerror(errno));
    // A run that was killed may have left half a line: this event starts one of its own.
    char last = '\n';
    const off_t end = ::lseek(out.get(), 0, SEEK_END);
    const bool half_line = end > 0 && ::pread(out.get(), &last, 1, end - 1) == 1 && last != '\n';
    const std::string text = json_text(event, -1, NotUtf8::replaced);
    write_all(out, fmt::format("{}{}\n", half_line ? "\n" : "", text), file);
}

}  // namespace fairgptq
