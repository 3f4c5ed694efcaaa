// Angles are found in double precision, once a token and pair of elements, and shared by all heads. Positions stay on
// the device while they are those of the last call, so that keys do not wait for queries.
#include "backend/rotary.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"
#include "backend/sequences.hpp"

namespace fairgptq {

void CudaBackend::rotary(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> offsets,
                         std::span<const float> frequencies, float attention_factor) {
    check_offsets("rotary", offsets, heads.rows);
    std::vector<std::int64_t> positions(static_cast<std::size_t>(heads.rows));
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
        std::iota(positions.begin() + offsets[s], positions.begin() + offsets[s + 1], std::int64_t{0});
    rotary_at(heads, head_dim, positions, frequencies, attention_factor);
}

void CudaBackend::rotary_at(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> positions,
                            std::span<const float> frequencies, float attention_factor) {
    if (head_dim <= 0 || head_dim % 2 != 0 || heads.cols % head_dim != 0)
        throw Failure("rotary: {} features are not heads of {} elements, an even number", heads.cols, head_dim);
    if (std::ssize(frequencies) != head_dim / 2)
        throw Failure("rotary: {} frequencies were given for heads of {} elements", frequencies.size(), head_dim);
    if (std::ssize(positions) != heads.rows)
        throw Failure("rotary: {} positions were given for {} tokens", positions.size(), heads.rows);
    if (std::any_of(positions.begin(), positions.end(), [](std::int64_t position) { return position < 0; }))
        throw Failure("rotary: a position is negative");
    memory_.use();
    const std::int64_t* device_positions = positions_.on_device(positions);
    const float* device_frequencies = frequencies_.on_device(frequencies);
    cuda::check(cuda::launch_rotary(cuda::plain(heads), head_dim, device_positions, device_frequencies,
                                    attention_factor, stream()),
                "rotary");
}

}  // namespace fairgptq
