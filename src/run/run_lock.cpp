// Locks are numbered, RUN/lock.1, lock.2, …: a dead holder's lock N is taken over by making lock.N+1, which only one
// process can, and never by removing or renaming lock.N first, which two processes that both found it dead could do to
// each other. Whoever made a file looks again, and withdraws if it finds a lock that it has not seen dead.
#include "run/run_lock.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <vector>

#include "support/error.hpp"
#include "support/files.hpp"
#include "support/json.hpp"
#include "support/machine.hpp"
#include "support/say.hpp"
#include "support/utc_time.hpp"

namespace fairgptq {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::size_t beat_digits = 16;
constexpr std::size_t beat_at = 9;  // where the digits begin in {"beat":"0000…

std::string read_file(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// Where process ids mean what they mean here: this boot of this machine, this process namespace (containers).
std::string machine_name() {
    std::array<char, 64> name{};
    const ssize_t length = ::readlink("/proc/self/ns/pid", name.data(), name.size() - 1);
    return machine_id() + " " + std::string(name.data(), length > 0 ? length : 0);
}

/// What the kernel says of a process; all empty where there is none, or only its remains.
struct ProcessState {
    std::string start, parent;
};
ProcessState state_of(long process) {
    const std::string stat = read_file(fmt::format("/proc/{}/stat", process));
    const std::size_t name_end = stat.rfind(')');  // the name may hold anything
    if (name_end == std::string::npos) return {};
    std::istringstream in(stat.substr(name_end + 1));
    const std::vector<std::string> fields{std::istream_iterator<std::string>(in), {}};  // from the third on
    if (fields.size() < 20 || fields[0] == "Z" || fields[0] == "X") return {};
    return {fields[19], fields[1]};
}

std::string random_token() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}", random(), random());
}

std::string to_text(const RunLock::Holder& holder) {
    nlohmann::ordered_json json{{"beat", holder.beat},       {"host", holder.host},
                                {"process", holder.process}, {"job", holder.job},
                                {"since", holder.since},     {"token", holder.token},
                                {"machine", holder.machine}, {"process_start", holder.process_start},
                                {"parent", holder.parent}};
    return json_text(json) + "\n";
}

/// Nothing if the file is gone. A file that says nothing (of a program that died before it wrote it, on a file system
/// without hard links) is a holder without a name.
std::optional<RunLock::Holder> read_holder(const fs::path& file) {
    std::error_code ignored;
    const std::string text = read_file(file);
    if (text.empty() && !fs::exists(file, ignored)) return std::nullopt;
    const auto json = parse_json(text);
    const auto word = [&json](const char* key) {
        const auto found = json.is_object() ? json.find(key) : json.end();
        return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    RunLock::Holder holder{word("host"),          word("token"),  word("job"), word("since"), word("machine"), 0,
                           word("process_start"), word("parent"), word("beat")};
    if (json.is_object() && json.contains("process") && json["process"].is_number_integer())
        holder.process = json["process"].get<long>();
    return holder;
}

std::string describe(const RunLock::Holder& holder) {
    return fmt::format(
        "process {} on {}{}, since {}", holder.process, holder.host.empty() ? "an unknown host" : holder.host,
        holder.job.empty() ? "" : ", job " + holder.job, holder.since.empty() ? "an unknown time" : holder.since);
}

/// The run's locks by number.
std::map<std::uint64_t, fs::path> locks_of(const fs::path& run) {
    std::map<std::uint64_t, fs::path> found;
    for (const fs::directory_entry& entry : fs::directory_iterator(run)) {
        const std::string name = entry.path().filename();
        std::uint64_t number = 0;
        if (name.rfind("lock.", 0) != 0) continue;
        const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), number);
        if (error == std::errc() && end == name.data() + name.size()) found[number] = entry.path();
    }
    return found;
}

