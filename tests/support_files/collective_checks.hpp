// What collectives on a device's memory must do, whatever they are made of: called by every rank, in threads or under
// mpirun.
#pragma once

#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/device_collectives.hpp"
#include "support/error.hpp"

namespace fairgptq::testing {

inline void expect(bool holds, const std::string& what) {
    if (!holds) throw Failure("expected {}", what);
}

/// `count` doubles on the device.
class DeviceDoubles {
  public:
    DeviceDoubles(MemoryOperations& memory, const std::vector<double>& values)
        : memory_(memory), buffer_(memory.allocate(values.size() * sizeof(double))), count_(values.size()) {
        memory.copy_to_device(buffer_.data(), values.data(), count_ * sizeof(double));
    }
    std::span<double> span() const { return {buffer_.as<double>(), count_}; }
    std::vector<double> host() const {
        std::vector<double> values(count_);
        memory_.copy_to_host(values.data(), buffer_.data(), count_ * sizeof(double));
        return values;
    }

  private:
    MemoryOperations& memory_;
    Buffer buffer_;
    std::size_t count_;
};

/// Two sums under way at once, as those of H and C are.
inline void check_sums(MemoryOperations& memory, DeviceCollectives& collectives, const Communicator& comm,
                       std::size_t count) {
    std::vector<double> first(count), second(count + 1);
    for (std::size_t i = 0; i < count; ++i)
        first[i] = static_cast<double>(i + 1) * (comm.rank() + 1);
    std::iota(second.begin(), second.end(), 0.5);
    const DeviceDoubles a(memory, first), b(memory, second);
    Exchange exchange(collectives);
    exchange.all_reduce_sum(a.span());
    exchange.all_reduce_sum(b.span());
    exchange.finish();
    const double ranks = comm.size() * (comm.size() + 1) / 2.0;
    const std::vector<double> sum = a.host(), other = b.host();
    for (std::size_t i = 0; i < count; ++i)
        expect(sum[i] == static_cast<double>(i + 1) * ranks, "the sum over ranks");
    for (std::size_t i = 0; i <= count; ++i)
        expect(other[i] == (static_cast<double>(i) + 0.5) * comm.size(), "the other sum over ranks");
}

/// Sums for each rank in turn, all under way at once.
inline void check_sums_of_one(MemoryOperations& memory, DeviceCollectives& collectives, const Communicator& comm,
                              std::size_t count) {
    std::vector<DeviceDoubles> sums;
    for (int root = 0; root < comm.size(); ++root)
        sums.emplace_back(memory, std::vector(count, 10.0 * root + comm.rank() + 1));
    Exchange exchange(collectives);
    for (int root = 0; root < comm.size(); ++root)
        exchange.reduce_sum(sums[static_cast<std::size_t>(root)].span(), root);
    exchange.finish();
    const double expected = comm.size() * (10.0 * comm.rank() + (comm.size() + 1) / 2.0);
    expect(sums[static_cast<std::size_t>(comm.rank())].host() == std::vector(count, expected), "the sum at one rank");
}

/// Rank r gives r·unit bytes, so rank 0 gives none; and, in the same exchange, all give as much.
inline void check_gathering(MemoryOperations& memory, DeviceCollectives& collectives, const Communicator& comm,
                            std::size_t unit) {
    const auto ranks = static_cast<std::size_t>(comm.size());
    const auto me = static_cast<std::size_t>(comm.rank());
    std::vector<std::size_t> sizes(ranks);
    for (std::size_t r = 0; r < ranks; ++r)
        sizes[r] = r * unit;
    const std::vector<std::byte> values(sizes[me], static_cast<std::byte>(me + 1));
    const Buffer mine = memory.allocate(values.size());
    memory.copy_to_device(mine.data(), values.data(), values.size());
    std::vector<std::byte> all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}));
    const Buffer gathered = memory.allocate(all.size());
    const DeviceDoubles number(memory, {static_cast<double>(me)}), gathered_numbers(memory, std::vector(ranks, 0.0));
    {
        Exchange exchange(collectives);
        exchange.all_gather({mine.as<const std::byte>(), values.size()}, {gathered.as<std::byte>(), all.size()}, sizes);
        exchange.all_gather(std::as_bytes(number.span()), std::as_writable_bytes(gathered_numbers.span()),
                            std::vector<std::size_t>(ranks, sizeof(double)));
        exchange.finish();
    }
    memory.copy_to_host(all.data(), gathered.data(), all.size());
    const std::vector<double> numbers = gathered_numbers.host();
    std::size_t at = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
        expect(numbers[r] == static_cast<double>(r), "every rank's number");
        for (std::size_t i = 0; i < sizes[r]; ++i)
            expect(all[at++] == static_cast<std::byte>(r + 1), "every rank's bytes");
    }
}

inline void check_collectives(MemoryOperations& memory, DeviceCollectives& collectives, const Communicator& comm) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{30}}) {
        check_sums(memory, collectives, comm, count);
        check_sums_of_one(memory, collectives, comm, count);
        check_gathering(memory, collectives, comm, count);
    }
}

/// Sizes that disagree, or do not fit. The object is of no further use.
inline void check_refusal(DeviceCollectives& collectives, const Communicator& comm) {
    bool refused = false;
    std::vector<std::byte> all(1);
    try {
        Exchange exchange(collectives);
        exchange.all_gather({}, all, std::vector<std::size_t>(static_cast<std::size_t>(comm.size()) + 1, 0));
    } catch (const Failure&) {
        refused = true;
    }
    expect(refused, "sizes that disagree to be refused");
}

}  // namespace fairgptq::testing
