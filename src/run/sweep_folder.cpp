#include "run/sweep_folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

namespace fairgptq {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view prefix = "alpha_";

std::optional<double> alpha_of(std::string_view name) {
    if (!name.starts_with(prefix)) return std::nullopt;
    name.remove_prefix(prefix.size());
    double alpha = 0;
    const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), alpha);
    if (problem != std::errc() || end != name.data() + name.size()) return std::nullopt;
    return alpha;
}

bool has_begun(const fs::path& folder) {
    std::error_code ignored;
    return fs::exists(folder / "run.json", ignored) || fs::exists(folder / "log.jsonl", ignored);
}

}  // namespace

std::string name_in_sweep(double alpha) {
    return fmt::format("{}{}", prefix, alpha);
}

std::vector<fs::path> runs_of_sweep(const fs::path& folder) {
    if (has_begun(folder)) return {};
    std::vector<std::pair<double, fs::path>> found;
    std::error_code problem;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, problem))
        if (const auto alpha = alpha_of(entry.path().filename().string()); alpha && has_begun(entry.path()))
            found.emplace_back(*alpha, entry.path());
    std::ranges::sort(found);
    std::vector<fs::path> runs;
    for (auto& [alpha, path] : found)
        runs.push_back(std::move(path));
    return runs;
}

}  // namespace fairgptq
