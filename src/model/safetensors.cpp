// A file is: 8 bytes of header length (little endian), a JSON header {NAME: {dtype, shape, data_offsets [begin, end)},
// …,
// "__metadata__": …}, then the tensors' bytes, without gaps. Source: the format's description at
// github.com/huggingface/safetensors.
#include "model/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "support/checksum.hpp"
#include "support/error.hpp"
#include "support/half.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

constexpr std::uint64_t largest_header = 100'000'000;  // the format's own limit

/// A file's pages, read only. Move only.
class Mapping {
  public:
    explicit Mapping(const std::string& file) {
        const int descriptor = ::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (descriptor < 0) throw InvalidInput("{} cannot be opened: {}", file, std::strerror(errno));
        struct stat info {};
        const bool regular = ::fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode);
        if (regular && info.st_size > 0) {
            bytes_ = static_cast<std::size_t>(info.st_size);
            void* pages = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0);
            if (pages != MAP_FAILED) data_ = static_cast<const std::byte*>(pages);
        }
        const int problem = errno;
        ::close(descriptor);
        if (!regular) throw InvalidInput("{} is not a file", file);
        if (bytes_ > 0 && data_ == nullptr) throw InvalidInput("{} cannot be mapped: {}", file, std::strerror(problem));
    }
    Mapping(Mapping&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    Mapping& operator=(Mapping&&) = delete;
    ~Mapping() {
        if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), bytes_);  // NOLINT: munmap's signature
    }
    std::span<const std::byte> bytes() const { return {data_, bytes_}; }

  private:
    const std::byte* data_ = nullptr;
    std::size_t bytes_ = 0;
};

