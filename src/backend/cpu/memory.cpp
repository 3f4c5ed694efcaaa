// On the CPU the device's memory is the host's: copies are plain, and only `upload` computes.
#include "backend/memory.hpp"

#include <algorithm>
#include <cstring>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/pages.hpp"
#include "support/machine.hpp"

namespace fairgptq {

namespace {

constexpr double gibibyte = 1024.0 * 1024.0 * 1024.0;

float to_float(float value) {
    return value;
}

template <class T>
void convert(const T* host, MatrixView<float> to) {
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < to.rows; ++row) {
        const T* source = host + row * to.cols;
        float* target = to.row(row);
#pragma omp simd
        for (std::int64_t col = 0; col < to.cols; ++col)
            target[col] = to_float(source[col]);
    }
}

}  // namespace

Buffer CpuBackend::allocate(std::size_t bytes) {
    // Linux promises more memory than there is and kills whoever uses it, so sizes that cannot be are refused here.
    static const double available = smallest_amount(memory_limits());
    void* data = nullptr;
    if (static_cast<double>(bytes) <= available) data = allocate_pages(bytes);
    if (data == nullptr)
        throw Failure("cannot allocate {} bytes ({:.1f} GiB) of memory; this process may have {:.1f} GiB in all", bytes,
                      static_cast<double>(bytes) / gibibyte, available / gibibyte);
    return {data, bytes, [bytes](void* pointer) { release_pages(pointer, bytes); }};
}

void CpuBackend::copy_to_device(void* device, const void* host, std::size_t bytes) {
    copy_on_device(device, host, bytes);
}

void CpuBackend::copy_to_host(void* host, const void* device, std::size_t bytes) {
    copy_on_device(host, device, bytes);
}

void CpuBackend::copy_on_device(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
}

void CpuBackend::zero(void* device, std::size_t bytes) {
    if (bytes > 0) std::memset(device, 0, bytes);
}

void CpuBackend::upload(TensorView to, const void* host, DType type) {
    switch (type) {
        case DType::float32:
            return convert(static_cast<const float*>(host), to.float32());
        case DType::float16:
            return convert(static_cast<const Float16*>(host), to.float32());
        case DType::bfloat16:
            return convert(static_cast<const BFloat16*>(host), to.float32());
    }
}

}  // namespace fairgptq
