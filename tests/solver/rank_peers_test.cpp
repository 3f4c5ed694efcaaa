// Ranks that share a factorization, on the CPU (on a GPU: backend/cuda_cholesky_test.cpp).
#include "solver/rank_peers.hpp"

#include <algorithm>
#include <numeric>

#include "solver/solve.hpp"
#include "support_files/counting_collectives.hpp"
#include "support_files/shared_factorization.hpp"

namespace fairgptq::testing {
namespace {

std::unique_ptr<Backend> cpu() {
    return make_backend("cpu");
}

TEST(RankPeers, BringsEachPartToAllRanks) {
    constexpr std::int64_t rows = 20, cols = 9;
    struct Place {
        int owner;
        std::int64_t row, col, rows, cols;
    };
    for (const int ranks : {1, 2, 3, 4})
        // Less than a row, a row and a bit, some rows, all.
        for (const std::size_t staging : {4, 200, 600, 1 << 20}) {
            SCOPED_TRACE(fmt::format("{} ranks, {} bytes", ranks, staging));
            std::vector<Place> places{{0, 0, 0, 5, 9}, {0, 5, 2, 3, 1}, {0, 9, 0, 0, 9}, {0, 9, 4, 1, 0}};
            for (int rank = 0; rank < ranks; ++rank)
                places.push_back({rank, 10 + 2 * rank, 3, 2, 5});
            places.push_back({ranks - 1, 18, 0, 2, 9});
            run_ranks(ranks, [&](Communicator& comm) {
                const auto backend = cpu();
                const auto collectives = make_host_collectives(*backend, comm);
                RankPeers peers(*backend, comm, *collectives, {}, staging);
                // Everywhere the rank that wrote it last, and −1 where none did.
                HostMatrix matrix(rows, cols, -1);
                HostMatrix expected = matrix;
                std::vector<Peers::Part> parts;
                for (const Place& place : places) {
                    const MatrixView<float> all(matrix.values.data(), rows, cols);
                    parts.push_back({place.owner, all.block(place.row, place.col, place.rows, place.cols)});
                    for (std::int64_t r = place.row; r < place.row + place.rows; ++r)
                        for (std::int64_t c = place.col; c < place.col + place.cols; ++c) {
                            const auto value = static_cast<float>(100 * place.owner + r);
                            expected(r, c) = value;
                            if (place.owner == comm.rank()) matrix(r, c) = value;
                        }
                }
                peers.share(parts);
                EXPECT_EQ(matrix.values, expected.values) << comm.rank();
                EXPECT_TRUE(peers.agree(true));
                EXPECT_EQ(peers.agree(comm.rank() != ranks - 1), false);
            });
        }
}

TEST(RankPeers, ThroughAGpusHostNothingIsShared) {
    class Indirect final : public DeviceCollectives {
      public:
        std::string name() const override { return "mpi"; }
        bool direct() const override { return false; }
        void begin_all_reduce_sum(std::span<double>) override { FAIL(); }
        void begin_reduce_sum(std::span<double>, int) override { FAIL(); }
        void begin_all_gather(std::span<const std::byte>, std::span<std::byte>, std::span<const std::size_t>) override {
            FAIL();
        }
        void finish() override {}
        void abandon() noexcept override {}
    };
    run_ranks(2, [](Communicator& comm) {
        const auto backend = cpu();
        Indirect collectives;
        RankPeers peers(*backend, comm, collectives);
        const Factored found = factor_and_invert(*backend, correlated(600), peers);
        EXPECT_TRUE(found.factored);
        EXPECT_EQ(found.elements, std::vector<std::int64_t>{0});
        EXPECT_FALSE(peers.agree(comm.rank() == 0));
    });
}

TEST(SharedFactorization, HasTheBytesOfOneRank) {
    for (const std::int64_t n : {0, 1, 64, 511, 512, 513, 1100})
        expect_shared(cpu, n, 512);
}

TEST(SharedFactorization, InManyExchangesToo) {
    const HostMatrix matrix = correlated(700);
    Peers alone;
    const Factored expected = factor_and_invert(*cpu(), matrix, alone);
    for (const Factored& found : factor_among(3, cpu, matrix, 10000))
        EXPECT_EQ(found.inverse.values, expected.inverse.values);
}

TEST(SharedFactorization, IsRefusedByAllRanks) {
    expect_refused_together(cpu, 1100);
    for (const std::int64_t n : {1, 64, 512})
        expect_refused_with_others(*cpu(), n);
}

// A rank whose last corner does not factor may not go on alone into the next exchange of the others.
TEST(SharedFactorization, OfWhichOneRankAloneFails) {
    for (const std::int64_t n : {512, 1100})
        for (const std::int64_t at : {n - 1, n / 2, std::int64_t{3}})
            run_ranks(3, [&](Communicator& comm) {
                const auto backend = cpu();
                const auto collectives = make_host_collectives(*backend, comm);
                RankPeers peers(*backend, comm, *collectives);
                HostMatrix matrix = correlated(n);
                if (comm.rank() == 1) matrix(at, at) = -1;
                const bool factored = factor_and_invert(*backend, matrix, peers).factored;
                EXPECT_EQ(peers.agree(factored), factored) << at;
                EXPECT_TRUE(factor_and_invert(*backend, correlated(n), peers).factored);
            });
}

// What solve_stage does beside gathering codes, scales and zeros.
TEST(SharedFactorization, IsWhatASolveDoes) {
    for (const std::int64_t n : {256, 512}) {
        HostMatrix hessian = correlated(n), weights(128, n, 0.5F);
        Begun begun;
        run_ranks(2, [&](Communicator& comm) {
            const auto backend = cpu();
            const auto through = make_host_collectives(*backend, comm);
            CountingCollectives counting(*through, comm, begun);
            StageOptions options;
            options.collectives = &counting;
            solve_stage(*backend, comm,
                        {{hessian.values.data(), n, n},
                         {},
                         {{"module", TensorView(MatrixView<float>(weights.values.data(), 128, n))}}},
                        {}, options);
        });
        EXPECT_EQ(begun.gatherings > 3, n == 512) << begun.gatherings;
    }
}

TEST(Deal, SharesTheWork) {
    EXPECT_TRUE(deal({}, 3).empty());
    for (const int ranks : {1, 2, 3, 8}) {
        std::vector<std::int64_t> costs(20);
        std::iota(costs.begin(), costs.end(), 1);
        std::vector<std::int64_t> load(static_cast<std::size_t>(ranks));
        const std::vector<int> owners = deal(costs, ranks);
        ASSERT_EQ(owners.size(), costs.size());
        for (std::size_t i = 0; i < owners.size(); ++i)
            load.at(static_cast<std::size_t>(owners[i])) += costs[i];
        const auto [least, most] = std::ranges::minmax_element(load);
        EXPECT_LE(*most - *least, ranks == 1 ? 0 : 5) << ranks;
    }
}

}  // namespace
}  // namespace fairgptq::testing
