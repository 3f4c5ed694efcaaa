#include "support/launcher.hpp"

#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <string_view>
#include <system_error>

namespace fairgptq {
namespace {

/// The first of the variables that is a number.
std::optional<int> number_in_environment(std::initializer_list<const char*> names) {
    for (const char* name : names) {
        const char* value = std::getenv(name);
        if (value == nullptr) continue;
        const std::string_view text(value);
        int number = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        if (error == std::errc() && end == text.data() + text.size() && number >= 0) return number;
    }
    return std::nullopt;
}

}  // namespace

std::optional<int> launcher_local_rank() {
    return number_in_environment({"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK",
                                  "PALS_LOCAL_RANKID", "PMI_LOCAL_RANK", "PMIX_LOCAL_RANK", "FLUX_TASK_LOCAL_ID",
                                  "SLURM_LOCALID"});
}

int launcher_ranks() {
    return number_in_environment({"OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"}).value_or(1);
}

}  // namespace fairgptq
