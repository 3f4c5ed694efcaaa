#include "backend/cuda/launch.cuh"
#include "backend/cuda/rotary_kernels.hpp"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

constexpr int rotary_block = 128;

struct Turn {
    float cosine, sine;
};

/// The angle is found in float64, and what is left of it after whole quarters, at most π/4, turned in float32: float64
/// functions would be what smaller GPUs, with a 32nd of the units for it, wait for.
__device__ Turn turn_of(std::int64_t position, float frequency) {
    constexpr double quarter = 1.5707963267948966;          // π/2,
    constexpr double quarter_rest = 6.123233995736766e-17;  // and what it is more than that
    const double angle = static_cast<double>(position) * static_cast<double>(frequency);
    const double quarters = rint(angle * 0.6366197723675814);
    const auto rest = static_cast<float>(fma(-quarters, quarter_rest, fma(-quarters, quarter, angle)));
    float sine = 0;
    float cosine = 0;
    sincosf(rest, &sine, &cosine);
    const auto which = static_cast<std::int64_t>(quarters);
    const float c = (which & 1) != 0 ? sine : cosine;
    const float s = (which & 1) != 0 ? cosine : sine;
    return {((which + 1) & 2) != 0 ? -c : c, (which & 2) != 0 ? -s : s};
}

/// A block has a token: it finds each angle once, then turns that pair of elements of every head by it.
/// @tparam Neighbours whether elements 2i and 2i + 1 are a pair, or i and i + half
template <class T, bool Whole, bool Neighbours>
__global__ void rotary(PlainTensor heads, std::int64_t head_dim, std::int64_t half, const std::int64_t* positions,
                       const float* frequencies, float attention_factor) {
    __shared__ float cosines[rotary_block];
    __shared__ float sines[rotary_block];
    constexpr int elements = chunk_elements<T>;
    const auto thread = static_cast<int>(threadIdx.x);
    const auto head_count = static_cast<unsigned>((heads.cols + head_dim - 1) / head_dim);
    for (std::int64_t token = blockIdx.x; token < heads.rows; token += gridDim.x)
        for (std::int64_t first = 0; first < half; first += rotary_block) {
            const auto angles = static_cast<int>(smaller(rotary_block, half - first));
            __syncthreads();  // the last angles' readers
            if (thread < angles) {
                const Turn turn = turn_of(positions[token], frequencies[first + thread]);
                cosines[thread] = turn.cosine * attention_factor;
                sines[thread] = turn.sine * attention_factor;
            }
            __syncthreads();
            T* row = row_to_write<T>(heads, token) + (Neighbours ? 2 * first : first);
            const int turned = Neighbours ? 2 * angles : angles;
            const unsigned chunks = static_cast<unsigned>(turned + elements - 1) / elements;
            for (unsigned item = threadIdx.x; item < head_count * chunks; item += rotary_block) {
                const int i = static_cast<int>(item % chunks) * elements;
                const int count = count_in_chunk<Whole, T>(i, turned);
                T* place = row + item / chunks * head_dim + i;
                Chunk a = load_chunk<Whole>(place, count);
                if constexpr (Neighbours) {
#pragma unroll
                    for (int j = 0; j < elements; j += 2) {
                        const float c = j < count ? cosines[(i + j) / 2] : 0.0F;
                        const float s = j < count ? sines[(i + j) / 2] : 0.0F;
                        const float x = element<T>(a, j);
                        const float y = element<T>(a, j + 1);
                        set_element<T>(fmaf(-y, s, x * c), j, a);
                        set_element<T>(fmaf(x, s, y * c), j + 1, a);
                    }
                    store_chunk<Whole>(a, place, count);
                    continue;
                }
                Chunk b = load_chunk<Whole>(place + half, count);
#pragma unroll
                for (int j = 0; j < elements; ++j) {
                    const float c = j < count ? cosines[i + j] : 0.0F;
                    const float s = j < count ? sines[i + j] : 0.0F;
                    const float x = element<T>(a, j);
                    const float y = element<T>(b, j);
                    set_element<T>(fmaf(-y, s, x * c), j, a);
                    set_element<T>(fmaf(x, s, y * c), j, b);
                }
                store_chunk<Whole>(a, place, count);
                store_chunk<Whole>(b, place + half, count);
            }
        }
}

}  // namespace

cudaError_t launch_rotary(const PlainTensor& heads, std::int64_t head_dim, std::int64_t half,
                          const std::int64_t* positions, const float* frequencies, float attention_factor,
                          bool neighbours, cudaStream_t stream) {
    if (heads.rows == 0 || heads.cols == 0) return cudaSuccess;
    const std::int64_t chunk = heads.type == DType::float32 ? 4 : 8;
    const bool whole = in_whole_chunks(heads) && head_dim % chunk == 0 && half * (neighbours ? 2 : 1) % chunk == 0;
    return with_type(heads.type, [&](auto element) {
        using T = decltype(element);
        return with_known(whole, [&](auto known) {
            constexpr bool is_whole = decltype(known)::value;
            return launch({blocks_for(heads.rows, 1), rotary_block, 0, stream},
                          neighbours ? rotary<T, is_whole, true> : rotary<T, is_whole, false>, heads, head_dim, half,
                          positions, frequencies, attention_factor);
        });
    });
}

}  // namespace fairgptq::cuda
