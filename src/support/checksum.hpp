// XXH3 checksums: 64 bits to tell damage, 128 bits (hex) to name contents.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace fairgptq {

/// XXH3-64 of `bytes` bytes of an open file, from `offset`. @throws Failure naming `name` if it cannot be read
std::uint64_t checksum_of_file(int descriptor, std::uint64_t offset, std::uint64_t bytes, const std::string& name);

/// XXH3-64.
std::uint64_t checksum_of(std::span<const std::byte> bytes);

/// XXH3-128 as 32 hexadecimal digits.
std::string hash_of(std::span<const std::byte> bytes);
inline std::string hash_of(std::string_view text) {
    return hash_of(std::as_bytes(std::span(text.data(), text.size())));
}

/// hash_of bytes that come in pieces.
class Hasher {
  public:
    Hasher();
    ~Hasher();
    void add(std::span<const std::byte> bytes);
    std::string hash() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// hash_of tensors' bytes as a model's files hold them, by the tensors' names.
using TensorHashes = std::map<std::string, std::string>;

}  // namespace fairgptq
