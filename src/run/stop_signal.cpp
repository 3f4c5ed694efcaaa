#include "run/stop_signal.hpp"

#include <csignal>

namespace fairgptq {
namespace {
volatile std::sig_atomic_t requested = 0;
void request(int) {
    requested = 1;
}
}  // namespace

void catch_stop_signals() {
    struct sigaction action {};
    action.sa_handler = request;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGUSR1, &action, nullptr);
}

bool stop_requested() {
    return requested != 0;
}

}  // namespace fairgptq
