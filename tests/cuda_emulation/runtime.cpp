// Devices, streams and memory. Device memory is one range of addresses, so that a device's pointer is known by its
// value and the whole of it opens and closes at once.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "emulation.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

struct CUstream_st {
    int device = 0;
    std::deque<std::function<bool()>> waiting;
    std::uint64_t submitted = 0, done = 0;
};
struct CUevent_st {
    int device = 0;
    CUstream_st* stream = nullptr;
    std::uint64_t ticket = 0;
};
struct CUmemPool_st {
    int device = 0;
    std::uint64_t threshold = 0, used = 0, used_high = 0, reserved = 0;
};

namespace emulation {
namespace {

constexpr std::size_t range_bytes = std::size_t{8} << 30U;
constexpr std::size_t device_bytes = std::size_t{2} << 30U;
constexpr std::size_t alignment = 256;  // cudaMalloc's
constexpr std::size_t page = 4096;
constexpr int gap_pattern = 0xc5;
constexpr int unset = 0xff;  // NaN in every floating-point type

struct Allocation {
    std::size_t bytes = 0;
    int device = 0;
    CUmemPool_st* pool = nullptr;
    bool workspace = false;  // a library's: nobody reads it

    std::size_t end_of_gap() const { return (bytes + alignment - 1) / alignment * alignment + alignment; }
};

/// Everything that outlives a call; one for the process, never destroyed: buffers may go late.
struct Runtime {
    std::recursive_mutex lock;
    std::byte* memory = nullptr;
    std::size_t top = 0;  // bytes of the range that were ever in use
    std::size_t opened_top = 0;
    int open = 0;
    bool closed = true;
    std::uint64_t uses = 0;
    std::map<std::size_t, Allocation> allocations;  // by offset
    std::size_t reserved[devices] = {};
    std::int64_t allocation_calls = 0;
    std::set<CUstream_st*> streams;
    cudaError_t last_error = cudaSuccess;
    Equipment equipment;

