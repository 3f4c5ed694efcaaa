// Words for a few values, in options and in files.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "support/error.hpp"

namespace fairgptq {

template <class T, std::size_t Size>
using Names = std::array<std::pair<T, std::string_view>, Size>;

/// @param what was given, for the message: "--solver"
/// @throws InvalidInput listing the words
template <class T, std::size_t Size>
T value_named(const Names<T, Size>& names, std::string_view what, std::string_view name) {
    std::string known;
    for (const auto& [value, word] : names) {
        if (word == name) return value;
        known += known.empty() ? "" : ", ";
        known += word;
    }
    throw InvalidInput("{} must be one of {}, not '{}'", what, known, name);
}

/// The word of a value that has one.
template <class T, std::size_t Size>
std::string name_of(const Names<T, Size>& names, T value) {
    return std::string(std::ranges::find(names, value, &std::pair<T, std::string_view>::first)->second);
}

}  // namespace fairgptq
