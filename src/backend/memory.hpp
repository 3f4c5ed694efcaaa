// Memory of a device. Large buffers are allocated once, from the sizes that `plan` prints (architecture: "Memory is
// planned").
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "backend/transfers.hpp"
#include "support/views.hpp"

namespace fairgptq {

/// Device memory with one owner; freed when it goes. Move only.
class Buffer {
  public:
    Buffer() = default;
    Buffer(void* data, std::size_t bytes, std::function<void(void*)> release)
        : data_(data, std::move(release)), bytes_(bytes) {}

    void* data() const { return data_.get(); }
    std::size_t bytes() const { return bytes_; }
    template <class T>
    T* as() const {
        return static_cast<T*>(data_.get());
    }
    template <class T>
    MatrixView<T> matrix(std::int64_t rows, std::int64_t cols) const {
        if (static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * sizeof(T) > bytes_)
            throw Failure("a buffer of {} bytes is too small for {} x {} elements", bytes_, rows, cols);
        return {as<T>(), rows, cols};
    }
    TensorView tensor(DType type, std::int64_t rows, std::int64_t cols) const {
        if (static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * size_of(type) > bytes_)
            throw Failure("a buffer of {} bytes is too small for {} x {} elements", bytes_, rows, cols);
        return {data(), type, rows, cols};
    }

  private:
    std::unique_ptr<void, std::function<void(void*)>> data_{nullptr, [](void*) {}};
    std::size_t bytes_ = 0;
};

class MemoryOperations {
  public:
    virtual ~MemoryOperations() = default;

    /// Uninitialised memory, aligned to at least 64 bytes.
    /// @throws Failure that says how much was asked for when there is not enough
    virtual Buffer allocate(std::size_t bytes) = 0;
    virtual void copy_to_device(void* device, const void* host, std::size_t bytes) = 0;
    virtual void copy_to_host(void* host, const void* device, std::size_t bytes) = 0;
    virtual void copy_on_device(void* to, const void* from, std::size_t bytes) = 0;
    virtual void zero(void* device, std::size_t bytes) = 0;
    /// Whether the host may read and write this memory itself.
    virtual bool host_accessible() const = 0;
    /// Returns when everything asked of the device before is done.
    virtual void synchronize() = 0;
    /// Bytes that can still be allocated; nothing where that is the host's business.
    virtual std::optional<std::size_t> available() const { return std::nullopt; }
    /// Bytes of the device that are taken, by whomever and for whatever, with what was freed here and is kept; nothing
    /// where that is the host's business.
    virtual std::optional<std::size_t> taken() const { return std::nullopt; }
    /// Copies beside what the device computes. By default they are done when they are asked for.
    virtual std::unique_ptr<Transfers> make_transfers();

    /// Converts element type on the way: `host` has `type` elements, row after row without gaps; `to` is on the device.
    virtual void upload(TensorView to, const void* host, DType type) = 0;
};

}  // namespace fairgptq
