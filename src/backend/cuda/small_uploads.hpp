// Host arrays that operations are given (indices, tiles, factors), on their way to the device.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>

#include "backend/cuda/event.hpp"
#include "backend/cuda/memory.hpp"

namespace fairgptq::cuda {

/// Copies to the device that nobody waits for: through page-locked memory, one half of which is filled while the stream
/// fetches from the other. One thread at a time uses it.
class SmallUploads {
  public:
    explicit SmallUploads(Memory& memory) : memory_(memory), host_(memory.allocate_host(2 * half_bytes)) {}
    SmallUploads(const SmallUploads&) = delete;
    SmallUploads& operator=(const SmallUploads&) = delete;
    ~SmallUploads() { cudaStreamSynchronize(memory_.stream()); }

    /// What the stream is asked for from here on finds at `device` what is at `host` now. More than a half waits for
    /// the stream.
    void copy(void* device, const void* host, std::size_t bytes) {
        if (bytes == 0) return;
        if (bytes > half_bytes) {
            memory_.copy_to_device(device, host, bytes);
            return;
        }
        memory_.use();
        if (used_ + bytes > half_bytes) {
            fetched_[half_].record(memory_.stream());
            half_ = 1 - half_;
            fetched_[half_].wait();
            used_ = 0;
        }
        std::byte* place = host_.as<std::byte>() + half_ * half_bytes + used_;
        std::memcpy(place, host, bytes);
        check(cudaMemcpyAsync(device, place, bytes, cudaMemcpyHostToDevice, memory_.stream()),
              "cudaMemcpyAsync (to device)");
        constexpr std::size_t apart = 64;  // bytes
        used_ += ceil_div(bytes, apart) * apart;
    }

  private:
    static constexpr std::size_t half_bytes = std::size_t{256} << 10U;
    Memory& memory_;
    Buffer host_;
    std::array<Event, 2> fetched_;
    std::size_t half_ = 0, used_ = 0;
};

}  // namespace fairgptq::cuda
