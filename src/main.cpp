// Looks the command up, turns exceptions into messages and exit codes.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <exception>
#include <string_view>

#include "commands/command.hpp"
#include "support/error.hpp"

namespace {
using namespace fairgptq;

struct Entry {
    std::string_view name;
    commands::Function function;
    bool uses_ranks;  // otherwise one process does it all, without MPI
    std::string_view summary;
};

constexpr std::array<Entry, 0> entries{};

}  // namespace

int main(int, char**) { return entries.empty() ? 1 : 0; }
