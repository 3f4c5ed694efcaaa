#include "commands/exchange.hpp"

#include "comm/nccl_collectives.hpp"
#include "commands/options.hpp"
#include "support/say.hpp"

namespace fairgptq::commands {

CommChoice read_comm_choice(const cxxopts::ParseResult& parsed) {
    constexpr Names<CommChoice, 3> ways{
        {{CommChoice::automatic, "auto"}, {CommChoice::mpi, "mpi"}, {CommChoice::nccl, "nccl"}}};
    const CommChoice asked = choose(parsed, "comm", ways);
    check_comm_choice(asked, built_with_nccl());
    return asked;
}

std::unique_ptr<DeviceCollectives> make_device_collectives(CommChoice asked, Backend& backend, Communicator& comm) {
    const std::vector<RankDevice> devices = gather_devices(backend, comm);
    ExchangeChoice choice;
    together(comm, [&] { choice = choose_exchange(asked, built_with_nccl(), devices); });
    if (!choice.notice.empty()) warn_text(choice.notice);
    if (!choice.nccl) return make_host_collectives(backend, comm);
    if (asked == CommChoice::nccl) return make_nccl_collectives(backend, comm, make_nccl_calls(backend));
    return make_nccl_or_host_collectives(backend, comm, [&] { return make_nccl_calls(backend); });
}

}  // namespace fairgptq::commands
