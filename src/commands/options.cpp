#include "commands/options.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <iterator>
#include <system_error>

namespace fairgptq::commands {
namespace {

/// The option whose value does not parse, "--bits": the last word of the shortest beginning of the line that fails.
std::string option_of_bad_value(cxxopts::Options& options, int argc, char** argv) {
    for (int words = 2; words <= argc; ++words) {
        try {
            options.parse(words, argv);
        } catch (const cxxopts::exceptions::incorrect_argument_type&) {
            const std::string last = argv[words - 1];
            return last.starts_with("-") && last.find('=') != std::string::npos ? last.substr(0, last.find('='))
                                                                                : argv[words - 2];
        } catch (const cxxopts::exceptions::exception&) {
            continue;  // an option without its value yet
        }
    }
    return "an option";
}

}  // namespace

std::optional<cxxopts::ParseResult> parse(cxxopts::Options& options, int argc, char** argv, bool show_help) {
    try {
        options.set_width(110);
        auto parsed = options.parse(argc, argv);
        if (parsed.count("help") > 0) {
            if (show_help) fmt::print("{}", options.help());
            return std::nullopt;
        }
        if (!parsed.unmatched().empty())
            throw InvalidInput("'{}' is not expected here; see fairgptq {} --help", parsed.unmatched().front(),
                               argv[0]);
        return parsed;
    } catch (const cxxopts::exceptions::incorrect_argument_type& error) {
        throw InvalidInput("{}: {} (see fairgptq {} --help)", option_of_bad_value(options, argc, argv), error.what(),
                           argv[0]);
    } catch (const cxxopts::exceptions::exception& error) {
        throw InvalidInput("{} (see fairgptq {} --help)", error.what(), argv[0]);
    }
}

std::optional<double> read_real(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
    return value;
}

std::istream& operator>>(std::istream& stream, Real& real) {
    const auto value = read_real(std::string{std::istreambuf_iterator<char>(stream), {}});
    real.value = value.value_or(0);
    stream.clear(value ? std::ios::goodbit : std::ios::failbit);
    return stream;
}

double real(const cxxopts::ParseResult& parsed, const std::string& option) {
    return parsed[option].as<Real>().value;
}

std::filesystem::path required_path(const cxxopts::ParseResult& parsed, const std::string& option) {
    if (parsed.count(option) == 0 || parsed[option].as<std::string>().empty())
        throw InvalidInput("--{} is missing", option);
    return parsed[option].as<std::string>();
}

bool flag(const cxxopts::ParseResult& parsed, const std::string& option) {
    return parsed.count(option) > 0 && parsed[option].as<bool>();
}

void check_output(const std::filesystem::path& out, std::initializer_list<std::filesystem::path> inputs) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    if (fs::is_directory(out, ignored)) throw InvalidInput("--out {} is a folder, not a file", out.string());
    // What is renamed to the name of a device would take its place.
    if (fs::exists(out, ignored) && !fs::is_regular_file(out, ignored))
        throw InvalidInput("--out {} is not an ordinary file", out.string());
    for (const fs::path& input : inputs)
        if (fs::equivalent(out, input, ignored))
            throw InvalidInput("--out {} is an input of this command; name another file", out.string());
    const fs::path folder = out.has_parent_path() ? out.parent_path() : ".";
    if (!fs::is_directory(folder, ignored))
        throw InvalidInput("--out {}: the folder {} does not exist", out.string(), folder.string());
    if (::access(folder.c_str(), W_OK | X_OK) != 0)
        throw InvalidInput("--out {}: nothing can be written in the folder {}: {}", out.string(), folder.string(),
                           std::strerror(errno));
}

}  // namespace fairgptq::commands
