#include "calibration/tokens.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "support/error.hpp"
#include "support_files/refusal.hpp"
#include "support_files/temporary_folder.hpp"
#include "support_files/token_file.hpp"

namespace fairgptq {
namespace {

using ::testing::HasSubstr;
using testing::refusal_of;
using testing::SequenceData;
using testing::small_token_file;
using testing::TaskData;
using testing::TemporaryFolder;
using testing::TokenFileData;
using testing::write_token_file;

std::string refusal(const std::filesystem::path& path) {
    return refusal_of([&] { read_token_file(path); });
}

TEST(TokenFile, HoldsWhatWasWritten) {
    const TemporaryFolder folder;
    write_token_file(folder / "t.h5", small_token_file());
    const TokenFile file = read_token_file(folder / "t.h5");
    EXPECT_EQ(file.path, folder / "t.h5");
    EXPECT_EQ(file.vocab_size, 100);
    EXPECT_EQ(file.tokenizer_sha256, std::string(64, 'a'));
    EXPECT_EQ(file.text.ids, (std::vector<std::int32_t>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(file.text.offsets, (std::vector<std::int64_t>{0, 3, 4, 6}));
    EXPECT_EQ(file.text.count(), 3);
    EXPECT_EQ(file.stereotype.ids, (std::vector<std::int32_t>{1, 10, 11, 1, 12}));
    EXPECT_EQ(file.anti_stereotype.offsets, (std::vector<std::int64_t>{0, 3, 6}));
    EXPECT_EQ(file.category, (std::vector<std::string>{"race", "gender"}));
    ASSERT_EQ(file.tasks.size(), 7U);  // in name order
    const Task& choices = file.tasks[0];
    EXPECT_EQ(choices.name, "choices");
    EXPECT_EQ(choices.kind, "multiple_choice");
    EXPECT_EQ(choices.items, 2);
    EXPECT_EQ(choices.label, (std::vector<std::int32_t>{1, 3}));
    EXPECT_EQ(choices.scored_from, (std::vector<std::int32_t>{1, 1, 1, 1, 1, 2}));
    EXPECT_EQ(choices.choice_length, (std::vector<std::int32_t>{4, 5, 1, 1, 2, 3}));
    EXPECT_EQ(file.tasks[1].kind, "last_word");
    EXPECT_EQ(file.tasks[1].items, 6);
    const Task& probes = file.tasks[3];
    EXPECT_EQ(probes.baseline_item, (std::vector<std::int32_t>{-1, 0, 0}));
    const Task& questions = file.tasks[4];
    EXPECT_EQ(questions.unknown_choice, (std::vector<std::int32_t>{2, 1}));
    EXPECT_EQ(questions.biased_choice, (std::vector<std::int32_t>{0, 2}));
    EXPECT_EQ(questions.ambiguous, (std::vector<std::uint8_t>{1, 0}));
    const Task& stereo = file.tasks[5];
    EXPECT_EQ(stereo.item, (std::vector<std::int32_t>{1, 1, 1, 0, 0, 0}));
    EXPECT_EQ(stereo.role, (std::vector<std::int32_t>{0, 1, 2, 0, 1, 2}));
    EXPECT_EQ(stereo.group, (std::vector<std::string>{"cook", "nurse"}));
    EXPECT_EQ(stereo.bias_type, (std::vector<std::string>{"profession", "profession"}));
    EXPECT_EQ(file.tasks[6].items, 0);
}

TEST(TokenFile, NeedsNoPart) {
    const TemporaryFolder folder;
    write_token_file(folder / "t.h5", TokenFileData());
    const TokenFile file = read_token_file(folder / "t.h5");
    EXPECT_EQ(file.text.count(), 0);
    EXPECT_EQ(file.stereotype.count(), 0);
    EXPECT_TRUE(file.tasks.empty());
}

TEST(TokenFile, DigestNamesTheCalibrationPartsAlone) {
    const TemporaryFolder folder;
    const auto digest = [&](const std::function<void(TokenFileData&)>& change, bool seal = false) {
        TokenFileData data = small_token_file();
        change(data);
        write_token_file(folder / "t.h5", data, seal);
        return read_token_file(folder / "t.h5").digest;
    };
    const std::string original = digest([](TokenFileData&) {});
    EXPECT_EQ(original.size(), 32U);
    EXPECT_EQ(digest([](TokenFileData&) {}, true), original);
    EXPECT_EQ(digest([](TokenFileData& data) { data.tasks.clear(); }), original);
    EXPECT_EQ(digest([](TokenFileData& data) { data.unrelated.reset(); }), original);
    EXPECT_NE(digest([](TokenFileData& data) { data.text->ids[5] = 7; }), original);
    EXPECT_NE(digest([](TokenFileData& data) { data.text->offsets[1] = 2; }), original);
    EXPECT_NE(digest([](TokenFileData& data) { data.stereotype->ids[0] = 7; }), original);
    EXPECT_NE(digest([](TokenFileData& data) { std::swap(data.stereotype, data.anti_stereotype); }), original);
}

struct Variant {
    const char* name;
    std::function<void(TokenFileData&)> change;
    const char* message;  // part of the one sentence
};
class BadContents : public ::testing::TestWithParam<Variant> {};

TEST_P(BadContents, IsRefusedInOneSentence) {
    const TemporaryFolder folder;
    TokenFileData data = small_token_file();
    GetParam().change(data);
    write_token_file(folder / "t.h5", data);
    const std::string message = refusal(folder / "t.h5");
    EXPECT_THAT(message, HasSubstr(GetParam().message));
    EXPECT_THAT(message, HasSubstr((folder / "t.h5").string()));
    EXPECT_EQ(message.find('\n'), std::string::npos);
}

TaskData& choices(TokenFileData& data) {
    return data.tasks[0];
}
TaskData& pairs(TokenFileData& data) {
    return data.tasks[1];
}
TaskData& stereo(TokenFileData& data) {
    return data.tasks[2];
}
TaskData& words(TokenFileData& data) {
    return data.tasks[3];
}
TaskData& questions(TokenFileData& data) {
    return data.tasks[5];
}
TaskData& probes(TokenFileData& data) {
    return data.tasks[6];
}

const Variant variants[] = {
    {"another_format", [](auto& d) { d.format = "something else"; }, "is not a token file"},
    {"version_2", [](auto& d) { d.version = 2; }, "version 2, this program reads version 1"},
    {"no_vocabulary", [](auto& d) { d.vocab_size = 0; }, "'vocab_size' is 0"},
    {"huge_vocabulary", [](auto& d) { d.vocab_size = 1LL << 31; }, "'vocab_size' is 2147483648"},
    {"offsets_not_from_0", [](auto& d) { d.text->offsets[0] = 1; }, ":/text/offsets does not start at 0"},
    {"offsets_empty", [](auto& d) { d.text->offsets.clear(); }, ":/text/offsets does not start at 0"},
    {"offsets_fall", [](auto& d) { d.text->offsets[2] = 2; }, ":/text/offsets does not rise at sequence 1"},
    {"offsets_negative", [](auto& d) { d.text->offsets[1] = -5; }, ":/text/offsets does not rise at sequence 0"},
    {"empty_sequence",
     [](auto& d) {
         d.stereotype = SequenceData({{1}, {}});
     },
     ":/pairs/stereotype/offsets does not rise at sequence 1"},
    {"offsets_beyond_ids", [](auto& d) { d.text->offsets[3] = 7; }, ":/text/offsets ends at 7 where token_ids holds 6"},
    {"offsets_short_of_ids", [](auto& d) { d.text->offsets[3] = 5; },
     ":/text/offsets ends at 5 where token_ids holds 6"},
    {"offsets_largest", [](auto& d) { d.text->offsets[3] = INT64_MAX; }, ":/text/offsets ends at 9223372036854775807"},
    {"negative_id", [](auto& d) { d.text->ids[4] = -1; },
     ":/text/token_ids holds -1 at place 4, outside the vocabulary of 100"},
    {"id_beyond_vocabulary", [](auto& d) { d.anti_stereotype->ids[0] = 100; },
     ":/pairs/anti_stereotype/token_ids holds 100 at place 0"},
    {"odd_pair_counts",
     [](auto& d) {
         d.stereotype = SequenceData({{1, 2}});
         d.unrelated.reset();
     },
     "has 1 stereotypical and 2 anti-stereotypical"},
    {"no_counterparts", [](auto& d) { d.anti_stereotype.reset(); }, ":/pairs/anti_stereotype is missing"},
    {"unrelated_short",
     [](auto& d) {
         d.unrelated = SequenceData({{1, 2}});
     },
     ":/pairs has 1 unrelated sequences for 2 pairs"},
    {"unrelated_id_beyond_vocabulary", [](auto& d) { d.unrelated->ids[0] = 100; },
     ":/pairs/unrelated/token_ids holds 100 at place 0"},
    {"categories_short", [](auto& d) { d.category = {"race"}; }, ":/pairs/category has 1 entries for 2 pairs"},
    {"task_without_sequences", [](auto& d) { choices(d).sequences = SequenceData(); },
     ":/tasks/choices holds no sequence"},
    {"unknown_kind", [](auto& d) { choices(d).kind = "riddles"; }, ":/tasks/choices: the kind 'riddles' is not known"},
    {"scored_from_short", [](auto& d) { choices(d).scored_from.pop_back(); },
     ":/tasks/choices/scored_from has 5 entries for 6 sequences"},
    {"scored_from_0", [](auto& d) { choices(d).scored_from[2] = 0; }, "sequence 2 of 2 tokens is scored from 0"},
    {"scored_from_end", [](auto& d) { choices(d).scored_from[2] = 2; }, "sequence 2 of 2 tokens is scored from 2"},
    {"no_scored_from", [](auto& d) { choices(d).scored_from.clear(); }, ":/tasks/choices/scored_from is missing"},
    {"no_items", [](auto& d) { choices(d).item.clear(); }, ":/tasks/choices/item is missing"},
    {"items_long", [](auto& d) { choices(d).item.push_back(1); }, ":/tasks/choices/item has 7 entries for 6 sequences"},
    {"roles_short", [](auto& d) { choices(d).role.pop_back(); }, ":/tasks/choices/role has 5 entries for 6 sequences"},
    {"negative_item", [](auto& d) { choices(d).item[3] = -1; }, "sequence 3 claims item -1"},
    {"item_beyond", [](auto& d) { choices(d).item[3] = 6; }, "sequence 3 claims item 6"},
    {"item_left_out", [](auto& d) { choices(d).item = {0, 0, 2, 2, 2, 2}; }, "item 1 has no sequence"},
    {"role_beyond", [](auto& d) { choices(d).role[1] = 2; }, "sequence 1 has role 2, out of range for an item of 2"},
    {"negative_role", [](auto& d) { choices(d).role[1] = -2; }, "sequence 1 has role -2"},
    {"role_twice", [](auto& d) { pairs(d).role[1] = 0; }, ":/tasks/pairs/role: item 0 has role 0 twice"},
    {"pair_of_three", [](auto& d) { pairs(d).item = {0, 0, 0, 1, 1, 1}; },
     "item 0 has 3 sequences where pair_preference takes 2"},
    {"triple_of_two", [](auto& d) { stereo(d).item = {0, 0, 1, 1, 2, 2}; },
     "item 0 has 2 sequences where stereoset takes 3"},
    {"label_beyond", [](auto& d) { choices(d).label[0] = 2; }, ":/tasks/choices/label: item 0 has label 2"},
    {"negative_label", [](auto& d) { choices(d).label[0] = -1; }, ":/tasks/choices/label: item 0 has label -1"},
    {"labels_long", [](auto& d) { choices(d).label.push_back(0); }, ":/tasks/choices/label has 3 entries for 2 items"},
    {"groups_short", [](auto& d) { pairs(d).group.pop_back(); }, ":/tasks/pairs/group has 2 entries for 3 items"},
    {"choices_without_labels", [](auto& d) { choices(d).label.clear(); },
     ":/tasks/choices/label is missing, which the kind multiple_choice needs"},
    {"no_choice_lengths", [](auto& d) { choices(d).choice_length.clear(); },
     ":/tasks/choices/choice_length is missing"},
    {"choice_lengths_short", [](auto& d) { choices(d).choice_length.pop_back(); },
     ":/tasks/choices/choice_length has 5 entries for 6 sequences"},
    {"choice_of_no_length", [](auto& d) { choices(d).choice_length[3] = 0; },
     ":/tasks/choices/choice_length: sequence 3 has a choice of 0 characters"},
    {"two_last_words", [](auto& d) { d.tasks[4].item = {0, 0, 1, 2, 3, 4}; },
     "item 0 has 2 sequences where last_word takes 1"},
    {"question_of_two", [](auto& d) { questions(d).item = {0, 0, 1, 1, 1, 1}; },
     "item 0 has 2 sequences where bbq takes 3"},
    {"questions_without_labels", [](auto& d) { questions(d).label.clear(); },
     ":/tasks/questions/label is missing, which the kind bbq needs"},
    {"questions_without_groups", [](auto& d) { questions(d).group.clear(); },
     ":/tasks/questions/group is missing, which the kind bbq needs"},
    {"no_unknown_choices", [](auto& d) { questions(d).unknown_choice.clear(); },
     ":/tasks/questions/unknown_choice is missing"},
    {"unknown_choice_beyond", [](auto& d) { questions(d).unknown_choice[1] = 3; },
     ":/tasks/questions/unknown_choice: item 1 has unknown_choice 3, out of range for its 3 sequences"},
    {"negative_biased_choice", [](auto& d) { questions(d).biased_choice[0] = -1; },
     ":/tasks/questions/biased_choice: item 0 has biased_choice -1"},
    {"biased_choice_is_unknown", [](auto& d) { questions(d).biased_choice[0] = 2; },
     ":/tasks/questions/biased_choice: item 0 has the same biased and unknown choice, 2"},
    {"ambiguous_short", [](auto& d) { questions(d).ambiguous.pop_back(); },
     ":/tasks/questions/ambiguous has 1 entries for 2 items"},
    {"ambiguous_2", [](auto& d) { questions(d).ambiguous[1] = 2; },
     ":/tasks/questions/ambiguous: item 1 has 2, where 0 or 1 is expected"},
    {"probes_without_groups", [](auto& d) { probes(d).group.clear(); },
     ":/tasks/probes/group is missing, which the kind sofa needs"},
    {"no_baselines", [](auto& d) { probes(d).baseline_item.clear(); }, ":/tasks/probes/baseline_item is missing"},
    {"baseline_beyond", [](auto& d) { probes(d).baseline_item[2] = 3; }, "item 2 names item 3, out of range"},
    {"baseline_negative", [](auto& d) { probes(d).baseline_item[2] = -2; }, "item 2 names item -2, out of range"},
    {"baseline_is_a_probe", [](auto& d) { probes(d).baseline_item[2] = 1; },
     "item 2 names item 1, which is no baseline"},
    {"baselines_alone",
     [](auto& d) {
         probes(d).baseline_item = {-1, -1, -1};
     },
     ":/tasks/probes/baseline_item: every item is a baseline, none a probe"},
    {"baseline_of_other_size",
     [](auto& d) {
         probes(d).item = {0, 0, 1, 1, 1, 2};
         probes(d).role = {0, 1, 0, 1, 2, 0};
     },
     "item 1 has 3 sequences, its baseline item 0 has 2"},
    {"texts_short",
     [](auto& d) {
         words(d).group = {"news", "tales"};
     },
     ":/tasks/words/group has 2 entries for 6 sequences"},
    {"bias_types_short", [](auto& d) { stereo(d).bias_type.pop_back(); },
     ":/tasks/stereo/bias_type has 1 entries for 2 items"},
};
INSTANTIATE_TEST_SUITE_P(TokenFile, BadContents, ::testing::ValuesIn(variants),
                         [](const auto& variant) { return std::string(variant.param.name); });

/// Writes the small file, then lets the test rebuild objects of it.
std::filesystem::path rebuilt(const TemporaryFolder& folder, const std::function<void(const h5::Group&)>& change) {
    h5::File file = h5::File::create(folder / "t.h5");
    write_token_file(file.root(), small_token_file());
    change(file.root());
    file.seal();
    return folder / "t.h5";
}

TEST(TokenFile, RefusesObjectsOfTheWrongForm) {
    const TemporaryFolder folder;
    const auto message = [&](const std::function<void(const h5::Group&)>& change) {
        return refusal(rebuilt(folder, change));
    };
    EXPECT_THAT(message([](const h5::Group& root) {
                    root.remove("text/token_ids");
                    root.group("text").write("token_ids", std::vector<float>{1, 2, 3, 4, 5, 6}, {6});
                }),
                HasSubstr(":/text/token_ids holds floating-point numbers where integers are expected"));
    EXPECT_THAT(message([](const h5::Group& root) {
                    root.remove("text/token_ids");
                    root.group("text").write("token_ids", std::vector<std::int32_t>{1, 2, 3, 4, 5, 6}, {3, 2});
                }),
                HasSubstr(":/text/token_ids has 2 dimensions where 1 are expected"));
    EXPECT_THAT(message([](const h5::Group& root) {
                    root.remove("text/token_ids");
                    root.group("text").write("token_ids", std::vector<std::int64_t>{1, 2, 3, 4, 5, 1LL << 32}, {6});
                }),
                HasSubstr(":/text/token_ids holds 2147483647 at place 5"));
    EXPECT_THAT(message([](const h5::Group& root) {
                    root.remove("text/token_ids");
                    root.group("text").write_strings("token_ids", {"one", "two"});
                }),
                HasSubstr(":/text/token_ids does not hold numbers"));
    EXPECT_THAT(message([](const h5::Group& root) {
                    root.remove("text/offsets");
                    root.group("text").create_group("offsets");
                }),
                HasSubstr(":/text/offsets is not a readable dataset"));
    EXPECT_THAT(message([](const h5::Group& root) {
                    root.remove("text");
                    root.write("text", std::vector<std::int32_t>{1}, {1});
                }),
                HasSubstr(":/text is not a readable group"));
    EXPECT_THAT(message([](const h5::Group& root) { root.remove("text/offsets"); }),
                HasSubstr(":/text/offsets is missing"));
    EXPECT_THAT(message([](const h5::Group& root) { root.remove("pairs/stereotype"); }),
                HasSubstr(":/pairs/stereotype is missing"));
    EXPECT_THAT(message([](const h5::Group& root) {
                    root.remove("pairs/category");
                    root.group("pairs").write("category", std::vector<std::int32_t>{1, 2}, {2});
                }),
                HasSubstr(":/pairs/category is not a list of strings"));
}

TEST(TokenFile, RefusesFilesThatAreNotWhole) {
    const TemporaryFolder folder;
    const std::filesystem::path path = folder / "t.h5";
    EXPECT_THAT(refusal(path), HasSubstr("cannot be opened"));
    EXPECT_THAT(refusal(folder.path()), HasSubstr("is not a file"));
    std::ofstream(path) << "not an HDF5 file";
    EXPECT_THAT(refusal(path), HasSubstr("is not a whole HDF5 file"));
    write_token_file(path, small_token_file());
    const auto bytes = std::filesystem::file_size(path);
    // A seal knows of every byte; HDF5 alone does not miss the padding at a file's end.
    for (const auto& [sealed, part] :
         {std::pair{false, std::uintmax_t{0}}, std::pair{false, std::uintmax_t{100}},
          std::pair{false, std::uintmax_t{512}}, std::pair{false, bytes / 2}, std::pair{true, std::uintmax_t{0}},
          std::pair{true, std::uintmax_t{100}}, std::pair{true, std::uintmax_t{512}}, std::pair{true, bytes - 1}}) {
        write_token_file(path, small_token_file(), sealed);
        std::filesystem::resize_file(path, part);
        EXPECT_NE(refusal(path), "") << part << " bytes of " << bytes << (sealed ? ", sealed" : "");
    }
}

TEST(TokenFile, AnyFlippedByteOfASealedFileIsSeen) {
    const TemporaryFolder folder;
    const std::filesystem::path path = folder / "t.h5";
    write_token_file(path, small_token_file(), true);
    const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(path));
    for (std::int64_t place = 512; place < bytes; place += 97) {
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.seekg(place);
        const char original = static_cast<char>(file.get());
        file.seekp(place);
        file.put(static_cast<char>(original ^ 0x10));
        file.flush();
        EXPECT_THAT(refusal(path), HasSubstr("is damaged")) << "byte " << place;
        file.seekp(place);
        file.put(original);
    }
    EXPECT_EQ(refusal(path), "");
}

TEST(TokenFile, IsCheckedAgainstTheModel) {
    const TemporaryFolder folder;
    write_token_file(folder / "t.h5", small_token_file());
    TokenFile file = read_token_file(folder / "t.h5");
    EXPECT_NO_THROW(
        check_against_model(file, 23, 4, folder.path()));  // the largest id is 22, the longest sequence has 4 tokens
    const auto message = [&](std::int64_t vocab_size, std::int64_t max_positions) {
        return refusal_of([&] { check_against_model(file, vocab_size, max_positions, folder.path()); });
    };
    EXPECT_THAT(message(22, 4),
                HasSubstr(":/pairs/anti_stereotype/token_ids holds 22, outside the model's vocabulary of 22"));
    EXPECT_EQ(message(23, 3), "");  // the fourth token of a task's sequence is predicted, and needs no position
    EXPECT_THAT(message(23, 2), HasSubstr(":/text: sequence 0 has 3 tokens"));
    file.text = file.stereotype = file.anti_stereotype = file.unrelated = {};
    EXPECT_THAT(message(23, 2), HasSubstr(":/tasks/choices: sequence 5 has 4 tokens, the model takes at most 3"));
}

TEST(TokenFile, AnotherTokenizersIdsAreRefused) {
    const TemporaryFolder folder;
    const auto message = [&](const std::string& recorded) {
        TokenFileData contents = small_token_file();
        contents.tokenizer_sha256 = recorded;
        write_token_file(folder / "t.h5", contents);
        return refusal_of([&] { check_against_model(read_token_file(folder / "t.h5"), 23, 4, folder.path()); });
    };
    EXPECT_EQ(message(std::string(64, 'a')), "");  // the model has no tokenizer
    std::ofstream(folder / "tokenizer.json") << "abc";
    EXPECT_THAT(message(std::string(64, 'a')), HasSubstr("was made with another tokenizer than"));
    EXPECT_EQ(message("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "");
    EXPECT_EQ(message(std::string(64, '0')), "");  // made without a tokenizer
}

}  // namespace
}  // namespace fairgptq
