// A layer's weights on the device, read ahead by a thread while the layer before computes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"
#include "support/checksum.hpp"

namespace fairgptq {

/// What one linear holds on the device: weight [rows, cols] in the backend's activation type, bias float32 or null.
struct LinearWeights {
    TensorView weight;
    const float* bias = nullptr;
};

/// A rank's part in reading weights: ranks may each read some of the tensors, whole ones dealt out by their size, and
/// send them to each other. Views of the others' tensors are there, and their contents are not, until they are sent.
struct ReadShare {
    int rank = 0;
    int ranks = 1;
};

/// One decoder layer on the device. Owns its memory, or gives it back to the LayerPrefetcher that it came from.
struct LayerWeights {
    std::int64_t layer = -1;
    std::map<std::string, LinearWeights> linears;  // by LinearSpec::name
    struct Norm {
        const float* weight = nullptr;
        const float* bias = nullptr;
    };
    TensorView router;                   // [experts, hidden]; empty where there is one MLP
    TensorView shared_gate;              // [1, hidden]; empty where the shared expert counts whole
    const float* router_bias = nullptr;  // [experts]
    /// Of linear attention, without the linears of its stages.
    struct Delta {
        TensorView beta, decay_gate;   // [value heads, hidden]; or one of both: [2 · value heads, hidden]
        const float* decay = nullptr;  // [value heads]
        const float* step = nullptr;
        const float* norm = nullptr;  // [value_dim]
    } delta;
    const float* convolution = nullptr;  // of a layer without attention: [ModelConfig::convolved_cols(), width]
    Norm input_norm, mlp_norm, attention_output_norm, mlp_output_norm, query_norm, key_norm;
    TensorHashes hashes;  // of the tensors that were read
    std::vector<Buffer> memory;
    std::vector<std::size_t> parts;  // bytes of memory.front(), from its start, that each rank reads, in rank order
};

/// Embedding, positions, final norm, head. Owns its memory. lm_head.data == embedding.data where tied.
struct OuterWeights {
    TensorView embedding;  // [vocab, hidden]
    TensorView positions;  // empty where the family has none
    LayerWeights::Norm final_norm;
    TensorView lm_head;   // [vocab, hidden]
    TensorHashes hashes;  // of the tensors that were read
    std::vector<Buffer> memory;
    std::vector<std::size_t> parts;  // as a layer's
};

/// How many tensors are read at once, at most, beside a GPU: so many of them are in the host's memory.
constexpr int tensors_at_once = 4;

/// @throws InvalidInput naming a missing tensor, one of the wrong shape, or one that holds NaN or infinity
LayerWeights read_layer(Backend& backend, const Family& family, const Checkpoint& checkpoint, std::int64_t layer);
OuterWeights read_outer(Backend& backend, const Family& family, const Checkpoint& checkpoint, ReadShare share = {});
/// Checks names, shapes and element types of every tensor that the family wants, without reading any: before work
/// begins.
void check_tensors(const Family& family, const Checkpoint& checkpoint);

/// Bytes on the device of one layer, the largest, and of the outer weights: for `plan`.
std::size_t layer_bytes(const Family& family, DType activation_type);
std::size_t outer_bytes(const Family& family, DType activation_type);

/// Hash of a model's config.json as it stands in the file.
std::string config_hash(const std::filesystem::path& model_dir);

/// Chooses linears by layer and LinearSpec::name.
using LinearChoice = std::function<bool(std::int64_t layer, const std::string& linear)>;

/// What sees weights after they are read, before they are used. It may refuse them, and may change a layer's: a run's
/// quantized modules in place of the originals. Each may be empty.
struct WeightsOverride {
    std::function<void(LayerWeights&)> layer = {};
    std::function<void(const OuterWeights&)> outer = {};
    LinearChoice replaces = {};  // whose weights `layer` writes: they need not be read
};

/// Where a layer waits while the one before it is used.
enum class ReadAhead : std::uint8_t {
    to_device,  // so two layers are on the device at once, never three
    to_host,    // read from disk, checked and hashed, in the host's page cache: one layer on the device, uploaded when
                // asked for
    to_keep,    // to the device, each layer in memory of its own that it owns
};

/// Hands out layers first, first + 1, …, end − 1 in order; a thread reads the next one while the caller works with this
/// one, and copies it to the device beside what the device computes. A failure in the thread is thrown by next(), every
/// time. What the constructor is given must outlive the object. Weights of linears that are `unread` have their place,
/// and neither contents nor hash.
///
/// But for ReadAhead::to_keep, all device memory is allocated by the constructor, and a layer's is used again for
/// another one when the LayerWeights go: what the device was asked to do with them must be done by then, and they must
/// not outlive the object. With ReadAhead::to_host that is before next(); with to_device the caller may hold one while
/// it asks for the next.
class LayerPrefetcher {
  public:
    LayerPrefetcher(Backend& backend, const Family& family, const Checkpoint& checkpoint, std::int64_t first,
                    std::int64_t end, ReadAhead ahead = ReadAhead::to_device, ReadShare share = {},
                    LinearChoice unread = {});
    ~LayerPrefetcher();
    LayerWeights next();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace fairgptq
