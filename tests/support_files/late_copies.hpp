// The CPU with copies that arrive as late as they may: whoever forgets to wait for one is caught.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "backend/cpu/backend.hpp"

namespace fairgptq::testing {

class LateTransfers final : public Transfers {
  public:
    LateTransfers(MemoryOperations& memory, std::unique_ptr<Transfers> plain)
        : memory_(memory), plain_(std::move(plain)) {}
    Buffer allocate_host(std::size_t bytes) override { return memory_.allocate(bytes); }
    void upload(TensorView to, const void* host, DType type) override {
        const auto* bytes = static_cast<const std::byte*>(host);
        const std::vector<std::byte> copy(bytes, bytes + to.rows * to.cols * static_cast<std::int64_t>(size_of(type)));
        waiting_.push_back([this, to, copy, type] { plain_->upload(to, copy.data(), type); });
    }
    void fetch(TensorView to, const void* host) override {
        waiting_.push_back([this, to, host] { plain_->fetch(to, host); });
    }
    void store(void* host, TensorView from) override {
        waiting_.push_back([this, host, from] { plain_->store(host, from); });
    }
    void store_bytes(void* host, const void* device, std::size_t bytes) override {
        waiting_.push_back([this, host, device, bytes] { plain_->store_bytes(host, device, bytes); });
    }
    void follow_device() override {}
    void lead_device() override { finish(); }
    void finish() override {
        for (const auto& copy : waiting_)
            copy();
        waiting_.clear();
    }

  private:
    MemoryOperations& memory_;
    std::unique_ptr<Transfers> plain_;
    std::deque<std::function<void()>> waiting_;
};

class LateBackend : public CpuBackend {
  public:
    std::unique_ptr<Transfers> make_transfers() override {
        return std::make_unique<LateTransfers>(*this, CpuBackend::make_transfers());
    }
};

/// The same behind a GPU's rules: what the host wants of its memory has to be copied.
class DistantBackend final : public LateBackend {
  public:
    bool host_accessible() const override { return false; }
};

}  // namespace fairgptq::testing
