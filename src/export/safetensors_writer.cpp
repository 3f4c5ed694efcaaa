#include "export/safetensors_writer.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

constexpr std::array<std::pair<std::string_view, std::uint64_t>, 14> element_sizes{{{"F64", 8},
                                                                                    {"I64", 8},
                                                                                    {"U64", 8},
                                                                                    {"F32", 4},
                                                                                    {"I32", 4},
                                                                                    {"U32", 4},
                                                                                    {"F16", 2},
                                                                                    {"BF16", 2},
                                                                                    {"I16", 2},
                                                                                    {"U16", 2},
                                                                                    {"I8", 1},
                                                                                    {"U8", 1},
                                                                                    {"BOOL", 1},
                                                                                    {"F8_E4M3", 1}}};

std::uint64_t element_size(const TensorPlan& tensor) {
    for (const auto& [name, size] : element_sizes)
        if (tensor.dtype == name) return size;
    throw InvalidInput("the tensor {} has the type {}, which cannot be exported", tensor.name, tensor.dtype);
}

/// Greedy, in order, as Hugging Face's own tools deal them.
std::vector<std::vector<TensorPlan>> deal_to_shards(const std::vector<TensorPlan>& tensors, std::uint64_t max_bytes) {
    std::vector<std::vector<TensorPlan>> shards(1);
    std::uint64_t filled = 0;
    for (const TensorPlan& tensor : tensors) {
        if (!shards.back().empty() && filled + tensor.bytes() > max_bytes) {
            shards.emplace_back();
            filled = 0;
        }
        shards.back().push_back(tensor);
        filled += tensor.bytes();
    }
    return shards;
}

}  // namespace

std::uint64_t TensorPlan::bytes() const {
    std::uint64_t total = element_size(*this);
    for (const std::int64_t extent : shape)
        total *= static_cast<std::uint64_t>(extent);
    return total;
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path folder, const std::vector<TensorPlan>& tensors,
                                     std::uint64_t max_shard_bytes)
    : folder_(std::move(folder)) {
    std::vector<std::vector<TensorPlan>> shards = deal_to_shards(tensors, max_shard_bytes);
    for (std::size_t index = 0; index < shards.size(); ++index)
        open_shard(index, shards.size(), std::move(shards[index]));
}

void SafetensorsWriter::open_shard(std::size_t index, std::size_t count, std::vector<TensorPlan> tensors) {
    const std::string name =
        count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
    shards_.push_back({folder_ / name, create_file(folder_ / name)});
    std::stable_sort(tensors.begin(), tensors.end(),
                     [](const TensorPlan& a, const TensorPlan& b) { return element_size(a) > element_size(b); });
    nlohmann::ordered_json header{{"__metadata__", {{"format", "pt"}}}};
    std::uint64_t end = 0;
    for (const TensorPlan& tensor : tensors) {
        const std::uint64_t begin = end;
        end += tensor.bytes();
        header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    }
    std::string text = json_text(header);
    text.resize((text.size() + 7) / 8 * 8, ' ');
    std::string length(8, '\0');
    for (std::size_t byte = 0; byte < 8; ++byte)
        length[byte] = static_cast<char>(text.size() >> (8 * byte));
    write_all(shards_.back().file, length + text, shards_.back().path);
    std::uint64_t offset = 8 + text.size();
    for (const TensorPlan& tensor : tensors) {
        const Place place{index, offset, tensor.bytes()};
        if (!places_.emplace(tensor.name, place).second) throw Failure("the tensor {} is exported twice", tensor.name);
        offset += tensor.bytes();
    }
}

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
    const auto found = places_.find(name);
    if (found == places_.end()) throw Failure("the tensor {} was not announced for export", name);
    Place& place = found->second;
    if (place.written) throw Failure("the tensor {} is exported twice", name);
    if (bytes.size() != place.bytes)
        throw Failure("the tensor {} has {} bytes where {} were announced", name, bytes.size(), place.bytes);
    const Shard& shard = shards_[place.shard];
    write_all_at(shard.file, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, place.offset, shard.path);
    place.written = true;
}

void SafetensorsWriter::finish() {
    std::uint64_t total = 0;
    nlohmann::json weight_map = nlohmann::json::object();
    for (const auto& [name, place] : places_) {
        if (!place.written) throw Failure("the tensor {} was never written", name);
        weight_map[name] = shards_[place.shard].path.filename().string();
        total += place.bytes;
    }
    for (const Shard& shard : shards_)
        flush_to_disk(shard.file, shard.path);
    if (shards_.size() > 1) {
        const nlohmann::ordered_json index{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
        write_file_atomically(folder_ / "model.safetensors.index.json", json_text(index, 2) + "\n");
    }
}

}  // namespace fairgptq
