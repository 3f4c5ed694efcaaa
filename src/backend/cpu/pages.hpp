// Memory for the CPU backend's large buffers, straight from the kernel: what is freed is gone from the process at once,
// so that a run's peak is what `plan` adds up (malloc keeps freed megabytes, aligned ones above all). Touching fresh 4
// KiB pages for the first time costs as much as the arithmetic on a layer's matrices; Linux maps 2 MiB at a time where
// it is asked to.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace fairgptq {

constexpr std::size_t huge_page = std::size_t{2} << 20U;

/// Whether so many bytes come from the kernel: what small kernels take as scratch does not, since touching it anew at
/// every call would cost them half their time. Under the address sanitizer none do: it watches what malloc gives.
constexpr bool maps_pages([[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    return false;
#else
    return bytes >= 2 * huge_page;
#endif
}

/// Uninitialised, aligned to at least 64 bytes, to be given back with release_pages; null if there is not enough.
inline void* allocate_pages(std::size_t bytes) {
    if (!maps_pages(bytes)) {
        constexpr std::size_t cache_line = 64;
        return std::aligned_alloc(cache_line,
                                  bytes == 0 ? cache_line : (bytes + cache_line - 1) / cache_line * cache_line);
    }
    // Mapped with room to begin at a multiple of 2 MiB; what lies before and after is given back.
    const std::size_t size = (bytes + huge_page - 1) / huge_page * huge_page;
    void* mapped = ::mmap(nullptr, size + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    auto* begin = static_cast<std::byte*>(mapped);
    const std::size_t before = (huge_page - reinterpret_cast<std::uintptr_t>(mapped) % huge_page) % huge_page;
    if (before > 0) ::munmap(begin, before);
    if (before < huge_page) ::munmap(begin + before + size, huge_page - before);
    ::madvise(begin + before, size, MADV_HUGEPAGE);  // a wish, not a need
    return begin + before;
}

/// @param bytes as they were asked for
inline void release_pages(void* data, std::size_t bytes) {
    if (data == nullptr) return;
    if (maps_pages(bytes))
        ::munmap(data, (bytes + huge_page - 1) / huge_page * huge_page);
    else
        std::free(data);
}

/// An uninitialised array for a kernel's scratch.
class ScratchFloats {
  public:
    ScratchFloats() = default;
    /// @throws std::bad_alloc
    explicit ScratchFloats(std::size_t size)
        : data_(static_cast<float*>(allocate_pages(size * sizeof(float))), Free{size * sizeof(float)}), size_(size) {
        if (!data_) throw std::bad_alloc();
    }
    float* data() const { return data_.get(); }
    std::size_t size() const { return size_; }

  private:
    struct Free {
        std::size_t bytes;
        void operator()(float* data) const { release_pages(data, bytes); }
    };
    std::unique_ptr<float, Free> data_{nullptr, Free{0}};
    std::size_t size_ = 0;
};

}  // namespace fairgptq
