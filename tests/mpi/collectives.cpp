// Communicator against sums and copies done by hand, on as many ranks as mpirun started; and on one rank without MPI.
#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "support/error.hpp"

using namespace fairgptq;

namespace {

void expect(bool holds, const char* what) {
    if (!holds) throw Failure("expected {}", what);
}

void all_reduce(Communicator& comm, std::size_t count) {
    std::vector<double> values(count);
    for (std::size_t i = 0; i < count; ++i)
        values[i] = static_cast<double>(i + 1) * (comm.rank() + 1);
    comm.all_reduce_sum(values);
    const double ranks = comm.size() * (comm.size() + 1) / 2.0;
    for (std::size_t i = 0; i < count; ++i)
        expect(values[i] == static_cast<double>(i + 1) * ranks, "the sum over ranks");
}

void all_gather(Communicator& comm, std::size_t unit) {
    // Rank r gives r·unit bytes: rank 0 gives none.
    std::vector<std::size_t> sizes(static_cast<std::size_t>(comm.size()));
    for (std::size_t r = 0; r < sizes.size(); ++r)
        sizes[r] = r * unit;
    const std::vector<std::byte> mine(sizes[static_cast<std::size_t>(comm.rank())],
                                      static_cast<std::byte>(comm.rank() + 1));
    std::vector<std::byte> all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}));
    comm.all_gather(mine, all, sizes);
    std::size_t at = 0;
    for (std::size_t r = 0; r < sizes.size(); ++r)
        for (std::size_t i = 0; i < sizes[r]; ++i)
            expect(all[at++] == static_cast<std::byte>(r + 1), "every rank's bytes");
    bool refused = false;
    try {
        comm.all_gather(mine, std::span(all).subspan(0, all.empty() ? 0 : all.size() - 1),
                        std::vector<std::size_t>(sizes.size() + 1, 0));
    } catch (const Failure&) {
        refused = true;
    }
    expect(refused, "sizes that disagree to be refused");
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const auto comm = make_communicator(&argc, &argv);
        expect(argc == 2 && comm->size() == std::atoi(argv[1]), "as many ranks as asked for");
        expect(comm->rank() >= 0 && comm->rank() < comm->size(), "a rank below the size");
        expect(comm->local_size() == comm->size() && comm->local_rank() == comm->rank(), "one host");
        for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{1000}}) {
            all_reduce(*comm, count);
            all_gather(*comm, count);
        }
        expect(comm->all_reduce_max(-5 - comm->rank()) == -5, "the largest value");
        for (int root = 0; root < comm->size(); ++root) {
            const std::string text = comm->rank() == root ? "from " + std::to_string(root) : "";
            expect(comm->broadcast_string(text, root) == "from " + std::to_string(root), "the root's text");
        }
        comm->barrier();
        return 0;
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
