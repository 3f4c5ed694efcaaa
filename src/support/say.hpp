// What a person at the terminal reads beside the result: progress, notices, complaints.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace fairgptq {

/// Writes to stderr. Where that cannot be (a full disk, a terminal that is gone), the work goes on without.
template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    (void)std::fwrite(text.data(), 1, text.size(), stderr);
    (void)std::fflush(stderr);
}

}  // namespace fairgptq
