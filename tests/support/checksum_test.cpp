#include "support/checksum.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "support/error.hpp"
#include "support/files.hpp"
#include "support_files/temporary_folder.hpp"

namespace fairgptq {
namespace {

using testing::TemporaryFolder;

// Values of the published test vectors of xxHash for no input.
TEST(Checksum, IsXxh3) {
    EXPECT_EQ(checksum_of({}), 0x2d06800538d394c2ULL);
    EXPECT_EQ(hash_of(std::string_view()), "99aa06d3014798d86001c324468d497f");
}

TEST(Checksum, OfAFileIsThatOfItsBytes) {
    const TemporaryFolder folder;
    // Below, at and above the size of the buffer that files are read through.
    constexpr std::size_t buffer = std::size_t{1} << 20U;
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, buffer - 1, buffer, buffer + 1, 2 * buffer + 12345}) {
        std::string text(size, '\0');
        for (std::size_t i = 0; i < size; ++i)
            text[i] = static_cast<char>(i * i + i / 257);
        std::ofstream(folder / "f", std::ios::binary) << text;
        const FileDescriptor file(::open((folder / "f").c_str(), O_RDONLY));
        const auto bytes = std::as_bytes(std::span(text));
        EXPECT_EQ(checksum_of_file(file.get(), 0, size, "f"), checksum_of(bytes)) << size;
        const std::size_t part = size / 3;
        EXPECT_EQ(checksum_of_file(file.get(), part, size - part, "f"), checksum_of(bytes.subspan(part))) << size;
        EXPECT_EQ(checksum_of_file(file.get(), part, part, "f"), checksum_of(bytes.subspan(part, part))) << size;
    }
}

TEST(Checksum, OfPiecesIsThatOfTheWhole) {
    std::string text(700, '\0');
    for (std::size_t i = 0; i < text.size(); ++i)
        text[i] = static_cast<char>(i * i + i / 257);
    const auto bytes = std::as_bytes(std::span(text));
    EXPECT_EQ(Hasher().hash(), hash_of(std::string_view()));
    for (const std::size_t size : {1, 2, 255, 256, 257, 699, 700}) {
        Hasher hasher;
        for (std::size_t at = 0; at < bytes.size(); at += size)
            hasher.add(bytes.subspan(at, std::min(size, bytes.size() - at)));
        hasher.add({});
        EXPECT_EQ(hasher.hash(), hash_of(bytes)) << size;
    }
}

TEST(Checksum, OfMoreThanTheFileHoldsIsAFailure) {
    const TemporaryFolder folder;
    std::ofstream(folder / "f") << "twelve bytes";
    const FileDescriptor file(::open((folder / "f").c_str(), O_RDONLY));
    try {
        checksum_of_file(file.get(), 0, 13, "f");
        FAIL() << "a byte beyond the end was read";
    } catch (const Failure& failure) {
        EXPECT_STREQ(failure.what(), "f cannot be read: it became shorter");
    }
}

TEST(Checksum, TellsEveryFlippedBit) {
    std::string text(300, 'x');
    const std::uint64_t original = checksum_of(std::as_bytes(std::span(text)));
    const std::string name = hash_of(text);
    EXPECT_EQ(name.size(), 32U);
    for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
        text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
        EXPECT_NE(checksum_of(std::as_bytes(std::span(text))), original) << bit;
        EXPECT_NE(hash_of(text), name) << bit;
        text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
    }
}

}  // namespace
}  // namespace fairgptq
