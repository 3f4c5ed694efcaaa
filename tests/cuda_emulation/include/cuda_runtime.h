// The language that kernels are written in, for the host's compiler: built-in variables, barriers, shuffles, launches.
// A thread of a block is a fiber (fibers.cpp).
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <typeinfo>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
// One block runs at a time, so a static variable is its block's. Where nothing watches its bounds it gets a section
// that every block finds full of NaN.
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
#else
#define __shared__ __attribute__((section("cuda_shared"))) static
#endif

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x_count = 1, unsigned y_count = 1, unsigned z_count = 1) : x(x_count), y(y_count), z(z_count) {}
};
struct alignas(16) float4 {
    float x, y, z, w;
};

// As they are for the fiber that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

using std::isfinite;

namespace emulation {

/// Waits for all threads of the block. @returns whether the predicate holds for any
bool sync_block(bool predicate, int line);
/// Waits for the lanes of the mask, and gives what lane `source` of this warp brought.
std::uint64_t exchange_in_warp(unsigned mask, std::uint64_t value, int source, int line);
/// Waits for all lanes of the warp; the last one does `work` with what each brought, before any goes on.
void together_in_warp(const void* mine, const std::function<void(const void* const* lanes)>& work, int line);
int lane();

bool is_device_pointer(const void* pointer);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

struct Geometry {
    dim3 grid, block;
    std::size_t on_chip;
};
cudaError_t launch(const Geometry& geometry, cudaStream_t stream, const void* kernel, const char* name,
                   std::function<void()> thread);

/// Pointers among a kernel's arguments, and in views, must be the device's.
template <class T>
void check_argument(const T& argument, const char* kernel) {
    if constexpr (std::is_pointer_v<T>) {
        if (argument != nullptr && !is_device_pointer(argument))
            fail("a kernel of type %s got a pointer to host memory", kernel);
    } else if constexpr (requires { argument.data; }) {
        check_argument(argument.data, kernel);
    }
}

}  // namespace emulation

inline void __syncthreads(int line = __builtin_LINE()) {
    emulation::sync_block(false, line);
}
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
    return emulation::sync_block(predicate != 0, line) ? 1 : 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffU, int line = __builtin_LINE()) {
    emulation::exchange_in_warp(mask, 0, emulation::lane(), line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int line = __builtin_LINE()) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof(T));
    word = emulation::exchange_in_warp(mask, word, emulation::lane() ^ distance, line);
    std::memcpy(&value, &word, sizeof(T));
    return value;
}
inline float __fdividef(float a, float b) {
    return std::fabs(b) > 0x1p126F ? 0 : a / b;
}
/// Rounded, whatever becomes of it.
inline float __fmul_rn(float a, float b) {
    const volatile float product = a * b;
    return product;
}
inline float __int_as_float(int bits) {
    float value = 0;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}
inline int __float_as_int(float value) {
    int bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t emulated_function_attribute(const void* kernel, cudaFuncAttribute attribute, int value);
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
    return emulated_function_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
    void* attrs = nullptr;
    unsigned numAttrs = 0;
};
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const char* name = typeid(kernel).name();
    std::tuple<Parameters...> copies(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
    std::apply([&](const auto&... copy) { (emulation::check_argument(copy, name), ...); }, copies);
    return emulation::launch({config->gridDim, config->blockDim, config->dynamicSmemBytes}, config->stream,
                             reinterpret_cast<const void*>(kernel), name,
                             [kernel, copies] { std::apply(kernel, copies); });
}