/// Bytes of one element, or 0 for a type that the format does not have.
std::uint64_t element_bytes(const std::string& dtype) {
    static const std::map<std::string, std::uint64_t> known{
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
        {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
        {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8},     {"C64", 8}};
    const auto found = known.find(dtype);
    return found == known.end() ? 0 : found->second;
}

std::string shape_text(std::span<const std::int64_t> shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// A list of whole numbers that fit 63 bits.
std::vector<std::int64_t> read_numbers(const nlohmann::json& entry, const char* field, const std::string& where) {
    const auto list = entry.find(field);
    if (list == entry.end() || !list->is_array()) throw InvalidInput("{} has no list '{}'", where, field);
    std::vector<std::int64_t> numbers;
    for (const nlohmann::json& value : *list) {
        if (!value.is_number_unsigned() ||
            value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
            throw InvalidInput("{} has {} in '{}', where a whole number of at most 63 bits is expected", where,
                               json_text(value), field);
        numbers.push_back(static_cast<std::int64_t>(value.get<std::uint64_t>()));
    }
    return numbers;
}

/// Whether a value has all these bits set. A loop without branches, so that it runs at memory's speed.
template <class Bits>
bool has_ones(std::span<const std::byte> bytes, Bits ones) {
    unsigned found = 0;
    for (std::size_t i = 0; i < bytes.size(); i += sizeof(Bits)) {
        Bits value = 0;
        std::memcpy(&value, bytes.data() + i, sizeof(Bits));
        found |= static_cast<unsigned>((value & ones) == ones);
    }
    return found != 0;
}

constexpr std::size_t scale_block = 128;
constexpr const char* scales_suffix = "_scale_inv";

std::int64_t blocks_of(std::int64_t extent) {
    constexpr auto block = static_cast<std::int64_t>(scale_block);
    return extent / block + (extent % block != 0 ? 1 : 0);
}

HostTensor read_entry(const std::string& name, const nlohmann::json& entry, std::span<const std::byte> data,
                      const std::string& file) {
    const std::string where = fmt::format("{}: the header's entry of tensor '{}'", file, name);
    if (!entry.is_object()) throw InvalidInput("{} is not a JSON object", where);
    HostTensor tensor{.name = name, .dtype_name = {}, .shape = {}, .bytes = {}, .file = file};
    const auto dtype = entry.find("dtype");
    if (dtype == entry.end() || !dtype->is_string()) throw InvalidInput("{} has no dtype", where);
    tensor.dtype_name = dtype->get<std::string>();
    std::uint64_t size = element_bytes(tensor.dtype_name);
    if (size == 0) throw InvalidInput("{} has the unknown dtype '{}'", where, tensor.dtype_name);
    tensor.shape = read_numbers(entry, "shape", where);
    for (const std::int64_t extent : tensor.shape)
        if (__builtin_mul_overflow(size, static_cast<std::uint64_t>(extent), &size))
            throw InvalidInput("{} has the shape {}, whose size overflows", where, shape_text(tensor.shape));
    const std::vector<std::int64_t> offsets = read_numbers(entry, "data_offsets", where);
    if (offsets.size() != 2 || offsets[0] > offsets[1])
        throw InvalidInput("{} should have two data_offsets in rising order", where);
    const auto begin = static_cast<std::uint64_t>(offsets[0]);
    const auto end = static_cast<std::uint64_t>(offsets[1]);
    if (end > data.size())
        throw InvalidInput("{} ends at byte {} of the data, of which the file has {}: is it truncated?", where, end,
                           data.size());
    if (end - begin != size)
        throw InvalidInput("{} has {} bytes of data where its shape {} of {} takes {}", where, end - begin,
                           shape_text(tensor.shape), tensor.dtype_name, size);
    tensor.bytes = data.subspan(begin, end - begin);
    return tensor;
}

}  // namespace

DType HostTensor::dtype() const {
    if (dtype_name == "F32") return DType::float32;
    if (dtype_name == "F16") return DType::float16;
    if (dtype_name == "BF16") return DType::bfloat16;
    if (scales != nullptr) {
        (void)scales->dtype();
        return DType::bfloat16;
    }
    throw InvalidInput("{}: tensor '{}' is of type {}{} where F32, F16 or BF16 is expected", file, name, dtype_name,
                       dtype_name == "F8_E4M3" ? fmt::format(", without a factor for each {} × {} elements in '{}{}',",
                                                             scale_block, scale_block, name, scales_suffix)
                                               : "");
}

std::span<const std::byte> HostTensor::values(std::vector<std::byte>& room) const {
    if (scales == nullptr || bytes.empty()) return bytes;
    const auto rows = static_cast<std::size_t>(shape[0]);
    const auto cols = static_cast<std::size_t>(shape[1]);
    const auto blocks = static_cast<std::size_t>(scales->shape[1]);
    const std::vector<float> factors =
        to_floats(scales->bytes.data(), scales->dtype(), static_cast<std::size_t>(scales->shape[0]) * blocks);
    room.resize(2 * bytes.size());
#pragma omp parallel for schedule(static)
    for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t block = 0; block < blocks; ++block) {
            const float factor = factors[row / scale_block * blocks + block];
            const std::size_t first = row * cols + block * scale_block;
            const std::size_t count = std::min(scale_block, cols - block * scale_block);
            const std::byte* from = bytes.data() + first;
            std::byte* to = room.data() + 2 * first;
            for (std::size_t i = 0; i < count; ++i) {
                const BFloat16 value = to_bfloat16(to_float(Float8{static_cast<std::uint8_t>(from[i])}) * factor);
                std::memcpy(to + 2 * i, &value.bits, 2);
            }
        }
    return room;
}

bool HostTensor::any_not_finite(std::span<const std::byte> part) const {
    if (scales != nullptr) return has_ones(part, std::uint8_t{0x7fU});
    switch (dtype()) {
        case DType::float32:
            return has_ones(part, 0x7f800000U);
        case DType::float16:
            return has_ones(part, std::uint16_t{0x7c00U});
        default:
            return has_ones(part, std::uint16_t{0x7f80U});
    }
}

void HostTensor::require_finite() const {
    if (any_not_finite(bytes)) throw InvalidInput("{}: tensor '{}' holds NaN or infinity", file, name);
    require_finite_scales();
}

void HostTensor::require_finite_scales() const {
    if (scales == nullptr) return;
    const std::size_t count = scales->bytes.size() / size_of(scales->dtype());
    constexpr float largest = 448;
    for (const float factor : to_floats(scales->bytes.data(), scales->dtype(), count))
        if (!std::isfinite(to_float(to_bfloat16(factor * largest))))
            throw InvalidInput("{}: tensor '{}' holds NaN or infinity, or makes it of what it multiplies", scales->file,
                               scales->name);
}

std::string HostTensor::hash() const {
    Hasher hasher;
    hasher.add(bytes);
    if (scales != nullptr) hasher.add(scales->bytes);
    return hasher.hash();
}

struct Checkpoint::Impl {
    std::string folder;
    std::vector<Mapping> mappings;
    std::vector<FileInfo> files;
    std::map<std::string, HostTensor> tensors;

    void add_file(const std::filesystem::path& path);
    void add_shards(const std::filesystem::path& index);
    void find_scales();
    void part_experts();
    void advise(const std::string& name, int advice) const;
};

void Checkpoint::Impl::add_file(const std::filesystem::path& path) {
    const std::string file = path.string();
    const std::span<const std::byte> bytes = mappings.emplace_back(file).bytes();
    if (bytes.size() < 8) throw InvalidInput("{} is truncated: a safetensors file has at least 8 bytes", file);
    std::uint64_t header_bytes = 0;
    static_assert(std::endian::native == std::endian::little);
    std::memcpy(&header_bytes, bytes.data(), 8);
    if (header_bytes > largest_header)
        throw InvalidInput("{} claims a header of {} bytes; it is no safetensors file", file, header_bytes);
    if (header_bytes > bytes.size() - 8)
        throw InvalidInput("{} is truncated: its header of {} bytes is longer than the file", file, header_bytes);
    const std::span<const std::byte> header = bytes.subspan(8, header_bytes);
    const std::span<const std::byte> data = bytes.subspan(8 + header_bytes);
    const nlohmann::json entries = parse_json_object({reinterpret_cast<const char*>(header.data()), header.size()},
                                                     file + ": its header");  // NOLINT: bytes as text

    std::vector<HostTensor> found;
    for (const auto& [name, entry] : entries.items())
        if (name != "__metadata__") found.push_back(read_entry(name, entry, data, file));
    std::sort(found.begin(), found.end(), [](const HostTensor& a, const HostTensor& b) {
        return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
    });
    const std::byte* expected = data.data();
    for (HostTensor& tensor : found) {
        if (tensor.bytes.data() != expected)
            throw InvalidInput("{}: the data of tensor '{}' {} those of the tensor before it", file, tensor.name,
                               tensor.bytes.data() < expected ? "overlap" : "leave a gap after");
        expected += tensor.bytes.size();
        const auto [place, added] = tensors.try_emplace(tensor.name, tensor);
        if (!added) throw InvalidInput("tensor '{}' is both in {} and in {}", tensor.name, place->second.file, file);
    }
    if (expected != data.data() + data.size())
        throw InvalidInput("{} has {} bytes after its last tensor", file, data.data() + data.size() - expected);
    files.push_back({path.filename().string(), bytes.size(), hash_of(header)});
}

void Checkpoint::Impl::add_shards(const std::filesystem::path& index) {
    const std::string name = index.string();
    const nlohmann::json content = read_json_object(index, largest_header);
    const auto map = content.find("weight_map");
    if (map == content.end() || !map->is_object() || map->empty())
        throw InvalidInput("{} has no 'weight_map' of tensors and their files", name);
    std::map<std::string, std::string> shards;  // file name → path
    for (const auto& [tensor, shard] : map->items()) {
        const std::string file = shard.is_string() ? shard.get<std::string>() : "";
        if (file.empty() || file == "." || file == ".." ||
            file.find_first_of(std::string("/\\\0", 3)) != std::string::npos)
            throw InvalidInput("{}: the file {} of tensor '{}' is not the name of a file in the same folder", name,
                               json_text(shard), tensor);
        shards.emplace(file, (index.parent_path() / file).string());
    }
    for (const auto& [file, path] : shards) {
        std::error_code problem;
        if (!std::filesystem::exists(path, problem))
            throw InvalidInput("{} names the shard {}, which is missing", name, path);
        add_file(path);
    }
    for (const auto& [tensor, shard] : map->items()) {
        const auto found = tensors.find(tensor);
        if (found == tensors.end() || found->second.file != shards.at(shard.get<std::string>()))
            throw InvalidInput("{} has tensor '{}' in {}, where it is not", name, tensor, shard.get<std::string>());
    }
}

void Checkpoint::Impl::find_scales() {
    for (auto& [name, tensor] : tensors) {
        if (tensor.dtype_name != "F8_E4M3") continue;
        const auto found = tensors.find(name + scales_suffix);
        if (found == tensors.end()) continue;
        const std::vector<std::int64_t>& shape = tensor.shape;
        if (shape.size() == 2 && found->second.shape == std::vector{blocks_of(shape[0]), blocks_of(shape[1])})
            tensor.scales = &found->second;
    }
}

void Checkpoint::Impl::part_experts() {
    constexpr std::int64_t most_experts = 4096;  // believed, so that a header's numbers do not fill the memory
    constexpr std::string_view both = ".experts.gate_up_proj", down = ".experts.down_proj";
    struct Whole {
        std::string name, stem, suffix;
        std::vector<const char*> parts;
    };
    std::vector<Whole> all;
    for (const auto& [name, tensor] : tensors) {
        const bool factors = name.ends_with(scales_suffix);
        const std::string stem = name.substr(0, name.size() - (factors ? std::strlen(scales_suffix) : 0));
        const std::vector<std::int64_t>& shape = tensor.shape;
        const bool halves = stem.ends_with(both);
        // Blocks of factors must not have rows of both halves.
        const auto weights = factors ? tensors.find(stem) : tensors.end();
        constexpr auto block = static_cast<std::int64_t>(scale_block);
        const bool apart = !factors || !halves ||
                           (weights != tensors.end() && weights->second.shape.size() == 3 &&
                            weights->second.shape[1] % (2 * block) == 0);
        if (shape.size() == 3 && shape[0] <= most_experts && !tensor.bytes.empty() && apart &&
            (halves ? shape[1] % 2 == 0 : stem.ends_with(down)))
            all.push_back(
                {name, stem.substr(0, stem.rfind('.') + 1), factors ? scales_suffix : "",
                 halves ? std::vector<const char*>{"gate_proj", "up_proj"} : std::vector<const char*>{"down_proj"}});
    }
    for (const Whole& whole : all) {
        const HostTensor tensor = tensors.at(whole.name);
        const std::size_t bytes = tensor.bytes.size() / static_cast<std::size_t>(tensor.shape[0]) / whole.parts.size();
        std::size_t first = 0;
        for (std::int64_t expert = 0; expert < tensor.shape[0]; ++expert)
            for (const char* part : whole.parts) {
                HostTensor one = tensor;
                one.name = fmt::format("{}{}.{}.weight{}", whole.stem, expert, part, whole.suffix);
                one.shape = {tensor.shape[1] / std::ssize(whole.parts), tensor.shape[2]};
                one.bytes = tensor.bytes.subspan(first, bytes);
                first += bytes;
                if (!tensors.try_emplace(one.name, one).second)
                    throw InvalidInput("{} holds expert {} in '{}', and there is a tensor '{}' beside it", tensor.file,
                                       expert, whole.name, one.name);
            }
        tensors.erase(whole.name);
    }
}

void Checkpoint::Impl::advise(const std::string& name, int advice) const {
    const auto found = tensors.find(name);
    if (found == tensors.end() || found->second.bytes.empty()) return;
    // Whole pages: the neighbours on the first and last page are read again when they are used.
    static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin =
        reinterpret_cast<std::uintptr_t>(found->second.bytes.data()) / page * page;  // NOLINT: page address
    const auto end =
        reinterpret_cast<std::uintptr_t>(found->second.bytes.data()) + found->second.bytes.size();  // NOLINT
    // Of a longer range Linux reads ahead no more than its read-ahead window, which has this size unless it was
    // changed.
    constexpr std::uintptr_t window = std::uintptr_t{128} << 10U;
    const std::uintptr_t step = advice == MADV_WILLNEED ? window : end - begin;
    for (std::uintptr_t at = begin; at < end; at += step)
        ::madvise(reinterpret_cast<void*>(at), std::min(step, end - at), advice);  // NOLINT: advice may be ignored
}

Checkpoint::Checkpoint(const std::filesystem::path& model_dir) : impl_(std::make_unique<Impl>()) {
    impl_->folder = model_dir.string();
    std::error_code problem;
    const std::filesystem::path single = model_dir / "model.safetensors";
    const std::filesystem::path index = model_dir / "model.safetensors.index.json";
    if (std::filesystem::exists(single, problem))
        impl_->add_file(single);
    else if (std::filesystem::exists(index, problem))
        impl_->add_shards(index);
    else
        throw InvalidInput("{} has neither model.safetensors nor model.safetensors.index.json", impl_->folder);
    impl_->part_experts();
    impl_->find_scales();
}

Checkpoint::Checkpoint() : impl_(std::make_unique<Impl>()) {}

bool Checkpoint::is_in(const std::filesystem::path& model_dir) {
    std::error_code problem;
    return std::filesystem::exists(model_dir / "model.safetensors", problem) ||
           std::filesystem::exists(model_dir / "model.safetensors.index.json", problem);
}

Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

bool Checkpoint::has(const std::string& name) const {
    return impl_->tensors.contains(name);
}

const HostTensor& Checkpoint::tensor(const std::string& name) const {
    const auto found = impl_->tensors.find(name);
    if (found == impl_->tensors.end()) throw InvalidInput("{} has no tensor '{}'", impl_->folder, name);
    return found->second;
}

const HostTensor& Checkpoint::tensor(const std::string& name, std::span<const std::int64_t> shape) const {
    const HostTensor& found = tensor(name);
    if (!std::equal(found.shape.begin(), found.shape.end(), shape.begin(), shape.end()))
        throw InvalidInput("{}: tensor '{}' has the shape {} where config.json makes it {}", found.file, name,
                           shape_text(found.shape), shape_text(shape));
    return found;
}

std::vector<std::string> Checkpoint::names() const {
    std::vector<std::string> result;
    result.reserve(impl_->tensors.size());
    for (const auto& [name, tensor] : impl_->tensors) {
        const auto whose = name.ends_with(scales_suffix)
                               ? impl_->tensors.find(name.substr(0, name.size() - std::strlen(scales_suffix)))
                               : impl_->tensors.end();
        if (whose == impl_->tensors.end() || whose->second.scales != &tensor) result.push_back(name);
    }
    return result;
}

const std::vector<Checkpoint::FileInfo>& Checkpoint::files() const {
    return impl_->files;
}
void Checkpoint::will_need(const std::string& name) const {
    impl_->advise(name, MADV_WILLNEED);
}
void Checkpoint::done_with(const std::string& name) const {
    impl_->advise(name, MADV_DONTNEED);
}

}  // namespace fairgptq
