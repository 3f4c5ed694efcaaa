#include "export/schemes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "model/module_names.hpp"

namespace fairgptq {
namespace {

using Choice = std::optional<Scheme>;  // none: stays as it is

Choice choice_of(const std::optional<Grid>& grid) {
    if (!grid) return std::nullopt;
    return Scheme{grid->bits, grid->group_size, grid->symmetric};
}

/// A regular expression that matches the text.
std::string escaped(const std::string& text) {
    std::string expression;
    for (const char letter : text) {
        if (letter == '.') expression += '\\';
        expression += letter;
    }
    return expression;
}

/// What programs that compute these linears as one call them.
std::string fused_name(const std::vector<std::string>& parts) {
    if (parts == std::vector<std::string>{"q_proj", "k_proj", "v_proj"}) return "qkv_proj";
    if (parts == std::vector<std::string>{"gate_proj", "up_proj"}) return "gate_up_proj";
    if (parts == std::vector<std::string>{"in_proj_qkv", "in_proj_z"}) return "in_proj_qkvz";
    if (parts == std::vector<std::string>{"w1", "w3"}) return "w13";  // LFM2's; of Mixtral's experts nobody asks
    if (parts == std::vector<std::string>{"q_a_proj", "kv_a_proj_with_mqa"}) return "fused_qkv_a_proj";
    return {};
}

/// Names of a stage's linears below the layer's prefix. transformers takes a scheme whose expression reads "experts"
/// for that of all routed experts: that of a shared one must not.
std::string below_layer(const StageSpec& stage, std::vector<std::string> names) {
    const std::string& first = stage.linears.front().name;
    std::string parent = escaped(first.substr(0, first.size() - last_name(first).size()));
    if (parent == "conv\\.") parent = "(short_)?conv\\.";  // LFM2's, in vLLM
    if (const std::size_t at = parent.find("experts"); stage.shared && at != std::string::npos)
        parent.replace(at, 7, "exp[e]rts");
    if (const std::string fused = fused_name(names); !fused.empty()) names.push_back(fused);
    if (names.size() == 1) return fmt::format("{}{}$", parent, names.front());
    return fmt::format("{}({})$", parent, fmt::join(names, "|"));
}

/// Names of all routed experts of a layer, and of what holds them, which vLLM asks for: "mlp\.experts(\.|$)".
std::string below_layer_of_experts(const StageSpec& stage) {
    const std::string& name = stage.linears.front().name;
    return escaped(name.substr(0, name.find(".experts.") + 8)) + "(\\.|$)";
}

/// Linears of one kind, and the layers whose they are.
struct Place {
    Choice choice;
    std::string below;
    std::vector<std::int64_t> layers;
};

class Collector {
  public:
    Collector(const ModuleGrids& grids, const Family& family) : grids_(grids), family_(family) {}

    void add_layer(std::int64_t layer, Schemes& schemes) {
        const StageSpec* routed = nullptr;
        std::vector<Choice> of_experts;
        for (const StageSpec& stage : family_.stages_of(layer)) {
            if (!stage.is_routed()) continue;
            routed = &stage;
            for (const LinearSpec& linear : stage.linears)
                if (const Choice choice = choice_of(grids_(layer, linear.name));
                    std::ranges::find(of_experts, choice) == of_experts.end())
                    of_experts.push_back(choice);
        }
        for (const Choice& choice : of_experts)
            schemes.experts_symmetric = schemes.experts_symmetric && (!choice || choice->symmetric);
        const bool alike = of_experts.size() < 2;
        schemes.experts_alike = schemes.experts_alike && alike;
        if (routed != nullptr && alike) {
            add(of_experts.front(), below_layer_of_experts(*routed), layer);
            experts_.push_back(of_experts.front());
        }
        for (const StageSpec& stage : family_.stages_of(layer))
            if (!stage.is_routed() || !alike) add_stage(layer, stage, schemes);
    }

    void finish(std::int64_t layers, Schemes& schemes) const {
        const Scheme settings = *choice_of(grids_.common());
        schemes.experts_everywhere =
            schemes.experts_alike && layers == family_.config.layers &&
            std::ranges::all_of(experts_, [&](const Choice& one) { return one && one == experts_.front(); });
        const auto used = [](const Place& place) { return place.choice.has_value(); };
        schemes.common = settings;
        if (std::ranges::none_of(places_, [&](const Place& place) { return place.choice == settings; }))
            if (const auto first = std::ranges::find_if(places_, used); first != places_.end())
                schemes.common = *first->choice;
        for (const Place& place : places_) {
            if (place.choice == schemes.common) continue;
            const bool everywhere = std::ssize(place.layers) == family_.config.layers;
            const std::string expression =
                in_layers(family_, everywhere ? std::vector<std::int64_t>() : place.layers) + place.below;
            if (!place.choice) {
                schemes.ignored.push_back(expression);
                continue;
            }
            auto same = std::ranges::find(schemes.others, *place.choice, &decltype(schemes.others)::value_type::first);
            if (same == schemes.others.end()) same = schemes.others.insert(same, {*place.choice, {}});
            same->second.push_back(expression);
        }
    }

  private:
    void add(const Choice& choice, const std::string& below, std::int64_t layer) {
        auto place =
            std::ranges::find_if(places_, [&](const Place& one) { return one.choice == choice && one.below == below; });
        if (place == places_.end()) place = places_.insert(place, {choice, below, {}});
        place->layers.push_back(layer);
    }

    void add_stage(std::int64_t layer, const StageSpec& stage, Schemes& schemes) {
        std::vector<std::pair<Choice, std::vector<std::string>>> parts;
        std::vector<std::string> names;
        for (const LinearSpec& linear : stage.linears) {
            names.push_back(last_name(linear.name));
            const Choice choice = choice_of(grids_(layer, linear.name));
            auto part = std::ranges::find(parts, choice, &decltype(parts)::value_type::first);
            if (part == parts.end()) part = parts.insert(part, {choice, {}});
            part->second.push_back(names.back());
        }
        if (parts.size() > 1 && !fused_name(names).empty()) schemes.fused_alike = false;
        for (const auto& [choice, part] : parts)
            add(choice, below_layer(stage, part), layer);
    }

    const ModuleGrids& grids_;
    const Family& family_;
    std::vector<Place> places_;
    std::vector<Choice> experts_;  // of each layer that has some
};

}  // namespace

std::vector<Scheme> Schemes::all() const {
    std::vector<Scheme> list{common};
    for (const auto& other : others)
        list.push_back(other.first);
    return list;
}

std::string in_layers(const Family& family, const std::vector<std::int64_t>& numbers) {
    // Within another model, each program has names of its own for the text model.
    const std::string prefix = family.within_another
                                   ? "(model\\.)?(language_model\\.)?(model\\.)?layers\\."
                                   : escaped(family.layer_prefix.substr(0, family.layer_prefix.find("{}")));
    return numbers.empty() ? fmt::format("^{}\\d+\\.", prefix)
                           : fmt::format("^{}({})\\.", prefix, fmt::join(numbers, "|"));
}

Schemes find_schemes(const ModuleGrids& grids, const Family& family, std::int64_t layers) {
    Schemes schemes;
    Collector collector(grids, family);
    for (std::int64_t layer = 0; layer < layers; ++layer)
        collector.add_layer(layer, schemes);
    collector.finish(layers, schemes);
    return schemes;
}

}  // namespace fairgptq
