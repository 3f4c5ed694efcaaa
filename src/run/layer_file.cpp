#include "run/layer_file.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "run/packed_codes.hpp"
#include "support/error.hpp"
#include "support/half.hpp"
#include "support/hdf5.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

constexpr std::string_view layer_format = "fairgptq-layer";
constexpr std::int64_t layer_version = 3;

/// What is wrong with a module's sizes, or nothing.
std::optional<std::string> wrong_sizes(const ModuleSolution& module) {
    constexpr std::int64_t largest = 1 << 24;
    if (module.bits != 2 && module.bits != 3 && module.bits != 4 && module.bits != 8)
        return fmt::format("{} bits a code, where 2, 3, 4 and 8 exist", module.bits);
    if (module.rows < 1 || module.cols < 1 || module.rows > largest || module.cols > largest)
        return fmt::format("{} rows and {} columns, where 1 to {} are possible", module.rows, module.cols, largest);
    if (module.group_size < 1 || module.cols % module.group_size != 0)
        return fmt::format("groups of {} columns, which do not divide its {} columns", module.group_size, module.cols);
    return {};
}

/// What is wrong with a module whose sizes are right, or nothing.
std::optional<std::string> wrong_contents(const ModuleSolution& module) {
    const auto count = [](std::int64_t a, std::int64_t b) {
        return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
    };
    if (module.groups != module.cols / module.group_size)
        return fmt::format("{} groups, where {} columns in groups of {} make {}", module.groups, module.cols,
                           module.group_size, module.cols / module.group_size);
    if (module.codes.size() != count(module.rows, module.cols)) return "codes that do not fill its rows and columns";
    if (module.scales.size() != count(module.rows, module.groups)) return "scales that do not fill its rows and groups";
    if (module.zeros.size() != module.scales.size()) return "zeros that do not fill its rows and groups";
    if (module.group_index.size() != static_cast<std::size_t>(module.cols))
        return "a group_index that does not fill its columns";
    if (!module.column_sensitivity.empty() && module.column_sensitivity.size() != static_cast<std::size_t>(module.cols))
        return "a column_sensitivity that does not fill its columns";
    const int codes_end = 1 << module.bits;
    std::uint8_t largest_code = 0;  // a branch a code would cost more than writing them
    for (const std::uint8_t code : module.codes)
        largest_code = std::max(largest_code, code);
    if (largest_code >= codes_end)
        return fmt::format("a code of {}, which {} bits do not hold", largest_code, module.bits);
    for (const std::uint8_t zero : module.zeros)
        if (zero >= codes_end || (module.symmetric && zero != codes_end / 2))
            return fmt::format("a zero of {}, where {}", zero,
                               module.symmetric ? fmt::format("a symmetric grid has {}", codes_end / 2)
                                                : fmt::format("0 to {} are possible", codes_end - 1));
    for (const float scale : module.scales)
        if (!std::isfinite(scale)) return "a scale that is not finite";
    for (const float value : module.column_sensitivity)
        if (!std::isfinite(value)) return "a column_sensitivity that is not finite";
    std::vector<std::int64_t> members(static_cast<std::size_t>(module.groups), 0);
    for (const std::int32_t group : module.group_index) {
        if (group < 0 || group >= module.groups)
            return fmt::format("a group_index of {}, where 0 to {} are possible", group, module.groups - 1);
        ++members[static_cast<std::size_t>(group)];
    }
    for (std::size_t group = 0; group < members.size(); ++group)
        if (members[group] != module.group_size)
            return fmt::format("{} columns in group {}, where each has {}", members[group], group, module.group_size);
    for (const auto& [name, member] : module_figures)
        if (!std::isfinite(module.*member)) return fmt::format("a value of {} that is not finite", name);
    return {};
}

/// A scale that float16 does not hold exactly would be read back as another than the codes were made for.
std::optional<std::string> wrong_precision(const ModuleSolution& module) {
    if (module.scales_float32) return {};
    for (const float scale : module.scales)
        if (to_float(to_half(scale)) != scale) return fmt::format("a scale of {}, which float16 does not hold", scale);
    return {};
}

