// Collectives through the host that say of themselves that they are direct: what ranks with NCCL do, where there is
// none.
#pragma once

#include <memory>
#include <utility>

#include "comm/device_collectives.hpp"

namespace fairgptq::testing {

class DirectCollectives final : public DeviceCollectives {
  public:
    DirectCollectives(MemoryOperations& memory, Communicator& comm) : through_(make_host_collectives(memory, comm)) {}
    std::string name() const override { return "direct"; }
    bool direct() const override { return true; }
    void begin_all_reduce_sum(std::span<double> values) override { through_->begin_all_reduce_sum(values); }
    void begin_reduce_sum(std::span<double> values, int root) override { through_->begin_reduce_sum(values, root); }
    void begin_all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                          std::span<const std::size_t> sizes) override {
        through_->begin_all_gather(mine, all, sizes);
    }
    void finish() override { through_->finish(); }
    void abandon() noexcept override { through_->abandon(); }

  private:
    std::unique_ptr<DeviceCollectives> through_;
};

}  // namespace fairgptq::testing
