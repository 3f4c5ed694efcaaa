// Angles are found in double precision, once a token and pair of elements, and shared by all heads. Positions stay on
// the device while they are those of the last call, so that keys do not wait for queries.
#include "backend/rotary.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/rotary_kernels.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::rotary_at(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> positions,
                            std::span<const float> frequencies, float attention_factor, RotaryPairs pairs) {
    check_rotary(heads, head_dim, positions, frequencies);
    memory_.use();
    const std::int64_t* device_positions = positions_.on_device(positions);
    const float* device_frequencies = frequencies_.on_device(frequencies);
    cuda::check(cuda::launch_rotary(cuda::plain(heads), head_dim, std::ssize(frequencies), device_positions,
                                    device_frequencies, attention_factor, pairs == RotaryPairs::neighbours, stream()),
                "rotary");
}

}  // namespace fairgptq
