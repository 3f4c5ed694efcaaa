#include "run/finished_layers.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "support/json.hpp"

namespace fairgptq {

bool FinishedLayers::is_done(std::int64_t layer) const {
    if (layer >= layers() || !is_there(layer)) return false;
    return made_after(layer).empty() || (layer > 0 && is_there(layer - 1) && hash(layer - 1) == made_after(layer));
}

bool FinishedLayers::goes_on_after(std::int64_t layer) const {
    for (++layer; layer < layers(); ++layer)
        if (is_there(layer)) return true;
    return false;
}

std::int64_t FinishedLayers::first_missing() const {
    std::int64_t layer = 0;
    while (layer < layers() && is_done(layer))
        ++layer;
    return layer;
}

std::int64_t FinishedLayers::count() const {
    return std::ranges::count_if(found_, [](const auto& found) { return found.has_value(); });
}

void FinishedLayers::add(std::int64_t layer, std::string made_after, std::string hash) {
    found_[static_cast<std::size_t>(layer)] = Found{std::move(made_after), std::move(hash)};
}

void FinishedLayers::forget_from(std::int64_t layer) {
    for (; layer < layers(); ++layer)
        found_[static_cast<std::size_t>(layer)].reset();
}

std::string FinishedLayers::text() const {
    nlohmann::json all = nlohmann::json::array();
    for (const auto& found : found_)
        all.push_back(found ? nlohmann::json{found->made_after, found->hash} : nlohmann::json());
    return json_text(all);
}

FinishedLayers FinishedLayers::from_text(const std::string& text) {
    const nlohmann::json all = parse_json(text);
    FinishedLayers finished(static_cast<std::int64_t>(all.size()));
    for (std::size_t layer = 0; layer < all.size(); ++layer)
        if (!all[layer].is_null())
            finished.add(static_cast<std::int64_t>(layer), all[layer][0].get<std::string>(),
                         all[layer][1].get<std::string>());
    return finished;
}

}  // namespace fairgptq
