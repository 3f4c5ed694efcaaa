// A sweep's folder: its runs are folders in it, alpha_VALUE.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace fairgptq {

/// The name of a sweep's run below its folder.
std::string name_in_sweep(double alpha);

/// The runs in a sweep's folder that have a file of this name ("run.json", "log.jsonl"), by α; none if the folder is a
/// run itself, or no folder. @throws InvalidInput if one of them cannot be looked into
std::vector<std::filesystem::path> runs_of_sweep(const std::filesystem::path& folder, const char* file);

}  // namespace fairgptq
