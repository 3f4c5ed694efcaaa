// Which settings change results: a run's identity, and what --resume compares.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

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

std::string differences(const nlohmann::json& before, const nlohmann::json& now) {
    const nlohmann::json old_fields = fields_of(before);
    const nlohmann::json new_fields = fields_of(now);
    nlohmann::json all = old_fields;
    all.update(new_fields);
    const auto text = [](const nlohmann::json& fields, const std::string& name) {
        const auto field = fields.find(name);
        return field == fields.end() ? "not set" : json_text(*field);
    };
    const auto shown = [](const std::string& value) {  // the model's files would fill a page
        constexpr std::size_t most = 80;
        return value.size() > most ? "…" : value;
    };
    std::vector<std::string> found;
    for (const auto& [name, value] : all.items())
        if (const std::string then = text(old_fields, name), is = text(new_fields, name); then != is)
            found.push_back(fmt::format("{} was {}, is {}", name, shown(then), shown(is)));
    return fmt::format("{}", fmt::join(found, "; "));
}

}  // namespace fairgptq
