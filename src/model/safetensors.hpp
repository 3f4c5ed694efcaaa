// Safetensors files, single or sharded, memory-mapped: a tensor's bytes are read when they are used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/views.hpp"

namespace fairgptq {

struct HostTensor {
    std::string name;
    std::string dtype_name;  // as stored: "BF16", "F16", "F32", "I32", …
    std::vector<std::int64_t> shape;
    std::span<const std::byte> bytes;  // valid as long as the Checkpoint lives
    std::string file;                  // path, for messages
    /// Of a matrix of 8-bit floats: the factors of its blocks of 128 × 128 elements (`name`_scale_inv), as
    /// DeepSeek-V3's files have them (arXiv 2412.19437, section 3.3).
    const HostTensor* scales = nullptr;

    /// Of what values() gives: that of the file, or bfloat16 of 8-bit floats. @throws InvalidInput naming file and
    /// tensor unless float32, float16, bfloat16, or 8-bit floats (E4M3) with factors of these types
    DType dtype() const;
    /// The file's bytes; of 8-bit floats their products with the factors, rounded to bfloat16, for which there has to
    /// be `room`.
    std::span<const std::byte> values(std::vector<std::byte>& room) const;
    /// Whether a value is NaN or infinite.
    /// @param part of `bytes`
    bool any_not_finite(std::span<const std::byte> part) const;
    /// @throws InvalidInput naming the file and what holds NaN or infinity, or makes it
    void require_finite() const;
    /// Of a tensor with factors, as require_finite, of these alone.
    void require_finite_scales() const;
    /// Of all bytes that the values depend on (XXH3, 128 bits, hex).
    std::string hash() const;
};

/// All tensors of a model folder (model.safetensors, or model.safetensors.index.json and its shards). Where files hold
/// all experts of a layer in one tensor (`experts.gate_up_proj` [experts, 2 · width, hidden], `experts.down_proj`
/// [experts, hidden, width], as transformers 5 has them in memory), each expert's linears are tensors here, by the
/// names that transformers saves them under (`experts.0.gate_proj.weight`), and the one is not.
class Checkpoint {
  public:
    /// @throws InvalidInput: missing or truncated file, header that is not JSON or too long, offsets that overlap,
    /// overflow or leave the file, a size that does not match shape and dtype, an index that names a missing shard or
    /// tensor
    explicit Checkpoint(const std::filesystem::path& model_dir);
    /// Without any tensor: of a model whose config.json is all that is there.
    Checkpoint();
    /// Whether the folder has weights, whole or not.
    static bool is_in(const std::filesystem::path& model_dir);
    ~Checkpoint();
    Checkpoint(Checkpoint&&) noexcept;
    Checkpoint& operator=(Checkpoint&&) noexcept;

    bool has(const std::string& name) const;
    const HostTensor& tensor(const std::string& name) const;  // @throws InvalidInput naming the missing tensor
    /// The tensor, checked to have this shape. @throws InvalidInput naming tensor, its shape and the expected one
    const HostTensor& tensor(const std::string& name, std::span<const std::int64_t> shape) const;
    /// Of all tensors but factors of others.
    std::vector<std::string> names() const;
    /// Files with their sizes and a hash (XXH3, 128 bits, hex) of their safetensors headers: for a run's fingerprint.
    struct FileInfo {
        std::string name;
        std::uint64_t bytes;
        std::string header_hash;
    };
    const std::vector<FileInfo>& files() const;
    /// Tells the kernel that a tensor's pages will be wanted soon.
    void will_need(const std::string& name) const;
    /// Tells the kernel that a tensor has been used: its pages leave this process (reading it again brings them back),
    /// so that a model read layer by layer never counts as memory in whole.
    void done_with(const std::string& name) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace fairgptq