/// Room for the packed codes of every module of a layer, once for all: touching fresh memory costs as much as packing.
class PackedCodes {
  public:
    explicit PackedCodes(const LayerRecord& record) {
        std::size_t most = 0;
        for (const ModuleSolution& module : record.modules)
            most = std::max(most, size_of(module));
        room_ = std::make_unique_for_overwrite<std::uint8_t[]>(most);
    }
    /// Until the next module's.
    std::span<const std::uint8_t> of(const ModuleSolution& module) {
        const std::span<std::uint8_t> packed(room_.get(), size_of(module));
        pack_codes(module.codes, module.rows, module.cols, module.bits, packed);
        return packed;
    }

  private:
    static std::size_t size_of(const ModuleSolution& module) {
        return static_cast<std::size_t>(module.rows * packed_bytes(module.cols, module.bits));
    }
    std::unique_ptr<std::uint8_t[]> room_;
};

/// Parts of layer_hash and source_hash.
void add_origins(Hasher& hasher, const LayerRecord& record) {
    hasher.add(std::as_bytes(std::span(record.made_after)));
    const std::string source_tensors = json_text(nlohmann::json(record.source_tensors));
    hasher.add(std::as_bytes(std::span(source_tensors)));
}
void add_module(Hasher& hasher, const ModuleSolution& module, std::span<const std::uint8_t> packed) {
    hasher.add(std::as_bytes(std::span(module.name)));
    hasher.add(std::as_bytes(packed));
    hasher.add(std::as_bytes(std::span(module.scales)));
    hasher.add(std::as_bytes(std::span(module.zeros)));
    hasher.add(std::as_bytes(std::span(module.group_index)));
}

void write_module(const h5::Group& parent, const ModuleSolution& module, std::span<const std::uint8_t> packed) {
    const h5::Group group = parent.create_group(module.name);
    group.set("rows", module.rows);
    group.set("cols", module.cols);
    group.set("bits", module.bits);
    group.set("group_size", module.group_size);
    group.set("sym", module.symmetric);
    for (const auto& [name, member] : module_figures)
        group.set(name, module.*member);
    const std::array<std::int64_t, 2> packed_shape{module.rows, packed_bytes(module.cols, module.bits)};
    group.write<std::uint8_t>("codes", packed, packed_shape);
    const std::array<std::int64_t, 2> per_group{module.rows, module.groups};
    if (module.scales_float32)
        group.write<float>("scales", module.scales, per_group);
    else
        group.write_half("scales", module.scales, per_group);
    group.write<std::uint8_t>("zeros", module.zeros, per_group);
    group.write<std::int32_t>("group_index", module.group_index, {module.cols});
    if (!module.column_sensitivity.empty())
        group.write<float>("column_sensitivity", module.column_sensitivity, {module.cols});
}

/// A dataset of a shape that the attributes fix.
template <class T>
std::vector<T> read_exactly(const h5::Group& group, const std::string& name, const std::vector<std::int64_t>& shape) {
    const std::vector<std::int64_t> found = group.shape(name);
    if (found != shape)
        throw InvalidInput("{}/{} has the shape [{}] where its attributes ask for [{}]", group.where(), name,
                           fmt::join(found, ", "), fmt::join(shape, ", "));
    return group.read<T>(name);
}

ModuleSolution read_module(const h5::Group& parent, const std::string& name) {
    const h5::Group group = parent.group(name);
    ModuleSolution module;
    module.name = name;
    module.rows = group.integer("rows");
    module.cols = group.integer("cols");
    module.bits = static_cast<int>(std::clamp<std::int64_t>(group.integer("bits"), 0, 99));
    module.group_size = group.integer("group_size");
    module.symmetric = group.integer("sym") != 0;
    if (const auto wrong = wrong_sizes(module)) throw InvalidInput("{} is damaged: it has {}", group.where(), *wrong);
    module.groups = module.cols / module.group_size;
    for (const auto& [attribute, member] : module_figures)
        module.*member = group.number(attribute);

    const std::vector<std::int64_t> per_group{module.rows, module.groups};
    const std::int64_t row_bytes = packed_bytes(module.cols, module.bits);
    const auto packed = read_exactly<std::uint8_t>(group, "codes", {module.rows, row_bytes});
    module.codes.resize(static_cast<std::size_t>(module.rows * module.cols));
    unpack_codes(packed, module.rows, module.cols, module.bits, module.codes);
    module.scales = read_exactly<float>(group, "scales", per_group);
    module.scales_float32 = group.element_bytes("scales") > 2;
    module.zeros = read_exactly<std::uint8_t>(group, "zeros", per_group);
    module.group_index = read_exactly<std::int32_t>(group, "group_index", {module.cols});
    if (group.has("column_sensitivity"))
        module.column_sensitivity = read_exactly<float>(group, "column_sensitivity", {module.cols});
    if (const auto wrong = wrong_contents(module))
        throw InvalidInput("{} is damaged: it has {}", group.where(), *wrong);
    return module;
}

