// RUN/: created once, opened whole, resumed only with the same settings; damage is found, named and moved aside.
#include "run/run_directory.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "run/sample.hpp"
#include "support/error.hpp"
#include "support/files.hpp"
#include "support_files/refusal.hpp"

namespace fairgptq {
namespace {

using nlohmann::json;
using test::sample_module;
using test::ScratchFolder;
using testing::expect_refused;

json sample_settings() {
    return {{"model", {{"path", "/models/tiny"}, {"layers", 4}, {"config_hash", "abc"}}},
            {"calibration", {{"path", "/data/tokens.h5"}, {"digest", "def"}}},
            {"solver", {{"alpha", 0.1}, {"bits", 4}, {"sym", true}}},
            {"layers", 3},
            {"information", {{"ranks", 2}}}};
}

void add_layer(const RunDirectory& run, std::int64_t layer) {
    write_layer(run.layer_path(layer), {layer, run.fingerprint(), {sample_module("self_attn.q_proj", {}, 1)}});
}

TEST(RunDirectory, OpensAsItWasCreated) {
    const ScratchFolder folder;
    const RunDirectory made = RunDirectory::create(folder / "run", sample_settings());
    const RunDirectory opened = RunDirectory::open(folder / "run");
    EXPECT_EQ(opened.settings(), sample_settings());
    EXPECT_EQ(opened.fingerprint(), made.fingerprint());
    EXPECT_EQ(opened.model_path(), "/models/tiny");
    EXPECT_EQ(opened.model_layers(), 4);
    EXPECT_EQ(opened.layers(), 3);
    EXPECT_EQ(opened.layer_path(12).filename(), "layer_0012.h5");
    EXPECT_EQ(opened.finished_layers(false).count(), 0);
}

TEST(RunDirectory, AnExistingRunOrAnyFileIsRefused) {
    const ScratchFolder folder;
    RunDirectory::create(folder / "run", sample_settings());
    expect_refused([&] { RunDirectory::create(folder / "run", sample_settings()); }, {"--resume"});
    std::ofstream(folder / "file") << "x";
    expect_refused([&] { RunDirectory::create(folder / "file", sample_settings()); }, {"file"});
    expect_refused([&] { RunDirectory::create(folder / "file/below", sample_settings()); }, {"file/below"});
    expect_refused([&] { RunDirectory::create("/proc/no-folder", sample_settings()); }, {"/proc/no-folder"});
}

TEST(RunDirectory, WhatIsNotARunIsRefused) {
    const ScratchFolder folder;
    expect_refused([&] { RunDirectory::open(folder / "none"); }, {"not a run"});
    for (const char* text : {"", "{", "[]", "null", "{\"format\": 3}", "{\"format\": \"fairgptq-run\", \"version\": 4}",
                             "{\"format\": \"fairgptq-run\", \"version\": 3}",
                             "{\"format\": \"fairgptq-run\", \"version\": 3, \"settings\": {}, \"fingerprint\": 1}"}) {
        std::ofstream(folder / "run.json") << text;
        expect_refused([&] { RunDirectory::open(folder.path()); }, {"run.json"});
    }
}

TEST(RunDirectory, ARunOfAnOlderProgramIsToldToGoOnWithIt) {
    const ScratchFolder folder;
    RunDirectory::create(folder / "run", sample_settings());
    std::string text = test::bytes_of(folder / "run/run.json");
    text.replace(text.find("\"version\": 3"), 12, "\"version\": 2");
    std::ofstream(folder / "run/run.json") << text;
    for (const auto& open : {+[](const std::filesystem::path& path) { RunDirectory::open(path); },
                             +[](const std::filesystem::path& path) { RunDirectory::resume(path, sample_settings()); }})
        expect_refused([&] { open(folder / "run"); }, {"go on with the fairgptq that made the run"});
}

TEST(RunDirectory, SaysWhatItsLayersWereMadeOf) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", sample_settings());
    const auto add = [&](std::int64_t layer, const TensorHashes& hashes) {
        write_layer(run.layer_path(layer),
                    {layer, run.fingerprint(), {sample_module("self_attn.q_proj", {}, 1)}, hashes});
    };
    add(0, {{"embedding", "e"}, {"layer 0", "a"}});
    add(1, {{"layer 1", "b"}});
    TensorHashes hashes;
    EXPECT_EQ(run.finished_layers(true, &hashes).count(), 2);
    EXPECT_EQ(hashes, (TensorHashes{{"embedding", "e"}, {"layer 0", "a"}, {"layer 1", "b"}}));
    add(2, {{"layer 2", "c"}});
    EXPECT_EQ(run.require_finished().size(), 4U);
    std::filesystem::resize_file(run.layer_path(1), 700);
    hashes.clear();
    EXPECT_EQ(run.finished_layers(false, &hashes).count(), 2);
    EXPECT_EQ(hashes, (TensorHashes{{"embedding", "e"}, {"layer 0", "a"}, {"layer 2", "c"}}));
}

TEST(RunDirectory, SettingsChangedByHandAreRefused) {
    const ScratchFolder folder;
    RunDirectory::create(folder / "run", sample_settings());
    std::string text = test::bytes_of(folder / "run/run.json");
    text.replace(text.find("0.1"), 3, "0.2");
    std::ofstream(folder / "run/run.json") << text;
    expect_refused([&] { RunDirectory::open(folder / "run"); }, {"was changed"});
}

TEST(RunDirectory, ResumeNamesTheFieldsThatDiffer) {
    const ScratchFolder folder;
    RunDirectory::create(folder / "run", sample_settings());
    json now = sample_settings();
    RunDirectory::resume(folder / "run", now);
    now["solver"]["alpha"] = 0.5;
    expect_refused([&] { RunDirectory::resume(folder / "run", now); }, {"solver.alpha was 0.1, is 0.5"});
    now["model"]["config_hash"] = "other";
    expect_refused([&] { RunDirectory::resume(folder / "run", now); },
                   {"model.config_hash was \"abc\", is \"other\"; solver.alpha was 0.1, is 0.5"});
    now = sample_settings();
    now["solver"].erase("sym");
    expect_refused([&] { RunDirectory::resume(folder / "run", now); }, {"solver.sym was true, is not set"});
    now = sample_settings();
    now["order"] = "group";
    expect_refused([&] { RunDirectory::resume(folder / "run", now); }, {"order was not set, is \"group\""});
}

TEST(RunDirectory, WhereThingsLieAndWhoComputesDoesNotMatter) {
    const ScratchFolder folder;
    RunDirectory::create(folder / "run", sample_settings());
    json now = sample_settings();
    now["model"]["path"] = "/elsewhere";
    now["calibration"]["path"] = "/elsewhere.h5";
    now["information"] = {{"ranks", 7}, {"host", "b"}};
    EXPECT_EQ(fingerprint_of(now), fingerprint_of(sample_settings()));
    EXPECT_EQ(RunDirectory::resume(folder / "run", now).model_path(), "/models/tiny");
}

TEST(RunDirectory, FindsWholeLayersWhereverTheyAre) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", sample_settings());
    add_layer(run, 0);
    add_layer(run, 2);
    add_layer(run, 3);  // the run has three
    const FinishedLayers finished = run.finished_layers(false);
    EXPECT_EQ(finished.layers(), 3);
    EXPECT_EQ(finished.count(), 2);
    EXPECT_EQ(finished.first_missing(), 1);
    EXPECT_TRUE(finished.is_done(0) && !finished.is_done(1) && finished.is_done(2));
    expect_refused([&] { run.require_finished(); }, {"2 of 3 layers"});
    add_layer(run, 1);
    run.require_finished();
    EXPECT_EQ(run.layer(1).layer, 1);
}

