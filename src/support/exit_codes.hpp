// What the program's exit codes mean to whoever started it.
#pragma once

namespace fairgptq {

constexpr int exit_done = 0;
constexpr int exit_failed = 1;
constexpr int exit_invalid = 2;
constexpr int exit_stopped = 75;  // EX_TEMPFAIL: start again with --resume

}  // namespace fairgptq
