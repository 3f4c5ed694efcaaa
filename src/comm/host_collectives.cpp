#include <algorithm>
#include <vector>

#include "comm/device_collectives.hpp"

namespace fairgptq {
namespace {

class HostCollectives final : public DeviceCollectives {
  public:
    HostCollectives(MemoryOperations& memory, Communicator& comm) : memory_(memory), comm_(comm) {}
    std::string name() const override { return comm_.size() == 1 ? "one rank" : "mpi"; }
    bool direct() const override { return memory_.host_accessible(); }

    void begin_all_reduce_sum(std::span<double> values) override {
        through_host(values, true, [this](std::span<double> host) { comm_.all_reduce_sum(host); });
    }
    void begin_reduce_sum(std::span<double> values, int root) override {
        through_host(values, root == comm_.rank(), [&](std::span<double> host) { comm_.reduce_sum(host, root); });
    }

    void begin_all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                          std::span<const std::size_t> sizes) override {
        if (memory_.host_accessible()) return comm_.all_gather(mine, all, sizes);
        std::vector<std::byte> copy(mine.size()), host(all.size());
        memory_.copy_to_host(copy.data(), mine.data(), copy.size());
        comm_.all_gather(copy, host, sizes);
        memory_.copy_to_device(all.data(), host.data(), host.size());
    }

    void finish() override {}
    void abandon() noexcept override {}

  private:
    /// @param back whether the result is wanted here
    template <class Sum>
    void through_host(std::span<double> values, bool back, const Sum& sum) {
        if (comm_.size() == 1) return;
        if (memory_.host_accessible()) return sum(values);
        constexpr std::size_t piece = std::size_t{1} << 24U;
        std::vector<double> copy(std::min(piece, values.size()));
        for (std::size_t begin = 0; begin < values.size(); begin += piece) {
            const auto device = values.subspan(begin, std::min(piece, values.size() - begin));
            const std::span<double> host(copy.data(), device.size());
            memory_.copy_to_host(host.data(), device.data(), host.size_bytes());
            sum(host);
            if (back) memory_.copy_to_device(device.data(), host.data(), host.size_bytes());
        }
    }

    MemoryOperations& memory_;
    Communicator& comm_;
};

}  // namespace

std::unique_ptr<DeviceCollectives> make_host_collectives(MemoryOperations& memory, Communicator& comm) {
    return std::make_unique<HostCollectives>(memory, comm);
}

}  // namespace fairgptq
