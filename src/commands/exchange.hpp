// --comm: how the ranks of quantize and sweep exchange what their devices hold.
#pragma once

#include <cxxopts.hpp>
#include <memory>

#include "backend/backend.hpp"
#include "comm/communicator.hpp"
#include "comm/exchange_choice.hpp"

namespace fairgptq::commands {

/// @throws InvalidInput for a word that is none of the three, or NCCL in a build without it
CommChoice read_comm_choice(const cxxopts::ParseResult& parsed);

/// A collective; says at rank 0 what the user did not ask for. @throws SharedFailure, with the sentence of what is
/// wrong
std::unique_ptr<DeviceCollectives> make_device_collectives(CommChoice asked, Backend& backend, Communicator& comm);

}  // namespace fairgptq::commands
