// Memory for the CPU backend's large buffers. Touching fresh 4 KiB pages for the first time costs as much as the
// arithmetic on a layer's matrices; Linux maps 2 MiB at a time where it is asked to.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace fairgptq {

/// Uninitialised, aligned to at least 64 bytes, to be freed with std::free; null if there is not enough.
inline void* allocate_pages(std::size_t bytes) {
    constexpr std::size_t cache_line = 64;
    constexpr std::size_t huge_page = std::size_t{2} << 20U;
    const std::size_t alignment = bytes >= huge_page ? huge_page : cache_line;
    const std::size_t size = bytes == 0 ? alignment : (bytes + alignment - 1) / alignment * alignment;
    void* data = std::aligned_alloc(alignment, size);
    if (data != nullptr && alignment == huge_page) ::madvise(data, size, MADV_HUGEPAGE);  // a wish, not a need
    return data;
}

/// An uninitialised array for a kernel's scratch.
class ScratchFloats {
  public:
    ScratchFloats() = default;
    /// @throws std::bad_alloc
    explicit ScratchFloats(std::size_t size)
        : data_(static_cast<float*>(allocate_pages(size * sizeof(float)))), size_(size) {
        if (!data_) throw std::bad_alloc();
    }
    float* data() const { return data_.get(); }
    std::size_t size() const { return size_; }

  private:
    struct Free {
        void operator()(float* data) const { std::free(data); }
    };
    std::unique_ptr<float, Free> data_;
    std::size_t size_ = 0;
};

}  // namespace fairgptq
