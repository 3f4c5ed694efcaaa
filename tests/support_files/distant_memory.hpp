// The CPU's memory behind a GPU's rules: the host may not touch it, so whoever forgets to copy is caught.
#pragma once

#include "backend/backend.hpp"

namespace fairgptq::testing {

class DistantMemory final : public MemoryOperations {
  public:
    explicit DistantMemory(Backend& cpu) : cpu_(cpu) {}
    Buffer allocate(std::size_t bytes) override { return cpu_.allocate(bytes); }
    void copy_to_device(void* device, const void* host, std::size_t bytes) override {
        cpu_.copy_to_device(device, host, bytes);
    }
    void copy_to_host(void* host, const void* device, std::size_t bytes) override {
        cpu_.copy_to_host(host, device, bytes);
    }
    void copy_on_device(void* to, const void* from, std::size_t bytes) override {
        cpu_.copy_on_device(to, from, bytes);
    }
    void zero(void* device, std::size_t bytes) override { cpu_.zero(device, bytes); }
    bool host_accessible() const override { return false; }
    void synchronize() override {}
    void upload(TensorView to, const void* host, DType type) override { cpu_.upload(to, host, type); }

  private:
    Backend& cpu_;
};

}  // namespace fairgptq::testing
