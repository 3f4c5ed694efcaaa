// A kernel's threads as fibers of the host thread that waits for them. A fiber runs one thread after another until one
// has to wait at a barrier, so kernels without barriers cost no more than loops.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "context.hpp"
#include "cuda_pipeline.h"
#include "emulation.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// The section of on-chip variables; absent where the address sanitizer watches them one by one.
extern std::byte __start_cuda_shared[] __attribute__((weak));
extern std::byte __stop_cuda_shared[] __attribute__((weak));

namespace emulation {
namespace {

constexpr int warp = 32;
constexpr int unset = 0xff;
constexpr int largest_block = 1024;
constexpr std::size_t usual_on_chip = 48U << 10U;
constexpr std::size_t most_on_chip = 232448;  // with permission, on an H100
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t stack_bytes = 512U << 10U;
#else
constexpr std::size_t stack_bytes = 128U << 10U;
#endif

struct Copy {
    void* to;
    const void* from;
    std::size_t bytes, zeros;
};

enum class State { ready, at_block, at_warp, done };

struct Fiber;
struct Thread {
    State state = State::ready;
    Fiber* fiber = nullptr;  // null before it starts
    int line = 0;            // of the barrier it waits at
    unsigned mask = 0;
    int source = 0;
    std::uint64_t value = 0, received = 0;
    const void* brought = nullptr;
    std::vector<Copy> copies;          // under way, committed ones first
    std::vector<std::size_t> batches;  // where each committed batch ends in `copies`
};

struct Fiber {
    Context context;
    void* stack = nullptr;
    int thread = 0;
};

/// The kernel that runs.
struct Machine {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Fiber*> idle;
    Context scheduler;
    const void* scheduler_stack = nullptr;
    std::size_t scheduler_stack_bytes = 0;

    const char* name = "";
    const std::function<void()>* body = nullptr;
    std::vector<Thread> threads;
    std::vector<int> order;
    std::size_t cursor = 0;  // in `order`
    int running = 0;
    bool any = false;  // of the predicates brought to the barrier
    void* on_chip = nullptr;
    std::mt19937 random;

    std::vector<std::byte> before, after, again;  // device memory, kept from launch to launch
    unsigned seed = 1;
    bool twice = true;
    std::uint64_t launches = 0;
    std::map<const void*, std::size_t> allowed_on_chip;
};

Machine& machine() {
    static auto* const one = new Machine;
    return *one;
}

void enter(int thread) {
    Machine& m = machine();
    m.running = thread;
    const unsigned x = static_cast<unsigned>(thread);
    threadIdx = {x % blockDim.x, x / blockDim.x % blockDim.y, x / blockDim.x / blockDim.y};
}

void switch_context(Context& from, const Context& to, [[maybe_unused]] const void* stack,
                    [[maybe_unused]] std::size_t bytes, [[maybe_unused]] bool to_scheduler) {
#ifdef __SANITIZE_ADDRESS__
    void* saved = nullptr;
    __sanitizer_start_switch_fiber(&saved, stack, bytes);
#endif
    switch_stack(from, to);
#ifdef __SANITIZE_ADDRESS__
    const void* old_stack = nullptr;
    std::size_t old_bytes = 0;
    __sanitizer_finish_switch_fiber(saved, &old_stack, &old_bytes);
    if (to_scheduler) {  // back in a fiber, which the scheduler resumed
        machine().scheduler_stack = old_stack;
        machine().scheduler_stack_bytes = old_bytes;
    }
#endif
}

void leave(Fiber& fiber) {
    Machine& m = machine();
    switch_context(fiber.context, m.scheduler, m.scheduler_stack, m.scheduler_stack_bytes, true);
}

/// The next thread of the pass if it has not started, or −1.
int next_to_start() {
    Machine& m = machine();
    while (m.cursor < m.order.size()) {
        const Thread& thread = m.threads[static_cast<std::size_t>(m.order[m.cursor])];
        if (thread.state == State::ready) return thread.fiber == nullptr ? m.order[m.cursor++] : -1;
        ++m.cursor;
    }
    return -1;
}

void fiber_main() {
    Machine& m = machine();
    Fiber& fiber = *m.idle.back();
    m.idle.pop_back();
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_stack, &m.scheduler_stack_bytes);
#endif
    for (;;) {
        enter(fiber.thread);
        m.threads[static_cast<std::size_t>(fiber.thread)].fiber = &fiber;
        (*m.body)();
        Thread& finished = m.threads[static_cast<std::size_t>(fiber.thread)];
        if (!finished.copies.empty() || !finished.batches.empty())
            fail("a thread of %s ends with copies under way", m.name);
        finished.state = State::done;
        finished.fiber = nullptr;
        const int next = next_to_start();
        if (next >= 0) {
            fiber.thread = next;
            continue;
        }
        m.idle.push_back(&fiber);
        leave(fiber);
    }
}

void start(int thread) {
    Machine& m = machine();
    bool fresh = false;
    if (m.idle.empty()) {
        fresh = true;
        auto fiber = std::make_unique<Fiber>();
        fiber->stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fiber->stack == MAP_FAILED) fail("no memory for a fiber's stack");
        fiber->context.prepare(fiber->stack, stack_bytes, fiber_main);
        m.idle.push_back(fiber.get());
        m.fibers.push_back(std::move(fiber));
    }
    Fiber& fiber = *m.idle.back();
    if (!fresh) m.idle.pop_back();  // a fresh one takes itself off
    fiber.thread = thread;
    switch_context(m.scheduler, fiber.context, fiber.stack, stack_bytes, false);
}

