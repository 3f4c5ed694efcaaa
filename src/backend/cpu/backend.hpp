// The CPU as a backend: float32, OpenBLAS, OpenMP. It is what a laptop and CI run, and the truth that CUDA is tested
// against.
//
// Work is cut into tiles of fixed size, and each tile is one single-threaded BLAS call or loop: results do not depend
// on the number of threads. Every BLAS call is made inside blas.hpp's wrappers, which keep OpenBLAS at one thread.
#pragma once

#include "backend/backend.hpp"

namespace fairgptq {

class CpuBackend : public Backend {
  public:
    CpuBackend();
    std::string name() const override;
    DType activation_type() const override { return DType::float32; }

    Buffer allocate(std::size_t bytes) override;
    void copy_to_device(void* device, const void* host, std::size_t bytes) override;
    void copy_to_host(void* host, const void* device, std::size_t bytes) override;
    void copy_on_device(void* to, const void* from, std::size_t bytes) override;
    void zero(void* device, std::size_t bytes) override;
    bool host_accessible() const override { return true; }
    void synchronize() override {}
    void upload(TensorView to, const void* host, DType type) override;

    void accumulate_gram(TensorView inputs, MatrixView<float> scratch, PackedLower<double> sum) override;
    void finish_gram(PackedLower<const double> sum, double factor, MatrixView<float> gram) override;
    void pair_differences(TensorView inputs, std::span<const PairColumn> columns,
                          MatrixView<float> differences) override;

    void linear(TensorView inputs, TensorView weights, const float* bias, TensorView output, bool accumulate) override;
    void rms_norm(TensorView inputs, const float* weight, float epsilon, TensorView output) override;
    void layer_norm(TensorView inputs, const float* weight, const float* bias, float epsilon,
                    TensorView output) override;
    void rotary_at(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> positions,
                   std::span<const float> frequencies, float attention_factor, RotaryPairs pairs) override;
    void cached_attention(TensorView query, TensorView key, TensorView value, std::span<const CachedSequence> sequences,
                          const AttentionShape& shape, TensorView output) override;
    void convolve(TensorView inputs, const float* weights, std::int64_t width, std::span<const std::int32_t> previous,
                  bool silu, TensorView output) override;
    void delta_rule(TensorView mixed, MatrixView<const float> gates, const float* decay, const float* step,
                    std::span<const DeltaSequence> sequences, const DeltaShape& shape, float* states,
                    TensorView output) override;
    void gated_activation(Activation activation, TensorView gate, TensorView up, TensorView output) override;
    void activation(Activation activation, TensorView inputs, TensorView output) override;
    void scale(TensorView inputs, float factor, TensorView output, bool accumulate) override;
    void soft_cap(TensorView values, float cap) override;
    void embed(TensorView table, std::span<const std::int32_t> ids, TensorView output, bool accumulate) override;
    void scatter_rows(TensorView inputs, std::span<const std::int32_t> ids, std::span<const float> factors,
                      TensorView output) override;
    void token_log_probabilities(TensorView logits, std::span<const std::int32_t> targets,
                                 std::span<float> log_probabilities, std::span<std::int32_t> best) override;
    void dequantize(MatrixView<const std::uint8_t> codes, MatrixView<const float> scales,
                    MatrixView<const std::uint8_t> zeros, const std::int32_t* group_index, TensorView weights) override;

    using CholeskyOperations::factor_upper, CholeskyOperations::invert_upper;
    bool factor_upper(MatrixView<float> matrix, Peers& peers) override;
    void invert_upper(MatrixView<float> matrix, Peers& peers) override;
    void combine(MatrixView<const float> hessian, MatrixView<const float> covariance, float alpha, float damping,
                 std::span<const std::int32_t> order, MatrixView<float> out) override;
    void gather_columns(TensorView in, std::span<const std::int32_t> order, std::span<const std::uint8_t> dead,
                        MatrixView<float> out) override;
    void gather_codes(MatrixView<const std::uint8_t> in, std::span<const std::int32_t> order,
                      MatrixView<std::uint8_t> out) override;
    void shift_target(MatrixView<const float> weights, MatrixView<const float> covariance, float alpha,
                      MatrixView<const float> inverse, std::span<const std::int32_t> order, MatrixView<float> target,
                      std::span<double> bias) override;
    void copy(MatrixView<const float> in, MatrixView<float> out) override;
    void subtract(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out) override;
    void quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                         std::span<double> result) override;
    void tile_squares(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) override;
    void column_errors(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) override;
    void diagonal(MatrixView<const float> matrix, std::span<float> result) override;
    void quantize_columns(const ColumnProblem& problem) override;
    void find_scales(MatrixView<const float> weights, const Grid& grid, MatrixView<float> scales,
                     MatrixView<std::uint8_t> zeros) override;
};

/// @throws InvalidInput if `ulimit -v` or `-d` leaves too little for so many bytes beside what the libraries take
void check_address_space(std::size_t bytes);

}  // namespace fairgptq
