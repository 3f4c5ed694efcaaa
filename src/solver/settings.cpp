#include "solver/settings.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "support/error.hpp"
#include "support/names.hpp"

namespace fairgptq {
namespace {

constexpr Names<SolverKind, 3> solver_kinds{{{SolverKind::joint, "joint"},
                                             {SolverKind::reference, "reference"},
                                             {SolverKind::reference_first_order, "reference-first-order"}}};
constexpr Names<ColumnOrder, 3> column_orders{
    {{ColumnOrder::none, "none"}, {ColumnOrder::activation, "activation"}, {ColumnOrder::group, "group"}}};
constexpr Names<ScaleSearch, 2> scale_searches{{{ScaleSearch::none, "none"}, {ScaleSearch::mse, "mse"}}};
constexpr Names<ScaleType, 2> scale_types{{{ScaleType::float16, "f16"}, {ScaleType::float32, "f32"}}};

}  // namespace

SolverKind parse_solver_kind(const std::string& name) {
    return value_named(solver_kinds, "--solver", name);
}
ColumnOrder parse_column_order(const std::string& name) {
    return value_named(column_orders, "--order", name);
}
ScaleSearch parse_scale_search(const std::string& name) {
    return value_named(scale_searches, "--scale-search", name);
}
ScaleType parse_scale_type(const std::string& name) {
    return value_named(scale_types, "--scale-dtype", name);
}
std::string to_string(SolverKind kind) {
    return name_of(solver_kinds, kind);
}
std::string to_string(ColumnOrder order) {
    return name_of(column_orders, order);
}
std::string to_string(ScaleSearch search) {
    return name_of(scale_searches, search);
}
std::string to_string(ScaleType type) {
    return name_of(scale_types, type);
}

void check(const SolverSettings& settings) {
    constexpr std::array<int, 4> bits{2, 3, 4, 8};
    constexpr std::array<std::int64_t, 5> group_sizes{32, 64, 128, 256, -1};
    if (std::find(bits.begin(), bits.end(), settings.grid.bits) == bits.end())
        throw InvalidInput("--bits is {}; it takes 2, 3, 4 or 8", settings.grid.bits);
    if (std::find(group_sizes.begin(), group_sizes.end(), settings.grid.group_size) == group_sizes.end())
        throw InvalidInput("--group-size is {}; it takes 32, 64, 128, 256, or -1 for the whole row",
                           settings.grid.group_size);
    if (!std::isfinite(settings.damp) || settings.damp < 0)
        throw InvalidInput("--damp is {}; it takes a share of the Hessian's mean diagonal, 0 or more", settings.damp);
}

}  // namespace fairgptq
