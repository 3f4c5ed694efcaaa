// A device that can do every operation of a run. One header per operation declares and documents it; cpu/ and cuda/
// hold one file of the same name each.
#pragma once

#include <memory>
#include <string>

#include "backend/activation.hpp"
#include "backend/attention.hpp"
#include "backend/cholesky.hpp"
#include "backend/columns.hpp"
#include "backend/convolution.hpp"
#include "backend/delta_rule.hpp"
#include "backend/dequantize.hpp"
#include "backend/embedding.hpp"
#include "backend/gram.hpp"
#include "backend/linear.hpp"
#include "backend/matrix.hpp"
#include "backend/memory.hpp"
#include "backend/norm.hpp"
#include "backend/pair_differences.hpp"
#include "backend/rotary.hpp"
#include "backend/scale.hpp"
#include "backend/scatter.hpp"
#include "backend/score.hpp"
#include "backend/soft_cap.hpp"
#include "support/timeline.hpp"

namespace fairgptq {

class Backend : public MemoryOperations,
                public GramOperations,
                public PairDifferenceOperations,
                public LinearOperations,
                public NormOperations,
                public RotaryOperations,
                public AttentionOperations,
                public ConvolutionOperations,
                public DeltaRuleOperations,
                public ActivationOperations,
                public ScaleOperations,
                public SoftCapOperations,
                public EmbeddingOperations,
                public ScatterOperations,
                public ScoreOperations,
                public DequantizeOperations,
                public CholeskyOperations,
                public MatrixOperations,
                public ColumnOperations {
  public:
    ~Backend() override = default;
    virtual std::string name() const = 0;
    /// The GPU's address in its host, however this process numbers it; empty for the CPU.
    virtual std::string physical_device() const { return {}; }
    /// Ranges in the device's own profiler; null where there is none.
    virtual std::unique_ptr<Timeline> make_timeline() { return nullptr; }
    /// Element type of activations and of the weights that forward products use.
    virtual DType activation_type() const = 0;
};

/// @param device     "auto", "cpu" or "cuda"; auto takes a GPU where this build and this machine have one
/// @param local_rank which of the host's GPUs to take, where the launcher does not tell (support/launcher.hpp); ranks
///                   beyond their number begin again at the first
/// @param model_type the model's own element type (config.json): a GPU computes with it, so that nothing of a weight is
///                   lost; the CPU with float32
/// @throws InvalidInput if the device is not there
std::unique_ptr<Backend> make_backend(const std::string& device, int local_rank = 0,
                                      DType model_type = DType::bfloat16);

bool built_with_cuda();

/// Whether this build can use GPUs and this machine has one.
bool gpu_is_here();

}  // namespace fairgptq
