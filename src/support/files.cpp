#include "support/files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "support/error.hpp"

namespace fairgptq {

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
        if (descriptor_ >= 0) ::close(descriptor_);
        descriptor_ = other.release();
    }
    return *this;
}

FileDescriptor::~FileDescriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

int FileDescriptor::release() {
    return std::exchange(descriptor_, -1);
}

void make_folder(const std::filesystem::path& path) {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) throw InvalidInput("the folder {} cannot be made: {}", path.string(), error.message());
    if (!std::filesystem::is_directory(path)) throw InvalidInput("{} is not a folder", path.string());
}

FileDescriptor create_file(const std::filesystem::path& path) {
    FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file.get() < 0) throw Failure("{} cannot be created: {}", path.string(), std::strerror(errno));
    return file;
}

void write_all(const FileDescriptor& file, std::string_view bytes, const std::filesystem::path& path) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) throw Failure("{} could not be written: {}", path.string(), std::strerror(errno));
        bytes.remove_prefix(static_cast<std::size_t>(written));
    }
}

void write_all_at(const FileDescriptor& file, std::string_view bytes, std::uint64_t offset,
                  const std::filesystem::path& path) {
    if (::lseek(file.get(), static_cast<off_t>(offset), SEEK_SET) < 0)
        throw Failure("{} could not be written: {}", path.string(), std::strerror(errno));
    write_all(file, bytes, path);
}

void flush_to_disk(const FileDescriptor& file, const std::filesystem::path& path) {
    if (::fsync(file.get()) != 0) throw Failure("{} could not be written: {}", path.string(), std::strerror(errno));
}

void flush_folder(const std::filesystem::path& folder) {
    const FileDescriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (file.get() < 0) throw Failure("the folder {} cannot be opened: {}", folder.string(), std::strerror(errno));
    // Some network file systems cannot flush a folder and say EINVAL; their renames are durable without it.
    if (::fsync(file.get()) != 0 && errno != EINVAL)
        throw Failure("the folder {} could not be flushed: {}", folder.string(), std::strerror(errno));
}

std::filesystem::path temporary_name(const std::filesystem::path& path) {
    std::filesystem::path name = path;
    name += ".partial";
    return name;
}

void rename_into_place(const std::filesystem::path& temporary, const std::filesystem::path& path) {
    std::error_code error;
    const auto bears = std::filesystem::status(path, error).type();
    using Type = std::filesystem::file_type;
    // A rename would put an ordinary file in the place of /dev/null.
    if (bears == Type::character || bears == Type::block || bears == Type::fifo || bears == Type::socket)
        throw InvalidInput("{} is a device, not a file that can be written whole", path.string());
    if (::rename(temporary.c_str(), path.c_str()) != 0)
        throw Failure("{} cannot be renamed to {}: {}", temporary.string(), path.string(), std::strerror(errno));
    flush_folder(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

RemovedOnFailure::~RemovedOnFailure() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
    const std::filesystem::path temporary = temporary_name(path);
    RemovedOnFailure guard(temporary);
    {
        const FileDescriptor file = create_file(temporary);
        write_all(file, text, path);
        flush_to_disk(file, path);
    }
    rename_into_place(temporary, path);
    guard.keep();
}

}  // namespace fairgptq