void resume(int thread) {
    Machine& m = machine();
    enter(thread);
    Fiber& fiber = *m.threads[static_cast<std::size_t>(thread)].fiber;
    switch_context(m.scheduler, fiber.context, fiber.stack, stack_bytes, false);
}

/// 0 … count − 1 in one of the orders that hardware might take.
void draw_order(std::vector<int>& order, std::size_t count) {
    Machine& m = machine();
    order.resize(count);
    std::iota(order.begin(), order.end(), 0);
    switch (m.random() % 4) {
        case 0:
            break;
        case 1:
            std::reverse(order.begin(), order.end());
            break;
        case 2:
            std::shuffle(order.begin(), order.end(), m.random);
            break;
        default:  // whole warps in any order
            std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count * (m.random() % 32) / 32),
                        order.end());
    }
}

/// Lets all threads go on if all wait at one barrier. @returns whether the block has ended
bool pass_barrier() {
    Machine& m = machine();
    std::size_t done = 0, waiting = 0;
    for (const Thread& thread : m.threads) {
        if (thread.state == State::ready) return false;  // its warp let it go
        done += thread.state == State::done ? 1 : 0;
        waiting += thread.state == State::at_block ? 1 : 0;
    }
    if (done == m.threads.size()) return true;
    if (waiting != m.threads.size())
        fail(
            "a barrier that is never passed: %zu threads of %s wait for the block, %zu for their warps, %zu have ended",
            waiting, m.name, m.threads.size() - waiting - done, done);
    for (Thread& thread : m.threads) {
        if (thread.line != m.threads.front().line)
            fail("threads of %s wait at two barriers, lines %d and %d", m.name, m.threads.front().line, thread.line);
        thread.state = State::ready;
        thread.received = m.any ? 1 : 0;
    }
    m.any = false;
    return false;
}

void run_block(std::size_t threads, std::size_t on_chip) {
    Machine& m = machine();
    if (__start_cuda_shared != nullptr)
        std::memset(__start_cuda_shared, unset, static_cast<std::size_t>(__stop_cuda_shared - __start_cuda_shared));
    if (on_chip > 0) std::memset(m.on_chip, unset, on_chip);
    m.threads.resize(threads);
    for (Thread& thread : m.threads)  // what else it had, its last block has left empty
        thread.state = State::ready;
    do {
        draw_order(m.order, threads);
        m.cursor = 0;
        while (m.cursor < m.order.size()) {
            const int thread = m.order[m.cursor++];
            const Thread& one = m.threads[static_cast<std::size_t>(thread)];
            if (one.state != State::ready) continue;
            if (one.fiber == nullptr)
                start(thread);
            else
                resume(thread);
        }
    } while (!pass_barrier());
}

