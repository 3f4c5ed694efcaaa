// What a run's log says about it: for `fairgptq watch`, on a login node that sees nothing but the file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fairgptq {

/// running: computing. stalled: nothing was logged for far longer than a layer takes (killed, or cut off); start it
/// again. stopped: on request, to be resumed. dead: its process is gone (which the log cannot tell, and its lock does).
enum class RunState : std::uint8_t { running, stalled, done, stopped, failed, dead };

/// "running", "stalled", …
const char* name_of(RunState state);

struct RunStatus {
    RunState state = RunState::running;
    std::int64_t layers = 0, finished = 0;  // of the run; done, while it replays: replayed
    bool replaying = false;
    std::int64_t ranks = 1, threads = 1;
    std::string device, begun;       // when the session began (UTC)
    double seconds_a_layer = 0;      // mean of the last layers; 0: none yet
    double slowest_layer = 0;        // of the session, or of those before it
    double seconds_left = 0;         // where seconds_a_layer is known
    double age = 0;                  // seconds since the last event
    std::vector<double> waiting;     // share of its time that each rank waited in collectives, in the last layers
    std::string message, last_time;  // of a failure, or whose end it was; of the last event
};

/// @param log the text of log.jsonl; a last line without its end, and lines that are not JSON, are passed over
/// @param age seconds since the last event, as far as the caller knows; below 0: by the last event's time
/// @param now seconds since 1970. A last event in the future (clocks that differ or jumped) counts as one of now
/// @throws InvalidInput if no line says that a run started
RunStatus read_status(std::string_view log, double now, double age = -1);

/// A few lines for people; `name` is the run's.
std::string status_text(const std::string& name, const RunStatus& status);

}  // namespace fairgptq
