// Points in time as log.jsonl and run locks write them.
#pragma once

#include <optional>
#include <string>

namespace fairgptq {

/// "2026-11-22T16:00:00.123Z"
std::string now_in_utc();
/// Seconds since 1970 of such a text; nothing if it is not one.
std::optional<double> seconds_since_epoch(const std::string& utc);

}  // namespace fairgptq
