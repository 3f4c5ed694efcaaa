#include "comm/mpi.hpp"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "support/error.hpp"

namespace fairgptq {
namespace {

// MPI counts are ints; longer messages go in pieces of this many elements.
constexpr std::size_t piece = std::size_t{1} << 28U;

void check(int code, const char* call) {
    if (code == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(code, text.data(), &length);
    throw Failure("{} failed: {}", call, std::string_view(text.data(), static_cast<std::size_t>(length)));
}

class MpiRanks final : public Communicator {
  public:
    MpiRanks(int* argc, char*** argv) : exceptions_(std::uncaught_exceptions()) {
        int provided = 0;
        check(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
        // A communicator of our own: its messages never mix with those of a library that also uses MPI.
        check(MPI_Comm_dup(MPI_COMM_WORLD, &world_), "MPI_Comm_dup");
        check(MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
        check(MPI_Comm_rank(world_, &rank_), "MPI_Comm_rank");
        check(MPI_Comm_size(world_, &size_), "MPI_Comm_size");
        MPI_Comm host = MPI_COMM_NULL;
        check(MPI_Comm_split_type(world_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host), "MPI_Comm_split_type");
        check(MPI_Comm_rank(host, &local_rank_), "MPI_Comm_rank");
        check(MPI_Comm_free(&host), "MPI_Comm_free");
    }
    MpiRanks(const MpiRanks&) = delete;
    MpiRanks& operator=(const MpiRanks&) = delete;
    ~MpiRanks() override {
        if (std::uncaught_exceptions() > exceptions_) return;
        MPI_Comm_free(&world_);
        MPI_Finalize();
    }

    int rank() const override { return rank_; }
    int size() const override { return size_; }
    int local_rank() const override { return local_rank_; }

    void all_reduce_sum(std::span<double> values) override {
        for (std::size_t at = 0; at < values.size(); at += piece) {
            const auto part = values.subspan(at, std::min(piece, values.size() - at));
            check(MPI_Allreduce(MPI_IN_PLACE, part.data(), static_cast<int>(part.size()), MPI_DOUBLE, MPI_SUM, world_),
                  "MPI_Allreduce");
        }
    }

    void reduce_sum(std::span<double> values, int root) override {
        const bool here = root == rank_;
        for (std::size_t at = 0; at < values.size(); at += piece) {
            const auto part = values.subspan(at, std::min(piece, values.size() - at));
            check(MPI_Reduce(here ? MPI_IN_PLACE : part.data(), here ? part.data() : nullptr,
                             static_cast<int>(part.size()), MPI_DOUBLE, MPI_SUM, root, world_),
                  "MPI_Reduce");
        }
    }

    std::int64_t all_reduce_max(std::int64_t value) override {
        check(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, world_), "MPI_Allreduce");
        return value;
    }

    void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                    std::span<const std::size_t> sizes) override {
        const std::size_t total = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
        if (sizes.size() != static_cast<std::size_t>(size_) || sizes[static_cast<std::size_t>(rank_)] != mine.size() ||
            all.size() != total)
            throw Failure("all_gather: sizes disagree");
        if (total <= INT_MAX) {
            std::vector<int> counts(sizes.begin(), sizes.end());
            std::vector<int> places(counts.size(), 0);
            std::partial_sum(counts.begin(), counts.end() - 1, places.begin() + 1);
            check(MPI_Allgatherv(mine.data(), static_cast<int>(mine.size()), MPI_BYTE, all.data(), counts.data(),
                                 places.data(), MPI_BYTE, world_),
                  "MPI_Allgatherv");
            return;
        }
        std::size_t at = 0;
        for (int root = 0; root < size_; ++root) {
            const auto part = all.subspan(at, sizes[static_cast<std::size_t>(root)]);
            if (root == rank_) std::copy(mine.begin(), mine.end(), part.begin());
            broadcast(part, root);
            at += part.size();
        }
    }

    void broadcast(std::span<std::byte> bytes, int root) override {
        for (std::size_t at = 0; at < bytes.size(); at += piece) {
            const auto part = bytes.subspan(at, std::min(piece, bytes.size() - at));
            check(MPI_Bcast(part.data(), static_cast<int>(part.size()), MPI_BYTE, root, world_), "MPI_Bcast");
        }
    }

    void barrier() override { check(MPI_Barrier(world_), "MPI_Barrier"); }
    void begin_barrier() override { check(MPI_Ibarrier(world_, &barrier_), "MPI_Ibarrier"); }
    bool barrier_reached() override {
        int reached = 0;
        check(MPI_Test(&barrier_, &reached, MPI_STATUS_IGNORE), "MPI_Test");
        return reached != 0;
    }

    [[noreturn]] void abort(int exit_code) override {
        MPI_Abort(world_, exit_code);
        std::_Exit(exit_code);
    }

  private:
    MPI_Comm world_ = MPI_COMM_NULL;
    MPI_Request barrier_ = MPI_REQUEST_NULL;
    int rank_ = 0, size_ = 1, local_rank_ = 0;
    int exceptions_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi(int* argc, char*** argv) {
    return std::make_unique<MpiRanks>(argc, argv);
}

}  // namespace fairgptq
