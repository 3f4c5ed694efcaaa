#include "support/checksum.hpp"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "support/error.hpp"

namespace fairgptq {

std::uint64_t checksum_of_file(int descriptor, std::uint64_t offset, std::uint64_t bytes, const std::string& name) {
    const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
    XXH3_64bits_reset(state.get());
    std::vector<char> buffer(1U << 20U);
    while (bytes > 0) {
        const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, buffer.size()));
        const ssize_t got = ::pread(descriptor, buffer.data(), wanted, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            throw Failure("{} cannot be read: {}", name, got < 0 ? std::strerror(errno) : "it became shorter");
        XXH3_64bits_update(state.get(), buffer.data(), static_cast<std::size_t>(got));
        offset += static_cast<std::uint64_t>(got);
        bytes -= static_cast<std::uint64_t>(got);
    }
    return XXH3_64bits_digest(state.get());
}

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

namespace {

std::string hex(const XXH128_hash_t& hash) {
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

std::string hash_of(std::span<const std::byte> bytes) {
    return hex(XXH3_128bits(bytes.data(), bytes.size()));
}

struct Hasher::State {
    std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> of_library{XXH3_createState(), &XXH3_freeState};
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
    XXH3_128bits_reset(state_->of_library.get());
}
Hasher::~Hasher() = default;

void Hasher::add(std::span<const std::byte> bytes) {
    XXH3_128bits_update(state_->of_library.get(), bytes.data(), bytes.size());
}

std::string Hasher::hash() const {
    return hex(XXH3_128bits_digest(state_->of_library.get()));
}

}  // namespace fairgptq
