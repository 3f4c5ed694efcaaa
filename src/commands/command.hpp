// What every command looks like from main.cpp.
#pragma once

#include "comm/communicator.hpp"
#include "support/exit_codes.hpp"

namespace fairgptq::commands {

/// argv[0] is the command's name. @returns the exit code; failures are exceptions (support/error.hpp)
using Function = int (*)(int argc, char** argv, Communicator& comm);

int quantize(int argc, char** argv, Communicator& comm);
int export_model(int argc, char** argv, Communicator& comm);
int eval(int argc, char** argv, Communicator& comm);
int logits(int argc, char** argv, Communicator& comm);
int compare(int argc, char** argv, Communicator& comm);
int sweep(int argc, char** argv, Communicator& comm);
int watch(int argc, char** argv, Communicator& comm);
int diverge(int argc, char** argv, Communicator& comm);
int plan(int argc, char** argv, Communicator& comm);
int inspect(int argc, char** argv, Communicator& comm);
int solve(int argc, char** argv, Communicator& comm);
int bench(int argc, char** argv, Communicator& comm);

}  // namespace fairgptq::commands
