// What stands in nccl/calls.cpp's place in a build without NCCL.
#ifndef FAIRGPTQ_NCCL
#include "comm/nccl_calls.hpp"
#include "support/error.hpp"

namespace fairgptq {

bool built_with_nccl() {
    return false;
}

std::unique_ptr<NcclCalls> make_nccl_calls(Backend&) {
    throw Failure("this build has no NCCL");
}

}  // namespace fairgptq
#endif
