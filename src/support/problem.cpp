#include "support/problem.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <new>

#include "support/error.hpp"
#include "support/exit_codes.hpp"

namespace fairgptq {
bool is_a_users(const std::error_code& code) {
    constexpr std::array causes{std::errc::permission_denied,
                                std::errc::operation_not_permitted,
                                std::errc::filename_too_long,
                                std::errc::not_a_directory,
                                std::errc::is_a_directory,
                                std::errc::read_only_file_system,
                                std::errc::too_many_symbolic_link_levels,
                                std::errc::invalid_argument};
    return std::find(causes.begin(), causes.end(), code) != causes.end();
}

Problem current_problem() {
    try {
        throw;
    } catch (const InvalidInput& error) {
        return {error.what(), exit_invalid};
    } catch (const std::filesystem::filesystem_error& error) {
        return {fmt::format("{}: {}", error.path1().string(), error.code().message()),
                is_a_users(error.code()) ? exit_invalid : exit_failed};
    } catch (const std::bad_alloc&) {
        return {"out of memory; `fairgptq plan` shows what a run needs", exit_failed};
    } catch (const std::exception& error) {
        return {error.what(), exit_failed};
    }
}

}  // namespace fairgptq
