// A GPU's memory, and the stream that everything asked of it runs on, in order.
#pragma once

#include <cuda_runtime_api.h>

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

/// Memory operations of one GPU. Copies from and to host memory have finished when they return, as the interface's
/// callers expect; what stays on the device is only ordered (synchronize() waits for it).
class Memory : public virtual MemoryOperations {
  public:
    /// @throws Failure if there is no such GPU
    explicit Memory(int device);

    Buffer allocate(std::size_t bytes) override;
    void copy_to_device(void* device, const void* host, std::size_t bytes) override;
    void copy_to_host(void* host, const void* device, std::size_t bytes) override;
    void copy_on_device(void* to, const void* from, std::size_t bytes) override;
    void zero(void* device, std::size_t bytes) override;
    void synchronize() override;
    void upload(TensorView to, const void* host, DType type) override;

  private:
    void use() const;
    int device_;
    Stream stream_;
};

}  // namespace fairgptq::cuda
