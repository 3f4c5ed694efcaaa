// Collectives that count what is begun at rank 0.
#pragma once

#include "comm/device_collectives.hpp"

namespace fairgptq::testing {

struct Begun {
    int sums = 0, sums_for_one = 0, gatherings = 0;
};

class CountingCollectives final : public DeviceCollectives {
  public:
    CountingCollectives(DeviceCollectives& through, const Communicator& comm, Begun& begun)
        : through_(through), begun_(comm.rank() == 0 ? begun : ignored_) {}
    std::string name() const override { return through_.name(); }
    bool direct() const override { return through_.direct(); }
    void begin_all_reduce_sum(std::span<double> values) override {
        ++begun_.sums;
        through_.begin_all_reduce_sum(values);
    }
    void begin_reduce_sum(std::span<double> values, int root) override {
        ++begun_.sums_for_one;
        through_.begin_reduce_sum(values, root);
    }
    void begin_all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                          std::span<const std::size_t> sizes) override {
        ++begun_.gatherings;
        through_.begin_all_gather(mine, all, sizes);
    }
    void finish() override { through_.finish(); }
    void abandon() noexcept override { through_.abandon(); }

  private:
    DeviceCollectives& through_;
    Begun ignored_;
    Begun& begun_;
};

}  // namespace fairgptq::testing
