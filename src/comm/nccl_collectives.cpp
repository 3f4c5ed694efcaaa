// Two waits with deadlines of their own. Until all ranks have come to an exchange, time is no sign of a failure: one
// may have more work, or a slower disk. From then on nothing but the network is left, so a transfer that takes much
// longer than its bytes has failed. A barrier over the host tells the two apart. (NCCL alone would wait for ever in
// either.)
#include "comm/nccl_collectives.hpp"

#include <algorithm>
#include <numeric>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "comm/together.hpp"
#include "support/error.hpp"
#include "support/say.hpp"

namespace fairgptq {
namespace {

using std::chrono::milliseconds;

class NcclCollectives final : public DeviceCollectives {
  public:
    NcclCollectives(MemoryOperations& memory, Communicator& comm, std::unique_ptr<NcclCalls> calls,
                    const NcclDeadlines& deadlines)
        : memory_(memory), comm_(comm), calls_(std::move(calls)), deadlines_(deadlines) {
        NcclCalls::Id id{};
        together(comm_, [&] {
            if (comm_.rank() == 0) id = calls_->make_id();
        });
        comm_.broadcast(id, 0);
        together(comm_, [&] {
            calls_->join(id, comm_.rank(), comm_.size());
            until("joining the other ranks", deadlines_.joining, [&] { return ready(); });
            try_out();
        });
    }
    NcclCollectives(const NcclCollectives&) = delete;
    NcclCollectives& operator=(const NcclCollectives&) = delete;
    ~NcclCollectives() override {
        if (lost_) return;
        try {
            if (exceptions_ == std::uncaught_exceptions()) {
                calls_->leave();
                until_ready("leaving the other ranks");
                return;
            }
        } catch (const std::exception&) {  // the work is done: the others have what they need
        }
        abandon();
    }

    std::string name() const override { return "nccl " + calls_->version(); }
    bool direct() const override { return true; }

    void begin_all_reduce_sum(std::span<double> values) override {
        begin_sum(values, [&] { calls_->all_reduce_sum(values); });
    }
    void begin_reduce_sum(std::span<double> values, int root) override {
        begin_sum(values, [&] { calls_->reduce_sum(values, root); });
    }

    void begin_all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                          std::span<const std::size_t> sizes) override {
        const std::size_t total = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
        if (sizes.size() != static_cast<std::size_t>(comm_.size()) ||
            sizes[static_cast<std::size_t>(comm_.rank())] != mine.size() || all.size() != total)
            throw Failure("all_gather: sizes disagree");
        if (total == 0) return;
        calls_->follow_device();
        calls_->all_gather(mine, all, sizes);
        until_ready("a gathering from all ranks");
        began(total);
    }

    void finish() override {
        if (bytes_ == 0) return;
        // This rank's own device may still compute: that is not waiting for anybody.
        until("computing", std::nullopt, [&] { return calls_->device_has_come(); });
        comm_.begin_barrier();
        until("waiting for the other ranks", deadlines_.peers, [&] { return comm_.barrier_reached(); });
        const milliseconds travel(
            static_cast<std::int64_t>(1e3 * static_cast<double>(bytes_) / deadlines_.slowest_bytes_per_second));
        until("a transfer that all ranks had come to", deadlines_.transfer + travel,
              [&] { return calls_->finished(); });
        bytes_ = 0;
    }

    void abandon() noexcept override {
        if (!lost_) calls_->abort();
        lost_ = true;
    }

  private:
    template <class Call>
    void begin_sum(std::span<double> values, const Call& call) {
        if (values.empty()) return;
        calls_->follow_device();
        call();
        until_ready("a sum over ranks");
        began(values.size_bytes());
    }

    void began(std::size_t bytes) {
        calls_->mark_end();
        bytes_ += bytes;
    }

