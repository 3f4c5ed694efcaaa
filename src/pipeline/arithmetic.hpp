// How much arithmetic a run is, and how fast this machine does arithmetic: for `plan`'s estimate and for the ratio that
// a run prints at its end.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "comm/communicator.hpp"
#include "pipeline/alpha.hpp"
#include "pipeline/chunks.hpp"

namespace fairgptq {

/// Tokens that go through the model, and the sum of their sequences' squared lengths.
struct Lengths {
    double tokens = 0, squared = 0;
    explicit Lengths(const Chunks& chunks);
};

/// Floating-point operations (a multiply-add is two) of a whole run, summed over ranks. A symmetric product counts
/// n²·tokens, a Cholesky factorization and a triangular inverse n³/3 each (once: ranks share those that take long), the
/// column loop rows·n², the shift 4·rows·n², each quadratic form 2·rows·n².
struct Arithmetic {
    double forward = 0, statistics = 0, factor = 0, columns = 0, shift = 0, figures = 0;
    double total() const { return forward + statistics + factor + columns + shift + figures; }
};
/// Of the first `layers` layers. @param alphas of each run that one pass makes
Arithmetic count_arithmetic(const Family& family, const Chunks& chunks, const ModuleGrids& grids,
                            std::span<const AlphaPolicy> alphas, std::int64_t layers);
/// Each layer's part of what the largest takes; empty where layers are of one kind and quantized alike, and so 1 each.
std::vector<double> layer_work(const Family& family, const Chunks& chunks, const ModuleGrids& grids,
                               std::span<const AlphaPolicy> alphas, std::int64_t layers);

/// A backend's matrix-product rate in operations a second: the best of a few products of random square matrices, large
/// enough to fill the device: of side 1024 on a CPU; on others as many times 256 as take a millisecond, 8192 at most.
class MatrixRate {
  public:
    MatrixRate(Backend& backend, DType type);
    std::int64_t size() const { return n_; }
    double measure();

  private:
    void make_matrices(std::int64_t n);
    double seconds_of_one();

    Backend& backend_;
    DType type_;
    std::int64_t n_ = 0;
    Buffer left_, right_, product_;
};

/// Of this backend's activations.
double measure_matrix_rate(Backend& backend);

/// The sum of all ranks' rates, measured at the same time on all of them.
double measure_matrix_rate(Backend& backend, Communicator& comm);

}  // namespace fairgptq
