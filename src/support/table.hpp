// Tables for people: columns aligned by what a terminal shows, not by bytes.
#pragma once

#include <string>
#include <vector>

namespace fairgptq {

/// Without what a terminal would act on instead of showing it: control characters become blanks.
std::string printable(std::string text);

/// A line per row, the first one a heading set off by a rule. The first column is aligned left, the others right; each
/// is as wide as its widest cell, counted in characters of UTF-8, and printable. Missing cells at a row's end are
/// blank.
std::string format_table(std::vector<std::vector<std::string>> rows);

/// A measured value in four digits or so; counts in full.
std::string format_figure(double value);

/// "4 s", "3 min 05 s", "2 h 07 min".
std::string format_duration(double seconds);

}  // namespace fairgptq
