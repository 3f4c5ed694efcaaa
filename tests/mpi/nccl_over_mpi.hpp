// NCCL between processes that have no GPU: its transfers as MPI's own, on host memory.
#pragma once

#include <mpi.h>

#include <deque>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "comm/nccl_calls.hpp"

namespace fairgptq::testing {

class NcclOverMpi final : public NcclCalls {
  public:
    NcclOverMpi() { MPI_Comm_dup(MPI_COMM_WORLD, &world_); }
    ~NcclOverMpi() override {
        if (left_) MPI_Comm_free(&world_);
    }
    std::size_t trial_bytes() const override { return 1000; }
    std::string version() const override { return "0.0.0"; }
    Id make_id() override {
        Id id{};
        id.back() = std::byte{42};
        return id;
    }
    void join(const Id& id, int, int) override {
        if (id.back() != std::byte{42}) throw std::logic_error("not rank 0's id");
    }
    State state() override { return ++asked_ % 3 == 0 ? State::ready : State::busy; }
    std::string problem() override { return "none"; }
    void follow_device() override {}
    void all_reduce_sum(std::span<double> values) override {
        MPI_Iallreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE, MPI_SUM, world_,
                       &requests_.emplace_back());
    }
    void reduce_sum(std::span<double> values, int root) override {
        int rank = 0;
        MPI_Comm_rank(world_, &rank);
        const bool here = rank == root;
        MPI_Ireduce(here ? MPI_IN_PLACE : values.data(), here ? values.data() : nullptr,
                    static_cast<int>(values.size()), MPI_DOUBLE, MPI_SUM, root, world_, &requests_.emplace_back());
    }
    void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                    std::span<const std::size_t> sizes) override {
        counts_.emplace_back(sizes.begin(), sizes.end());
        std::vector<int>& places = counts_.emplace_back(sizes.size(), 0);
        const std::vector<int>& counts = counts_[counts_.size() - 2];
        std::partial_sum(counts.begin(), counts.end() - 1, places.begin() + 1);
        MPI_Iallgatherv(mine.data(), static_cast<int>(mine.size()), MPI_BYTE, all.data(), counts.data(), places.data(),
                        MPI_BYTE, world_, &requests_.emplace_back());
    }
    void mark_end() override {}
    bool device_has_come() override { return true; }
    bool finished() override {
        int done = 0;
        MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE);
        if (done == 0) return false;
        requests_.clear();
        counts_.clear();
        return true;
    }
    void leave() override { left_ = true; }
    void abort() noexcept override {}

  private:
    MPI_Comm world_ = MPI_COMM_NULL;
    std::vector<MPI_Request> requests_;
    std::deque<std::vector<int>> counts_;  // of gatherings under way
    int asked_ = 0;
    bool left_ = false;
};

}  // namespace fairgptq::testing
