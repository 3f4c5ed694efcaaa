// From one stack to another. glibc's swapcontext would do, but asks the system for the signal mask each time: a barrier
// of a block is a hundred switches, and the tests make millions.
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulation {

#ifdef __x86_64__
struct Context {
    void* stack_pointer = nullptr;

    void prepare(void* stack, std::size_t bytes, void (*entry)()) {
        constexpr int kept_registers = 6;
        auto* top = reinterpret_cast<void**>((reinterpret_cast<std::uintptr_t>(stack) + bytes) & ~std::uintptr_t{15});
        *--top = nullptr;  // where entry would return to
        *--top = reinterpret_cast<void*>(entry);
        for (int i = 0; i < kept_registers; ++i)
            *--top = nullptr;
        stack_pointer = top;
    }
};
extern "C" void emulation_switch(void** from, void* to);
asm(R"(
    .text
    .type emulation_switch, @function
emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulation_switch, .-emulation_switch
)");
inline void switch_stack(Context& from, const Context& to) {
    emulation_switch(&from.stack_pointer, to.stack_pointer);
}
#else
struct Context {
    ucontext_t context{};

    void prepare(void* stack, std::size_t bytes, void (*entry)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = bytes;
        makecontext(&context, entry, 0);
    }
};
inline void switch_stack(Context& from, const Context& to) {
    swapcontext(&from.context, &to.context);
}
#endif

}  // namespace emulation
