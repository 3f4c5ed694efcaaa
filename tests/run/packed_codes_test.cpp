#include "run/packed_codes.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "run/sample.hpp"

namespace fairgptq {
namespace {

TEST(PackCodes, PutsColumnJAtBitsJTimesBits) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const std::int64_t cols : {1, 2, 3, 5, 8, 31, 32, 33}) {
            const ModuleSolution module =
                test::sample_module("", {.rows = 3, .cols = cols, .group_size = cols, .bits = bits}, 5);
            const std::int64_t row_bytes = (cols * bits + 7) / 8;
            std::vector<std::uint8_t> packed(static_cast<std::size_t>(3 * row_bytes), 0xff);
            pack_codes(module.codes, 3, cols, bits, packed);
            for (std::int64_t row = 0; row < 3; ++row) {
                for (std::int64_t bit = 0; bit < row_bytes * 8; ++bit) {
                    const int stored = (packed[row * row_bytes + bit / 8] >> (bit % 8)) & 1;
                    const int wanted =
                        bit < cols * bits ? (module.codes[row * cols + bit / bits] >> (bit % bits)) & 1 : 0;
                    ASSERT_EQ(stored, wanted)
                        << bits << " bits, " << cols << " columns, row " << row << ", bit " << bit;
                }
            }
            std::vector<std::uint8_t> unpacked(module.codes.size(), 0xff);
            unpack_codes(packed, 3, cols, bits, unpacked);
            EXPECT_EQ(unpacked, module.codes);
        }
    }
    pack_codes({}, 0, 64, 4, {});
    unpack_codes({}, 0, 64, 4, {});
}

}  // namespace
}  // namespace fairgptq
