// Files that are either whole or not there: written under another name, flushed to the disk, then renamed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace fairgptq {

/// An open file descriptor; closed when it goes. Move only.
class FileDescriptor {
  public:
    FileDescriptor() = default;
    explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
    FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(other.release()) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept;
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    ~FileDescriptor();
    int get() const { return descriptor_; }
    int release();

  private:
    int descriptor_ = -1;
};

/// Makes a folder and those above it, where missing. @throws InvalidInput naming it and the reason
void make_folder(const std::filesystem::path& path);

/// Creates or truncates a file for writing. @throws Failure naming file and reason
FileDescriptor create_file(const std::filesystem::path& path);
/// Writes every byte. @throws Failure naming `path` and reason
void write_all(const FileDescriptor& file, std::string_view bytes, const std::filesystem::path& path);
/// The same from `offset`, whatever was written before.
void write_all_at(const FileDescriptor& file, std::string_view bytes, std::uint64_t offset,
                  const std::filesystem::path& path);
/// @throws Failure naming `path` and reason
void flush_to_disk(const FileDescriptor& file, const std::filesystem::path& path);
/// Flushes a folder's list of names. @throws Failure naming folder and reason
void flush_folder(const std::filesystem::path& folder);

/// The name under which `path` is written until it is whole, in the same folder.
std::filesystem::path temporary_name(const std::filesystem::path& path);
/// Gives a whole, flushed file (or folder) its final name, replacing what bore it. @throws InvalidInput if that is a
/// device; Failure naming both and the reason
void rename_into_place(const std::filesystem::path& temporary, const std::filesystem::path& path);

/// Removes a file or folder when it goes, unless `keep` was called: what an exception leaves half-written.
class RemovedOnFailure {
  public:
    explicit RemovedOnFailure(std::filesystem::path path) : path_(std::move(path)) {}
    RemovedOnFailure(const RemovedOnFailure&) = delete;
    RemovedOnFailure& operator=(const RemovedOnFailure&) = delete;
    ~RemovedOnFailure();
    void keep() { path_.clear(); }

  private:
    std::filesystem::path path_;
};

/// Writes a whole text file, or leaves what was there. @throws Failure naming file and reason
void write_file_atomically(const std::filesystem::path& path, std::string_view text);
}  // namespace fairgptq