/// Names in the order of computation; HDF5 itself lists them by name.
std::vector<std::string> module_names(const h5::Group& root) {
    const nlohmann::json names = parse_json(root.text("modules"));
    if (!names.is_array() ||
        !std::all_of(names.begin(), names.end(), [](const auto& name) { return name.is_string(); }))
        throw InvalidInput("{} is damaged: the attribute 'modules' is not a list of names", root.where());
    auto listed = names.get<std::vector<std::string>>();
    const std::vector<std::string> present = root.names();
    if (std::set(listed.begin(), listed.end()) != std::set(present.begin(), present.end()) ||
        listed.size() != present.size())
        throw InvalidInput("{} is damaged: its groups are not the modules that it lists", root.where());
    return listed;
}

TensorHashes read_source_tensors(const h5::Group& root) {
    const nlohmann::json hashes = parse_json(root.text("source_tensors"));
    if (!hashes.is_object() ||
        !std::all_of(hashes.begin(), hashes.end(), [](const auto& hash) { return hash.is_string(); }))
        throw InvalidInput("{} is damaged: the attribute 'source_tensors' is not an object of hashes", root.where());
    return hashes.get<TensorHashes>();
}

LayerRecord read_header(const h5::Group& root) {
    if (root.text("format") != layer_format) throw InvalidInput("{} is not a layer of a run", root.where());
    if (const std::int64_t version = root.integer("version"); version != layer_version)
        throw InvalidInput("{} has the format version {} where this program reads {}", root.where(), version,
                           layer_version);
    LayerRecord record;
    record.layer = root.integer("layer");
    record.fingerprint = root.text("fingerprint");
    record.source_tensors = read_source_tensors(root);
    record.made_after = root.text("made_after");
    record.hash = root.text("hash");
    return record;
}

}  // namespace

std::string layer_hash(const LayerRecord& record) {
    Hasher hasher;
    add_origins(hasher, record);
    PackedCodes packed(record);
    for (const ModuleSolution& module : record.modules)
        add_module(hasher, module, packed.of(module));
    return hasher.hash();
}

std::string source_hash(const LayerRecord& record) {
    Hasher hasher;
    add_origins(hasher, record);
    return hasher.hash();
}

std::string write_layer(const std::filesystem::path& file, const LayerRecord& record) {
    nlohmann::json names = nlohmann::json::array();
    for (const ModuleSolution& module : record.modules) {
        auto wrong = wrong_sizes(module);
        if (!wrong) wrong = wrong_contents(module);
        if (!wrong) wrong = wrong_precision(module);
        if (wrong)
            throw Failure("{} is not written: {} of layer {} has {}", file.string(), module.name, record.layer, *wrong);
        names.push_back(module.name);
    }
    h5::File out = h5::File::create(file);
    out.root().set("format", std::string(layer_format));
    out.root().set("version", layer_version);
    out.root().set("layer", record.layer);
    out.root().set("fingerprint", record.fingerprint);
    out.root().set("modules", json_text(names));
    out.root().set("source_tensors", json_text(nlohmann::json(record.source_tensors)));
    out.root().set("made_after", record.made_after);
    Hasher hasher;
    add_origins(hasher, record);
    PackedCodes packed(record);
    for (const ModuleSolution& module : record.modules) {
        const std::span<const std::uint8_t> codes = packed.of(module);
        write_module(out.root(), module, codes);
        if (record.hash.empty()) add_module(hasher, module, codes);
    }
    const std::string hash = record.hash.empty() ? hasher.hash() : record.hash;
    out.root().set("hash", hash);
    out.seal();
    return hash;
}

LayerRecord read_layer_header(const std::filesystem::path& file) {
    return read_header(h5::File::open(file, h5::Seal::required).root());
}

LayerRecord read_layer_file(const std::filesystem::path& file) {
    const h5::File in = h5::File::open(file, h5::Seal::required);
    LayerRecord record = read_header(in.root());
    for (const std::string& name : module_names(in.root()))
        record.modules.push_back(read_module(in.root(), name));
    return record;
}

}  // namespace fairgptq
