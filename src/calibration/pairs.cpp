#include "calibration/pairs.hpp"

#include <algorithm>

namespace fairgptq {

void align_pair(PairAlignment alignment, std::span<const std::int32_t> ids0, std::int32_t first0,
                std::span<const std::int32_t> ids1, std::int32_t first1, std::vector<PairColumn>& columns) {
    const auto length0 = static_cast<std::int32_t>(ids0.size());
    const auto length1 = static_cast<std::int32_t>(ids1.size());
    const std::int32_t shorter = std::min(length0, length1);
    if (shorter == 0) return;
    const auto match = [&](std::int32_t from0, std::int32_t from1, std::int32_t count) {
        for (std::int32_t t = 0; t < count; ++t)
            columns.push_back({first0 + from0 + t, 1, first1 + from1 + t, 1});
    };
    switch (alignment) {
        case PairAlignment::position:
            match(0, 0, shorter);
            break;
        case PairAlignment::common:
        case PairAlignment::context: {
            std::int32_t prefix = 0;
            while (prefix < shorter && ids0[prefix] == ids1[prefix])
                ++prefix;
            std::int32_t suffix = 0;
            while (suffix < shorter - prefix && ids0[length0 - 1 - suffix] == ids1[length1 - 1 - suffix])
                ++suffix;
            if (alignment == PairAlignment::common)
                match(0, 0, shorter - suffix);  // the prefix, and the middle from its left end
            match(length0 - suffix, length1 - suffix, suffix);
            break;
        }
        case PairAlignment::mean:
            columns.push_back({first0, length0, first1, length1});
            break;
    }
}

}  // namespace fairgptq
