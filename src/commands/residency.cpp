#include "commands/residency.hpp"

#include <fmt/format.h>

#include "backend/cpu/backend.hpp"
#include "comm/exchange_choice.hpp"
#include "comm/shared_limits.hpp"
#include "commands/options.hpp"
#include "support/error.hpp"

namespace fairgptq::commands {
namespace {

constexpr double gibibyte = 1U << 30U;

}  // namespace

std::optional<std::size_t> read_device_memory(const cxxopts::ParseResult& parsed) {
    if (parsed.count("device-memory") == 0) return std::nullopt;
    const auto gibibytes = real(parsed, "device-memory");
    constexpr double most = 1e6;
    if (!(gibibytes > 0 && gibibytes < most))
        throw InvalidInput("--device-memory must be a number of GiB above 0, not {}", gibibytes);
    return static_cast<std::size_t>(gibibytes * gibibyte);
}

std::vector<std::string> what_waits(const MemoryPlan& plan) {
    std::vector<std::string> lines;
    if (plan.residency.weights == ReadAhead::to_host)
        lines.emplace_back("the next layer's weights wait in host memory, and are uploaded when this layer is done");
    if (plan.spilled_tokens > 0)
        lines.push_back(
            fmt::format("the hidden states of {} of a rank's {} tokens are in host memory, and fetched for each step",
                        plan.spilled_tokens, plan.tokens));
    return lines;
}

MemoryPlan plan_run(const RunInputs& inputs, const Backend& backend, Communicator& comm, bool nccl, std::size_t runs) {
    const int sharing = ranks_on_device(gather_devices(backend, comm), comm.rank());
    const std::vector<SharedLimit> limits = shared_limits(memory_limits(), comm);
    PlanDevice device{backend.activation_type(), !backend.host_accessible(), inputs.device_memory};
    MemoryPlan plan;
    together(comm, [&] {
        // A little stays free: an allocator rounds up.
        constexpr double usable = 0.97;
        if (const auto available = backend.available(); available && !device.limit)
            device.limit = gpu_context_bytes + (nccl ? nccl_bytes : 0) +
                           static_cast<std::size_t>(usable * static_cast<double>(*available) / sharing);
        plan = plan_memory(inputs.family, inputs.chunks, inputs.file_tokens, inputs.settings, inputs.grids, comm.size(),
                           device, runs);
        if (!plan.fits)
            throw InvalidInput(
                "{}: a rank needs {:.2f} GiB of memory and may use {:.2f}; take more ranks, a smaller --chunk-tokens "
                "or fewer tokens (fairgptq plan shows what needs it)",
                inputs.device_memory ? "--device-memory" : backend.name(),
                static_cast<double>(plan.needed(device.gpu)) / gibibyte, static_cast<double>(*device.limit) / gibibyte);
        if (!device.gpu) check_address_space(plan.host_kept);
        if (const auto missing = missing_host_memory(plan, limits)) throw InvalidInput("{}", *missing);
    });
    return plan;
}

}  // namespace fairgptq::commands
