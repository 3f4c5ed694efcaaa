#include "support/sha256.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "support/error.hpp"

namespace fairgptq {
namespace {

constexpr std::size_t block_bytes = 64;
constexpr std::size_t rounds = 64;

/// The first 32 bits behind the point of the square roots (of the first 8 primes) and cube roots (of the first 64).
struct Constants {
    std::array<std::uint32_t, 8> start{};
    std::array<std::uint32_t, rounds> round{};

    Constants() {
        const auto fraction = [](long double root) {
            return static_cast<std::uint32_t>((root - std::floor(root)) * 4294967296.0L);
        };
        std::vector<unsigned> primes;
        for (unsigned candidate = 2; primes.size() < rounds; ++candidate) {
            bool prime = true;
            for (const unsigned smaller : primes)
                prime = prime && candidate % smaller != 0;
            if (prime) primes.push_back(candidate);
        }
        for (std::size_t i = 0; i < start.size(); ++i)
            start[i] = fraction(std::sqrt(static_cast<long double>(primes[i])));
        for (std::size_t i = 0; i < rounds; ++i)
            round[i] = fraction(std::cbrt(static_cast<long double>(primes[i])));
    }
};

void add_block(const std::byte* block, const Constants& constants, std::array<std::uint32_t, 8>& state) {
    std::array<std::uint32_t, rounds> words{};
    for (std::size_t i = 0; i < 16; ++i)
        for (std::size_t byte = 0; byte < 4; ++byte)
            words[i] = words[i] << 8U | std::to_integer<std::uint32_t>(block[4 * i + byte]);
    for (std::size_t i = 16; i < rounds; ++i) {
        const std::uint32_t a = words[i - 15];
        const std::uint32_t b = words[i - 2];
        words[i] = words[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ (a >> 3U)) + words[i - 7] +
                   (std::rotr(b, 17) ^ std::rotr(b, 19) ^ (b >> 10U));
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (std::size_t i = 0; i < rounds; ++i) {
        const std::uint32_t first = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) +
                                    constants.round[i] + words[i];
        const std::uint32_t second =
            (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + first;
        d = c, c = b, b = a, a = first + second;
    }
    const std::array<std::uint32_t, 8> added{a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < state.size(); ++i)
        state[i] += added[i];
}

}  // namespace

std::string sha256_of(std::span<const std::byte> bytes) {
    static const Constants constants;
    std::array<std::uint32_t, 8> state = constants.start;
    const std::size_t whole = bytes.size() / block_bytes * block_bytes;
    for (std::size_t i = 0; i < whole; i += block_bytes)
        add_block(bytes.data() + i, constants, state);
    // What is left, a bit that is set, zeros, and the length in bits.
    std::vector<std::byte> end(bytes.begin() + static_cast<std::ptrdiff_t>(whole), bytes.end());
    end.push_back(std::byte{0x80});
    while (end.size() % block_bytes != block_bytes - 8)
        end.push_back(std::byte{0});
    for (unsigned shift = 64; shift > 0; shift -= 8)
        end.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(bytes.size()) * 8 >> (shift - 8)));
    for (std::size_t i = 0; i < end.size(); i += block_bytes)
        add_block(end.data() + i, constants, state);
    std::string text;
    for (const std::uint32_t word : state)
        text += fmt::format("{:08x}", word);
    return text;
}

}  // namespace fairgptq
