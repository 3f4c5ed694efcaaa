// Angles are found in double precision, once a token and pair of elements, and shared by all heads.
#include "backend/rotary.hpp"

#include <vector>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/sequences.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::rotary(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> offsets,
                         std::span<const float> frequencies, float attention_factor) {
    if (head_dim <= 0 || head_dim % 2 != 0 || heads.cols % head_dim != 0)
        throw Failure("rotary: {} features are not heads of {} elements, an even number", heads.cols, head_dim);
    if (std::ssize(frequencies) != head_dim / 2)
        throw Failure("rotary: {} frequencies were given for heads of {} elements", frequencies.size(), head_dim);
    std::vector<std::int32_t> positions = cuda::first_tokens("rotary", offsets, heads.rows);
    for (std::size_t token = 0; token < positions.size(); ++token)
        positions[token] = static_cast<std::int32_t>(token) - positions[token];
    const std::int32_t* device_positions = on_device(std::span<const std::int32_t>(positions), indices_);
    const float* device_frequencies = on_device(frequencies, flags_);
    cuda::check(cuda::launch_rotary(cuda::plain(heads), head_dim, device_positions, device_frequencies,
                                    attention_factor, stream()),
                "rotary");
}

}  // namespace fairgptq
