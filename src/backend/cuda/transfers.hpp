// Copies on a stream of their own, from and to page-locked host memory.
#pragma once

#include <array>
#include <memory>

#include "backend/cuda/event.hpp"
#include "backend/cuda/memory.hpp"
#include "backend/transfers.hpp"

namespace fairgptq::cuda {

class StreamTransfers final : public Transfers {
  public:
    /// Page-locked memory that an upload goes through, and as much on the device where its type is converted.
    static constexpr std::size_t piece_bytes = std::size_t{64} << 20U;
    static constexpr std::size_t pieces = 2;

    /// The memory must outlive the object.
    explicit StreamTransfers(Memory& memory) : memory_(made_current(memory)) {}
    StreamTransfers(const StreamTransfers&) = delete;
    StreamTransfers& operator=(const StreamTransfers&) = delete;
    /// Waits for what is on its way: an exception may come between that and finish().
    ~StreamTransfers() override { cudaStreamSynchronize(stream_.get()); }

    Buffer allocate_host(std::size_t bytes) override { return memory_.allocate_host(bytes); }
    void upload(TensorView to, const void* host, DType type) override;
    void fetch(TensorView to, const void* host) override;
    void store(void* host, TensorView from) override;
    void store_bytes(void* host, const void* device, std::size_t bytes) override;
    void follow_device() override;
    void lead_device() override;
    void finish() override;

  private:
    /// A piece on its way: the host fills one while the other travels.
    struct Piece {
        Buffer host, device;
        Event travelled;
    };

    /// Its GPU is the calling thread's: streams and events are made on that.
    static Memory& made_current(Memory& memory) {
        memory.use();
        return memory;
    }

    Memory& memory_;
    Stream stream_;
    std::array<Piece, pieces> pieces_;
    std::size_t next_ = 0;
    Event device_has_come_, copies_have_come_;
};

}  // namespace fairgptq::cuda