TEST(RunDirectory, ADamagedLayerLeavesAGapAndIsMovedAsideOnRepair) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", sample_settings());
    for (const std::int64_t layer : {0, 1, 2})
        add_layer(run, layer);
    std::filesystem::resize_file(run.layer_path(1), 700);
    std::ofstream(temporary_name(run.layer_path(2))) << "half";
    EXPECT_EQ(run.finished_layers(false).first_missing(), 1);
    EXPECT_TRUE(std::filesystem::exists(run.layer_path(1)));
    const FinishedLayers repaired = run.finished_layers(true);
    EXPECT_TRUE(repaired.is_there(0) && !repaired.is_there(1) && repaired.is_there(2));
    EXPECT_FALSE(std::filesystem::exists(run.layer_path(1)));
    EXPECT_TRUE(std::filesystem::exists(folder / "run/layers/layer_0001.h5.damaged"));
    EXPECT_FALSE(std::filesystem::exists(temporary_name(run.layer_path(2))));
    expect_refused([&] { run.layer(1); }, {"layer_0001.h5"});
    std::filesystem::resize_file(run.layer_path(2), 0);
    add_layer(run, 1);
    EXPECT_EQ(run.finished_layers(true).first_missing(), 2);
}

/// @returns the layer's hash
std::string add_layer_after(const RunDirectory& run, std::int64_t layer, const std::string& before, unsigned seed = 1) {
    return write_layer(run.layer_path(layer),
                       {layer, run.fingerprint(), {sample_module("self_attn.q_proj", {}, seed)}, {}, before});
}

