#include "support/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

namespace fairgptq {
namespace {

std::size_t shown_width(std::string_view text) {
    // Continuation bytes of UTF-8 are 10xxxxxx.
    return static_cast<std::size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

}  // namespace

std::string printable(std::string text) {
    std::replace_if(
        text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }, ' ');
    return text;
}

std::string format_table(std::vector<std::vector<std::string>> rows) {
    for (auto& row : rows)
        std::transform(row.begin(), row.end(), row.begin(),
                       [](std::string& cell) { return printable(std::move(cell)); });
    std::vector<std::size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()), 0);
        for (std::size_t column = 0; column < row.size(); ++column)
            widths[column] = std::max(widths[column], shown_width(row[column]));
    }
    std::string table;
    for (std::size_t index = 0; index < rows.size(); ++index) {
        std::string line;
        for (std::size_t column = 0; column < rows[index].size(); ++column) {
            const std::string& cell = rows[index][column];
            const std::string space(widths[column] - shown_width(cell), ' ');
            line += column == 0 ? cell + space : "  " + space + cell;
        }
        line.erase(line.find_last_not_of(' ') + 1);
        table += line + "\n";
        if (index > 0) continue;
        for (std::size_t column = 0; column < widths.size(); ++column)
            table += (column == 0 ? "" : "  ") + std::string(widths[column], '-');
        table += "\n";
    }
    return table;
}

std::string format_figure(double value) {
    const double size = std::abs(value);
    if (size > 0 && size < 1e-3) return fmt::format("{:.3g}", value);
    if (size >= 1e9) return fmt::format("{:.4g}", value);
    const int decimals = size < 10 ? (size < 1 ? 4 : 3) : size < 100 ? 2 : size < 1e4 ? 1 : 0;
    return fmt::format("{:.{}f}", value, decimals);
}

std::string format_duration(double seconds) {
    const auto whole = static_cast<std::int64_t>(seconds + 0.5);
    if (whole >= 3600) return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
    return whole >= 60 ? fmt::format("{} min {:02} s", whole / 60, whole % 60) : fmt::format("{} s", whole);
}

}  // namespace fairgptq
