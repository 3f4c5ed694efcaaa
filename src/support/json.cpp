#include "support/json.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <vector>

#include "support/error.hpp"

namespace fairgptq {

namespace {

template <class Json>
std::string text_of(const Json& json, int indent, NotUtf8 bytes) {
    return json.dump(indent, ' ', false,
                     bytes == NotUtf8::refused ? Json::error_handler_t::strict : Json::error_handler_t::replace);
}

}  // namespace

nlohmann::json parse_json(std::string_view text) {
    return nlohmann::json::parse(text, nullptr, false);
}
nlohmann::ordered_json parse_ordered_json(std::string_view text) {
    return nlohmann::ordered_json::parse(text, nullptr, false);
}

std::string json_text(const nlohmann::json& json, int indent, NotUtf8 bytes) {
    return text_of(json, indent, bytes);
}
std::string json_text(const nlohmann::ordered_json& json, int indent, NotUtf8 bytes) {
    return text_of(json, indent, bytes);
}

nlohmann::json parse_json_object(std::string_view text, const std::string& where) {
    using nlohmann::json;
    // The library keeps the last of two equal keys without a word; two meanings in one file are damage.
    std::vector<std::set<std::string>> keys;
    std::string repeated;
    const json::parser_callback_t watch_keys = [&](int, json::parse_event_t event, json& parsed) {
        if (event == json::parse_event_t::object_start) keys.emplace_back();
        if (event == json::parse_event_t::object_end) keys.pop_back();
        if (event == json::parse_event_t::key && !keys.back().insert(parsed.get_ref<const std::string&>()).second &&
            repeated.empty())
            repeated = parsed.get<std::string>();
        return true;
    };
    json result;
    try {
        result = json::parse(text, watch_keys);
    } catch (const json::exception&) {
        throw InvalidInput("{} is not valid JSON", where);
    }
    if (!repeated.empty()) throw InvalidInput("{} has the key '{}' twice", where, repeated);
    if (!result.is_object()) throw InvalidInput("{} is not a JSON object", where);
    return result;
}

nlohmann::json read_json_object(const std::filesystem::path& file, std::size_t max_bytes) {
    const std::string name = file.string();
    std::error_code problem;
    const bool regular = std::filesystem::is_regular_file(file, problem);
    if (problem && problem != std::errc::no_such_file_or_directory && problem != std::errc::not_a_directory)
        throw InvalidInput("{} cannot be read: {}", name, problem.message());
    if (!regular) throw InvalidInput("{} is missing or not a file", name);
    const auto bytes = std::filesystem::file_size(file, problem);
    if (problem) throw InvalidInput("{} cannot be read: {}", name, problem.message());
    if (bytes > max_bytes)
        throw InvalidInput("{} has {} bytes, more than the {} expected of it", name, bytes, max_bytes);
    std::string text(bytes, '\0');
    errno = 0;
    std::ifstream stream(file, std::ios::binary);
    if (!stream.read(text.data(), static_cast<std::streamsize>(bytes)))
        throw InvalidInput("{} cannot be read: {}", name, errno != 0 ? std::strerror(errno) : "it became shorter");
    return parse_json_object(text, name);
}

std::string readable(const nlohmann::ordered_json& json) {
    const auto write = [](const auto& self, const nlohmann::ordered_json& value, std::size_t depth) -> std::string {
        if (!value.is_object() || value.empty()) return json_text(value, -1, NotUtf8::replaced);
        std::string text = "{";
        for (const auto& [key, member] : value.items())
            text += (text.size() == 1 ? "\n" : ",\n") + std::string(2 * depth + 2, ' ') +
                    json_text(nlohmann::json(key), -1, NotUtf8::replaced) + ": " + self(self, member, depth + 1);
        return text + "\n" + std::string(2 * depth, ' ') + "}";
    };
    return write(write, json, 0);
}

}  // namespace fairgptq
