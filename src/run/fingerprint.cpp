// Which settings change results: a run's identity, and what --resume compares.
#include <nlohmann/json.hpp>

#include "run/run_directory.hpp"
#include "support/checksum.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

/// The settings that change results, by dotted name.
nlohmann::json fields_of(const nlohmann::json& settings) {
    nlohmann::json fields = nlohmann::json::object();
    const auto add = [&fields](const auto& self, const nlohmann::json& value, const std::string& name) -> void {
        if (!value.is_object() || (value.empty() && !name.empty())) {
            fields[name] = value;
            return;
        }
        for (const auto& [key, member] : value.items()) {
            const bool says_where = key == "path" && !name.empty();
            const bool only_informs = key == "information" && name.empty();
            if (!says_where && !only_informs) self(self, member, name.empty() ? key : name + "." + key);
        }
    };
    add(add, settings, "");
    return fields;
}

}  // namespace

std::string fingerprint_of(const nlohmann::json& settings) {
    return hash_of(json_text(fields_of(settings)));
}

std::string first_difference(const nlohmann::json& before, const nlohmann::json& now) {
    const nlohmann::json old_fields = fields_of(before);
    const nlohmann::json new_fields = fields_of(now);
    nlohmann::json all = old_fields;
    all.update(new_fields);
    for (const auto& [name, value] : all.items()) {
        const auto old_field = old_fields.find(name);
        const auto new_field = new_fields.find(name);
        if (old_field == old_fields.end()) return fmt::format("{} was not set, is {}", name, json_text(value));
        if (new_field == new_fields.end()) return fmt::format("{} was {}, is not set", name, json_text(*old_field));
        if (*old_field != *new_field)
            return fmt::format("{} was {}, is {}", name, json_text(*old_field), json_text(*new_field));
    }
    return {};
}

}  // namespace fairgptq
