// Token files for tests: a whole, valid one whose parts a test can change before they are written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "support/hdf5.hpp"

namespace fairgptq::testing {

struct SequenceData {
    std::vector<std::int32_t> ids;
    std::vector<std::int64_t> offsets{0};

    SequenceData() = default;
    explicit SequenceData(const std::vector<std::vector<std::int32_t>>& sequences) {
        for (const auto& sequence : sequences) {
            ids.insert(ids.end(), sequence.begin(), sequence.end());
            offsets.push_back(static_cast<std::int64_t>(ids.size()));
        }
    }
};

struct TaskData {
    std::string name, kind;
    SequenceData sequences;
    std::vector<std::int32_t> scored_from, item, role, label;
    std::vector<std::string> group, bias_type;
    std::vector<std::int32_t> choice_length, unknown_choice, biased_choice, ambiguous, baseline_item;
};

struct TokenFileData {
    std::string format = "fairgptq-tokens";
    std::int64_t version = 1;
    std::string tokenizer_sha256 = std::string(64, 'a');
    std::int64_t vocab_size = 100;
    std::optional<SequenceData> text, stereotype, anti_stereotype, unrelated;
    std::vector<std::string> category;
    std::vector<TaskData> tasks;
};

/// One of everything: a text of 3 sequences, 2 pairs, a task of each kind (choices, pairs, stereo, words, cloze,
/// questions, probes).
inline TokenFileData small_token_file() {
    TokenFileData file;
    file.text = SequenceData({{1, 2, 3}, {4}, {5, 6}});
    file.stereotype = SequenceData({{1, 10, 11}, {1, 12}});
    file.anti_stereotype = SequenceData({{1, 20, 11}, {1, 21, 22}});
    file.unrelated = SequenceData({{1, 13}, {1, 14, 15}});
    file.category = {"race", "gender"};
    const SequenceData six({{1, 2}, {1, 3, 3}, {1, 4}, {1, 5}, {1, 6}, {1, 7, 8, 9}});
    file.tasks.push_back({"choices",
                          "multiple_choice",
                          six,
                          {1, 1, 1, 1, 1, 2},
                          {0, 0, 1, 1, 1, 1},
                          {0, 1, 0, 1, 2, 3},
                          {1, 3},
                          {},
                          {},
                          {4, 5, 1, 1, 2, 3},
                          {},
                          {},
                          {},
                          {}});
    file.tasks.push_back({"pairs",
                          "pair_preference",
                          six,
                          {1, 1, 1, 1, 1, 1},
                          {0, 0, 1, 1, 2, 2},
                          {0, 1, 1, 0, 0, 1},
                          {},
                          {"a", "b", "a"},
                          {},
                          {},
                          {},
                          {},
                          {},
                          {}});
    file.tasks.push_back({"stereo",
                          "stereoset",
                          six,
                          {1, 2, 1, 1, 1, 3},
                          {1, 1, 1, 0, 0, 0},
                          {0, 1, 2, 0, 1, 2},
                          {},
                          {"cook", "nurse"},
                          {"profession", "profession"},
                          {},
                          {},
                          {},
                          {},
                          {}});
    const auto add = [&](const std::string& name, const std::string& kind) -> TaskData& {
        TaskData& task = file.tasks.emplace_back();
        task.name = name;
        task.kind = kind;
        task.sequences = six;
        task.scored_from = {1, 1, 1, 1, 1, 1};
        return task;
    };
    add("words", "perplexity");
    TaskData& cloze = add("cloze", "last_word");
    cloze.item = {0, 1, 2, 3, 4, 5};
    cloze.role = {0, 0, 0, 0, 0, 0};
    TaskData& questions = add("questions", "bbq");
    questions.item = {0, 0, 0, 1, 1, 1};
    questions.role = {0, 1, 2, 0, 1, 2};
    questions.label = {2, 0};
    questions.group = {"Age", "Religion"};
    questions.unknown_choice = {2, 1};
    questions.biased_choice = {0, 2};
    questions.ambiguous = {1, 0};
    TaskData& probes = add("probes", "sofa");
    probes.item = {0, 0, 1, 1, 2, 2};
    probes.role = {0, 1, 0, 1, 0, 1};
    probes.group = {"religion", "religion", "religion"};
    probes.baseline_item = {-1, 0, 0};
    return file;
}

inline std::vector<std::int64_t> size_of_list(std::size_t size) {
    return {static_cast<std::int64_t>(size)};
}

inline void write_sequences(const h5::Group& group, const SequenceData& data) {
    group.write("token_ids", data.ids, size_of_list(data.ids.size()));
    group.write("offsets", data.offsets, size_of_list(data.offsets.size()));
}

/// Fields left empty are left out of the file.
inline void write_token_file(const h5::Group& root, const TokenFileData& file) {
    root.set("format", file.format);
    root.set("version", file.version);
    root.set("tokenizer_sha256", file.tokenizer_sha256);
    root.set("vocab_size", file.vocab_size);
    root.set("sources", "[]");
    if (file.text) write_sequences(root.create_group("text"), *file.text);
    if (file.stereotype || file.anti_stereotype) {
        const h5::Group pairs = root.create_group("pairs");
        if (file.stereotype) write_sequences(pairs.create_group("stereotype"), *file.stereotype);
        if (file.anti_stereotype) write_sequences(pairs.create_group("anti_stereotype"), *file.anti_stereotype);
        if (file.unrelated) write_sequences(pairs.create_group("unrelated"), *file.unrelated);
        if (!file.category.empty()) pairs.write_strings("category", file.category);
    }
    if (file.tasks.empty()) return;
    const h5::Group tasks = root.create_group("tasks");
    for (const TaskData& task : file.tasks) {
        const h5::Group group = tasks.create_group(task.name);
        group.set("kind", task.kind);
        write_sequences(group, task.sequences);
        const auto write = [&](const char* name, const std::vector<std::int32_t>& values) {
            if (!values.empty()) group.write(name, values, size_of_list(values.size()));
        };
        write("scored_from", task.scored_from);
        write("item", task.item);
        write("role", task.role);
        write("label", task.label);
        write("choice_length", task.choice_length);
        write("unknown_choice", task.unknown_choice);
        write("biased_choice", task.biased_choice);
        write("ambiguous", task.ambiguous);
        write("baseline_item", task.baseline_item);
        if (!task.group.empty()) group.write_strings("group", task.group);
        if (!task.bias_type.empty()) group.write_strings("bias_type", task.bias_type);
    }
}

/// Takes the checksum out of a file, so that HDF5 alone stands between its bytes and the reader: a file as h5py writes
/// it.
inline void remove_seal(const std::filesystem::path& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file << std::string(512, '\0');
}

inline void write_token_file(const std::filesystem::path& path, const TokenFileData& data, bool sealed = false) {
    h5::File file = h5::File::create(path);
    write_token_file(file.root(), data);
    file.seal();
    if (!sealed) remove_seal(path);
}

}  // namespace fairgptq::testing
