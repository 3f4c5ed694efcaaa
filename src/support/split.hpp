// Lists in a line of text.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace fairgptq {

/// The parts between commas, or between other signs: one more than there are signs, empty ones too. None of an empty
/// text.
inline std::vector<std::string> split(std::string_view text, char sign = ',') {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin <= text.size() && !text.empty();) {
        const std::size_t end = std::min(text.find(sign, begin), text.size());
        parts.emplace_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

}  // namespace fairgptq
