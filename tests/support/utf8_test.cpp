#include "support/utf8.hpp"

#include <gtest/gtest.h>

#include <string>

namespace fairgptq {
namespace {

TEST(Utf8, TellsWellFormedText) {
    for (const char* text :
         {"", "plain", "Δ and α", "\xe2\x80\x93", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xef\xbf\xbf", "\xc2\x80"})
        EXPECT_TRUE(is_utf8(text)) << text;
    for (const char* text :
         {"\x80", "\xc9", "\xc9x", "\xe2\x80", "\xe2\x80x", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",
          "\xed\xa0\x80", "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xff"})
        EXPECT_FALSE(is_utf8(std::string("good ") + text));
}

TEST(Utf8, PrintableTextHasNoControlCharacters) {
    EXPECT_TRUE(is_printable("mean |Δ|"));
    for (const char* text : {"two\nlines", "\x1b[31m", "tab\t", "\x7f", "\xc9"})
        EXPECT_FALSE(is_printable(text));
    EXPECT_FALSE(is_printable(std::string(1, '\0')));
    EXPECT_TRUE(is_utf8("two\nlines"));
}

}  // namespace
}  // namespace fairgptq
