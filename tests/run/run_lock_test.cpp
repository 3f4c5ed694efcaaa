// One job at a time on a run: refused with the holder's name, taken over from the dead, never held twice.
#include "run/run_lock.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "run/sample.hpp"
#include "support/error.hpp"
#include "support_files/refusal.hpp"

namespace fairgptq {
namespace {

using namespace std::chrono_literals;
using test::bytes_of;
using test::ScratchFolder;

constexpr RunLock::Timing quick{20ms, 400ms, 5000ms};
const auto never_lost = [](const std::string& what) { ADD_FAILURE() << what; };

nlohmann::json held(const std::filesystem::path& file) {
    return nlohmann::json::parse(bytes_of(file));
}

/// The lock file of a holder on another machine.
void write_foreign(const std::filesystem::path& file, std::uint64_t beat) {
    std::ofstream(file) << fmt::format(
        R"({{"beat":"{:016}","host":"n17","process":1,"job":"4711","since":"2026-01-01T00:00:00.000Z","token":"t","machine":"m","process_start":"1"}})",
        beat);
}

std::string refusal(const std::filesystem::path& run) {
    const std::string message = testing::refusal_of([&] { const RunLock lock(run, quick, never_lost); });
    EXPECT_NE(message, "") << "not refused";
    return message;
}

TEST(RunLock, IsHeldByOneAndGoneAfterwards) {
    const ScratchFolder folder;
    {
        const RunLock lock(folder / "run", quick, never_lost);
        const auto start = std::chrono::steady_clock::now();
        const std::string message = refusal(folder / "run");
        EXPECT_LT(std::chrono::steady_clock::now() - start, quick.orphan / 2);
        EXPECT_NE(message.find(fmt::format("process {}", ::getpid())), std::string::npos) << message;
        EXPECT_NE(message.find(held(lock.file())["since"].get<std::string>()), std::string::npos) << message;
        EXPECT_NE(message.find(held(lock.file())["host"].get<std::string>()), std::string::npos) << message;
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder / "run"));
    const RunLock again(folder / "run", quick, never_lost);
}

TEST(RunLock, NamesTheJob) {
    const ScratchFolder folder;
    ::setenv("SLURM_JOB_ID", "1234", 1);
    const RunLock lock(folder / "run", quick, never_lost);
    ::unsetenv("SLURM_JOB_ID");
    EXPECT_NE(refusal(folder / "run").find("job 1234"), std::string::npos);
}

TEST(RunLock, OfAKilledProcessOfThisHostIsTakenOverAtOnce) {
    const ScratchFolder folder;
    const pid_t child = ::fork();
    if (child == 0) {
        auto* lock = new RunLock(folder / "run", quick, [](const std::string&) {});
        std::ofstream(folder / "held") << lock->file();
        for (;;)
            ::pause();
    }
    while (!std::filesystem::exists(folder / "held"))
        std::this_thread::sleep_for(1ms);
    EXPECT_NE(refusal(folder / "run").find(fmt::format("process {}", child)), std::string::npos);
    ::kill(child, SIGKILL);
    ::siginfo_t info;
    ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);  // dead, and not yet reaped
    const auto start = std::chrono::steady_clock::now();
    {
        const RunLock lock(folder / "run", quick, never_lost);
        EXPECT_LT(std::chrono::steady_clock::now() - start, quick.stale / 2);
        EXPECT_EQ(held(lock.file())["process"], ::getpid());
    }
    ::waitpid(child, nullptr, 0);
    EXPECT_TRUE(std::filesystem::is_empty(folder / "run"));
}

/// mpirun was killed, and its rank has not noticed yet.
TEST(RunLock, AnOrphanIsGivenTimeToEnd) {
    const ScratchFolder folder;
    const pid_t launcher = ::fork();
    if (launcher == 0) {
        if (::fork() == 0) {
            auto* lock = new RunLock(folder / "run", quick, [](const std::string&) {});
            std::ofstream(folder / "held") << lock->file();
            while (!std::filesystem::exists(folder / "end"))
                std::this_thread::sleep_for(1ms);
            std::this_thread::sleep_for(300ms);
            ::_exit(1);
        }
        for (;;)
            ::pause();
    }
    while (!std::filesystem::exists(folder / "held"))
        std::this_thread::sleep_for(1ms);
    ::kill(launcher, SIGKILL);
    ::waitpid(launcher, nullptr, 0);
    std::ofstream(folder / "end") << "now";
    const RunLock lock(folder / "run", quick, never_lost);
    EXPECT_EQ(held(lock.file())["process"], ::getpid());
}