void run_grid(const Geometry& geometry, unsigned seed) {
    Machine& m = machine();
    m.random.seed(seed);
    gridDim = geometry.grid;
    blockDim = geometry.block;
    const std::size_t threads = std::size_t{blockDim.x} * blockDim.y * blockDim.z;
    if (geometry.on_chip > 0 && posix_memalign(&m.on_chip, 16, geometry.on_chip) != 0) fail("no memory");
    std::vector<int> blocks;
    draw_order(blocks, std::size_t{gridDim.x} * gridDim.y * gridDim.z);
    for (const int block : blocks) {
        const auto x = static_cast<unsigned>(block);
        blockIdx = {x % gridDim.x, x / gridDim.x % gridDim.y, x / gridDim.x / gridDim.y};
        run_block(threads, geometry.on_chip);
    }
    if (geometry.on_chip > 0) std::free(m.on_chip);
}

void run(const Geometry& geometry, const char* name, const std::function<void()>& body) {
    Machine& m = machine();
    const DeviceAccess access;
    m.name = name;
    m.body = &body;
    const unsigned seed = m.seed + 2 * static_cast<unsigned>(++m.launches);
    constexpr std::size_t little = std::size_t{8} << 20U;
    const std::size_t bytes = readable_bytes();
    if (m.twice && bytes <= little) {
        for (auto* copy : {&m.before, &m.after, &m.again})
            if (copy->size() < bytes) copy->resize(bytes);
        save_memory(m.before.data());
        run_grid(geometry, seed);
        save_memory(m.after.data());
        restore_memory(m.before.data());
        run_grid(geometry, seed + 1);
        save_memory(m.again.data());
        if (std::memcmp(m.after.data(), m.again.data(), bytes) != 0)
            fail("%s leaves other bytes when its threads run in another order", name);
    } else {
        run_grid(geometry, seed);
    }
    require_gaps_untouched(name);
}

Thread& self() {
    Machine& m = machine();
    return m.threads[static_cast<std::size_t>(m.running)];
}

}  // namespace

bool sync_block(bool predicate, int line) {
    Machine& m = machine();
    Thread& thread = self();
    thread.state = State::at_block;
    thread.line = line;
    m.any = m.any || predicate;
    leave(*thread.fiber);
    return thread.received != 0;
}

int lane() {
    return machine().running % warp;
}

/// @returns the first of the warp's threads when the last lane of the mask has come; −1 to the others, after it let
/// them go
static int last_of_warp(unsigned mask, int line) {
    Machine& m = machine();
    Thread& thread = self();
    if ((mask >> static_cast<unsigned>(lane()) & 1U) == 0)
        fail("a lane of %s, line %d, is not in the mask that it brings", m.name, line);
    thread.state = State::at_warp;
    thread.line = line;
    thread.mask = mask;
    const int first = m.running / warp * warp;
    for (int other = 0; other < warp; ++other) {
        if ((mask >> static_cast<unsigned>(other) & 1U) == 0) continue;
        if (first + other >= static_cast<int>(m.threads.size()))
            fail("%s: a mask names lanes beyond the block", m.name);
        const Thread& one = m.threads[static_cast<std::size_t>(first + other)];
        if (one.state == State::at_warp && (one.line != line || one.mask != mask))
            fail("lanes of one warp of %s wait at lines %d and %d", m.name, one.line, line);
        if (one.state != State::at_warp) {
            leave(*thread.fiber);
            return -1;
        }
    }
    return first;
}

std::uint64_t exchange_in_warp(unsigned mask, std::uint64_t value, int source, int line) {
    Machine& m = machine();
    Thread& thread = self();
    thread.value = value;
    thread.source = source;
    const int first = last_of_warp(mask, line);
    for (int other = 0; first >= 0 && other < warp; ++other) {
        if ((mask >> static_cast<unsigned>(other) & 1U) == 0) continue;
        Thread& one = m.threads[static_cast<std::size_t>(first + other)];
        if ((mask >> static_cast<unsigned>(one.source) & 1U) == 0)
            fail("%s, line %d, reads a lane that is not in its mask", m.name, line);
        one.received = m.threads[static_cast<std::size_t>(first + one.source)].value;
        one.state = State::ready;
    }
    return thread.received;
}