TEST(RunDirectory, ALayerThatWasMadeAfterAnotherIsNotTakenNorAnyAfterIt) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", sample_settings());
    const std::string first = add_layer_after(run, 0, "");
    const std::string second = add_layer_after(run, 1, first);
    add_layer_after(run, 2, second);
    run.require_finished();

    std::filesystem::remove(run.layer_path(1));  // as long as it is not there again, nobody knows
    FinishedLayers finished = run.finished_layers(true);
    EXPECT_TRUE(finished.is_there(2) && !finished.is_done(2) && finished.goes_on_after(1));
    EXPECT_EQ(add_layer_after(run, 1, first), second);
    run.require_finished();

    const std::string other = add_layer_after(run, 0, "", 2);
    EXPECT_NE(other, first);
    finished = run.finished_layers(false);
    EXPECT_EQ(finished.count(), 1);
    EXPECT_EQ(finished.hash(0), other);
    expect_refused([&] { run.require_finished(); }, {"1 of 3 layers"});
    EXPECT_TRUE(std::filesystem::exists(run.layer_path(1)));
    EXPECT_EQ(run.finished_layers(true).count(), 1);
    EXPECT_FALSE(std::filesystem::exists(run.layer_path(1)) || std::filesystem::exists(run.layer_path(2)));
}

TEST(FinishedLayers, ReachOtherRanksAsTheyAre) {
    FinishedLayers finished(4);
    finished.add(0, "", "a");
    finished.add(1, "a", "b");
    finished.add(3, "c", "d");
    const FinishedLayers other = FinishedLayers::from_text(finished.text());
    EXPECT_EQ(other.layers(), 4);
    for (const FinishedLayers& one : {finished, other}) {
        EXPECT_EQ(one.count(), 3);
        EXPECT_EQ(one.first_missing(), 2);
        EXPECT_EQ(one.made_after(1), "a");
        EXPECT_EQ(one.hash(3), "d");
        EXPECT_TRUE(one.is_done(1) && one.is_there(3) && !one.is_done(3) && !one.is_done(4));
    }
    finished.add(2, "b", "not c");
    EXPECT_FALSE(finished.is_complete());
    finished.add(2, "b", "c");
    EXPECT_TRUE(finished.is_complete());
    EXPECT_FALSE(finished.goes_on_after(3));
    finished.forget_from(1);
    EXPECT_EQ(finished.count(), 1);
    EXPECT_TRUE(FinishedLayers(0).is_complete());
    EXPECT_EQ(FinishedLayers::from_text(FinishedLayers(0).text()).layers(), 0);
}

TEST(RunDirectory, ALayerOfAnotherRunOrUnderAnotherNumberIsNotTaken) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", sample_settings());
    write_layer(run.layer_path(0), {0, "another", {sample_module("self_attn.q_proj", {}, 1)}});
    EXPECT_EQ(run.finished_layers(false).count(), 0);
    expect_refused([&] { run.layer(0); }, {"another run"});
    write_layer(run.layer_path(0), {1, run.fingerprint(), {sample_module("self_attn.q_proj", {}, 1)}});
    EXPECT_EQ(run.finished_layers(false).count(), 0);
    expect_refused([&] { run.layer(0); }, {"layer 1 of another run"});
}

TEST(RunDirectory, EveryEventIsALineOfItsOwn) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", sample_settings());
    run.log({{"event", "start"}, {"text", "two\nlines \xff"}});
    std::ofstream(folder / "run/log.jsonl", std::ios::app) << "{\"event\": \"ki";  // killed while it wrote
    run.log({{"event", "resume"}});
    std::ifstream in(folder / "run/log.jsonl");
    std::vector<json> events;
    for (std::string line; std::getline(in, line);)
        events.push_back(json::parse(line, nullptr, false));
    ASSERT_EQ(events.size(), 3U);
    EXPECT_EQ(events[0]["event"], "start");
    EXPECT_TRUE(events[1].is_discarded());
    EXPECT_EQ(events[2]["event"], "resume");
    const std::string time = events[2]["time"];
    ASSERT_EQ(time.size(), std::string("2026-11-22T16:00:00.123Z").size());
    EXPECT_EQ(time[10], 'T');
    EXPECT_EQ(time.back(), 'Z');
}

TEST(RunDirectory, ALayerThatCannotBeOpenedJustNowIsNotDamaged) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", sample_settings());
    add_layer(run, 0);
    std::filesystem::permissions(run.layer_path(0), std::filesystem::perms::none);
    for (const std::filesystem::path& above : {folder / "", folder / "run", folder / "run/layers"})
        std::filesystem::permissions(above, std::filesystem::perms(0755));
    const uid_t self = ::geteuid();
    if (self == 0) {  // who may read everything
        if (::seteuid(65534) != 0) GTEST_SKIP() << "there is no other user here";
    }
    EXPECT_THROW((void)run.finished_layers(true), InvalidInput);
    ASSERT_EQ(::seteuid(self), 0);
    EXPECT_TRUE(std::filesystem::exists(run.layer_path(0)));
    std::filesystem::permissions(run.layer_path(0), std::filesystem::perms::owner_read);
    EXPECT_EQ(run.finished_layers(true).count(), 1);
}

}  // namespace
}  // namespace fairgptq
