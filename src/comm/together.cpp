#include "comm/together.hpp"

#include <new>

#include "support/error.hpp"
#include "support/exit_codes.hpp"

namespace fairgptq {

void together(Communicator& comm, const std::function<void()>& work) {
    std::string message;
    int code = exit_done;
    try {
        work();
    } catch (const InvalidInput& error) {
        message = error.what();
        code = exit_invalid;
    } catch (const std::bad_alloc&) {
        message = "out of memory; `fairgptq plan` shows what a run needs";
        code = exit_failed;
    } catch (const std::exception& error) {
        message = error.what();
        code = exit_failed;
    }
    const auto worst = static_cast<int>(comm.all_reduce_max(code));
    if (worst == exit_done) return;
    // Of the ranks that failed this way, the first one speaks.
    const auto first = comm.size() - comm.all_reduce_max(code == worst ? comm.size() - comm.rank() : 0);
    throw SharedFailure(message, worst, static_cast<int>(first));
}

}  // namespace fairgptq
