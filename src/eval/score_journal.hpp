// What a long evaluation has finished, kept in a file beside its report so that an interrupted one goes on.
//
//   {"format": "fairgptq-scores", "version": 1, "evaluation": HASH}
//   {"chunk": N, "total": [sequences], "greedy": [sequences]}      a line per finished chunk, in any order
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/files.hpp"

namespace fairgptq {

/// One sequence's scores, as they are kept and as ranks exchange them.
struct SequenceScore {
    double total = 0;         // sum of the scored tokens' log-probabilities
    std::int64_t greedy = 1;  // whether each was the most probable token
    bool operator==(const SequenceScore&) const = default;
};

class ScoreJournal {
  public:
    /// Opens the file if it is of the same evaluation, else begins it anew. What an interrupted write left is cut off.
    /// @param evaluation names everything that decides scores: model, tasks, their cut into chunks
    /// @throws Failure naming file and reason
    ScoreJournal(std::filesystem::path file, const std::string& evaluation);

    /// By chunk, as found on opening.
    const std::map<std::size_t, std::vector<SequenceScore>>& finished() const { return finished_; }
    /// Adds chunks and flushes them to the disk. @throws Failure naming file and reason
    void add(const std::map<std::size_t, std::vector<SequenceScore>>& chunks);
    /// Removes the file: the report is there.
    void remove();

  private:
    std::uint64_t read(const std::string& evaluation);  // @returns bytes that are whole
    std::filesystem::path path_;
    FileDescriptor file_;
    std::map<std::size_t, std::vector<SequenceScore>> finished_;
};

}  // namespace fairgptq
