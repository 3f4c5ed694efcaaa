#include "run/status.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "support/error.hpp"
#include "support/json.hpp"
#include "support/table.hpp"
#include "support/utc_time.hpp"

namespace fairgptq {
namespace {

using nlohmann::json;

constexpr std::size_t recent = 8;              // layers that rates and waits are taken over
constexpr double patience = 4;                 // times the slowest layer without an event is a stall …
constexpr double least_patience_seconds = 60;  // … but not less

double number(const json& event, const char* key) {
    const auto found = event.find(key);
    return found != event.end() && found->is_number() ? found->get<double>() : 0;
}
std::int64_t whole(const json& event, const char* key) {
    const auto found = event.find(key);
    return found != event.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}
std::string word(const json& event, const char* key) {
    const auto found = event.find(key);
    return found != event.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::vector<json> events_of(std::string_view log) {
    std::vector<json> events;
    for (std::size_t end; (end = log.find('\n')) != std::string_view::npos; log.remove_prefix(end + 1)) {
        json event = parse_json(log.substr(0, end));
        if (event.is_object() && !word(event, "event").empty()) events.push_back(std::move(event));
    }
    return events;
}

/// Adds what each rank waited for others in a layer; nothing where one rank did it all.
void add_waits(const json& layer, std::vector<double>& waits) {
    const auto ranks = layer.find("ranks");
    if (ranks == layer.end() || !ranks->is_object()) return;
    for (const char* phase : {"all_reduce", "exchange"}) {
        const auto row = ranks->find(phase);
        if (row == ranks->end() || !row->is_array()) continue;
        waits.resize(std::max(waits.size(), row->size()));
        for (std::size_t rank = 0; rank < row->size(); ++rank)
            if ((*row)[rank].is_number()) waits[rank] += (*row)[rank].get<double>();
    }
}

/// Each layer's part of what the largest takes; empty where they are alike.
std::vector<double> work_of_layers(const json& start) {
    std::vector<double> work;
    const auto found = start.find("layer_work");
    if (found == start.end() || !found->is_array()) return work;
    for (const json& part : *found)
        work.push_back(part.is_number() && part.get<double>() > 0 ? part.get<double>() : 1);
    return work;
}
double work_of(const std::vector<double>& work, std::int64_t layer) {
    return layer >= 0 && layer < std::ssize(work) ? work[static_cast<std::size_t>(layer)] : 1;
}

}  // namespace

RunStatus read_status(std::string_view log, double now, double age) {
    const std::vector<json> events = events_of(log);
    const auto start =
        std::find_if(events.rbegin(), events.rend(), [](const json& event) { return event["event"] == "start"; });
    if (start == events.rend()) throw InvalidInput("its log does not say that a run started");
    const std::size_t first = events.size() - 1 - static_cast<std::size_t>(start - events.rbegin());

    RunStatus status;
    status.layers = whole(*start, "layers");
    status.ranks = std::max<std::int64_t>(whole(*start, "ranks"), 1);
    status.threads = std::max<std::int64_t>(whole(*start, "threads"), 1);
    status.device = word(*start, "device");
    status.begun = word(*start, "time");
    const std::vector<double> work = work_of_layers(*start);
    double longest_layer = 0;  // what the largest layer may take, by what others took
    std::vector<const json*> solved;
    std::int64_t there = whole(*start, "finished_layers"), replayed = 0;
    double slowest_before = 0;
    for (std::size_t i = 0; i < events.size(); ++i) {
        const std::string kind = word(events[i], "event");
        if (kind == "discarded" && i > first) there -= whole(events[i], "discarded_layers");
        if (kind != "layer" && kind != "replayed") continue;
        if (i < first) {
            slowest_before = std::max(slowest_before, number(events[i], "seconds"));
            continue;
        }
        status.replaying = kind == "replayed";
        replayed = whole(events[i], "layer") + 1;
        status.slowest_layer = std::max(status.slowest_layer, number(events[i], "seconds"));
        longest_layer =
            std::max(longest_layer, number(events[i], "seconds") / work_of(work, whole(events[i], "layer")));
        if (kind == "layer") solved.push_back(&events[i]);
    }
    there = std::clamp<std::int64_t>(there + std::ssize(solved), 0, status.layers);
    status.finished = status.replaying ? replayed : there;
    if (status.slowest_layer == 0) longest_layer = status.slowest_layer = slowest_before;
    if (solved.size() > recent) solved.erase(solved.begin(), solved.end() - recent);
    double seconds = 0, worked = 0, missing = 0;
    for (const json* layer : solved) {
        seconds += number(*layer, "seconds");
        worked += work_of(work, whole(*layer, "layer"));
        add_waits(*layer, status.waiting);
    }
    if (!solved.empty()) status.seconds_a_layer = seconds / static_cast<double>(solved.size());
    for (double& wait : status.waiting)
        wait = seconds > 0 ? wait / seconds : 0;
    for (std::int64_t layer = there; layer < status.layers; ++layer)
        missing += work_of(work, layer);
    if (worked > 0) status.seconds_left = seconds / worked * missing;

    const json& last = events.back();
    status.last_time = word(last, "time");
    const auto logged = seconds_since_epoch(status.last_time);
    status.age = age >= 0 ? age : std::max(logged ? now - *logged : 0, 0.0);
    const std::string kind = word(last, "event");
    if (kind == "done") {
        status.state = RunState::done;
        status.finished = status.layers;
    } else if (kind == "stopped") {
        status.state = RunState::stopped;
        status.finished = there;
    } else if (kind == "failed") {
        status.state = RunState::failed;
        status.message = fmt::format("rank {}: {}", whole(last, "rank"), word(last, "message"));
    } else if (longest_layer > 0 && status.age > std::max(patience * longest_layer, least_patience_seconds)) {
        status.state = RunState::stalled;
    }
    return status;
}

const char* name_of(RunState state) {
    constexpr const char* names[] = {"running", "stalled", "done", "stopped", "failed", "dead"};
    return names[static_cast<std::size_t>(state)];
}

std::string status_text(const std::string& name, const RunStatus& status) {
    std::string text =
        fmt::format("{}: {}, {} of {} layers{}", name, name_of(status.state), status.finished, status.layers,
                    status.state == RunState::running && status.replaying ? " (replaying finished ones)" : "");
    if (status.seconds_a_layer > 0) text += fmt::format(", {:.2f} s a layer", status.seconds_a_layer);
    if (status.state == RunState::running && status.seconds_a_layer > 0)
        text += fmt::format(", {} left", format_duration(status.seconds_left));
    text += fmt::format("\n  since {} with {} rank{} of {} thread{} on {}; last event {} ago\n", status.begun,
                        status.ranks, status.ranks == 1 ? "" : "s", status.threads, status.threads == 1 ? "" : "s",
                        status.device, format_duration(status.age));
    if (!status.waiting.empty()) {
        constexpr std::size_t shown = 8;
        std::vector<std::size_t> ranks(status.waiting.size());
        std::iota(ranks.begin(), ranks.end(), std::size_t{0});
        if (ranks.size() > shown) {  // a rank that waits least is one that the others wait for
            std::sort(ranks.begin(), ranks.end(),
                      [&](std::size_t a, std::size_t b) { return status.waiting[a] < status.waiting[b]; });
            ranks.resize(shown);
        }
        text += status.waiting.size() > shown ? "  the ranks that the others wait for, and their own waits:"
                                              : "  waiting for other ranks:";
        for (std::size_t i = 0; i < ranks.size(); ++i)
            text += fmt::format("{} rank {} {:.1f} %", i == 0 ? "" : ",", ranks[i], 100 * status.waiting[ranks[i]]);
        text += "\n";
    }
    if (status.state == RunState::stalled)
        text += fmt::format(
            "  a layer took {:.1f} s at most, and nothing was logged since {}: if its job is gone, start it again with "
            "--resume\n",
            status.slowest_layer, status.last_time);
    if (status.state == RunState::stopped) text += "  stopped on request: go on with --resume\n";
    if (status.state == RunState::failed || status.state == RunState::dead)
        text += fmt::format("  {}\n  finished layers are kept: go on with --resume\n", status.message);
    return text;
}

}  // namespace fairgptq
