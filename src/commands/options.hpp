// What the commands share in reading their options.
#pragma once

#include <cxxopts.hpp>
#include <filesystem>
#include <initializer_list>
#include <istream>
#include <optional>
#include <string>
#include <string_view>

#include "comm/shared_limits.hpp"
#include "comm/together.hpp"
#include "support/error.hpp"
#include "support/names.hpp"

namespace fairgptq::commands {

/// A finite number that is all of the text.
std::optional<double> read_real(std::string_view text);

/// An option's number, which must be all of what was given: in "0,5" and "0.5x" the stream's own would read 0 and 0.5.
struct Real {
    double value = 0;
};
std::istream& operator>>(std::istream& stream, Real& real);

/// Parses; returns nothing if help was asked for (and prints it if `show_help`).
/// @throws InvalidInput for an unknown option, a value of the wrong kind, or a stray argument
std::optional<cxxopts::ParseResult> parse(cxxopts::Options& options, int argc, char** argv, bool show_help = true);

/// A required option's value. @throws InvalidInput naming the option
std::filesystem::path required_path(const cxxopts::ParseResult& parsed, const std::string& option);

/// The number of an option of type Real.
double real(const cxxopts::ParseResult& parsed, const std::string& option);

/// Whether a switch is on: "--resume", and "--resume=false" is not.
bool flag(const cxxopts::ParseResult& parsed, const std::string& option);

/// --out, a file that is written whole when the work is done: before it is.
/// @throws InvalidInput if it is one of the command's inputs, is there and no ordinary file, or lies where nothing can
/// be written
void check_output(const std::filesystem::path& out, std::initializer_list<std::filesystem::path> inputs);

/// An option that takes one of a few words. @throws InvalidInput listing them
template <class T, std::size_t Size>
T choose(const cxxopts::ParseResult& parsed, const std::string& option, const Names<T, Size>& names) {
    return value_named(names, "--" + option, parsed[option].as<std::string>());
}

}  // namespace fairgptq::commands
