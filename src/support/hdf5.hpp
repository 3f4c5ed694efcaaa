// HDF5's C library behind RAII handles and typed reads and writes. Every failure names the file and the object.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fairgptq::h5 {

/// An open HDF5 identifier of any kind; closed when it goes. Move only.
class Handle {
  public:
    Handle() = default;
    explicit Handle(hid_t id) : id_(id) {}
    Handle(Handle&& other) noexcept : id_(other.id_) { other.id_ = -1; }
    Handle& operator=(Handle&& other) noexcept;
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { reset(); }
    hid_t get() const { return id_; }
    void reset();

  private:
    hid_t id_ = -1;
};

/// Native memory type of T: float, double, std::int32_t, std::int64_t, std::uint8_t.
template <class T>
hid_t native_type();

/// A group, or a file's root.
class Group {
  public:
    Group(Handle handle, std::string where) : handle_(std::move(handle)), where_(std::move(where)) {}

    bool has(const std::string& name) const;  // a group or dataset directly below; "a/b" works too
    std::vector<std::string> names() const;   // of what lies directly below, in name order
    bool is_dataset(const std::string& name) const;
    Group group(const std::string& name) const;
    Group create_group(const std::string& name) const;
    void remove(const std::string& name) const;  // unlinks a group or dataset

    std::vector<std::int64_t> shape(const std::string& name) const;
    std::size_t element_bytes(const std::string& name) const;  // as stored
    /// Reads a whole dataset, converted to T by HDF5; a shape not of `rank` dimensions is refused (rank < 0: any).
    /// @throws InvalidInput naming file and object if it is missing, of another kind, or larger than the file can hold
    template <class T>
    std::vector<T> read(const std::string& name, int rank = -1) const;
    std::vector<std::string> read_strings(const std::string& name) const;

    template <class T>
    void write(const std::string& name, std::span<const T> values, std::span<const std::int64_t> shape) const;
    template <class T>
    void write(const std::string& name, const std::vector<T>& values, std::vector<std::int64_t> shape) const {
        write<T>(name, std::span<const T>(values), std::span<const std::int64_t>(shape));
    }
    /// Float values stored as IEEE half (they are expected to be representable).
    void write_half(const std::string& name, std::span<const float> values, std::span<const std::int64_t> shape) const;
    void write_strings(const std::string& name, const std::vector<std::string>& values) const;

    std::vector<std::string> attribute_names() const;
    bool has_attribute(const std::string& name) const;
    double number(const std::string& name) const;  // attribute of any numeric type
    std::int64_t integer(const std::string& name) const;
    std::string text(const std::string& name) const;
    void set(const std::string& name, double value) const;
    void set(const std::string& name, std::int64_t value) const;
    void set(const std::string& name, bool value) const { set(name, static_cast<std::int64_t>(value)); }
    void set(const std::string& name, int value) const { set(name, static_cast<std::int64_t>(value)); }
    void set(const std::string& name, const std::string& value) const;
    void set(const std::string& name, const char* value) const { set(name, std::string(value)); }

    const std::string& where() const { return where_; }

  private:
    friend class File;
    std::string describe(const std::string& name) const;
    Handle open_dataset(const std::string& name) const;
    Handle handle_;
    std::string where_;  // "FILE" or "FILE:/group", for messages
};

enum class Seal : std::uint8_t { optional, required };

/// An HDF5 file. Objects carry no timestamps, so equal contents give equal bytes.
///
/// A new file is built in memory and reaches the disk in seal(): HDF5 puts writes off, and cannot be left alive (it
/// crashes on closing) once one of them fails on a full disk.
class File {
  public:
    /// A file without a seal is first read by a child process: one on which the HDF5 library crashes is refused, too.
    /// @throws InvalidInput if the file is missing, truncated, not HDF5, or does not match the checksum in its user
    /// block (`required`: or has none)
    static File open(const std::filesystem::path& path, Seal seal = Seal::optional);
    /// Opens a temporary file beside `path`, which goes again unless seal() is reached. @throws Failure naming file and
    /// reason
    static File create(const std::filesystem::path& path);
    File(File&&) noexcept;
    ~File();

    const Group& root() const { return root_; }
    /// Writes the file, with its size and XXH3 checksum in its user block (so that a later open can tell a whole file
    /// from a damaged one before HDF5 looks at it), flushes it to the disk, and gives it its name. Nothing can be added
    /// after.
    /// @throws Failure naming file and reason (full disk, …); what bore the name before is then still there
    void seal();

  private:
    struct Output;
    static File open_unchecked(const std::filesystem::path& path);
    static bool survives_reading(const std::filesystem::path& path, std::uint64_t bytes);
    static void visit(const Group& group, int depth);
    File(Handle handle, Group root, std::filesystem::path path);
    Handle handle_;
    Group root_;
    std::filesystem::path path_;
    std::unique_ptr<Output> output_;  // only while writing
};

}  // namespace fairgptq::h5
