// Everything that a token file can have wrong is found here, once, so that nothing behind it has to look again.
#include "calibration/tokens.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <limits>
#include <span>
#include <string_view>

#include "support/checksum.hpp"
#include "support/error.hpp"
#include "support/hdf5.hpp"
#include "support/sha256.hpp"

namespace fairgptq {
namespace {

/// How many sequences an item of each kind has; 0: any number.
struct Kind {
    std::string_view name;
    std::int32_t roles;
};
constexpr std::array<Kind, 7> task_kinds{{{"perplexity", 0},
                                          {"stereoset", 3},
                                          {"pair_preference", 2},
                                          {"multiple_choice", 0},
                                          {"last_word", 1},
                                          {"bbq", 3},
                                          {"sofa", 0}}};

const Kind& find_kind(const std::string& name, const std::string& where) {
    const auto* found =
        std::find_if(task_kinds.begin(), task_kinds.end(), [&](const Kind& k) { return k.name == name; });
    if (found != task_kinds.end()) return *found;
    std::string known;
    for (const Kind& kind : task_kinds)
        known += (known.empty() ? "" : ", ") + std::string(kind.name);
    throw InvalidInput("{}: the kind '{}' is not known (known: {})", where, name, known);
}

Sequences read_sequences(const h5::Group& group, std::int64_t vocab_size) {
    Sequences result;
    result.ids = group.read<std::int32_t>("token_ids", 1);
    result.offsets = group.read<std::int64_t>("offsets", 1);
    const std::string& where = group.where();
    if (result.offsets.empty() || result.offsets.front() != 0)
        throw InvalidInput("{}/offsets does not start at 0", where);
    for (std::int64_t index = 0; index < result.count(); ++index)
        if (result.offsets[index + 1] <= result.offsets[index])
            throw InvalidInput("{}/offsets does not rise at sequence {} (every sequence has at least one token)", where,
                               index);
    if (result.offsets.back() != result.tokens())
        throw InvalidInput("{}/offsets ends at {} where token_ids holds {} tokens", where, result.offsets.back(),
                           result.tokens());
    for (std::size_t index = 0; index < result.ids.size(); ++index)
        if (result.ids[index] < 0 || result.ids[index] >= vocab_size)
            throw InvalidInput("{}/token_ids holds {} at place {}, outside the vocabulary of {} tokens", where,
                               result.ids[index], index, vocab_size);
    return result;
}

void check_size(const std::string& where, const char* name, std::size_t size, std::int64_t expected,
                const char* of_what) {
    if (static_cast<std::int64_t>(size) != expected)
        throw InvalidInput("{}/{} has {} entries for {} {}", where, name, size, expected, of_what);
}

/// A role of each item: a right answer, say.
std::vector<std::int32_t> read_roles(const h5::Group& group, const char* name, const std::vector<std::int32_t>& roles,
                                     const Task& task) {
    std::vector<std::int32_t> values = group.read<std::int32_t>(name, 1);
    check_size(group.where(), name, values.size(), task.items, "items");
    for (std::int64_t item = 0; item < task.items; ++item)
        if (values[item] < 0 || values[item] >= roles[item])
            throw InvalidInput("{}/{}: item {} has {} {}, out of range for its {} sequences", group.where(), name, item,
                               name, values[item], roles[item]);
    return values;
}

/// A probe is compared with the item that holds the same identities alone: role by role.
void read_baselines(const h5::Group& group, const std::vector<std::int32_t>& roles, Task& task) {
    const std::string& where = group.where();
    task.baseline_item = group.read<std::int32_t>("baseline_item", 1);
    check_size(where, "baseline_item", task.baseline_item.size(), task.items, "items");
    bool any_probe = false;
    for (std::int64_t item = 0; item < task.items; ++item) {
        const std::int64_t baseline = task.baseline_item[item];
        if (baseline == -1) continue;
        any_probe = true;
        if (baseline < 0 || baseline >= task.items)
            throw InvalidInput("{}/baseline_item: item {} names item {}, out of range", where, item, baseline);
        if (task.baseline_item[baseline] != -1)
            throw InvalidInput("{}/baseline_item: item {} names item {}, which is no baseline (its own is not -1)",
                               where, item, baseline);
        if (roles[baseline] != roles[item])
            throw InvalidInput("{}/baseline_item: item {} has {} sequences, its baseline item {} has {}", where, item,
                               roles[item], baseline, roles[baseline]);
    }
    if (!any_probe) throw InvalidInput("{}/baseline_item: every item is a baseline, none a probe", where);
}

/// What one kind needs beyond items and roles.
void read_what_the_kind_needs(const h5::Group& group, const std::vector<std::int32_t>& roles, Task& task) {
    const std::string& where = group.where();
    const auto need = [&](bool there, const char* name) {
        if (!there) throw InvalidInput("{}/{} is missing, which the kind {} needs", where, name, task.kind);
    };
    if (task.kind == "multiple_choice") {
        need(!task.label.empty(), "label");
        task.choice_length = group.read<std::int32_t>("choice_length", 1);
        check_size(where, "choice_length", task.choice_length.size(), task.sequences.count(), "sequences");
        for (std::int64_t index = 0; index < task.sequences.count(); ++index)
            if (task.choice_length[index] < 1)
                throw InvalidInput("{}/choice_length: sequence {} has a choice of {} characters", where, index,
                                   task.choice_length[index]);
    } else if (task.kind == "bbq") {
        need(!task.label.empty(), "label");
        need(!task.group.empty(), "group");
        task.unknown_choice = read_roles(group, "unknown_choice", roles, task);
        task.biased_choice = read_roles(group, "biased_choice", roles, task);
        task.ambiguous = group.read<std::uint8_t>("ambiguous", 1);
        check_size(where, "ambiguous", task.ambiguous.size(), task.items, "items");
        for (std::int64_t item = 0; item < task.items; ++item) {
            if (task.ambiguous[item] > 1)
                throw InvalidInput("{}/ambiguous: item {} has {}, where 0 or 1 is expected", where, item,
                                   task.ambiguous[item]);
            if (task.unknown_choice[item] == task.biased_choice[item])
                throw InvalidInput("{}/biased_choice: item {} has the same biased and unknown choice, {}", where, item,
                                   task.biased_choice[item]);
        }
    } else if (task.kind == "sofa") {
        need(!task.group.empty(), "group");
        read_baselines(group, roles, task);
    }
}

/// Reads which sequence is which role of which item, and what is stored per item.
void read_items(const h5::Group& group, Task& task) {
    const std::string& where = group.where();
    const std::int64_t count = task.sequences.count();
    task.item = group.read<std::int32_t>("item", 1);
    task.role = group.read<std::int32_t>("role", 1);
    check_size(where, "item", task.item.size(), count, "sequences");
    check_size(where, "role", task.role.size(), count, "sequences");
    // No item without sequences: so there are at most as many items as sequences.
    std::vector<std::int32_t> roles(static_cast<std::size_t>(count), 0);
    for (std::int64_t index = 0; index < count; ++index) {
        const std::int64_t item = task.item[index];
        if (item < 0 || item >= count)
            throw InvalidInput("{}/item: sequence {} claims item {}, out of range", where, index, item);
        ++roles[item];
        task.items = std::max(task.items, item + 1);
    }
    const std::int32_t wanted = find_kind(task.kind, where).roles;
    std::vector<std::int64_t> first(static_cast<std::size_t>(task.items) + 1, 0);
    for (std::int64_t item = 0; item < task.items; ++item) {
        if (roles[item] == 0) throw InvalidInput("{}/item: item {} has no sequence", where, item);
        if (wanted > 0 && roles[item] != wanted)
            throw InvalidInput("{}/item: item {} has {} sequences where {} takes {}", where, item, roles[item],
                               task.kind, wanted);
        first[item + 1] = first[item] + roles[item];
    }
    std::vector<bool> seen(static_cast<std::size_t>(count), false);
    for (std::int64_t index = 0; index < count; ++index) {
        const std::int32_t item = task.item[index];
        const std::int32_t role = task.role[index];
        if (role < 0 || role >= roles[item])
            throw InvalidInput("{}/role: sequence {} has role {}, out of range for an item of {} sequences", where,
                               index, role, roles[item]);
        if (seen[first[item] + role]) throw InvalidInput("{}/role: item {} has role {} twice", where, item, role);
        seen[first[item] + role] = true;
    }
    if (group.has("label")) task.label = read_roles(group, "label", roles, task);
    if (group.has("group")) {
        task.group = group.read_strings("group");
        check_size(where, "group", task.group.size(), task.items, "items");
    }
    if (group.has("bias_type")) {
        task.bias_type = group.read_strings("bias_type");
        check_size(where, "bias_type", task.bias_type.size(), task.items, "items");
    }
    read_what_the_kind_needs(group, roles, task);
}

Task read_task(const h5::Group& group, const std::string& name, std::int64_t vocab_size) {
    const std::string& where = group.where();
    Task task;
    task.name = name;
    task.kind = group.text("kind");
    (void)find_kind(task.kind, where);
    task.sequences = read_sequences(group, vocab_size);
    if (task.sequences.count() == 0) throw InvalidInput("{} holds no sequence", where);
    task.scored_from = group.read<std::int32_t>("scored_from", 1);
    check_size(where, "scored_from", task.scored_from.size(), task.sequences.count(), "sequences");
    for (std::int64_t index = 0; index < task.sequences.count(); ++index)
        if (task.scored_from[index] < 1 || task.scored_from[index] >= task.sequences.length(index))
            throw InvalidInput(
                "{}/scored_from: sequence {} of {} tokens is scored from {}, which leaves its range [1, {})", where,
                index, task.sequences.length(index), task.scored_from[index], task.sequences.length(index));
    if (task.kind != "perplexity") {
        read_items(group, task);
    } else if (group.has("group")) {
        task.group = group.read_strings("group");
        check_size(where, "group", task.group.size(), task.sequences.count(), "sequences");
    }
    return task;
}

template <class T>
std::string hash_of_values(const std::vector<T>& values) {
    return hash_of(std::as_bytes(std::span(values)));
}

/// Only what calibration reads: tasks may be added to a file without making its runs foreign to it.
std::string digest_of(std::initializer_list<const Sequences*> all) {
    std::string parts;
    for (const Sequences* sequences : all)
        parts += hash_of_values(sequences->ids) + hash_of_values(sequences->offsets);
    return hash_of(parts);
}

}  // namespace

TokenFile read_token_file(const std::filesystem::path& path) {
    const h5::File file = h5::File::open(path);
    const h5::Group& root = file.root();
    TokenFile result;
    result.path = path;
    if (!root.has_attribute("format") || root.text("format") != "fairgptq-tokens")
        throw InvalidInput(
            "{} is not a token file (its attribute 'format' is not \"fairgptq-tokens\"): write one with "
            "tools/prepare.py",
            path.string());
    if (const std::int64_t version = root.integer("version"); version != 1)
        throw InvalidInput("{} is a token file of version {}, this program reads version 1", path.string(), version);
    result.tokenizer_sha256 = root.text("tokenizer_sha256");
    result.vocab_size = root.integer("vocab_size");
    if (result.vocab_size < 1 || result.vocab_size > std::numeric_limits<std::int32_t>::max())
        throw InvalidInput("{}: the attribute 'vocab_size' is {}, where 1 to 2147483647 is expected", path.string(),
                           result.vocab_size);

    if (root.has("text")) result.text = read_sequences(root.group("text"), result.vocab_size);
    if (root.has("pairs")) {
        const h5::Group pairs = root.group("pairs");
        result.stereotype = read_sequences(pairs.group("stereotype"), result.vocab_size);
        result.anti_stereotype = read_sequences(pairs.group("anti_stereotype"), result.vocab_size);
        if (result.stereotype.count() != result.anti_stereotype.count())
            throw InvalidInput(
                "{} has {} stereotypical and {} anti-stereotypical sequences: every sentence needs its counterpart",
                pairs.where(), result.stereotype.count(), result.anti_stereotype.count());
        if (pairs.has("unrelated")) {
            result.unrelated = read_sequences(pairs.group("unrelated"), result.vocab_size);
            if (result.unrelated.count() != result.stereotype.count())
                throw InvalidInput(
                    "{} has {} unrelated sequences for {} pairs: every pair needs its own, or none has one",
                    pairs.where(), result.unrelated.count(), result.stereotype.count());
        }
        if (pairs.has("category")) {
            result.category = pairs.read_strings("category");
            check_size(pairs.where(), "category", result.category.size(), result.stereotype.count(), "pairs");
        }
    }
    if (root.has("tasks")) {
        const h5::Group tasks = root.group("tasks");
        for (const std::string& name : tasks.names())
            result.tasks.push_back(read_task(tasks.group(name), name, result.vocab_size));
    }
    result.digest = digest_of({&result.text, &result.stereotype, &result.anti_stereotype});
    result.unrelated_digest = digest_of({&result.unrelated});
    return result;
}

namespace {
/// Ids of another vocabulary can lie within the model's and mean nothing to it.
void check_tokenizer(const TokenFile& tokens, const std::filesystem::path& tokenizer) {
    const std::string& recorded = tokens.tokenizer_sha256;
    const bool known = recorded.size() == 64 && recorded.find_first_not_of('0') != std::string::npos;
    std::ifstream stream(tokenizer, std::ios::binary);
    if (!known || !stream) return;  // ids of no tokenizer's, or a model without one
    const std::string contents{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    if (sha256_of(std::as_bytes(std::span(contents))) != recorded)
        throw InvalidInput(
            "{} was made with another tokenizer than {}: make it with tools/prepare.py --model {} (SHA-256 of the one "
            "it "
            "was made with: {})",
            tokens.path.string(), tokenizer.string(), tokenizer.parent_path().string(), recorded);
}

void check_sequences(const std::string& where, const Sequences& sequences, std::int64_t vocab_size,
                     std::int64_t max_positions) {
    const auto largest = std::max_element(sequences.ids.begin(), sequences.ids.end());
    if (largest != sequences.ids.end() && *largest >= vocab_size)
        throw InvalidInput(
            "{}/token_ids holds {}, outside the model's vocabulary of {} tokens: was it made with this model's "
            "tokenizer?",
            where, *largest, vocab_size);
    for (std::int64_t index = 0; index < sequences.count(); ++index)
        if (sequences.length(index) > max_positions)
            throw InvalidInput(
                "{}: sequence {} has {} tokens, the model takes at most {} (config.json's limit, or the original "
                "context of one that computes longer "
                "sequences otherwise)",
                where, index, sequences.length(index), max_positions);
}
}  // namespace

void check_against_model(const TokenFile& tokens, std::int64_t vocab_size, std::int64_t max_positions,
                         const std::filesystem::path& model_dir) {
    const std::string path = tokens.path.string();
    check_tokenizer(tokens, model_dir / "tokenizer.json");
    check_sequences(path + ":/text", tokens.text, vocab_size, max_positions);
    check_sequences(path + ":/pairs/stereotype", tokens.stereotype, vocab_size, max_positions);
    check_sequences(path + ":/pairs/anti_stereotype", tokens.anti_stereotype, vocab_size, max_positions);
    check_sequences(path + ":/pairs/unrelated", tokens.unrelated, vocab_size, max_positions);
    for (const Task& task : tokens.tasks)  // after the last token of a sequence nothing is predicted
        check_sequences(path + ":/tasks/" + task.name, task.sequences, vocab_size, max_positions + 1);
}

}  // namespace fairgptq
