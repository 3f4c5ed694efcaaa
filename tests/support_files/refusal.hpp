// What is refused, and with what words.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "support/error.hpp"

namespace fairgptq::testing {

/// @returns the message of the InvalidInput that `action` throws; "" if it throws nothing
inline std::string refusal_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const InvalidInput& refusal) {
        return refusal.what();
    }
    return "";
}

/// Runs `action`, which must throw InvalidInput with every one of `parts` in its message.
inline void expect_refused(const std::function<void()>& action, const std::vector<std::string>& parts) {
    std::string message;
    EXPECT_NO_THROW(message = refusal_of(action)) << "refused with the wrong kind of exception";
    EXPECT_NE(message, "") << "not refused";
    for (const std::string& part : parts)
        EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in the message: " << message;
}

}  // namespace fairgptq::testing
