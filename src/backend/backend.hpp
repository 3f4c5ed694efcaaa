// A device that can do every operation of a run. One header per operation declares and documents it; cpu/ and cuda/
// hold one file of the same name each.
#pragma once

#include <memory>
#include <string>

#include "backend/activation.hpp"
#include "backend/attention.hpp"
#include "backend/cholesky.hpp"
#include "backend/columns.hpp"
#include "backend/dequantize.hpp"
#include "backend/embedding.hpp"
#include "backend/gram.hpp"
#include "backend/linear.hpp"
#include "backend/matrix.hpp"
#include "backend/memory.hpp"
#include "backend/norm.hpp"
#include "backend/pair_differences.hpp"
#include "backend/rotary.hpp"
#include "backend/score.hpp"

namespace fairgptq {

class Backend : public MemoryOperations,
                public GramOperations,
                public PairDifferenceOperations,
                public LinearOperations,
                public NormOperations,
                public RotaryOperations,
                public AttentionOperations,
                public ActivationOperations,
                public EmbeddingOperations,
                public ScoreOperations,
                public DequantizeOperations,
                public CholeskyOperations,
                public MatrixOperations,
                public ColumnOperations {
  public:
    ~Backend() override = default;
    virtual std::string name() const = 0;
    /// Element type of activations and of the weights that forward products use.
    virtual DType activation_type() const = 0;
};

/// @param device "auto", "cpu" or "cuda"; auto takes a GPU where this build and this machine have one
/// @param model_type the model's own element type (config.json): a GPU computes with it, so that nothing of a weight is
/// lost; the CPU with float32
/// @throws InvalidInput if the device is not there
std::unique_ptr<Backend> make_backend(const std::string& device, DType model_type = DType::bfloat16);

}  // namespace fairgptq
