// The shapes that every failure takes. main() turns each into one sentence on stderr and an exit code.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace fairgptq {

/// What the user gave cannot be used (option, file, model, run): exit code 2, nothing written.
/// The message is one sentence that names the file, tensor or option and says what would be right.
class InvalidInput : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
    template <class... Args>
    explicit InvalidInput(fmt::format_string<Args...> format, Args&&... args)
        : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

/// Something the machine did (full disk, lost rank, library error): exit code 1.
class Failure : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
    template <class... Args>
    explicit Failure(fmt::format_string<Args...> format, Args&&... args)
        : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

}  // namespace fairgptq
