#include "run/sweep_folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "support/error.hpp"

namespace fairgptq {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view prefix = "alpha_";

std::optional<double> alpha_of(std::string_view name) {
    if (!name.starts_with(prefix)) return std::nullopt;
    name.remove_prefix(prefix.size());
    double alpha = 0;
    const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), alpha);
    if (problem != std::errc() || end != name.data() + name.size() || !std::isfinite(alpha)) return std::nullopt;
    return alpha;
}

bool is_there(const fs::path& path) {
    std::error_code problem;
    const bool there = fs::exists(path, problem);
    if (problem) throw InvalidInput("{} cannot be looked at: {}", path.string(), problem.message());
    return there;
}

}  // namespace

std::string name_in_sweep(double alpha) {
    return fmt::format("{}{}", prefix, alpha);
}

std::vector<fs::path> runs_of_sweep(const fs::path& folder, const char* file) {
    std::error_code problem;
    if (!fs::is_directory(folder, problem) || is_there(folder / "run.json") || is_there(folder / "log.jsonl"))
        return {};
    std::vector<std::pair<double, fs::path>> found;
    fs::directory_iterator entries(folder, problem);
    for (; !problem && entries != fs::directory_iterator(); entries.increment(problem))
        if (const auto alpha = alpha_of(entries->path().filename().string()); alpha && is_there(entries->path() / file))
            found.emplace_back(*alpha, entries->path());
    if (problem) throw InvalidInput("{} cannot be read: {}", folder.string(), problem.message());
    std::ranges::sort(found);
    std::vector<fs::path> runs;
    for (auto& [alpha, path] : found)
        runs.push_back(std::move(path));
    return runs;
}

}  // namespace fairgptq
