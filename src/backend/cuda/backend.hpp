// A GPU as a backend: activations of the model's own type (bfloat16 and float16 on tensor cores), float32 in the
// solver, cuBLAS and cuSOLVER wherever they do the work, kernels of our own for the rest. What each operation does is
// documented in src/backend/; the CPU's is what it is tested against.
//
// Everything runs on one stream, in order, and sums are taken in orders that depend on sizes alone: the same run twice
// gives the same bytes. Host data is passed in calls that return when it has been read.
#pragma once

#include <memory>

#include "backend/backend.hpp"
#include "backend/cuda/kept.hpp"
#include "backend/cuda/memory.hpp"
#include "backend/cuda/products.hpp"
#include "backend/cuda/small_uploads.hpp"
#include "backend/cuda/strips.hpp"
#include "backend/cuda/transfers.hpp"

namespace fairgptq {

class CudaBackend final : public Backend {
  public:
    /// How large matrices are cut; parameters for the tests' sake.
    struct Sizes {
        cuda::SplitSizes split = {};
        std::int64_t factor_panel = cuda::factor_panel;
        std::int64_t shared_least = cuda::shared_least;
        cuda::StripSizes inverse = {};
    };
    /// @throws InvalidInput if there is no such GPU
    CudaBackend(int device, DType activation_type) : CudaBackend(device, activation_type, Sizes()) {}
    CudaBackend(int device, DType activation_type, const Sizes& sizes);
    ~CudaBackend() override;
    std::string name() const override;
    std::string physical_device() const override;
    /// NVTX ranges of the domain "fairgptq", for Nsight Systems; null in a build without NVTX.
    std::unique_ptr<Timeline> make_timeline() override;
    cudaStream_t stream() const { return memory_.stream(); }
    int device() const { return memory_.device(); }
    DType activation_type() const override { return activation_type_; }

    Buffer allocate(std::size_t bytes) override { return memory_.allocate(bytes); }
    void copy_to_device(void* device, const void* host, std::size_t bytes) override {
        memory_.copy_to_device(device, host, bytes);
    }
    void copy_to_host(void* host, const void* device, std::size_t bytes) override {
        memory_.copy_to_host(host, device, bytes);
    }
    void copy_on_device(void* to, const void* from, std::size_t bytes) override {
        memory_.copy_on_device(to, from, bytes);
    }
    void zero(void* device, std::size_t bytes) override { memory_.zero(device, bytes); }
    bool host_accessible() const override { return false; }
    void synchronize() override { memory_.synchronize(); }
    std::optional<std::size_t> available() const override { return memory_.available(); }
    std::optional<std::size_t> taken() const override { return memory_.taken(); }
    std::unique_ptr<Transfers> make_transfers() override { return std::make_unique<cuda::StreamTransfers>(memory_); }
    void upload(TensorView to, const void* host, DType type) override { memory_.upload(to, host, type); }

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

  private:
    struct Solver;  // cuSOLVER's handle and parameters

    /// A matrix that cuSOLVER takes as a whole; failed[0] is its word on it.
    void factor_lower(MatrixView<float> matrix, int* failed);
    /// Takes from columns `begin` to `end`, below row `begin`, what the columns before them account for.
    void update_panel(MatrixView<float> matrix, std::int64_t begin, std::int64_t end, Peers& peers);

    /// Copies host values into scratch memory on the device, and does not wait for it.
    template <class T>
    const T* on_device(std::span<const T> values, cuda::Scratch& scratch) {
        T* place = scratch.get<T>(std::ssize(values));
        uploads_.copy(place, values.data(), values.size_bytes());
        return place;
    }

    cuda::Memory memory_;
    DType activation_type_;
    std::int64_t factor_panel_, shared_least_;
    cuda::StripSizes inverse_;
    cuda::Products products_;
    std::unique_ptr<Solver> solver_;
    // Kept from call to call. One operation at a time uses them: they are the stream's.
    cuda::Scratch first_{memory_}, second_{memory_}, indices_{memory_}, flags_{memory_};
    cuda::SmallUploads uploads_{memory_};
    cuda::Kept positions_{memory_, uploads_}, frequencies_{memory_, uploads_};  // rotary's
};

}  // namespace fairgptq