    Runtime() {
        void* range = mmap(nullptr, range_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED) fail("no address space for device memory");
        memory = static_cast<std::byte*>(range);
    }
    void protect(int access) const {
        if (top > 0 && mprotect(memory, top, access) != 0) fail("mprotect of device memory failed");
    }
    std::size_t offset_of(const void* pointer) const {
        return static_cast<std::size_t>(static_cast<const std::byte*>(pointer) - memory);
    }
};

Runtime& runtime() {
    static auto* const one = new Runtime;
    return *one;
}
thread_local int current_device = 0;
thread_local bool has_chosen_device = false;

/// A thread that has not said which GPU it means would wake up the first one for this.
void require_choice(const char* call) {
    if (!has_chosen_device) fail("%s by a thread that has not chosen its GPU", call);
}

cudaError_t result(cudaError_t error) {
    if (error != cudaSuccess) runtime().last_error = error;
    return error;
}

/// @returns whether there was work that could be done
bool run_one(CUstream_st* stream) {
    if (stream->waiting.empty()) return false;
    std::function<bool()> work = std::move(stream->waiting.front());
    stream->waiting.pop_front();
    ++stream->done;
    if (work()) return true;
    --stream->done;
    stream->waiting.push_front(std::move(work));
    return false;
}
void run_until(CUstream_st* stream, std::uint64_t ticket) {
    if (runtime().streams.count(stream) == 0) return;  // destroyed, and finished before that
    const auto begin = std::chrono::steady_clock::now();
    while (stream->done < ticket && !stream->waiting.empty()) {
        if (run_one(stream)) continue;
        if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(60))
            fail("a device waits for an exchange that another rank does not come to");
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
}
void run_all_of(int device) {
    for (CUstream_st* stream : runtime().streams)
        if (stream->device == device) run_until(stream, stream->submitted);
}

void set_bounds([[maybe_unused]] std::byte* data, [[maybe_unused]] const Allocation& allocation) {
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(data, allocation.end_of_gap());
    __asan_unpoison_memory_region(data, allocation.bytes);
#else
    std::memset(data + allocation.bytes, gap_pattern, allocation.end_of_gap() - allocation.bytes);
#endif
}

void* allocate(const Allocation& wanted) {
    Runtime& all = runtime();
    const std::size_t bytes = wanted.end_of_gap();
    std::size_t offset = alignment;
    for (const auto& [begin, allocation] : all.allocations) {  // the first gap that is large enough
        if (begin >= offset + bytes) break;
        offset = begin + allocation.end_of_gap();
    }
    if (bytes > range_bytes || offset > range_bytes - bytes) return nullptr;
    const std::size_t new_top = (offset + bytes + page - 1) / page * page;
    if (new_top > all.top) {
        if (all.open > 0) fail("device memory was allocated by what runs on the device");
        all.top = new_top;
    }
    const DeviceAccess access;
    std::byte* data = all.memory + offset;
    constexpr std::size_t large = std::size_t{8} << 20U;
    set_bounds(data, wanted);
    std::memset(data, unset, wanted.bytes > large ? large / 8 : wanted.bytes);
    all.allocations.emplace(offset, wanted);
    return data;
}

void release(void* pointer) {
    Runtime& all = runtime();
    const auto found = all.allocations.find(all.offset_of(pointer));
    if (found == all.allocations.end()) fail("device memory at %p is freed that was not allocated", pointer);
    const Allocation allocation = found->second;
    all.allocations.erase(found);
    CUmemPool_st* pool = allocation.pool;
    if (pool == nullptr) {
        all.reserved[allocation.device] -= allocation.bytes;
    } else {
        pool->used -= allocation.bytes;
        const std::uint64_t kept = std::max(pool->used, std::min(pool->reserved, pool->threshold));
        all.reserved[pool->device] -= pool->reserved - kept;
        pool->reserved = kept;
    }
    const DeviceAccess access;
    std::memset(pointer, unset, std::min(allocation.bytes, std::size_t{1} << 20U));
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(pointer, allocation.bytes);
#endif
}

bool on_device(const void* pointer) {
    const auto* address = static_cast<const std::byte*>(pointer);
    return address >= runtime().memory && address < runtime().memory + range_bytes;
}

}  // namespace

void fail(const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    std::fputs("CUDA emulation: ", stderr);
    std::vfprintf(stderr, format, arguments);
    std::fputc('\n', stderr);
    va_end(arguments);
    std::abort();
}

std::recursive_mutex& runtime_lock() {
    return runtime().lock;
}

DeviceAccess::DeviceAccess() : lock_(runtime_lock()) {
    Runtime& all = runtime();
    if (all.open++ > 0) return;
    if (all.closed || all.top > all.opened_top) all.protect(PROT_READ | PROT_WRITE);
    all.opened_top = all.top;
    all.closed = false;
}
DeviceAccess::~DeviceAccess() {
    Runtime& all = runtime();
    if (--all.open > 0) return;
    // Closing costs as much as a small kernel: always at first, later now and then.
    constexpr std::uint64_t first = 256, then = 16;
    if (++all.uses > first && all.uses % then != 0) return;
    all.protect(PROT_NONE);
    all.closed = true;
}

bool is_device_pointer(const void* pointer) {
    return on_device(pointer);
}

bool is_this_threads(cudaStream_t stream) {
    return stream != nullptr && runtime().streams.count(stream) > 0 && stream->device == current_device;
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
    enqueue_attempt(stream, [work = std::move(work)] {
        work();
        return true;
    });
}
void enqueue_attempt(cudaStream_t stream, std::function<bool()> work) {
    stream->waiting.push_back(std::move(work));
    ++stream->submitted;
}
void step(cudaStream_t stream) {
    if (runtime().streams.count(stream) > 0) run_one(stream);
}

void require_inside(const void* pointer, std::size_t bytes, const char* what) {
    if (bytes == 0) return;
    const auto& allocations = runtime().allocations;
    auto after = allocations.upper_bound(runtime().offset_of(pointer));
    if (!on_device(pointer) || after == allocations.begin()) fail("%s: %p is not on a device", what, pointer);
    const auto& [offset, allocation] = *--after;
    if (runtime().offset_of(pointer) - offset + bytes > allocation.bytes)
        fail("%s: %zu bytes at %p reach beyond their allocation of %zu", what, bytes, pointer, allocation.bytes);
}

void require_gaps_untouched([[maybe_unused]] const char* by) {
#ifndef __SANITIZE_ADDRESS__
    for (const auto& [offset, allocation] : runtime().allocations)
        for (std::size_t i = allocation.bytes; i < allocation.end_of_gap(); ++i)
            if (runtime().memory[offset + i] != std::byte{gap_pattern})
                fail("%s wrote behind an allocation of %zu bytes, at byte %zu", by, allocation.bytes, i);
#endif
}

void mark_workspace(const void* pointer, std::size_t bytes) {
    require_inside(pointer, bytes, "a workspace");
    runtime().allocations.find(runtime().offset_of(pointer))->second.workspace = true;
}
std::size_t readable_bytes() {
    std::size_t bytes = 0;
    for (const auto& one : runtime().allocations)
        if (!one.second.workspace) bytes += one.second.bytes;
    return bytes;
}
void save_memory(std::byte* to) {
    for (const auto& [offset, allocation] : runtime().allocations)
        if (!allocation.workspace) {
            std::memcpy(to, runtime().memory + offset, allocation.bytes);
            to += allocation.bytes;
        }
}
void restore_memory(const std::byte* from) {
    for (const auto& [offset, allocation] : runtime().allocations)
        if (!allocation.workspace) {
            std::memcpy(runtime().memory + offset, from, allocation.bytes);
            from += allocation.bytes;
        }
}

std::int64_t allocation_calls() {
    return runtime().allocation_calls;
}
std::size_t reserved_bytes(int device) {
    return runtime().reserved[device];
}
void set_equipment(const Equipment& equipment) {
    runtime().equipment = equipment;
}
const Equipment& equipment() {
    return runtime().equipment;
}
std::size_t allocated_bytes(int device) {
    std::size_t bytes = 0;
    for (const auto& one : runtime().allocations)
        if (one.second.device == device) bytes += one.second.bytes;
    return bytes;
}

}  // namespace emulation

