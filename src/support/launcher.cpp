#include "support/launcher.hpp"

#include <charconv>
#include <cstdlib>
#include <string_view>
#include <system_error>

namespace fairgptq {

std::optional<int> launcher_local_rank() {
    for (const char* name :
         {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "PALS_LOCAL_RANKID",
          "PMI_LOCAL_RANK", "PMIX_LOCAL_RANK", "FLUX_TASK_LOCAL_ID", "SLURM_LOCALID"}) {
        const char* value = std::getenv(name);
        if (value == nullptr) continue;
        const std::string_view text(value);
        int rank = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
        if (error == std::errc() && end == text.data() + text.size() && rank >= 0) return rank;
    }
    return std::nullopt;
}

}  // namespace fairgptq
