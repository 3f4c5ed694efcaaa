// A sweep's folder: its runs are folders in it, alpha_VALUE.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace fairgptq {

/// The name of a sweep's run below its folder.
std::string name_in_sweep(double alpha);

/// The runs in a sweep's folder that have begun, by α; none if the folder is a run itself.
std::vector<std::filesystem::path> runs_of_sweep(const std::filesystem::path& folder);

}  // namespace fairgptq
