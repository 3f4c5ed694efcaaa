// Damage done to a file's bytes: what truncation, bad disks and hostile hands do, and what parsers get wrong.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <string>

namespace fairgptq::fuzz {

class Mutator {
  public:
    explicit Mutator(std::uint64_t seed) : random_(seed) {}

    std::size_t below(std::size_t bound) {
        return bound == 0 ? 0 : std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_);
    }

    /// One change, or up to eight: many let nothing but the first check be reached.
    std::string operator()(std::string bytes) {
        for (std::size_t changes = below(2) == 0 ? 1 : 1 + below(8); changes > 0 && !bytes.empty(); --changes)
            change(bytes);
        return bytes;
    }

  private:
    void change(std::string& bytes) {
        const std::size_t place = below(bytes.size());
        const std::size_t length = 1 + below(std::min<std::size_t>(bytes.size() - place, std::size_t{1} << below(9)));
        switch (below(9)) {
            case 0:
                bytes[place] = static_cast<char>(bytes[place] ^ (1 << below(8)));
                break;
            case 1:
                bytes[place] = static_cast<char>(below(256));
                break;
            case 2:
            case 3:
                overwrite_integer(bytes, place);
                break;
            case 4:
                replace_number(bytes, place);
                break;
            case 5:
                bytes.erase(place, length);
                break;
            case 6:
                bytes.insert(below(bytes.size()), bytes.substr(place, length));
                break;
            case 7: {
                const std::string part = bytes.substr(place, length);
                const std::size_t to = below(bytes.size() - part.size() + 1);
                bytes.replace(to, part.size(), part);
                break;
            }
            default:
                if (below(4) == 0) bytes.resize(place);
                break;
        }
    }

    std::uint64_t interesting(std::size_t file_bytes) {
        const std::array<std::uint64_t, 16> values{0,
                                                   1,
                                                   2,
                                                   0x7f,
                                                   0xff,
                                                   0x7fff,
                                                   0xffff,
                                                   0x7fffffff,
                                                   0x80000000,
                                                   0xffffffff,
                                                   0x100000000,
                                                   std::uint64_t{1} << 62,
                                                   ~std::uint64_t{0} >> 1U,
                                                   ~std::uint64_t{0},
                                                   file_bytes,
                                                   below(file_bytes + 1)};
        return values.at(below(values.size())) + below(3) - 1;
    }

    /// A little-endian integer of 1, 2, 4 or 8 bytes.
    void overwrite_integer(std::string& bytes, std::size_t place) {
        const std::uint64_t value = interesting(bytes.size());
        const std::size_t width = std::size_t{1} << below(4);
        for (std::size_t i = 0; i < width && place + i < bytes.size(); ++i)
            bytes[place + i] = static_cast<char>(value >> (8 * i));
    }

    /// The next number written in digits, by another one.
    void replace_number(std::string& bytes, std::size_t place) {
        const std::size_t first = bytes.find_first_of("0123456789", place);
        if (first == std::string::npos) return;
        const std::size_t end = std::min(bytes.find_first_not_of("0123456789", first), bytes.size());
        const std::array<std::string, 10> words{
            "-1", "1e400", "0.5", "null", "\"1\"", "[]", "{}", "true", "99999999999999999999", ""};
        bytes.replace(first, end - first,
                      below(2) == 0 ? std::to_string(interesting(bytes.size())) : words.at(below(words.size())));
    }

    std::mt19937_64 random_;
};

}  // namespace fairgptq::fuzz
