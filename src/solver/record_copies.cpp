#include "solver/record_copies.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "support/error.hpp"

namespace fairgptq {
namespace {

/// One module's rows at the host.
struct Rows {
    ModuleSolution* module;
    const std::uint8_t* codes;
    const float* scales;
    const std::uint8_t* zeros;

    void unpack() const {
        const std::int64_t elements = module->rows * module->cols, group_elements = module->rows * module->groups;
        module->codes.assign(codes, codes + elements);
        module->scales.assign(scales, scales + group_elements);
        module->zeros.assign(zeros, zeros + group_elements);
    }
};

ModuleSolution& find(std::vector<ModuleSolution>& modules, const std::string& name) {
    const auto found =
        std::find_if(modules.begin(), modules.end(), [&](const ModuleSolution& module) { return module.name == name; });
    if (found == modules.end()) throw Failure("{} was solved, and has no record", name);
    return *found;
}

}  // namespace

RecordCopies::~RecordCopies() {
    try {
        if (transfers_) transfers_->finish();  // before the memory goes that they read and write
    } catch (const std::exception&) {          // whoever lost the device says so
    }
}

/// A free room that is large enough, or a new one in place of one that is not.
Buffer RecordCopies::room_for(std::size_t bytes) {
    const auto largest = std::max_element(rooms_.begin(), rooms_.end(),
                                          [](const Buffer& a, const Buffer& b) { return a.bytes() < b.bytes(); });
    Buffer room;
    if (largest != rooms_.end()) {
        room = std::move(*largest);
        rooms_.erase(largest);
    }
    if (room.bytes() < bytes || room.data() == nullptr) {
        room = Buffer();  // before more is taken
        room = transfers_->allocate_host(bytes);
    }
    return room;
}

void RecordCopies::begin(GatheredGrids grids, std::vector<std::string> names) {
    Stack stack{std::move(grids), std::move(names), {}};
    if (!memory_.host_accessible()) {
        if (!transfers_) transfers_ = memory_.make_transfers();
        stack.host = room_for(stack.grids.bytes());
        auto* place = stack.host.as<std::byte>();
        transfers_->follow_device();
        for (const std::span<const std::byte> part : stack.grids.parts()) {
            transfers_->store_bytes(place, part.data(), part.size());
            place += part.size();
        }
    }
    stacks_.push_back(std::move(stack));
}

void RecordCopies::finish(std::vector<ModuleSolution>& modules) {
    if (transfers_) transfers_->finish();
    std::vector<Rows> all;
    for (const Stack& stack : stacks_) {
        const GatheredGrids& grids = stack.grids;
        Rows rows{nullptr, grids.codes.data, grids.scales.data, grids.zeros.data};
        if (const std::byte* host = stack.host.as<const std::byte>(); host != nullptr) {
            const auto [scales, codes, zeros] = grids.parts();
            rows = {nullptr, reinterpret_cast<const std::uint8_t*>(host + scales.size()),
                    reinterpret_cast<const float*>(host),
                    reinterpret_cast<const std::uint8_t*>(host + scales.size() + codes.size())};
        }
        for (const std::string& name : stack.names) {
            rows.module = &find(modules, name);
            all.push_back(rows);
            rows.codes += rows.module->rows * rows.module->cols;
            rows.scales += rows.module->rows * rows.module->groups;
            rows.zeros += rows.module->rows * rows.module->groups;
        }
    }
    std::exception_ptr problem;
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t i = 0; i < std::ssize(all); ++i) {
        try {
            all[static_cast<std::size_t>(i)].unpack();
        } catch (...) {
#pragma omp critical
            problem = std::current_exception();
        }
    }
    if (problem) std::rethrow_exception(problem);
    for (Stack& stack : stacks_)
        if (stack.host.data() != nullptr) rooms_.push_back(std::move(stack.host));
    stacks_.clear();
}

}  // namespace fairgptq
