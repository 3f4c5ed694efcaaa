#include "backend/soft_cap.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::soft_cap(TensorView values, float cap) {
    if (!(cap > 0)) throw Failure("soft_cap: {} is not above 0", cap);
    memory_.use();
    cuda::check(cuda::launch_soft_cap(cuda::plain(values), cap, stream()), "soft_cap");
}

}  // namespace fairgptq
