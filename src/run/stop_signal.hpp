// SIGTERM and SIGUSR1 ask a run to finish the layer in progress and stop with exit code 75.
#pragma once

namespace fairgptq {

/// From here on the two signals only set a flag.
void catch_stop_signals();
bool stop_requested();

}  // namespace fairgptq
