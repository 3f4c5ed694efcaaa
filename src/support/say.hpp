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

/// One line as "fairgptq: warning: …", coloured on a terminal; of rank 0 alone (main() says so to spdlog).
void warn_text(const std::string& text);

/// spdlog::warn, whose formatting would be compiled with each file that calls it.
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
    warn_text(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace fairgptq
