#include "support/hdf5.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "support/error.hpp"
#include "support/half.hpp"
#include "support/utf8.hpp"

namespace fairgptq::h5 {
namespace {

hid_t check_write(hid_t id, const std::string& what) {
    if (id < 0)
        throw Failure("{} could not be written: {}", what, errno != 0 ? std::strerror(errno) : "HDF5 refused it");
    return id;
}

}  // namespace

Handle& Handle::operator=(Handle&& other) noexcept {
    if (this != &other) {
        reset();
        id_ = other.id_;
        other.id_ = -1;
    }
    return *this;
}

void Handle::reset() {
    if (id_ < 0) return;
    switch (H5Iget_type(id_)) {
        case H5I_FILE:
            H5Fclose(id_);
            break;
        case H5I_GROUP:
            H5Gclose(id_);
            break;
        case H5I_DATASET:
            H5Dclose(id_);
            break;
        case H5I_DATATYPE:
            H5Tclose(id_);
            break;
        case H5I_DATASPACE:
            H5Sclose(id_);
            break;
        case H5I_ATTR:
            H5Aclose(id_);
            break;
        case H5I_GENPROP_LST:
            H5Pclose(id_);
            break;
        default:
            H5Oclose(id_);
            break;
    }
    id_ = -1;
}

template <>
hid_t native_type<float>() {
    return H5T_NATIVE_FLOAT;
}
template <>
hid_t native_type<double>() {
    return H5T_NATIVE_DOUBLE;
}
template <>
hid_t native_type<std::int32_t>() {
    return H5T_NATIVE_INT32;
}
template <>
hid_t native_type<std::int64_t>() {
    return H5T_NATIVE_INT64;
}
template <>
hid_t native_type<std::uint8_t>() {
    return H5T_NATIVE_UINT8;
}

std::string Group::describe(const std::string& name) const {
    return where_.find(':') == std::string::npos ? fmt::format("{}:/{}", where_, name)
                                                 : fmt::format("{}/{}", where_, name);
}

bool Group::has(const std::string& name) const {
    const auto step_exists = [&](const std::string& step) {
        if (H5Lexists(handle_.get(), step.c_str(), H5P_DEFAULT) <= 0) return false;
        H5L_info_t link{};
        if (H5Lget_info(handle_.get(), step.c_str(), &link, H5P_DEFAULT) < 0) return false;
        if (link.type != H5L_TYPE_HARD && link.type != H5L_TYPE_SOFT)
            throw InvalidInput("{} is a link to another file, which is not followed", describe(step));
        return true;
    };
    // H5Lexists wants every step of a path to exist.
    for (std::size_t slash = name.find('/'); slash != std::string::npos; slash = name.find('/', slash + 1))
        if (!step_exists(name.substr(0, slash))) return false;
    return step_exists(name) && H5Oexists_by_name(handle_.get(), name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Group::names() const {
    std::vector<std::string> result;
    const auto add = [](hid_t, const char* name, const H5L_info_t*, void* data) -> herr_t {
        static_cast<std::vector<std::string>*>(data)->emplace_back(name);
        return 0;
    };
    hsize_t index = 0;
    if (H5Literate(handle_.get(), H5_INDEX_NAME, H5_ITER_INC, &index, add, &result) < 0)
        throw InvalidInput("{} is damaged: its contents cannot be listed", where_);
    if (!std::all_of(result.begin(), result.end(), is_printable))
        throw InvalidInput("{} is damaged: it holds an object whose name is not printable text", where_);
    return result;
}

bool Group::is_dataset(const std::string& name) const {
    if (!has(name)) return false;
    const Handle object(H5Oopen(handle_.get(), name.c_str(), H5P_DEFAULT));
    return object.get() >= 0 && H5Iget_type(object.get()) == H5I_DATASET;
}

Group Group::group(const std::string& name) const {
    if (!has(name)) throw InvalidInput("{} is missing", describe(name));
    Handle handle(H5Gopen2(handle_.get(), name.c_str(), H5P_DEFAULT));
    if (handle.get() < 0) throw InvalidInput("{} is not a readable group", describe(name));
    return {std::move(handle), describe(name)};
}

Group Group::create_group(const std::string& name) const {
    const Handle properties(H5Pcreate(H5P_GROUP_CREATE));
    H5Pset_obj_track_times(properties.get(), 0);
    Handle handle(check_write(H5Gcreate2(handle_.get(), name.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
                              describe(name)));
    return {std::move(handle), describe(name)};
}

void Group::remove(const std::string& name) const {
    if (H5Ldelete(handle_.get(), name.c_str(), H5P_DEFAULT) < 0)
        throw Failure("{} could not be removed", describe(name));
}

Handle Group::open_dataset(const std::string& name) const {
    if (!has(name)) throw InvalidInput("{} is missing", describe(name));
    Handle handle(H5Dopen2(handle_.get(), name.c_str(), H5P_DEFAULT));
    if (handle.get() < 0) throw InvalidInput("{} is not a readable dataset", describe(name));
    return handle;
}

std::vector<std::int64_t> Group::shape(const std::string& name) const {
    const Handle dataset = open_dataset(name);
    const Handle space(H5Dget_space(dataset.get()));
    const int rank = H5Sget_simple_extent_ndims(space.get());
    if (rank < 0) throw InvalidInput("{} is damaged: it has no shape", describe(name));
    std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
    H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
    // A hostile shape must not make the product of its extents overflow, nor ask for more memory than any file here
    // holds.
    std::uint64_t total = 1;
    for (const hsize_t extent : extents)
        if (__builtin_mul_overflow(total, static_cast<std::uint64_t>(extent), &total) || total > (1ULL << 40U))
            throw InvalidInput("{} claims a shape too large to be true", describe(name));
    return {extents.begin(), extents.end()};
}

std::size_t Group::element_bytes(const std::string& name) const {
    const Handle dataset = open_dataset(name);
    const Handle type(H5Dget_type(dataset.get()));
    return H5Tget_size(type.get());
}

namespace {
/// Refuses a shape that the file does not hold, before memory is taken for it.
void check_stored(hid_t dataset, std::size_t count, const std::string& described) {
    const Handle properties(H5Dget_create_plist(dataset));
    const H5D_layout_t layout = H5Pget_layout(properties.get());
    if (layout == H5D_VIRTUAL || H5Pget_external_count(properties.get()) != 0)
        throw InvalidInput("{} has its data in another file, which is not followed", described);
    const Handle type(H5Dget_type(dataset));
    const Handle file(H5Iget_file_id(dataset));
    hsize_t file_bytes = 0;
    if (H5Fget_filesize(file.get(), &file_bytes) < 0) throw InvalidInput("{} cannot be read", described);
    // Deflate packs 1032 bytes into one at most; no other filter that numbers are stored with does better.
    constexpr std::uint64_t best_packing = 1032;
    const bool packed = layout == H5D_CHUNKED && H5Pget_nfilters(properties.get()) > 0;
    const std::uint64_t most_bytes = packed ? file_bytes * best_packing : static_cast<std::uint64_t>(file_bytes);
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(count, H5Tget_size(type.get()), &bytes) || bytes > most_bytes)
        throw InvalidInput("{} is truncated or damaged: its shape claims {} values, more than the file can hold",
                           described, count);
}

/// HDF5 has no predefined half type: IEEE binary16 is described field by field (as h5py does).
Handle half_type() {
    Handle half(H5Tcopy(H5T_IEEE_F32LE));
    H5Tset_fields(half.get(), 15, 10, 5, 0, 10);
    H5Tset_size(half.get(), 2);
    H5Tset_ebias(half.get(), 15);
    return half;
}
}  // namespace

template <class T>
std::vector<T> Group::read(const std::string& name, int rank) const {
    const std::vector<std::int64_t> extents = shape(name);
    if (rank >= 0 && static_cast<int>(extents.size()) != rank)
        throw InvalidInput("{} has {} dimensions where {} are expected", describe(name), extents.size(), rank);
    std::size_t count = 1;
    for (const std::int64_t extent : extents)
        count *= static_cast<std::size_t>(extent);
    const Handle dataset = open_dataset(name);
    const Handle type(H5Dget_type(dataset.get()));
    const H5T_class_t kind = H5Tget_class(type.get());
    if (kind != H5T_INTEGER && kind != H5T_FLOAT && kind != H5T_ENUM)
        throw InvalidInput("{} does not hold numbers", describe(name));
    if (!std::is_floating_point_v<T> && kind == H5T_FLOAT)
        throw InvalidInput("{} holds floating-point numbers where integers are expected", describe(name));
    check_stored(dataset.get(), count, describe(name));
    std::vector<T> values(count);
    if constexpr (std::is_same_v<T, float>) {
        const Handle half = half_type();
        if (count > 0 && H5Tequal(type.get(), half.get()) > 0) {  // HDF5 converts bit by bit, at 50 ns a number
            std::vector<Float16> halves(count);
            if (H5Dread(dataset.get(), half.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, halves.data()) < 0)
                throw InvalidInput("{} is damaged: its data cannot be read", describe(name));
            std::transform(halves.begin(), halves.end(), values.begin(), [](Float16 value) { return to_float(value); });
            return values;
        }
    }
    if (count > 0 && H5Dread(dataset.get(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
        throw InvalidInput("{} is damaged: its data cannot be read", describe(name));
    return values;
}

std::vector<std::string> Group::read_strings(const std::string& name) const {
    const std::vector<std::int64_t> extents = shape(name);
    if (extents.size() != 1) throw InvalidInput("{} is not a list of strings", describe(name));
    const auto count = static_cast<std::size_t>(extents[0]);
    const Handle dataset = open_dataset(name);
    const Handle type(H5Dget_type(dataset.get()));
    if (H5Tget_class(type.get()) != H5T_STRING) throw InvalidInput("{} is not a list of strings", describe(name));
    check_stored(dataset.get(), count, describe(name));
    std::vector<std::string> result;
    result.reserve(count);
    if (count == 0) return result;
    if (H5Tis_variable_str(type.get()) > 0) {
        const Handle memory(H5Tcopy(H5T_C_S1));
        H5Tset_size(memory.get(), H5T_VARIABLE);
        H5Tset_cset(memory.get(), H5Tget_cset(type.get()));
        std::vector<char*> pointers(count, nullptr);
        const Handle space(H5Dget_space(dataset.get()));
        if (H5Dread(dataset.get(), memory.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()) < 0)
            throw InvalidInput("{} is damaged: its strings cannot be read", describe(name));
        for (const char* pointer : pointers)
            result.emplace_back(pointer == nullptr ? "" : pointer);
        H5Dvlen_reclaim(memory.get(), space.get(), H5P_DEFAULT, pointers.data());
    } else {
        const std::size_t width = H5Tget_size(type.get());
        std::vector<char> bytes(count * width);
        if (H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) < 0)
            throw InvalidInput("{} is damaged: its strings cannot be read", describe(name));
        for (std::size_t i = 0; i < count; ++i)
            result.emplace_back(bytes.data() + i * width, ::strnlen(bytes.data() + i * width, width));
    }
    if (!std::all_of(result.begin(), result.end(), is_utf8))
        throw InvalidInput("{} holds a string that is not UTF-8", describe(name));
    return result;
}

namespace {
void write_dataset(hid_t parent, const std::string& name, const std::string& described, hid_t file_type,
                   hid_t memory_type, const void* data, std::size_t count, std::span<const std::int64_t> shape) {
    std::vector<hsize_t> extents(shape.begin(), shape.end());
    std::size_t total = 1;
    for (const hsize_t extent : extents)
        total *= extent;
    if (total != count) throw Failure("{}: {} values do not fill its shape", described, count);
    const Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr));
    const Handle properties(H5Pcreate(H5P_DATASET_CREATE));
    H5Pset_obj_track_times(properties.get(), 0);
    errno = 0;
    const Handle dataset(check_write(
        H5Dcreate2(parent, name.c_str(), file_type, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
        described));
    if (count > 0 && H5Dwrite(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        throw Failure("{} could not be written: {}", described, errno != 0 ? std::strerror(errno) : "HDF5 refused it");
}
}  // namespace

template <class T>
void Group::write(const std::string& name, std::span<const T> values, std::span<const std::int64_t> shape) const {
    write_dataset(handle_.get(), name, describe(name), native_type<T>(), native_type<T>(), values.data(), values.size(),
                  shape);
}

void Group::write_half(const std::string& name, std::span<const float> values,
                       std::span<const std::int64_t> shape) const {
    const Handle half = half_type();
    std::vector<std::uint16_t> bits(values.size());
    std::transform(values.begin(), values.end(), bits.begin(), [](float value) { return to_half(value).bits; });
    write_dataset(handle_.get(), name, describe(name), half.get(), half.get(), bits.data(), bits.size(), shape);
}

void Group::write_strings(const std::string& name, const std::vector<std::string>& values) const {
    const Handle type(H5Tcopy(H5T_C_S1));
    H5Tset_size(type.get(), H5T_VARIABLE);
    H5Tset_cset(type.get(), H5T_CSET_UTF8);
    std::vector<const char*> pointers;
    pointers.reserve(values.size());
    for (const std::string& value : values)
        pointers.push_back(value.c_str());
    const std::array<std::int64_t, 1> extents{static_cast<std::int64_t>(values.size())};
    write_dataset(handle_.get(), name, describe(name), type.get(), type.get(), pointers.data(), pointers.size(),
                  extents);
}

std::vector<std::string> Group::attribute_names() const {
    std::vector<std::string> result;
    const auto add = [](hid_t, const char* name, const H5A_info_t*, void* data) -> herr_t {
        static_cast<std::vector<std::string>*>(data)->emplace_back(name);
        return 0;
    };
    hsize_t index = 0;
    if (H5Aiterate2(handle_.get(), H5_INDEX_NAME, H5_ITER_INC, &index, add, &result) < 0)
        throw InvalidInput("{} is damaged: its attributes cannot be listed", where_);
    return result;
}

bool Group::has_attribute(const std::string& name) const {
    return H5Aexists(handle_.get(), name.c_str()) > 0;
}

namespace {
Handle open_attribute(hid_t parent, const std::string& name, const std::string& where) {
    if (H5Aexists(parent, name.c_str()) <= 0) throw InvalidInput("{} lacks the attribute '{}'", where, name);
    Handle attribute(H5Aopen(parent, name.c_str(), H5P_DEFAULT));
    if (attribute.get() < 0) throw InvalidInput("{}: the attribute '{}' cannot be read", where, name);
    return attribute;
}
void check_scalar(hid_t attribute, const std::string& name, const std::string& where) {
    const Handle space(H5Aget_space(attribute));
    if (H5Sget_simple_extent_npoints(space.get()) != 1)
        throw InvalidInput("{}: the attribute '{}' is not a single value", where, name);
}
}  // namespace

double Group::number(const std::string& name) const {
    const Handle attribute = open_attribute(handle_.get(), name, where_);
    check_scalar(attribute.get(), name, where_);
    const Handle type(H5Aget_type(attribute.get()));
    const H5T_class_t kind = H5Tget_class(type.get());
    if (kind == H5T_ENUM) {  // h5py stores booleans as an enum of bytes
        std::int8_t value = 0;
        if (H5Tget_size(type.get()) == 1 && H5Aread(attribute.get(), type.get(), &value) >= 0) return value;
        throw InvalidInput("{}: the attribute '{}' is not a number", where_, name);
    }
    double value = 0;
    if ((kind != H5T_INTEGER && kind != H5T_FLOAT) || H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) < 0)
        throw InvalidInput("{}: the attribute '{}' is not a number", where_, name);
    return value;
}

std::int64_t Group::integer(const std::string& name) const {
    const double value = number(name);
    if (!(value >= -9e15 && value <= 9e15) || value != static_cast<double>(static_cast<std::int64_t>(value)))
        throw InvalidInput("{}: the attribute '{}' is not a whole number", where_, name);
    return static_cast<std::int64_t>(value);
}

std::string Group::text(const std::string& name) const {
    const Handle attribute = open_attribute(handle_.get(), name, where_);
    check_scalar(attribute.get(), name, where_);
    const Handle type(H5Aget_type(attribute.get()));
    if (H5Tget_class(type.get()) != H5T_STRING) throw InvalidInput("{}: the attribute '{}' is not text", where_, name);
    constexpr std::size_t longest = 1U << 20U;
    const bool variable = H5Tis_variable_str(type.get()) > 0;
    std::string value;
    bool read = false;
    if (variable) {
        char* pointer = nullptr;
        const Handle memory(H5Tcopy(H5T_C_S1));
        H5Tset_size(memory.get(), H5T_VARIABLE);
        H5Tset_cset(memory.get(), H5Tget_cset(type.get()));
        read = H5Aread(attribute.get(), memory.get(), static_cast<void*>(&pointer)) >= 0;
        if (pointer != nullptr) value = pointer;
        H5free_memory(pointer);
    } else if (H5Tget_size(type.get()) <= longest) {
        value.resize(H5Tget_size(type.get()));
        read = H5Aread(attribute.get(), type.get(), value.data()) >= 0;
        value.resize(::strnlen(value.data(), value.size()));
    }
    if (!read) throw InvalidInput("{}: the attribute '{}' cannot be read", where_, name);
    if (!is_printable(value)) throw InvalidInput("{}: the attribute '{}' is not printable text", where_, name);
    return value;
}

namespace {
void write_attribute(hid_t parent, const std::string& name, const std::string& where, hid_t type, const void* data) {
    const Handle space(H5Screate(H5S_SCALAR));
    errno = 0;
    const Handle attribute(check_write(H5Acreate2(parent, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                                       fmt::format("{}: the attribute '{}'", where, name)));
    check_write(H5Awrite(attribute.get(), type, data), fmt::format("{}: the attribute '{}'", where, name));
}
}  // namespace

void Group::set(const std::string& name, double value) const {
    write_attribute(handle_.get(), name, where_, H5T_NATIVE_DOUBLE, &value);
}
void Group::set(const std::string& name, std::int64_t value) const {
    write_attribute(handle_.get(), name, where_, H5T_NATIVE_INT64, &value);
}
void Group::set(const std::string& name, const std::string& value) const {
    const Handle type(H5Tcopy(H5T_C_S1));
    H5Tset_size(type.get(), H5T_VARIABLE);
    H5Tset_cset(type.get(), H5T_CSET_UTF8);
    const char* pointer = value.c_str();
    write_attribute(handle_.get(), name, where_, type.get(), static_cast<const void*>(&pointer));
}

#define FAIRGPTQ_H5_TYPE(T)                                                \
    template std::vector<T> Group::read<T>(const std::string&, int) const; \
    template void Group::write<T>(const std::string&, std::span<const T>, std::span<const std::int64_t>) const;
FAIRGPTQ_H5_TYPE(float)
FAIRGPTQ_H5_TYPE(double)
FAIRGPTQ_H5_TYPE(std::int32_t)
FAIRGPTQ_H5_TYPE(std::int64_t)
FAIRGPTQ_H5_TYPE(std::uint8_t)
#undef FAIRGPTQ_H5_TYPE

}  // namespace fairgptq::h5
