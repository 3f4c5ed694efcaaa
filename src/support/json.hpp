// JSON as text, both ways: what users or other programs wrote is read with a bound on its size, and never trusted to be
// well-formed. The parser and the writer are compiled here alone, since each file that calls nlohmann::json's own
// compiles its own.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace fairgptq {

/// @param where names the text in messages, e.g. its file
/// @throws InvalidInput if the text is not a JSON object, or one of its objects has a key twice
nlohmann::json parse_json_object(std::string_view text, const std::string& where);

/// @throws InvalidInput if the file is missing, longer than `max_bytes`, or as parse_json_object says
nlohmann::json read_json_object(const std::filesystem::path& file, std::size_t max_bytes = 64U << 20U);

/// @returns a value that is_discarded() if the text is not JSON
nlohmann::json parse_json(std::string_view text);
nlohmann::ordered_json parse_ordered_json(std::string_view text);

enum class NotUtf8 {
    refused,   ///< nlohmann::json::type_error is thrown
    replaced,  ///< by U+FFFD
};

/// @param indent blanks by which each level goes further in; -1: all on one line
std::string json_text(const nlohmann::json& json, int indent = -1, NotUtf8 bytes = NotUtf8::refused);
std::string json_text(const nlohmann::ordered_json& json, int indent = -1, NotUtf8 bytes = NotUtf8::refused);

/// For people and programs: an object's members on lines of their own, two blanks further in; an array on one line.
std::string readable(const nlohmann::ordered_json& json);

}  // namespace fairgptq
