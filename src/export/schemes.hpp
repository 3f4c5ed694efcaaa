// Which linears of a model are quantized how, as programs that load it are told: by regular expressions over names.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/family.hpp"
#include "run/module_grids.hpp"

namespace fairgptq {

struct Scheme {
    int bits = 4;
    std::int64_t group_size = 128;  // −1: one scale a row
    bool symmetric = true;
    bool operator==(const Scheme&) const = default;
};

/// Expressions match from a name's start, those of different schemes no name together; vLLM's names of what it computes
/// as one (qkv_proj, gate_up_proj, experts) match, too. Each program's names are meant, also beside parts that see
/// pictures.
struct Schemes {
    Scheme common;                                                      // of every linear that no expression matches
    std::vector<std::pair<Scheme, std::vector<std::string>>> others{};  // and of those that one does
    std::vector<std::string> ignored{};                                 // linears that stay as they are
    bool fused_alike = true;    // q, k and v of each layer, what makes latents, and gate and up, that files hold apart
    bool experts_alike = true;  // the routed ones of each layer
    bool experts_everywhere = true;  // those of all layers, too, and all are quantized
    bool experts_symmetric = true;

    /// The common one, and the others.
    std::vector<Scheme> all() const;
};

/// Of the first `layers` layers; those after them are not quantized.
Schemes find_schemes(const ModuleGrids& grids, const Family& family, std::int64_t layers);

/// The beginning of names of linears in the layers of these numbers: "^model\.layers\.(3|7)\.". All layers, where there
/// is no number.
std::string in_layers(const Family& family, const std::vector<std::int64_t>& numbers);

}  // namespace fairgptq
