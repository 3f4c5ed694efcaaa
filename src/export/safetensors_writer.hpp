// Writes safetensors files, sharded as Hugging Face does, without holding a model in memory: what will be written is
// declared first, so that headers and places are known, and then filled in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "support/files.hpp"

namespace fairgptq {

struct TensorPlan {
    std::string name;
    std::string dtype;  // as safetensors names it: "F16", "I32", …
    std::vector<std::int64_t> shape;
    std::uint64_t bytes() const;
};

class SafetensorsWriter {
  public:
    /// Deals tensors to shards in this order (a tensor larger than a shard gets its own) and writes every shard's
    /// header. Within a shard, tensors with larger elements come first, so that every tensor is aligned to its
    /// element's size.
    /// @throws Failure naming file and reason
    SafetensorsWriter(std::filesystem::path folder, const std::vector<TensorPlan>& tensors,
                      std::uint64_t max_shard_bytes);

    /// @throws Failure naming the tensor if it was not declared, was written already or has another size; or file and
    /// reason
    void write(const std::string& name, std::span<const std::byte> bytes);

    /// Flushes every shard to the disk and, where there are several, writes the index.
    /// @throws Failure naming a tensor that was never written; or file and reason
    void finish();

  private:
    struct Shard {
        std::filesystem::path path;
        FileDescriptor file;
    };
    struct Place {
        std::size_t shard;
        std::uint64_t offset;  // in the file
        std::uint64_t bytes;
        bool written = false;
    };
    void open_shard(std::size_t index, std::size_t count, std::vector<TensorPlan> tensors);

    std::filesystem::path folder_;
    std::vector<Shard> shards_;
    std::map<std::string, Place> places_;
};

}  // namespace fairgptq
