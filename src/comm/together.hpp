// Work that every rank does, and that fails at every rank if it fails at one.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "comm/communicator.hpp"

namespace fairgptq {

/// A failure that every rank knows of: all end with this exit code, and only `speaker` says why.
class SharedFailure : public std::runtime_error {
  public:
    SharedFailure(const std::string& message, int code, int speaking_rank)
        : std::runtime_error(message), exit_code(code), speaker(speaking_rank) {}
    int exit_code;
    int speaker;
};

/// Does the same work at every rank, and fails at every rank if it failed at any: no rank goes on alone into a
/// collective, and the user reads one sentence, not one per rank. The work itself must not call collectives.
/// @throws SharedFailure
void together(Communicator& comm, const std::function<void()>& work);

}  // namespace fairgptq
