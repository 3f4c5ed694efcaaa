// The solver's options, as the command line names them.
#pragma once

#include <cstdint>
#include <string>

#include "backend/columns.hpp"

namespace fairgptq {

enum class SolverKind : std::uint8_t { joint, reference, reference_first_order };
enum class ColumnOrder : std::uint8_t { none, activation, group };

struct SolverSettings {
    SolverKind kind = SolverKind::joint;
    Grid grid;  // group_size −1 means the whole row until a module's width is known
    ColumnOrder order = ColumnOrder::none;
    bool static_groups = false;
    double damp = 0.01;
};

/// Names as the command line and the files write them. @throws InvalidInput naming the option and the values it takes
SolverKind parse_solver_kind(const std::string& name);
ColumnOrder parse_column_order(const std::string& name);
ScaleSearch parse_scale_search(const std::string& name);
ScaleType parse_scale_type(const std::string& name);
std::string to_string(SolverKind kind);
std::string to_string(ColumnOrder order);
std::string to_string(ScaleSearch search);
std::string to_string(ScaleType type);

/// @throws InvalidInput naming the first option whose value cannot be used (bits, group size, damp)
void check(const SolverSettings& settings);

}  // namespace fairgptq
