// A solve allocates a dozen matrices and frees them at its end. cudaMalloc and cudaFree would stop the GPU each time,
// so memory comes from a pool of CUDA's own that never gives it back to the driver while the run lasts.
//
// Uploads convert on the GPU, where they must: the host's bytes cross the bus as they are stored.
#include "backend/cuda/memory.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "backend/cpu/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/convert.hpp"
#include "support/say.hpp"

namespace fairgptq::cuda {
Stream::Stream() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}
Stream::~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Pool::Pool(int device) {
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.handleTypes = cudaMemHandleTypeNone;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    std::uint64_t keep_all = std::numeric_limits<std::uint64_t>::max();
    if (cudaMemPoolCreate(&pool_, &properties) == cudaSuccess &&
        cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_all) == cudaSuccess)
        return;
    cudaGetLastError();
    if (pool_ != nullptr) cudaMemPoolDestroy(std::exchange(pool_, nullptr));
    warn("GPU {} has no memory pools: memory is taken from its driver each time, which is slower", device);
}
Pool::~Pool() {
    cudaStreamSynchronize(stream());
    if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
}

void* Pool::allocate(std::size_t bytes) {
    void* data = nullptr;
    if (pool_ == nullptr) {
        if (cudaMalloc(&data, bytes) == cudaSuccess) return data;
        cudaGetLastError();
        return nullptr;
    }
    const auto got = [&] { return cudaMallocFromPoolAsync(&data, bytes, pool_, stream()) == cudaSuccess; };
    if (!got()) {
        cudaGetLastError();
        // Pieces that it keeps may be too small each.
        check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
        check(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo");
        if (!got()) {
            cudaGetLastError();
            return nullptr;
        }
    }
    // The memory may have had another owner, whose last kernels are still to come.
    check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
    return data;
}

void Pool::release(void* data) {
    if (pool_ != nullptr)
        cudaFreeAsync(data, stream());
    else
        cudaFree(data);  // waits for the GPU
}

std::size_t Pool::unused() const {
    if (pool_ == nullptr) return 0;
    std::uint64_t reserved = 0, used = 0;
    check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved), "cudaMemPoolGetAttribute");
    check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used), "cudaMemPoolGetAttribute");
    return static_cast<std::size_t>(reserved - used);
}

Memory::Memory(int device)
    : device_([device] {
          const int count = device_count();
          if (device < 0 || device >= count) throw Failure("there is no GPU {}: this process sees {}", device, count);
          check(cudaSetDevice(device), "cudaSetDevice");
          return device;
      }()),
      pool_(std::make_shared<Pool>(device)) {}

void Memory::use() const {
    check(cudaSetDevice(device_), "cudaSetDevice");
}

Buffer Memory::allocate(std::size_t bytes) {
    use();
    void* data = pool_->allocate(std::max<std::size_t>(bytes, 1));  // of 0 bytes there is none, and a Buffer has one
    if (data == nullptr) {
        std::size_t free = 0, total = 0;
        check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
        throw Failure(
            "GPU {} cannot give {} bytes: {} of its {} are free (quantize takes less of it with a smaller "
            "--device-memory)",
            device_, bytes, free, total);
    }
    return {data, bytes, [pool = pool_](void* pointer) { pool->release(pointer); }};
}

Buffer Memory::allocate_host(std::size_t bytes) {
    use();
    void* data = nullptr;
    if (cudaHostAlloc(&data, std::max<std::size_t>(bytes, 1), cudaHostAllocDefault) == cudaSuccess)
        return {data, bytes, [](void* pointer) { cudaFreeHost(pointer); }};
    cudaGetLastError();
    Buffer plain = CpuBackend().allocate(bytes);
    std::call_once(not_locked_, [&] {
        warn("{} bytes of this host's memory cannot be locked (ulimit -l): copies to and from the GPU are slower",
             bytes);
    });
    return plain;
}

std::size_t Memory::available() const {
    use();
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return free + pool_->unused();
}

std::size_t Memory::taken() const {
    use();
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return total - free;
}

void Memory::copy_to_device(void* device, const void* host, std::size_t bytes) {
    if (bytes == 0) return;
    use();
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream()), "cudaMemcpyAsync (to device)");
    synchronize();
}

void Memory::copy_to_host(void* host, const void* device, std::size_t bytes) {
    if (bytes == 0) return;
    use();
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream()), "cudaMemcpyAsync (to host)");
    synchronize();
}

void Memory::copy_on_device(void* to, const void* from, std::size_t bytes) {
    if (bytes == 0) return;
    use();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()), "cudaMemcpyAsync (on device)");
}

void Memory::zero(void* device, std::size_t bytes) {
    if (bytes == 0) return;
    use();
    check(cudaMemsetAsync(device, 0, bytes, stream()), "cudaMemsetAsync");
}

void Memory::synchronize() {
    use();
    check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
}

void Memory::upload(TensorView to, const void* host, DType type) {
    if (to.empty()) return;
    const std::size_t row_bytes = static_cast<std::size_t>(to.cols) * size_of(type);
    if (type == to.type && to.stride == to.cols) {
        copy_to_device(to.data, host, static_cast<std::size_t>(to.rows) * row_bytes);
        return;
    }
    // A few rows at a time: an embedding as it is stored would take gigabytes beside itself.
    constexpr std::size_t staged_bytes = std::size_t{16} << 20U;
    const std::int64_t most_rows =
        std::clamp<std::int64_t>(static_cast<std::int64_t>(staged_bytes / row_bytes), 1, to.rows);
    const std::lock_guard lock(staging_mutex_);
    if (static_cast<std::size_t>(most_rows) * row_bytes > staging_.bytes()) {
        staging_ = Buffer();
        staging_ = allocate(static_cast<std::size_t>(most_rows) * row_bytes);
    }
    for (std::int64_t row = 0; row < to.rows; row += most_rows) {
        const TensorView part = to.rows_from(row, std::min(most_rows, to.rows - row));
        const std::size_t offset = static_cast<std::size_t>(row) * row_bytes;
        copy_to_device(staging_.data(), static_cast<const std::byte*>(host) + offset,
                       static_cast<std::size_t>(part.rows) * row_bytes);
        check(convert(staging_.data(), type, part.data, part.type, part.rows, part.cols, part.stride, stream()),
              "convert (upload)");
    }
    synchronize();  // before another thread overwrites the staged bytes
}

}  // namespace fairgptq::cuda
