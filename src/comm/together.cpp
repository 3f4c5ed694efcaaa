#include "comm/together.hpp"

#include <utility>

#include "support/exit_codes.hpp"
#include "support/problem.hpp"

namespace fairgptq {

void together(Communicator& comm, const std::function<void()>& work) {
    std::string message;
    int code = exit_done;
    try {
        work();
    } catch (const std::exception&) {
        Problem problem = current_problem();
        message = std::move(problem.message);
        code = problem.exit_code;
    }
    const auto worst = static_cast<int>(comm.all_reduce_max(code));
    if (worst == exit_done) return;
    // Of the ranks that failed this way, the first one speaks.
    const auto first = comm.size() - comm.all_reduce_max(code == worst ? comm.size() - comm.rank() : 0);
    throw SharedFailure(message, worst, static_cast<int>(first));
}

}  // namespace fairgptq
