// A GPU's memory, and the stream that everything asked of it runs on, in order.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>

#include "backend/cuda/portable.hpp"
#include "backend/memory.hpp"

namespace fairgptq::cuda {

/// A stream with one owner.
class Stream {
  public:
    Stream();
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    cudaStream_t get() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

/// A stream's memory: what is freed stays with it and is given again without asking the driver, and a buffer keeps both
/// until it goes. Where a GPU has no such pools, the driver is asked each time; a word says so.
class Pool {
  public:
    explicit Pool(int device);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    cudaStream_t stream() const { return stream_.get(); }
    /// Usable from anywhere at once. @returns null if there is not enough
    void* allocate(std::size_t bytes);
    /// Once what the stream was asked to do with it before is done.
    void release(void* data);
    /// Bytes that it keeps and nobody uses.
    std::size_t unused() const;

  private:
    Stream stream_;
    cudaMemPool_t pool_ = nullptr;  // none: cudaMalloc and cudaFree
};

/// A view as kernels take it.
template <class T>
Plain<T> plain(MatrixView<T> view) {
    return {view.data, view.rows, view.cols, view.stride};
}
template <class T>
Plain<const T> plain_const(MatrixView<T> view) {
    return {view.data, view.rows, view.cols, view.stride};
}

/// Memory of one GPU. Copies from and to host memory have finished when they return, as the interface's callers expect;
/// what stays on the device is only ordered (synchronize() waits for it). May be used by several threads at once: a
/// run's weights are read ahead by a thread of their own. A buffer may be used on another stream as soon as it is
/// there; before it goes, its owner waits for that stream.
class Memory {
  public:
    /// @throws Failure if there is no such GPU
    explicit Memory(int device);

    Buffer allocate(std::size_t bytes);
    /// Host memory that is page-locked, or where this host locks none, which a word says once, as it is: copies of it
    /// are right, but slower, and the host waits for them.
    Buffer allocate_host(std::size_t bytes);
    void copy_to_device(void* device, const void* host, std::size_t bytes);
    void copy_to_host(void* host, const void* device, std::size_t bytes);
    void copy_on_device(void* to, const void* from, std::size_t bytes);
    void zero(void* device, std::size_t bytes);
    void synchronize();
    void upload(TensorView to, const void* host, DType type);
    /// Bytes that can still be allocated: free ones of the GPU, and those that were freed here.
    std::size_t available() const;
    /// Bytes of the GPU that are not free. The pool gives nothing back, so it is also the most that it has been.
    std::size_t taken() const;

    cudaStream_t stream() const { return pool_->stream(); }
    int device() const { return device_; }
    /// Makes this GPU the calling thread's.
    void use() const;

  private:
    int device_;
    std::shared_ptr<Pool> pool_;
    std::once_flag not_locked_;
    std::mutex staging_mutex_;
    Buffer staging_;  // some rows of an upload as the host stores them
};

/// Device memory that is kept from call to call and grows to the largest that was asked for.
class Scratch {
  public:
    explicit Scratch(Memory& memory) : memory_(memory) {}
    template <class T>
    T* get(std::int64_t count) {
        const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
        if (bytes > buffer_.bytes() || buffer_.data() == nullptr) {
            buffer_ = Buffer();  // before more is taken
            buffer_ = memory_.allocate(bytes);
        }
        return buffer_.as<T>();
    }
    template <class T>
    MatrixView<T> matrix(std::int64_t rows, std::int64_t cols) {
        return {get<T>(rows * cols), rows, cols};
    }

  private:
    Memory& memory_;
    Buffer buffer_;
};

}  // namespace fairgptq::cuda
