// The token file that tools/prepare.py writes (docs/files.md "Token file").
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace fairgptq {

/// Sequences of token ids, end to end.
struct Sequences {
    std::vector<std::int32_t> ids;
    std::vector<std::int64_t> offsets{0};
    std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
    std::int64_t length(std::int64_t index) const { return offsets[index + 1] - offsets[index]; }
    std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
};

/// Sequences of one benchmark. A perplexity task has sequences and scored_from only; in every other kind each sequence
/// is one of the roles 0 … k−1 of an item, and every item has each of its roles once.
struct Task {
    std::string name, kind;
    Sequences sequences;
    std::vector<std::int32_t> scored_from;    // [sequences], in [1, length)
    std::vector<std::int32_t> item, role;     // [sequences]
    std::vector<std::int32_t> label;          // [items], or empty
    std::vector<std::string> group;           // [items], of perplexity [sequences]; or empty
    std::vector<std::string> bias_type;       // [items], or empty; stereoset only
    std::vector<std::int32_t> choice_length;  // [sequences], multiple_choice only: characters of the choice's text
    std::vector<std::int32_t> unknown_choice, biased_choice;  // [items], bbq only: roles
    std::vector<std::uint8_t> ambiguous;                      // [items], bbq only: 0 or 1
    std::vector<std::int32_t> baseline_item;  // [items], sofa only: the item of the identities alone, −1 for it itself
    std::int64_t items = 0;
};

struct TokenFile {
    std::filesystem::path path;
    std::string tokenizer_sha256;
    std::int64_t vocab_size = 0;
    Sequences text;                         // empty where there is none
    Sequences stereotype, anti_stereotype;  // entry p belongs to entry p
    Sequences unrelated;                    // entry p belongs to pair p; empty where there are none
    std::vector<std::string> category;
    std::vector<Task> tasks;
    std::string digest;            // XXH3-128 of the calibration parts as they are in the file, hex
    std::string unrelated_digest;  // the same of `unrelated`
};

/// Reads and checks everything: format and version, offsets that start at 0, rise and end at the ids' count, ids in
/// [0, vocab_size), as many stereotypical as anti-stereotypical sequences, no empty sequence, roles and items complete,
/// and what a task's kind needs beyond them.
/// @throws InvalidInput naming file, object and what is wrong
TokenFile read_token_file(const std::filesystem::path& path);
/// @throws InvalidInput if ids go beyond the model's vocabulary, a sequence is longer than the model's positions (a
/// task's by more than its last token, which is predicted and never put in), or the ids are another tokenizer's than
/// model_dir/tokenizer.json's (tokenizer_sha256 all zeros: nobody knows whose)
void check_against_model(const TokenFile& tokens, std::int64_t vocab_size, std::int64_t max_positions,
                         const std::filesystem::path& model_dir);

}  // namespace fairgptq
