// CUDA on the host, so that every line of src/backend/cuda runs where no GPU is. What a GPU would let pass in silence
// ends the program here with a sentence:
//
// - Work waits in its stream until something waits for it, so a result that is read too early is not there yet.
// - Device memory is closed to the host (after every call at first, after some of them later), new and freed memory is
//   full of NaN, and what is written beside an allocation is found (by the address sanitizer where it watches).
// - A kernel's threads run between two barriers in an order drawn anew for each launch, its blocks too; where device
//   memory holds little, a launch runs twice, in two orders, and must leave the same bytes.
// - Grids, blocks and on-chip memory have a GPU's limits; a stream of another device than the thread's own, the default
//   stream, and host pointers among a kernel's arguments are refused.
// - NCCL's transfers are under way until all ranks' streams have come to them; nccl.cpp says what it refuses.
// - Tensor cores cut off what they add at their sums' last bits, as an A100's do (tensor_sum.hpp).
//
// What it does not show: speed, registers, the rounding of the GPU's own functions and of cuBLAS, races within a warp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_runtime.h"

namespace emulation {

constexpr int devices = 2;

/// One call at a time, from whatever thread.
std::recursive_mutex& runtime_lock();
/// Device memory may be touched while one of these lives.
class DeviceAccess {
  public:
    DeviceAccess();
    ~DeviceAccess();
    DeviceAccess(const DeviceAccess&) = delete;
    DeviceAccess& operator=(const DeviceAccess&) = delete;

  private:
    std::lock_guard<std::recursive_mutex> lock_;
};

bool is_this_threads(cudaStream_t stream);
void enqueue(cudaStream_t stream, std::function<void()> work);
/// Work that may have to wait for another process: it is tried until it says that it is done.
void enqueue_attempt(cudaStream_t stream, std::function<bool()> work);
/// The device gets on by one piece of work, if that can be done.
void step(cudaStream_t stream);
/// Ends the program unless the bytes lie in one allocation on a device.
void require_inside(const void* pointer, std::size_t bytes, const char* what);
/// Ends the program if something was written between allocations.
void require_gaps_untouched(const char* by);

/// A library's own memory, at the start of an allocation: it holds nothing that anyone reads.
void mark_workspace(const void* pointer, std::size_t bytes);
/// Bytes of all other allocations, one after another; and back.
std::size_t readable_bytes();
void save_memory(std::byte* to);
void restore_memory(const std::byte* from);

// For tests.
/// Launches after this draw their orders from `seed`.
void set_seed(unsigned seed);
/// Whether small launches run twice, in two orders (they do unless told otherwise).
void set_twice(bool twice);
/// What not every machine has.
struct Equipment {
    bool gpus = true, driver_is_new = true, memory_pools = true, page_locking = true, deterministic_solver = true;
    bool nccl_aborts_alone = true;  // some versions wait for the other ranks to do the same
};
void set_equipment(const Equipment& equipment);
const Equipment& equipment();
/// What cuBLASLt refuses from here on beside what it always does.
struct MatmulRefusals {
    bool offers = false;  // it has no algorithm for anything
    bool gaps = false;    // algorithms take no matrix whose rows have gaps between them
    std::int64_t calls_from_rows = std::int64_t{1} << 62;  // calls of as many rows, though it said that it takes them
};
void set_matmul_refusals(const MatmulRefusals& refusals);
/// Calls of cudaMalloc so far, and bytes that a device holds for allocations, pools' own included.
std::int64_t allocation_calls();
std::size_t reserved_bytes(int device);
std::size_t allocated_bytes(int device);
/// NVTX ranges since the last call, with the names of those around each: "fairgptq / layer 0 / read".
std::vector<std::string> take_ranges();

}  // namespace emulation
