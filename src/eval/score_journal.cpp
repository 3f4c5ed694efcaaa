#include "eval/score_journal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

nlohmann::json heading(const std::string& evaluation) {
    return {{"format", "fairgptq-scores"}, {"version", 1}, {"evaluation", evaluation}};
}

/// A line's chunk and scores; nothing if it is not whole.
std::optional<std::pair<std::size_t, std::vector<SequenceScore>>> parse_line(const std::string& line) {
    const nlohmann::json json = parse_json(line);
    if (!json.is_object() || !json.value("chunk", nlohmann::json()).is_number_unsigned()) return std::nullopt;
    const nlohmann::json total = json.value("total", nlohmann::json());
    const nlohmann::json greedy = json.value("greedy", nlohmann::json());
    if (!total.is_array() || !greedy.is_array() || total.size() != greedy.size()) return std::nullopt;
    std::vector<SequenceScore> scores;
    for (std::size_t index = 0; index < total.size(); ++index) {
        if (!total[index].is_number() || !greedy[index].is_number_integer()) return std::nullopt;
        scores.push_back({total[index].get<double>(), greedy[index].get<std::int64_t>()});
    }
    return std::pair{json["chunk"].get<std::size_t>(), std::move(scores)};
}

}  // namespace

ScoreJournal::ScoreJournal(std::filesystem::path file, const std::string& evaluation) : path_(std::move(file)) {
    const std::uint64_t whole = read(evaluation);
    file_ = FileDescriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (file_.get() < 0 || ::ftruncate(file_.get(), static_cast<off_t>(whole)) != 0)
        throw Failure("{} cannot be written: {}", path_.string(), std::strerror(errno));
    if (whole == 0) write_all(file_, json_text(heading(evaluation)) + "\n", path_);
}

std::uint64_t ScoreJournal::read(const std::string& evaluation) {
    std::ifstream stream(path_, std::ios::binary);
    std::string line;
    if (!std::getline(stream, line) || stream.eof() || parse_json(line) != heading(evaluation)) return 0;
    std::uint64_t whole = line.size() + 1;
    while (std::getline(stream, line) && !stream.eof()) {
        auto entry = parse_line(line);
        if (!entry) break;
        finished_.insert_or_assign(entry->first, std::move(entry->second));
        whole += line.size() + 1;
    }
    return whole;
}

void ScoreJournal::add(const std::map<std::size_t, std::vector<SequenceScore>>& chunks) {
    std::string text;
    for (const auto& [chunk, scores] : chunks) {
        nlohmann::json line{{"chunk", chunk}, {"total", nlohmann::json::array()}, {"greedy", nlohmann::json::array()}};
        for (const SequenceScore& score : scores) {
            line["total"].push_back(score.total);
            line["greedy"].push_back(score.greedy);
        }
        text += json_text(line) + "\n";
    }
    write_all(file_, text, path_);
    flush_to_disk(file_, path_);
}

void ScoreJournal::remove() {
    std::error_code ignored;  // a file that stays is of no harm: the next evaluation of another kind begins it anew
    std::filesystem::remove(path_, ignored);
}

}  // namespace fairgptq
