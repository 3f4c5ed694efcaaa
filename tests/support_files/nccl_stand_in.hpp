// NCCL between ranks that are threads of one process, on host memory: each rank has a thread in its stream's place,
// which does what it is asked for in order, when all ranks have come to it, and some time later. It can also fail as
// NCCL does.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "comm/nccl_calls.hpp"
#include "support/error.hpp"

namespace fairgptq::testing {

/// What the ranks have in common, and what is to go wrong.
class NcclWorld {
  public:
    explicit NcclWorld(int ranks) : spans_(static_cast<std::size_t>(ranks)) {}

    /// How long a transfer takes.
    std::chrono::milliseconds travel{2};
    /// What a communicator tries out before there is work: transfers 0 to 3.
    static constexpr int tried_out = 4;
    /// From this transfer on, none ends.
    int stuck_from = never;
    /// From this transfer on, every rank's communicator reports a lost connection.
    int lost_from = never;
    /// Sums are wrong, of all ranks or of one; what is gathered is another rank's.
    bool adds_wrongly = false, reduces_wrongly = false, gathers_wrongly = false;
    /// Rank 0 gets no id; this rank does not join.
    bool no_id = false;
    int joins_not = -1;

    static constexpr int never = 1 << 30;

    /// All ranks meet, and see what each gave until they meet again without. @returns false where one has given up
    bool meet(int rank, std::span<const std::byte> mine) {
        {
            const std::lock_guard lock(mutex_);
            spans_[static_cast<std::size_t>(rank)] = mine;
        }
        return meet();
    }
    bool meet() {
        std::unique_lock lock(mutex_);
        const int generation = generation_;
        if (++waiting_ == static_cast<int>(spans_.size())) {
            waiting_ = 0;
            ++generation_;
            changed_.notify_all();
        }
        changed_.wait(lock, [&] { return generation_ != generation || given_up_; });
        return !given_up_;
    }
    /// One rank ends its transfers: the others lose their connections to it.
    void give_up() {
        const std::lock_guard lock(mutex_);
        given_up_ = true;
        changed_.notify_all();
    }
    bool given_up() {
        const std::lock_guard lock(mutex_);
        return given_up_;
    }
    const std::vector<std::span<const std::byte>>& spans() const { return spans_; }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::span<const std::byte>> spans_;
    int waiting_ = 0, generation_ = 0;
    bool given_up_ = false;
};

class NcclStandIn final : public NcclCalls {
  public:
    explicit NcclStandIn(NcclWorld& world) : world_(world) {
        stream_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
    }
    ~NcclStandIn() override {
        if (!left_) abort();
    }

    std::string version() const override { return "0.0.0"; }
    std::size_t trial_bytes() const override { return 1000; }
    Id make_id() override {
        if (world_.no_id) throw Failure("no id");
        Id id{};
        id.front() = id.back() = std::byte{42};
        return id;
    }
    void join(const Id& id, int rank, int ranks) override {
        if (id.front() != std::byte{42} || id.back() != std::byte{42} ||
            static_cast<std::size_t>(ranks) != world_.spans().size())
            throw std::logic_error("not rank 0's id");
        rank_ = rank;
        if (rank == world_.joins_not) throw Failure("not joined");
        ask([this] { world_.meet(); });
        mark_end();
    }

    // NCCL's non-blocking calls are under way for a while before the next may follow.
    State state() override {
        const std::lock_guard lock(mutex_);
        if (lost_ || world_.given_up()) return State::failed;
        return done_ > 0 && ++asked_state_ % 3 == 0 ? State::ready : State::busy;
    }
    std::string problem() override { return "remote process exited or there was a network error"; }

    void follow_device() override {}
    void all_reduce_sum(std::span<double> values) override { ask_for_sum(values, true, world_.adds_wrongly); }
    void reduce_sum(std::span<double> values, int root) override {
        ask_for_sum(values, root == rank_, world_.reduces_wrongly);
    }
    void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                    std::span<const std::size_t> sizes) override {
        ask([this, mine, all, own = std::vector(sizes.begin(), sizes.end())] {
            if (!world_.meet(rank_, mine)) return;
            std::this_thread::sleep_for(world_.travel);
            std::size_t at = 0;
            for (std::size_t root = 0; root < own.size(); at += own[root++]) {
                const auto& span = world_.spans()[world_.gathers_wrongly ? 0 : root];
                if (span.size() != own[root] || at + span.size() > all.size())
                    throw std::logic_error("a rank's bytes do not have the size that was agreed on");
                // In place already; and others read it now.
                if (span.data() != all.data() + at && !span.empty())
                    std::memcpy(all.data() + at, span.data(), span.size());
            }
            world_.meet();
        });
    }
    void mark_end() override {
        const std::lock_guard lock(mutex_);
        marked_ = asked_;
    }
    bool device_has_come() override { return ++asked_device_ % 3 == 0; }
    bool finished() override {
        const std::lock_guard lock(mutex_);
        return done_ >= marked_;
    }
    void leave() override { left_ = true; }
    void abort() noexcept override {
        world_.give_up();
        stream_.request_stop();
        if (stream_.joinable()) stream_.join();
    }

  private:
    void ask_for_sum(std::span<double> values, bool wanted, bool wrongly) {
        ask([this, values, wanted, wrongly] {
            if (!world_.meet(rank_, std::as_bytes(values))) return;
            std::vector<double> sum(values.size(), wrongly ? 1 : 0);
            for (const auto& span : world_.spans())
                for (std::size_t i = 0; i < sum.size(); ++i) {
                    double value = 0;
                    std::memcpy(&value, span.data() + i * sizeof(double), sizeof(double));
                    sum[i] += value;
                }
            std::this_thread::sleep_for(world_.travel);
            if (world_.meet() && wanted) std::copy(sum.begin(), sum.end(), values.begin());
        });
    }
    void ask(std::function<void()> transfer) {
        const std::lock_guard lock(mutex_);
        queue_.push_back(std::move(transfer));
        ++asked_;
        changed_.notify_all();
    }

    void run(const std::stop_token& stop) {
        while (true) {
            std::function<void()> transfer;
            {
                std::unique_lock lock(mutex_);
                if (!changed_.wait(lock, stop, [&] { return !queue_.empty(); })) return;
                transfer = std::move(queue_.front());
                queue_.pop_front();
                const int index = done_ - 1;  // joining is none
                lost_ = index >= world_.lost_from;
                if (lost_) return;
                if (index >= world_.stuck_from) {
                    changed_.wait(lock, stop, [] { return false; });
                    return;
                }
            }
            transfer();
            if (world_.given_up()) return;
            const std::lock_guard lock(mutex_);
            ++done_;
        }
    }

    NcclWorld& world_;
    int rank_ = 0;
    bool left_ = false;
    int asked_device_ = 0;

    std::mutex mutex_;
    std::condition_variable_any changed_;
    std::deque<std::function<void()>> queue_;
    int asked_ = 0, done_ = 0, marked_ = 0, asked_state_ = 0;
    bool lost_ = false;
    std::jthread stream_;  // last
};

}  // namespace fairgptq::testing