    /// The first exchange of a kind makes NCCL's connections for it; one that does not work is found before there is
    /// work to lose. Each rank gives its number, from 1.
    void try_out() {
        const auto ranks = static_cast<std::size_t>(comm_.size()), rank = static_cast<std::size_t>(comm_.rank());
        const std::size_t count = std::max(calls_->trial_bytes() / sizeof(double), 2 * ranks);
        const Buffer buffer = memory_.allocate(count * sizeof(double));
        const std::span<double> all(buffer.as<double>(), count);
        const auto try_call = [&](const char* what, std::span<double> mine, const auto& call) {
            const std::vector<double> numbers(mine.size(), comm_.rank() + 1);
            memory_.copy_to_device(mine.data(), numbers.data(), mine.size_bytes());
            calls_->follow_device();
            call();
            until(what, deadlines_.joining, [&] { return ready(); });
            calls_->mark_end();
            until(what, deadlines_.joining, [&] { return calls_->finished(); });
        };
        const auto expect = [&](std::span<const double> values, double expected) {
            for (const double* place : {&values.front(), &values.back()}) {
                double value = 0;
                memory_.copy_to_host(&value, place, sizeof(value));
                if (value == expected) continue;
                abandon();  // the others wait for this rank
                throw Failure("NCCL {} exchanges wrongly between these ranks: {} instead of {}; use --comm mpi",
                              calls_->version(), value, expected);
            }
        };
        const double sum = 0.5 * comm_.size() * (comm_.size() + 1);
        try_call("a first sum over ranks", all, [&] { calls_->all_reduce_sum(all); });
        expect(all, sum);
        try_call("a first sum at a rank", all, [&] { calls_->reduce_sum(all, 0); });
        if (rank == 0) expect(all, sum);
        for (const std::size_t first_more : {std::size_t{0}, count % ranks == 0 ? ranks : count % ranks}) {
            // Equal shares, and others.
            std::vector<std::size_t> sizes(ranks, (count - first_more) / ranks * sizeof(double)), begins(ranks);
            sizes.front() += first_more * sizeof(double);
            std::exclusive_scan(sizes.begin(), sizes.end(), begins.begin(), std::size_t{0});
            const std::span<std::byte> bytes = std::as_writable_bytes(all).first(begins.back() + sizes.back());
            const auto share = [&](std::size_t of) {
                return all.subspan(begins[of] / sizeof(double), sizes[of] / sizeof(double));
            };
            try_call("a first gathering from all ranks", share(rank),
                     [&] { calls_->all_gather(std::as_bytes(share(rank)), bytes, sizes); });
            for (std::size_t of = 0; of < ranks; ++of)
                expect(share(of), static_cast<double>(of) + 1);
        }
    }

    bool ready() { return calls_->state() == NcclCalls::State::ready; }
    void until_ready(const char* what) {
        until(what, deadlines_.peers, [&] { return ready(); });
    }

    template <class Condition>
    void until(const char* what, std::optional<milliseconds> limit, const Condition& condition) {
        constexpr int spins = 2000;
        constexpr std::chrono::microseconds nap(50);
        const auto begin = std::chrono::steady_clock::now();
        for (int turn = 0; !condition(); ++turn) {
            if (calls_->state() == NcclCalls::State::failed) {
                const std::string problem = calls_->problem();
                abandon();
                throw Failure("NCCL lost the other ranks ({}): {}", what, problem);
            }
            const auto waited = std::chrono::steady_clock::now() - begin;
            if (limit && waited > *limit) {
                abandon();
                throw Failure("NCCL got no further in {:.1f} s ({}): another rank hangs, or the network between them",
                              std::chrono::duration<double>(waited).count(), what);
            }
            if (turn < spins)
                std::this_thread::yield();
            else
                std::this_thread::sleep_for(nap);
        }
    }

    MemoryOperations& memory_;
    Communicator& comm_;
    std::unique_ptr<NcclCalls> calls_;
    NcclDeadlines deadlines_;
    std::size_t bytes_ = 0;  // under way
    bool lost_ = false;
    int exceptions_ = std::uncaught_exceptions();
};

}  // namespace

std::unique_ptr<DeviceCollectives> make_nccl_collectives(MemoryOperations& memory, Communicator& comm,
                                                         std::unique_ptr<NcclCalls> calls,
                                                         const NcclDeadlines& deadlines) {
    return std::make_unique<NcclCollectives>(memory, comm, std::move(calls), deadlines);
}

std::unique_ptr<DeviceCollectives> make_nccl_or_host_collectives(
    MemoryOperations& memory, Communicator& comm, const std::function<std::unique_ptr<NcclCalls>()>& make_calls,
    const NcclDeadlines& deadlines) {
    try {
        std::unique_ptr<NcclCalls> calls;
        together(comm, [&] { calls = make_calls(); });
        return make_nccl_collectives(memory, comm, std::move(calls), deadlines);
    } catch (const SharedFailure& failure) {
        warn("{}: ranks exchange through MPI and the hosts' memory, not NCCL",
             comm.broadcast_string(failure.what(), failure.speaker));
        return make_host_collectives(memory, comm);
    }
}

}  // namespace fairgptq