void together_in_warp(const void* mine, const std::function<void(const void* const*)>& work, int line) {
    Machine& m = machine();
    self().brought = mine;
    const int first = last_of_warp(0xffffffffU, line);
    if (first < 0) return;
    const void* all[warp];
    for (int other = 0; other < warp; ++other) {
        Thread& one = m.threads[static_cast<std::size_t>(first + other)];
        all[other] = one.brought;
        one.state = State::ready;
    }
    work(all);
}

void* dynamic_on_chip() {
    return machine().on_chip;
}

cudaError_t launch(const Geometry& geometry, cudaStream_t stream, const void* kernel, const char* name,
                   std::function<void()> thread) {
    const std::lock_guard lock(runtime_lock());
    if (!is_this_threads(stream)) return cudaErrorInvalidResourceHandle;
    const dim3& grid = geometry.grid;
    const dim3& block = geometry.block;
    const std::size_t threads = std::size_t{block.x} * block.y * block.z;
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffU || grid.y > 65535 || grid.z > 65535 ||
        threads < 1 || threads > largest_block || block.z > 64)
        return cudaErrorInvalidConfiguration;
    const auto allowed = machine().allowed_on_chip.find(kernel);
    if (geometry.on_chip > (allowed == machine().allowed_on_chip.end() ? usual_on_chip : allowed->second))
        return cudaErrorInvalidValue;
    enqueue(stream, [geometry, name, thread = std::move(thread)] { run(geometry, name, thread); });
    return cudaSuccess;
}

void set_seed(unsigned seed) {
    const std::lock_guard lock(runtime_lock());
    machine().seed = seed;
    machine().launches = 0;
}
void set_twice(bool twice) {
    const std::lock_guard lock(runtime_lock());
    machine().twice = twice;
}

}  // namespace emulation

cudaError_t emulated_function_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
    const std::lock_guard lock(emulation::runtime_lock());
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        static_cast<std::size_t>(value) > emulation::most_on_chip)
        return cudaErrorInvalidValue;
    emulation::machine().allowed_on_chip[kernel] = static_cast<std::size_t>(value);
    return cudaSuccess;
}

void __pipeline_memcpy_async(void* on_chip, const void* from, std::size_t bytes, std::size_t zeros) {
    if (bytes != 4 && bytes != 8 && bytes != 16) emulation::fail("an asynchronous copy of %zu bytes", bytes);
    if (zeros > bytes) emulation::fail("an asynchronous copy of %zu bytes, %zu of them zeros", bytes, zeros);
    if (reinterpret_cast<std::uintptr_t>(on_chip) % bytes != 0 || reinterpret_cast<std::uintptr_t>(from) % bytes != 0)
        emulation::fail("an asynchronous copy of %zu bytes is not aligned to as many", bytes);
    emulation::self().copies.push_back({on_chip, from, bytes - zeros, zeros});
}
void __pipeline_commit() {
    emulation::Thread& thread = emulation::self();
    thread.batches.push_back(thread.copies.size());
}
void __pipeline_wait_prior(std::size_t prior) {
    emulation::Thread& thread = emulation::self();
    if (thread.batches.size() <= prior) return;
    const auto last = thread.batches.end() - static_cast<std::ptrdiff_t>(prior) - 1;
    const auto count = static_cast<std::ptrdiff_t>(*last);
    for (auto copy = thread.copies.begin(); copy != thread.copies.begin() + count; ++copy) {
        std::memcpy(copy->to, copy->from, copy->bytes);
        std::memset(static_cast<std::byte*>(copy->to) + copy->bytes, 0, copy->zeros);
    }
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + count);
    thread.batches.erase(thread.batches.begin(), last + 1);
    for (std::size_t& end : thread.batches)
        end -= static_cast<std::size_t>(count);
}
