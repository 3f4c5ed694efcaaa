// JSON text that users or other programs wrote: read with a bound on its size, and never trusted to be well-formed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fairgptq {

/// @param where names the text in messages, e.g. its file
/// @throws InvalidInput if the text is not a JSON object, or one of its objects has a key twice
nlohmann::json parse_json_object(std::string_view text, const std::string& where);

/// @throws InvalidInput if the file is missing, longer than `max_bytes`, or as parse_json_object says
nlohmann::json read_json_object(const std::filesystem::path& file, std::size_t max_bytes = 64U << 20U);

/// For people and programs: an object's members on lines of their own, two blanks further in; an array on one line.
std::string readable(const nlohmann::ordered_json& json);

}  // namespace fairgptq
