// A factorization that ranks share beside that of one rank alone.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "backend/hessians.hpp"
#include "direct_collectives.hpp"
#include "solver/rank_peers.hpp"
#include "thread_ranks.hpp"

namespace fairgptq::testing {

/// RankPeers that keep account of who computed how much.
class CountedPeers final : public Peers {
  public:
    CountedPeers(Peers& peers, std::vector<std::int64_t>& elements) : peers_(peers), elements_(elements) {}
    int rank() const override { return peers_.rank(); }
    int size() const override { return peers_.size(); }
    void share(std::span<const Part> parts) override {
        for (const Part& part : parts)
            elements_.at(static_cast<std::size_t>(part.owner)) += part.block.rows * part.block.cols;
        peers_.share(parts);
    }
    bool agree(bool mine) override { return peers_.agree(mine); }

  private:
    Peers& peers_;
    std::vector<std::int64_t>& elements_;
};

/// Positive definite, of any size in no time: correlations that fall with the distance, columns of different size.
inline HostMatrix correlated(std::int64_t n) {
    HostMatrix matrix(n, n);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
            const auto distance = static_cast<float>(std::abs(i - j));
            const auto scale = std::exp2(static_cast<float>(i % 7 + j % 7) / 2);
            matrix(i, j) = scale * (std::exp(-distance / 30) + (i == j ? 0.1F : 0.0F));
        }
    return matrix;
}

/// What one rank has after factoring and inverting.
struct Factored {
    bool factored = false;
    HostMatrix factor, inverse;
    std::vector<std::int64_t> elements;  // that each rank computed for the others
};

inline Factored factor_and_invert(Backend& backend, const HostMatrix& matrix, Peers& peers) {
    Factored result;
    result.elements.resize(static_cast<std::size_t>(peers.size()));
    CountedPeers counted(peers, result.elements);
    const DeviceMatrix device = device_copy(backend, matrix);
    result.factored = backend.factor_upper(device.view.float32(), counted);
    if (!result.factored) return result;
    result.factor = host_copy(backend, device.view);
    backend.invert_upper(device.view.float32(), counted);
    result.inverse = host_copy(backend, device.view);
    return result;
}

/// Of each rank, every one with a backend of its own.
inline std::vector<Factored> factor_among(int ranks, const std::function<std::unique_ptr<Backend>()>& make,
                                          const HostMatrix& matrix, std::size_t staging = RankPeers::staging_bytes) {
    std::vector<Factored> results(static_cast<std::size_t>(ranks));
    run_ranks(ranks, [&](Communicator& comm) {
        const std::unique_ptr<Backend> backend = make();
        DirectCollectives collectives(*backend, comm);
        RankPeers peers(*backend, comm, collectives, {}, staging);
        results[static_cast<std::size_t>(comm.rank())] = factor_and_invert(*backend, matrix, peers);
    });
    return results;
}

/// The same bytes at every rank, for any number of ranks, and from `shared_from` columns on work for each.
inline void expect_shared(const std::function<std::unique_ptr<Backend>()>& make, std::int64_t n,
                          std::int64_t shared_from) {
    SCOPED_TRACE(n);
    const HostMatrix matrix = correlated(n);
    const auto backend = make();
    Peers alone;
    const Factored expected = factor_and_invert(*backend, matrix, alone);
    ASSERT_TRUE(expected.factored);
    for (const int ranks : {1, 2, 3, 4}) {
        SCOPED_TRACE(ranks);
        for (const Factored& found : factor_among(ranks, make, matrix)) {
            ASSERT_TRUE(found.factored);
            EXPECT_EQ(found.factor.values, expected.factor.values);
            EXPECT_EQ(found.inverse.values, expected.inverse.values);
            for (const std::int64_t elements : found.elements)
                EXPECT_EQ(elements > 0, ranks > 1 && n >= shared_from) << elements;
        }
    }
}

/// What another rank could not factor, as its processor rounds otherwise, is refused by this one, too.
inline void expect_refused_with_others(Backend& backend, std::int64_t n) {
    class Doubtful final : public Peers {
      public:
        bool agree(bool) override { return false; }
    };
    Doubtful peers;
    EXPECT_FALSE(factor_and_invert(backend, correlated(n), peers).factored) << n;
}

/// A matrix that does not factor is refused by every rank, wherever its fault is, and none waits for another.
inline void expect_refused_together(const std::function<std::unique_ptr<Backend>()>& make, std::int64_t n) {
    for (const std::int64_t at : {std::int64_t{0}, n / 3, n / 2, n - 1}) {
        HostMatrix matrix = correlated(n);
        for (const float wrong : {-matrix(at, at), std::numeric_limits<float>::quiet_NaN()}) {
            matrix(at, at) = wrong;
            for (const Factored& found : factor_among(3, make, matrix))
                EXPECT_FALSE(found.factored) << at;
        }
    }
}

}  // namespace fairgptq::testing