using namespace emulation;

const char* cudaGetErrorString(cudaError_t) {
    return "as the emulation sees it";
}
const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaErrorInvalidValue:
            return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation:
            return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidConfiguration:
            return "cudaErrorInvalidConfiguration";
        case cudaErrorInvalidMemcpyDirection:
            return "cudaErrorInvalidMemcpyDirection";
        case cudaErrorInvalidDevice:
            return "cudaErrorInvalidDevice";
        case cudaErrorInvalidResourceHandle:
            return "cudaErrorInvalidResourceHandle";
        case cudaErrorNoDevice:
            return "cudaErrorNoDevice";
        default:
            return "another error";
    }
}
cudaError_t cudaGetLastError() {
    const std::lock_guard lock(runtime_lock());
    return std::exchange(runtime().last_error, cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int* count) {
    *count = equipment().gpus && equipment().driver_is_new ? devices : 0;
    if (!equipment().driver_is_new) return result(cudaErrorInsufficientDriver);
    return equipment().gpus ? cudaSuccess : result(cudaErrorNoDevice);
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = equipment().driver_is_new ? 13000 : 12000;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = current_device;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= devices) return result(cudaErrorInvalidDevice);
    current_device = device;
    has_chosen_device = true;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    if (device < 0 || device >= devices) return result(cudaErrorInvalidDevice);
    std::snprintf(properties->name, sizeof(properties->name), "emulated on the host");
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
    if (device < 0 || device >= devices) return result(cudaErrorInvalidDevice);
    std::snprintf(id, static_cast<std::size_t>(length), "0000:%02x:00.0", device);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    const std::lock_guard lock(runtime_lock());
    if (flags != cudaStreamNonBlocking) return result(cudaErrorInvalidValue);  // would wait for the default stream
    *stream = new CUstream_st{current_device, {}, 0, 0};
    runtime().streams.insert(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const std::lock_guard lock(runtime_lock());
    if (runtime().streams.count(stream) == 0) return result(cudaErrorInvalidResourceHandle);
    run_until(stream, stream->submitted);
    runtime().streams.erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const std::lock_guard lock(runtime_lock());
    if (runtime().streams.count(stream) == 0) return result(cudaErrorInvalidResourceHandle);
    run_until(stream, stream->submitted);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new CUevent_st{current_device, nullptr, 0};
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const std::lock_guard lock(runtime_lock());
    if (runtime().streams.count(stream) == 0 || stream->device != event->device)
        return result(cudaErrorInvalidResourceHandle);
    event->stream = stream;
    event->ticket = stream->submitted;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const std::lock_guard lock(runtime_lock());
    run_until(event->stream, event->ticket);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    const std::lock_guard lock(runtime_lock());
    if (event->stream == nullptr || runtime().streams.count(event->stream) == 0) return cudaSuccess;
    // The device gets on while the host asks.
    if (event->stream->done < event->ticket) run_one(event->stream);
    return event->stream->done >= event->ticket ? cudaSuccess : result(cudaErrorNotReady);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const std::lock_guard lock(runtime_lock());
    if (runtime().streams.count(stream) == 0) return result(cudaErrorInvalidResourceHandle);
    enqueue(stream, [before = *event] { run_until(before.stream, before.ticket); });
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
    const std::lock_guard lock(runtime_lock());
    *pointer = nullptr;
    ++runtime().allocation_calls;
    if (bytes == 0) return cudaSuccess;
    std::size_t& reserved = runtime().reserved[current_device];
    if (bytes > device_bytes - reserved) return result(cudaErrorMemoryAllocation);
    *pointer = allocate({bytes, current_device, nullptr, false});
    if (*pointer == nullptr) return result(cudaErrorMemoryAllocation);
    reserved += bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
    const std::lock_guard lock(runtime_lock());
    if (pointer == nullptr) return cudaSuccess;
    for (int device = 0; device < devices; ++device)
        run_all_of(device);
    release(pointer);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
    *pointer = equipment().page_locking ? std::malloc(bytes) : nullptr;
    return *pointer == nullptr ? result(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
    return cudaMallocHost(pointer, bytes);
}
cudaError_t cudaFreeHost(void* pointer) {
    require_choice("cudaFreeHost");
    std::free(pointer);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    const std::lock_guard lock(runtime_lock());
    *total = device_bytes;
    *free = device_bytes - runtime().reserved[current_device];
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const std::lock_guard lock(runtime_lock());
    if (runtime().streams.count(stream) == 0) return result(cudaErrorInvalidResourceHandle);
    if (on_device(to) != (kind != cudaMemcpyDeviceToHost) || on_device(from) != (kind != cudaMemcpyHostToDevice))
        return result(cudaErrorInvalidMemcpyDirection);
    enqueue(stream, [=] {
        const DeviceAccess access;
        if (on_device(to)) require_inside(to, bytes, "cudaMemcpyAsync (to)");
        if (on_device(from)) require_inside(from, bytes, "cudaMemcpyAsync (from)");
        std::memcpy(to, from, bytes);
    });
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    constexpr std::size_t largest_pitch = 0x7fffffff;
    if (width > to_pitch || width > from_pitch || std::max(to_pitch, from_pitch) > largest_pitch)
        return result(cudaErrorInvalidValue);
    if (width == to_pitch && width == from_pitch) return cudaMemcpyAsync(to, from, width * height, kind, stream);
    for (std::size_t row = 0; row < height; ++row) {
        const cudaError_t error =
            cudaMemcpyAsync(static_cast<std::byte*>(to) + row * to_pitch,
                            static_cast<const std::byte*>(from) + row * from_pitch, width, kind, stream);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream) {
    const std::lock_guard lock(runtime_lock());
    if (runtime().streams.count(stream) == 0) return result(cudaErrorInvalidResourceHandle);
    if (!on_device(pointer)) return result(cudaErrorInvalidValue);
    enqueue(stream, [=] {
        const DeviceAccess access;
        require_inside(pointer, bytes, "cudaMemsetAsync");
        std::memset(pointer, value, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
    if (!equipment().memory_pools) return result(cudaErrorNotSupported);
    if (properties->allocType != cudaMemAllocationTypePinned ||
        properties->location.type != cudaMemLocationTypeDevice || properties->location.id < 0 ||
        properties->location.id >= devices)
        return result(cudaErrorInvalidValue);
    *pool = new CUmemPool_st{properties->location.id, 0, 0, 0, 0};
    return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
    const std::lock_guard lock(runtime_lock());
    run_all_of(pool->device);
    if (pool->used != 0) fail("a memory pool is destroyed with %llu bytes in use", (unsigned long long)pool->used);
    runtime().reserved[pool->device] -= pool->reserved;
    delete pool;
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
    const std::lock_guard lock(runtime_lock());
    const std::uint64_t number = *static_cast<std::uint64_t*>(value);
    if (attribute == cudaMemPoolAttrReleaseThreshold) {
        pool->threshold = number;
    } else if (attribute == cudaMemPoolAttrUsedMemHigh && number == 0) {
        pool->used_high = pool->used;
    } else {
        return result(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
    const std::lock_guard lock(runtime_lock());
    *static_cast<std::uint64_t*>(value) = attribute == cudaMemPoolAttrReleaseThreshold     ? pool->threshold
                                          : attribute == cudaMemPoolAttrReservedMemCurrent ? pool->reserved
                                          : attribute == cudaMemPoolAttrUsedMemCurrent     ? pool->used
                                                                                           : pool->used_high;
    return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t bytes_to_keep) {
    const std::lock_guard lock(runtime_lock());
    const std::uint64_t kept =
        std::max<std::uint64_t>(pool->used, std::min<std::uint64_t>(pool->reserved, bytes_to_keep));
    runtime().reserved[pool->device] -= pool->reserved - kept;
    pool->reserved = kept;
    return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** pointer, std::size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
    const std::lock_guard lock(runtime_lock());
    *pointer = nullptr;
    if (runtime().streams.count(stream) == 0 || stream->device != pool->device)
        return result(cudaErrorInvalidResourceHandle);
    if (bytes == 0) return result(cudaErrorInvalidValue);
    std::uint64_t& reserved = runtime().reserved[pool->device];
    const auto missing = [&] {
        return bytes > device_bytes ? bytes : pool->used + bytes - std::min(pool->used + bytes, pool->reserved);
    };
    if (missing() > device_bytes - reserved) run_all_of(pool->device);  // what was freed comes back
    if (missing() > device_bytes - reserved) return result(cudaErrorMemoryAllocation);
    const std::uint64_t growth = missing();
    *pointer = allocate({bytes, pool->device, pool, false});
    if (*pointer == nullptr) return result(cudaErrorMemoryAllocation);
    if (growth > 0) ++runtime().allocation_calls;
    pool->reserved += growth;
    reserved += growth;
    pool->used += bytes;
    pool->used_high = std::max(pool->used_high, pool->used);
    return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
    const std::lock_guard lock(runtime_lock());
    require_choice("cudaFreeAsync");
    if (runtime().streams.count(stream) == 0) return result(cudaErrorInvalidResourceHandle);
    if (!on_device(pointer)) return result(cudaErrorInvalidValue);
    enqueue(stream, [pointer] { release(pointer); });
    return cudaSuccess;
}
