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

}  // namespace fairgptq
