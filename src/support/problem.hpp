// Any exception as a sentence and an exit code.
#pragma once

#include <string>
#include <system_error>

namespace fairgptq {

struct Problem {
    std::string message;
    int exit_code;
};

/// Whether a user's path is what makes this impossible, or what the user may not do; the rest is what a disk does.
bool is_a_users(const std::error_code& code);

/// Of the exception that is being handled; call it in a catch block.
Problem current_problem();

}  // namespace fairgptq
