#include "support/problem.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <new>
#include <system_error>

#include "support/error.hpp"
#include "support/exit_codes.hpp"

namespace fairgptq {
namespace {

/// What a path itself, or who may use it, makes impossible; the rest is what a disk does.
bool is_the_users(const std::error_code& code) {
    constexpr std::array causes{std::errc::permission_denied,
                                std::errc::filename_too_long,
                                std::errc::not_a_directory,
                                std::errc::is_a_directory,
                                std::errc::no_such_file_or_directory,
                                std::errc::read_only_file_system,
                                std::errc::too_many_symbolic_link_levels,
                                std::errc::operation_not_permitted,
                                std::errc::invalid_argument};
    return std::find(causes.begin(), causes.end(), code) != causes.end();
}

}  // namespace

Problem current_problem() {
    try {
        throw;
    } catch (const InvalidInput& error) {
        return {error.what(), exit_invalid};
    } catch (const std::filesystem::filesystem_error& error) {
        return {fmt::format("{}: {}", error.path1().string(), error.code().message()),
                is_the_users(error.code()) ? exit_invalid : exit_failed};
    } catch (const std::bad_alloc&) {
        return {"out of memory; `fairgptq plan` shows what a run needs", exit_failed};
    } catch (const std::exception& error) {
        return {error.what(), exit_failed};
    }
}

}  // namespace fairgptq
