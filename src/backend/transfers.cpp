// Transfers of a backend without streams: every copy has arrived when it returns.
#include "backend/transfers.hpp"

#include "backend/memory.hpp"

namespace fairgptq {
namespace {

class PlainTransfers final : public Transfers {
  public:
    explicit PlainTransfers(MemoryOperations& memory) : memory_(memory) {}
    Buffer allocate_host(std::size_t bytes) override { return memory_.allocate(bytes); }
    void upload(TensorView to, const void* host, DType type) override { memory_.upload(to, host, type); }
    void fetch(TensorView to, const void* host) override {
        const std::size_t bytes = row_bytes(to);
        for (std::int64_t row = 0; row < to.rows; ++row)
            memory_.copy_to_device(to.row(row), static_cast<const std::byte*>(host) + row * bytes, bytes);
    }
    void store(void* host, TensorView from) override {
        const std::size_t bytes = row_bytes(from);
        for (std::int64_t row = 0; row < from.rows; ++row)
            memory_.copy_to_host(static_cast<std::byte*>(host) + row * bytes, from.row(row), bytes);
    }
    void store_bytes(void* host, const void* device, std::size_t bytes) override {
        memory_.copy_to_host(host, device, bytes);
    }
    void follow_device() override {}
    void lead_device() override {}
    void finish() override {}

  private:
    static std::size_t row_bytes(TensorView view) { return static_cast<std::size_t>(view.cols) * size_of(view.type); }
    MemoryOperations& memory_;
};

}  // namespace

std::unique_ptr<Transfers> MemoryOperations::make_transfers() {
    return std::make_unique<PlainTransfers>(*this);
}

}  // namespace fairgptq
