// One job at a time on a run directory, also where the directory is shared between hosts.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace fairgptq {

/// Held by one process (rank 0) from its construction to its destruction. The lock is a file RUN/lock.N made by link(),
/// which is atomic on NFS too (flock is not, everywhere); it says who holds it and carries a heartbeat that a thread
/// raises. No clock is compared with another host's: whoever finds the lock of another host watches whether the
/// heartbeat changes, by its own monotonic clock.
class RunLock {
  public:
    struct Timing {
        std::chrono::milliseconds beat{5000};     // the holder raises its heartbeat this often
        std::chrono::milliseconds stale{30000};   // a heartbeat of another host that stands still so long is dead
        std::chrono::milliseconds orphan{10000};  // what a rank takes to end whose mpirun is gone, at most
    };
    struct Holder {
        std::string host, token, job, since;
        std::string machine;  // boot id and process namespace: the same where process ids mean the same
        long process = 0;
        std::string process_start;  // in clock ticks since boot: a process id that was given again has another
        std::string parent;         // process id of who started it, mpirun for one
        std::string beat;
        bool operator==(const Holder&) const = default;
    };

    /// Makes the folder if it is missing. A holder that is dead (same host: its process is gone, or
    /// orphaned and gone within `timing.orphan`; another host: its heartbeat stands still for `timing.stale`) loses the
    /// lock to this process.
    /// If another process takes the lock over meanwhile, or its file is removed, this process was taken for dead
    /// (stopped, or cut off from the file system) and must write nothing more: it says so and ends with exit code 1.
    /// @throws InvalidInput naming the holder if it lives; InvalidInput if the folder cannot be written
    static std::unique_ptr<RunLock> acquire(const std::filesystem::path& run);
    /// @param lost called from a thread in place of that end
    RunLock(const std::filesystem::path& run, Timing timing, std::function<void(const std::string&)> lost);
    RunLock(const RunLock&) = delete;
    RunLock& operator=(const RunLock&) = delete;
    ~RunLock();

    /// What a look at a run's lock tells, without taking it.
    struct Look {
        std::string holder;  // for people
        bool gone = false;   // a process of this machine that is no more
        std::string beat;    // changes as long as it lives
    };
    /// Nothing where there is no lock.
    static std::optional<Look> look(const std::filesystem::path& run);

    /// Whether a file's name is a lock's: what a run directory may hold before the run begins.
    static bool is_lock(const std::filesystem::path& file);
    const std::filesystem::path& file() const { return file_; }

  private:
    void take(const std::filesystem::path& run);
    void keep_beating();
    std::string raise_heartbeat();

    Timing timing_;
    std::function<void(const std::string&)> lost_;
    std::filesystem::path file_;
    Holder self_;
    std::uint64_t beat_ = 0;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool ending_ = false;
    std::thread heart_;
};

}  // namespace fairgptq
