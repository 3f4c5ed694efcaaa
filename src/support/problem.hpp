// Any exception as a sentence and an exit code.
#pragma once

#include <string>

namespace fairgptq {

struct Problem {
    std::string message;
    int exit_code;
};

/// Of the exception that is being handled; call it in a catch block.
Problem current_problem();

}  // namespace fairgptq
