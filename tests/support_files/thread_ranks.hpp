// Ranks as threads of one process: several ranks' code under test without mpirun.
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "comm/communicator.hpp"
#include "support/error.hpp"

namespace fairgptq::testing {

/// Runs `body` once per rank, each in its own thread. Throws the first rank's exception, if any (only where all ranks
/// throw, or none waits for the one that did).
inline void run_ranks(int ranks, const std::function<void(Communicator&)>& body) {
    struct Shared {
        explicit Shared(int count) : meeting(count), spans(static_cast<std::size_t>(count)) {}
        std::atomic<std::int64_t> arrivals{0};  // at barriers that nobody waits in
        std::barrier<> meeting;
        std::vector<std::span<const std::byte>> spans;
    };
    class Rank final : public Communicator {
      public:
        Rank(Shared& shared, int rank, int size) : shared_(shared), rank_(rank), size_(size) {}
        int rank() const override { return rank_; }
        int size() const override { return size_; }
        int local_rank() const override { return rank_; }
        void all_reduce_sum(std::span<double> values) override {
            exchange(std::as_bytes(values));
            std::vector<double> sum(values.size(), 0.0);
            for (const auto& span : shared_.spans)
                for (std::size_t i = 0; i < sum.size(); ++i) {
                    double value = 0;
                    std::memcpy(&value, span.data() + i * sizeof(double), sizeof(double));
                    sum[i] += value;
                }
            barrier();
            std::copy(sum.begin(), sum.end(), values.begin());
        }
        void reduce_sum(std::span<double> values, int root) override {
            std::vector<double> sum(values.begin(), values.end());
            all_reduce_sum(sum);
            // Elsewhere nobody is to count on what is left.
            if (rank_ == root)
                std::copy(sum.begin(), sum.end(), values.begin());
            else
                std::fill(values.begin(), values.end(), std::numeric_limits<double>::quiet_NaN());
        }
        std::int64_t all_reduce_max(std::int64_t value) override {
            exchange(std::as_bytes(std::span(&value, 1)));
            std::int64_t largest = value;
            for (const auto& span : shared_.spans) {
                std::int64_t other = 0;
                std::memcpy(&other, span.data(), sizeof(other));
                largest = std::max(largest, other);
            }
            barrier();
            return largest;
        }
        void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                        std::span<const std::size_t> sizes) override {
            if (sizes.size() != static_cast<std::size_t>(size_)) throw Failure("all_gather: sizes disagree");
            exchange(mine);
            std::size_t offset = 0;
            for (std::size_t from = 0; from < shared_.spans.size(); ++from) {
                const auto& span = shared_.spans[from];
                if (span.size() != sizes[from] || offset + span.size() > all.size())
                    throw std::logic_error("all_gather: a rank's bytes do not have the size that was agreed on");
                if (!span.empty()) std::memcpy(all.data() + offset, span.data(), span.size());
                offset += span.size();
            }
            barrier();
        }
        void broadcast(std::span<std::byte> bytes, int root) override {
            exchange(bytes);
            if (rank_ != root && !bytes.empty())
                std::memcpy(bytes.data(), shared_.spans[static_cast<std::size_t>(root)].data(), bytes.size());
            barrier();
        }
        void barrier() override { shared_.meeting.arrive_and_wait(); }
        void begin_barrier() override {
            ++shared_.arrivals;
            wanted_ += size_;
        }
        bool barrier_reached() override { return shared_.arrivals >= wanted_; }
        [[noreturn]] void abort(int) override { std::terminate(); }

      private:
        void exchange(std::span<const std::byte> mine) {
            shared_.spans[static_cast<std::size_t>(rank_)] = mine;
            barrier();
        }
        Shared& shared_;
        int rank_, size_;
        std::int64_t wanted_ = 0;
    };

    Shared shared(ranks);
    std::vector<std::exception_ptr> failures(static_cast<std::size_t>(ranks));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank)
        threads.emplace_back([&, rank] {
            Rank comm(shared, rank, ranks);
            try {
                body(comm);
            } catch (...) {
                failures[static_cast<std::size_t>(rank)] = std::current_exception();
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace fairgptq::testing
