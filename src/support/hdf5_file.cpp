// Opening files that others may have damaged, and writing files that are whole or not there.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <future>

#include "support/checksum.hpp"
#include "support/error.hpp"
#include "support/files.hpp"
#include "support/hdf5.hpp"

namespace fairgptq::h5 {
namespace {

constexpr hsize_t user_block = 512;
constexpr const char* seal_magic = "fairgptq-sealed";
constexpr std::size_t image_growth = 4096;

// HDF5 prints a stack of its own for every failure; ours say what matters in one sentence.
void silence() {
    thread_local const bool done = [] {  // HDF5 has a stack of errors for each thread
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
        return true;
    }();
    (void)done;
}

/// The user block of a file whose contents after it are these.
std::string seal_block(std::uint64_t bytes, std::uint64_t checksum) {
    std::string block = fmt::format("{} {} {:016x}\n", seal_magic, bytes, checksum);
    block.resize(user_block, '\0');
    return block;
}

// A new file's image, in pages straight from the kernel, huge ones where it has them: HDF5 asks for 4 KiB more at a
// time, and malloc would hand out what must be touched page by page. How much there is stands before the image.
constexpr std::size_t image_head = 4096;

std::size_t& capacity_of(void* image) {
    return *reinterpret_cast<std::size_t*>(static_cast<std::byte*>(image) - image_head);
}

void* image_of(void* mapped, std::size_t bytes) {
    if (mapped == MAP_FAILED) return nullptr;
    ::madvise(mapped, bytes, MADV_HUGEPAGE);  // a wish, not a need
    void* image = static_cast<std::byte*>(mapped) + image_head;
    capacity_of(image) = bytes - image_head;
    return image;
}

void* grow_image(void* image, std::size_t size, H5FD_file_image_op_t, void*) {
    constexpr std::size_t step = std::size_t{2} << 20U;
    const std::size_t before = image == nullptr ? 0 : capacity_of(image);
    if (size <= before) return image;
    const std::size_t bytes = (std::max(size, before + before / 2) + image_head + step - 1) / step * step;
    if (image == nullptr)
        return image_of(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes);
    return image_of(::mremap(static_cast<std::byte*>(image) - image_head, before + image_head, bytes, MREMAP_MAYMOVE),
                    bytes);
}

void* allocate_image(std::size_t size, H5FD_file_image_op_t operation, void* data) {
    return grow_image(nullptr, size, operation, data);
}

herr_t free_image(void* image, H5FD_file_image_op_t, void*) {
    if (image != nullptr) ::munmap(static_cast<std::byte*>(image) - image_head, capacity_of(image) + image_head);
    return 0;
}

H5FD_file_image_callbacks_t image_memory = {allocate_image, nullptr, grow_image, free_image, nullptr, nullptr, nullptr};

}  // namespace

/// Reads everything below a group, as readers do, whatever it is.
void File::visit(const Group& group, int depth) {
    // Sentences about what is wrong are the readers' to write: here it only matters that HDF5 comes back.
    const auto attempt = [](const auto& work) {
        try {
            work();
        } catch (const std::exception&) {
            return;
        }
    };
    attempt([&] {
        for (const std::string& name : group.attribute_names()) {
            attempt([&] { group.text(name); });
            attempt([&] { group.number(name); });
        }
    });
    attempt([&] {
        for (const std::string& name : group.names()) {
            attempt([&] { group.read<std::int32_t>(name); });
            attempt([&] { group.read<float>(name); });
            attempt([&] { group.read_strings(name); });
            attempt([&] {
                if (depth > 0 && !group.is_dataset(name)) visit(group.group(name), depth - 1);
            });
        }
    });
}

/// A hostile file can make HDF5 crash or never come back, before any check of ours: so a child process reads all of it
/// first, and what happens there does not happen here. Sealed files need none of it: this project wrote them.
bool File::survives_reading(const std::filesystem::path& path, std::uint64_t bytes) {
    constexpr int deepest = 8;  // groups; links may go in circles
    const pid_t child = ::fork();
    if (child < 0) throw Failure("{} cannot be checked: {}", path.string(), std::strerror(errno));
    if (child == 0) {
        // Die at once and silently: no core, no backtrace, no handler of MPI's.
        for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT})
            ::signal(signal, SIG_DFL);
        const rlimit no_core{0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
        const rlim_t seconds = 2 + bytes / (20U << 20U);  // whole files take a fraction of it
        const rlimit processor_time{seconds, seconds};
        ::setrlimit(RLIMIT_CPU, &processor_time);
        const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (nowhere >= 0) ::dup2(nowhere, STDERR_FILENO);
        try {
            const File file = open_unchecked(path);
            visit(file.root(), deepest);
        } catch (const std::exception&) {
            // The parent will meet the same.
        }
        ::_exit(0);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0)
        if (errno != EINTR) throw Failure("{} cannot be checked: {}", path.string(), std::strerror(errno));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

File File::open(const std::filesystem::path& path, Seal seal) {
    silence();
    const std::string name = path.string();
    {
        const FileDescriptor file(::open(name.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        if (file.get() < 0) throw InvalidInput("{} cannot be opened: {}", name, std::strerror(errno));
        struct stat info {};
        if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) throw InvalidInput("{} is not a file", name);
        std::string head(user_block, '\0');
        const bool whole_head = ::pread(file.get(), head.data(), head.size(), 0) == static_cast<ssize_t>(head.size());
        if (whole_head && (seal == Seal::required || head.starts_with(seal_magic))) {
            const auto bytes = static_cast<std::uint64_t>(info.st_size) - user_block;
            if (head != seal_block(bytes, checksum_of_file(file.get(), user_block, bytes, name)))
                throw InvalidInput("{} is damaged: its contents do not match its checksum", name);
        } else if (seal == Seal::required) {
            throw InvalidInput("{} is damaged: it is only {} bytes long", name, info.st_size);
        } else if (!survives_reading(path, static_cast<std::uint64_t>(info.st_size))) {
            throw InvalidInput("{} is damaged: the HDF5 library cannot read it to its end", name);
        }
    }
    return open_unchecked(path);
}

File File::open_unchecked(const std::filesystem::path& path) {
    silence();
    const std::string name = path.string();
    const Handle access(H5Pcreate(H5P_FILE_ACCESS));
    H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
    Handle file(H5Fopen(name.c_str(), H5F_ACC_RDONLY, access.get()));
    if (file.get() < 0)
        throw InvalidInput("{} is not a whole HDF5 file (truncated, damaged, or of another kind)", name);
    Handle root(H5Gopen2(file.get(), "/", H5P_DEFAULT));
    if (root.get() < 0) throw InvalidInput("{} is damaged: its root group cannot be read", name);
    return {std::move(file), Group(std::move(root), name), path};
}

struct File::Output {
    explicit Output(const std::filesystem::path& path)
        : temporary(temporary_name(path)), file(create_file(temporary)), guard(temporary) {}
    std::filesystem::path temporary;
    FileDescriptor file;
    RemovedOnFailure guard;
};

File::File(Handle handle, Group root, std::filesystem::path path)
    : handle_(std::move(handle)), root_(std::move(root)), path_(std::move(path)) {}
File::File(File&&) noexcept = default;
File::~File() = default;

File File::create(const std::filesystem::path& path) {
    silence();
    const std::string name = path.string();
    auto output = std::make_unique<Output>(path);
    const Handle creation(H5Pcreate(H5P_FILE_CREATE));
    H5Pset_userblock(creation.get(), user_block);
    H5Pset_obj_track_times(creation.get(), 0);
    const Handle access(H5Pcreate(H5P_FILE_ACCESS));
    H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
    H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_LATEST);
    H5Pset_fapl_core(access.get(), image_growth, 0);
    H5Pset_file_image_callbacks(access.get(), &image_memory);
    // HDF5 would first read a file that has this name already, whole; the temporary one is empty.
    Handle file(H5Fcreate(output->temporary.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()));
    if (file.get() < 0) throw Failure("{} cannot be created: HDF5 refused it", name);
    Handle root(H5Gopen2(file.get(), "/", H5P_DEFAULT));
    File result(std::move(file), Group(std::move(root), name), path);
    result.output_ = std::move(output);
    return result;
}

void File::seal() {
    const std::string name = path_.string();
    hsize_t size = 0;  // what HDF5 uses, filled up with zeros to the image's next step
    void* handle = nullptr;
    if (H5Fflush(handle_.get(), H5F_SCOPE_GLOBAL) < 0 || H5Fget_filesize(handle_.get(), &size) < 0 ||
        H5Fget_vfd_handle(handle_.get(), H5P_DEFAULT, &handle) < 0 || size < user_block)
        throw Failure("{} could not be written: HDF5 could not finish it", name);
    // The core driver's handle is the address of its pointer to the file's image.
    const std::string_view image(*static_cast<const char**>(handle), static_cast<std::size_t>(size));
    const std::string_view contents = image.substr(user_block);
    auto checksum = std::async([&] { return checksum_of(std::as_bytes(std::span(contents))); });
    write_all_at(output_->file, contents, user_block, path_);
    write_all_at(output_->file, seal_block(contents.size(), checksum.get()), 0, path_);
    flush_to_disk(output_->file, path_);
    rename_into_place(output_->temporary, path_);
    output_->guard.keep();
    root_.handle_.reset();
    handle_.reset();
}

}  // namespace fairgptq::h5
