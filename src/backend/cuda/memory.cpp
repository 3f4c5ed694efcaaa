// Uploads convert on the GPU: the host's bytes cross the bus as they are stored, half the traffic of converting before.
#include "backend/cuda/memory.hpp"

#include <algorithm>

#include "backend/cuda/check.hpp"
#include "backend/cuda/convert.hpp"

namespace fairgptq::cuda {
Stream::Stream() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}
Stream::~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Memory::Memory(int device)
    : device_([device] {
          const int count = device_count();
          if (device < 0 || device >= count) throw Failure("there is no GPU {}: this process sees {}", device, count);
          check(cudaSetDevice(device), "cudaSetDevice");
          return device;
      }()) {}

void Memory::use() const {
    check(cudaSetDevice(device_), "cudaSetDevice");
}

Buffer Memory::allocate(std::size_t bytes) {
    use();
    void* data = nullptr;
    // cudaMalloc of 0 bytes gives no pointer; a Buffer always has one.
    if (cudaMalloc(&data, std::max<std::size_t>(bytes, 1)) != cudaSuccess) {
        cudaGetLastError();
        std::size_t free = 0, total = 0;
        check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
        throw Failure("GPU {} cannot give {} bytes: {} of its {} are free", device_, bytes, free, total);
    }
    return {data, bytes, [](void* pointer) { cudaFree(pointer); }};
}

void Memory::copy_to_device(void* device, const void* host, std::size_t bytes) {
    if (bytes == 0) return;
    use();
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_.get()), "cudaMemcpyAsync (to device)");
    synchronize();
}

void Memory::copy_to_host(void* host, const void* device, std::size_t bytes) {
    if (bytes == 0) return;
    use();
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_.get()), "cudaMemcpyAsync (to host)");
    synchronize();
}

void Memory::copy_on_device(void* to, const void* from, std::size_t bytes) {
    if (bytes == 0) return;
    use();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_.get()), "cudaMemcpyAsync (on device)");
}

void Memory::zero(void* device, std::size_t bytes) {
    if (bytes == 0) return;
    use();
    check(cudaMemsetAsync(device, 0, bytes, stream_.get()), "cudaMemsetAsync");
}

void Memory::synchronize() {
    use();
    check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
}

std::size_t Memory::available() const {
    use();
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return free;
}

void Memory::upload(TensorView to, const void* host, DType type) {
    if (to.empty()) return;
    const std::size_t bytes = static_cast<std::size_t>(to.rows) * static_cast<std::size_t>(to.cols) * size_of(type);
    const std::lock_guard lock(staging_mutex_);
    if (bytes > staging_.bytes()) {
        staging_ = Buffer();
        staging_ = allocate(bytes);
    }
    copy_to_device(staging_.data(), host, bytes);
    check(convert(staging_.data(), type, to.data, to.type, to.rows, to.cols, to.stride, stream_.get()),
          "convert (upload)");
    synchronize();  // before the staged bytes are overwritten
}

}  // namespace fairgptq::cuda