/// Dead: gone, or a process of this machine that is no more, or a heartbeat that stands still.
bool is_dead(const fs::path& file, RunLock::Holder& holder, const RunLock::Timing& timing) {
    if (!holder.machine.empty() && holder.machine == machine_name()) {
        const auto deadline = Clock::now() + timing.orphan;
        for (;; std::this_thread::sleep_for(timing.beat / 50)) {
            const ProcessState now = state_of(holder.process);
            if (now.start.empty() || now.start != holder.process_start) return true;
            if (now.parent == holder.parent || Clock::now() >= deadline) return false;
        }
    }
    warn("{} is held by {}: waiting up to {} s to see whether it lives", file.parent_path().string(), describe(holder),
         std::chrono::duration_cast<std::chrono::seconds>(timing.stale).count());
    const auto deadline = Clock::now() + timing.stale;
    while (Clock::now() < deadline) {
        std::this_thread::sleep_for(std::min(timing.beat / 4, timing.stale / 4));
        const auto now = read_holder(file);
        if (!now) return true;
        if (*now != holder) {
            holder = *now;
            return false;
        }
    }
    return true;
}

/// Makes `file` with this text unless it is there. @returns whether it was made
bool make_exclusively(const fs::path& file, const std::string& text, const std::string& token) {
    const fs::path draft = file.parent_path() / ("lock.new." + token);
    const auto refuse = [&] {
        throw InvalidInput("the folder {} cannot be written: {}", file.parent_path().string(), std::strerror(errno));
    };
    const RemovedOnFailure removed(draft);
    {
        const FileDescriptor out(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
        if (out.get() < 0) {
            if (errno == EACCES || errno == EPERM || errno == EROFS || errno == ENOENT) refuse();
            throw Failure("{} cannot be created: {}", draft.string(), std::strerror(errno));
        }
        write_all(out, text, draft);
        flush_to_disk(out, draft);
    }
    if (::link(draft.c_str(), file.c_str()) == 0) return true;
    const int why = errno;
    // A reply lost on the network makes link() fail after it was done: the holder's name tells.
    const auto there = read_holder(file);
    if (there && there->token == token) return true;
    if (why == EEXIST || why == ENOENT) return false;  // ENOENT: the holder before removed the draft
    if (why != EPERM && why != EOPNOTSUPP && why != ENOSYS && why != EMLINK)
        throw Failure("{} cannot be created: {}", file.string(), std::strerror(why));
    // A file system without hard links.
    const FileDescriptor out(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (out.get() < 0 && errno == EEXIST) return false;
    if (out.get() < 0) throw Failure("{} cannot be created: {}", file.string(), std::strerror(errno));
    write_all(out, text, file);
    flush_to_disk(out, file);
    return true;
}

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

}  // namespace

bool RunLock::is_lock(const fs::path& file) {
    return file.filename().native().rfind("lock.", 0) == 0;
}

RunLock::RunLock(const fs::path& run, Timing timing, std::function<void(const std::string&)> lost)
    : timing_(timing), lost_(std::move(lost)) {
    make_folder(run);
    self_.host = host_name();
    self_.machine = machine_name();
    self_.process = ::getpid();
    const ProcessState state = state_of(self_.process);
    self_.process_start = state.start;
    self_.parent = state.parent;
    self_.job = variable("SLURM_JOB_ID");
    self_.since = now_in_utc();
    self_.beat = fmt::format("{:0{}}", 0, beat_digits);
    take(run);
    heart_ = std::thread([this] { keep_beating(); });
}

std::unique_ptr<RunLock> RunLock::acquire(const fs::path& run) {
    return std::make_unique<RunLock>(run, Timing(), [](const std::string& what) {
        say("fairgptq: {}; this job ends here, so that two do not write the same run\n", what);
        std::_Exit(1);
    });
}

std::optional<RunLock::Look> RunLock::look(const fs::path& run) {
    std::error_code ignored;
    if (!fs::is_directory(run, ignored)) return std::nullopt;
    const auto found = locks_of(run);
    const auto holder = found.empty() ? std::nullopt : read_holder(found.rbegin()->second);
    if (!holder) return std::nullopt;
    const bool here = !holder->machine.empty() && holder->machine == machine_name();
    return Look{describe(*holder), here && state_of(holder->process).start != holder->process_start,
                holder->token + holder->beat};
}

void RunLock::take(const fs::path& run) {
    std::minstd_rand random(std::random_device{}());
    for (int attempt = 0; attempt < 100; ++attempt) {
        const auto found = locks_of(run);
        std::map<fs::path, std::string> dead;  // file and token
        for (const auto& [number, file] : found) {
            auto holder = read_holder(file);
            if (!holder) continue;
            if (!is_dead(file, *holder, timing_))
                throw InvalidInput(
                    "{} is in use by {}: wait until it ends, stop it, or give another folder; two jobs cannot write "
                    "the same run",
                    run.string(), describe(*holder));
            dead[file] = holder->token;
        }
        self_.token = random_token();
        file_ = run / fmt::format("lock.{}", found.empty() ? 1 : found.rbegin()->first + 1);
        if (!make_exclusively(file_, to_text(self_), self_.token)) continue;
        bool alone = true;
        for (const auto& [number, file] : locks_of(run)) {
            const auto holder = file == file_ ? std::nullopt : read_holder(file);
            if (holder && (dead.find(file) == dead.end() || dead.at(file) != holder->token)) alone = false;
        }
        std::error_code ignored;
        if (!alone) {  // two at once: both withdraw, and one comes back first
            fs::remove(file_, ignored);
            std::this_thread::sleep_for(std::chrono::milliseconds(10 + random() % 200));
            continue;
        }
        for (const auto& [file, token] : dead) {
            warn("{}: the lock of a job that is no more is taken over", file.string());
            fs::remove(file, ignored);
        }
        for (const fs::directory_entry& entry : fs::directory_iterator(run))
            if (entry.path().filename().native().rfind("lock.new.", 0) == 0) fs::remove(entry.path(), ignored);
        return;
    }
    throw Failure("{} cannot be locked: its lock files change all the time", run.string());
}

/// @returns who took the lock, or that it is gone; empty if it is still ours (or cannot be seen just now)
std::string RunLock::raise_heartbeat() {
    // Opened anew for every beat: on NFS others see what was written before a close.
    const FileDescriptor out(::open(file_.c_str(), O_RDWR | O_CLOEXEC));
    if (out.get() < 0) {
        if (errno != ENOENT) return {};
        for (const auto& [number, file] : locks_of(file_.parent_path()))
            if (const auto holder = read_holder(file))
                return fmt::format("{} was taken over by {}", file_.parent_path().string(), describe(*holder));
        return fmt::format("{} was removed by somebody else", file_.string());
    }
    // Whoever takes a lock over makes the next number and removes this file; another's content in it cannot be ours.
    const auto holder = read_holder(file_);
    if (holder && !holder->token.empty() && holder->token != self_.token)
        return fmt::format("{} was taken over by {}", file_.string(), describe(*holder));
    const std::string digits = fmt::format("{:0{}}", ++beat_, beat_digits);
    if (::pwrite(out.get(), digits.data(), digits.size(), beat_at) == static_cast<ssize_t>(digits.size()))
        ::fsync(out.get());  // a beat that fails is made up for by the next
    return {};
}

void RunLock::keep_beating() {
    std::unique_lock<std::mutex> hold(mutex_);
    while (!wake_.wait_for(hold, timing_.beat, [this] { return ending_; })) {
        hold.unlock();
        std::string what;
        try {
            what = raise_heartbeat();
        } catch (const std::exception&) {  // a folder that cannot be read just now: the next beat sees
        }
        if (!what.empty()) {
            lost_(what);
            return;
        }
        hold.lock();
    }
}

RunLock::~RunLock() {
    {
        const std::lock_guard<std::mutex> hold(mutex_);
        ending_ = true;
    }
    wake_.notify_all();
    heart_.join();
    const auto holder = read_holder(file_);
    if (holder && holder->token == self_.token) {
        std::error_code ignored;
        fs::remove(file_, ignored);
    }
}

}  // namespace fairgptq