TEST(RunLock, AProcessNumberThatWasGivenAgainIsNotTheHolder) {
    const ScratchFolder folder;
    std::string text;
    {
        const RunLock lock(folder / "run", quick, never_lost);
        auto json = held(lock.file());
        json["process_start"] = "1";
        text = json.dump();
    }
    std::ofstream(folder / "run/lock.1") << text;
    const RunLock lock(folder / "run", quick, never_lost);
}

TEST(RunLock, OfAnotherHostLivesWhileItsHeartbeatChangesWhateverTheClocksSay) {
    const ScratchFolder folder;
    std::filesystem::create_directory(folder / "run");
    write_foreign(folder / "run/lock.3", 1);
    std::atomic<bool> stop = false;
    std::thread heart([&] {  // changes now and then, and its file's time is long past
        for (std::uint64_t beat = 2; !stop; ++beat) {
            write_foreign(folder / "new", beat);
            std::filesystem::last_write_time(folder / "new", std::filesystem::file_time_type::clock::now() - 48h);
            std::filesystem::rename(folder / "new", folder / "run/lock.3");
            std::this_thread::sleep_for(100ms);
        }
    });
    const std::string message = refusal(folder / "run");
    stop = true;
    heart.join();
    EXPECT_NE(message.find("process 1 on n17, job 4711, since 2026-01-01T00:00:00.000Z"), std::string::npos) << message;
    // It stands still, and its file's time is in the future.
    std::filesystem::last_write_time(folder / "run/lock.3", std::filesystem::file_time_type::clock::now() + 48h);
    const RunLock lock(folder / "run", quick, never_lost);
    EXPECT_EQ(lock.file().filename(), "lock.4");
    EXPECT_FALSE(std::filesystem::exists(folder / "run/lock.3"));
}

TEST(RunLock, AHolderThatWasTakenForDeadLearnsOfIt) {
    const ScratchFolder folder;
    std::atomic<bool> told = false;
    std::string said;
    RunLock lock(folder / "run", quick, [&](const std::string& what) {
        said = what;
        told = true;
    });
    write_foreign(folder / "run/lock.2", 1);
    std::filesystem::remove(folder / "run/lock.1");
    for (int i = 0; i < 500 && !told; ++i)
        std::this_thread::sleep_for(10ms);
    ASSERT_TRUE(told);
    EXPECT_NE(said.find("taken over by process 1 on n17"), std::string::npos) << said;
}

TEST(RunLock, BeatsWhileItIsHeld) {
    const ScratchFolder folder;
    const RunLock lock(folder / "run", quick, never_lost);
    const std::string before = held(lock.file())["beat"];
    std::string now = before;
    for (int i = 0; i < 500 && now == before; ++i) {
        std::this_thread::sleep_for(10ms);
        now = held(lock.file())["beat"];
    }
    EXPECT_GT(now, before);
}

TEST(RunLock, AnEmptyOrDamagedLockIsDeadWhenNothingMovesIt) {
    for (const char* text : {"", "{", "[]", R"({"beat": 3, "process": "x"})"}) {
        const ScratchFolder folder;
        std::filesystem::create_directory(folder / "run");
        std::ofstream(folder / "run/lock.1") << text;
        const RunLock lock(folder / "run", quick, never_lost);
        EXPECT_EQ(lock.file().filename(), "lock.2");
    }
}

/// Many threads want the lock, over and over, some of them over a dead holder: two never have it at once.
TEST(RunLock, IsNeverHeldTwice) {
    const ScratchFolder folder;
    std::atomic<int> holders = 0, most = 0, times = 0;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread)
        threads.emplace_back([&] {
            for (int round = 0; round < 25; ++round) {
                try {
                    const RunLock lock(folder / "run", quick, never_lost);
                    const int now = ++holders;
                    if (now > most) most = now;
                    ++times;
                    std::this_thread::sleep_for(1ms);
                    --holders;
                } catch (const InvalidInput&) {
                    std::this_thread::sleep_for(1ms);
                }
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_EQ(most, 1);
    EXPECT_GT(times, 4);
    EXPECT_TRUE(std::filesystem::is_empty(folder / "run"));
}

TEST(RunLock, AFolderThatCannotBeWrittenIsNamed) {
    for (const char* folder : {"/proc/nowhere", "/proc"})
        testing::expect_refused([&] { const RunLock lock(folder, quick, never_lost); }, {folder});
}

}  // namespace
}  // namespace fairgptq
