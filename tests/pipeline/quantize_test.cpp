// Whole runs of a tiny model in one process: however ranks exchange, the layers' records are the same.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "tiny_run.hpp"

namespace fairgptq {
namespace {

using testing::NcclStandIn;
using testing::NcclWorld;

class QuantizeTest : public testing::TinyRun {};

TEST_F(QuantizeTest, NcclGivesWhatOneRankGives) {
    const std::vector<LayerRecord> alone = quantize({});
    expect_same(alone, quantize({.ranks = 3}));
    expect_same(alone, quantize({.ranks = 3, .nccl = true}));
}

// Codes then stay there for the layer's own weights, and come to the records while the next stage begins.
TEST_F(QuantizeTest, ADeviceThatTheHostCannotReadGivesTheSame) {
    const auto distant = [] { return std::make_unique<testing::DistantBackend>(); };
    for (const ColumnOrder order : {ColumnOrder::none, ColumnOrder::activation})
        for (const InputsFrom inputs : {InputsFrom::sequential, InputsFrom::original}) {
            settings.solver.order = order;
            settings.inputs = inputs;
            settings.alpha.modules = "q_proj,down_proj";  // two solves in a stage
            const std::vector<LayerRecord> alone = quantize({});
            expect_same(alone, quantize({.finished = 1}));
            for (const int ranks : {1, 3}) {
                expect_same(alone, quantize({.ranks = ranks, .make = distant}));
                expect_same(alone, quantize({.ranks = ranks, .nccl = true, .finished = 1, .make = distant}));
            }
        }
}

TEST_F(QuantizeTest, SumsThatTravelWhileTheModelGoesOnGiveTheSame) {
    settings.inputs = InputsFrom::original;
    settings.solver.order = ColumnOrder::activation;
    const std::vector<LayerRecord> alone = quantize({});
    expect_same(alone, quantize({.ranks = 2, .nccl = true}));
    settings.inputs = InputsFrom::sequential;
    EXPECT_NE(quantize({})[1].modules[0].codes, alone[1].modules[0].codes);
}

TEST_F(QuantizeTest, WhatWaitsInHostMemoryChangesNoByte) {
    for (const InputsFrom inputs : {InputsFrom::sequential, InputsFrom::original}) {
        settings.inputs = inputs;
        const std::vector<LayerRecord> resident = quantize({});
        for (const int ranks : {1, 2})
            for (const std::int64_t tokens : {0, 100, 250})
                for (const ReadAhead weights : {ReadAhead::to_device, ReadAhead::to_host})
                    expect_same(resident, quantize({.ranks = ranks, .residency = {tokens, weights}}));
        expect_same(resident, quantize({.residency = {0, ReadAhead::to_host}, .finished = 1}));
    }
}

TEST_F(QuantizeTest, LayersSayWhatTheyWereMadeOf) {
    const std::vector<LayerRecord> alone = quantize({});
    EXPECT_EQ(alone[0].source_tensors.size(), 9U + 3U);  // and embedding, final norm and head
    EXPECT_EQ(alone[1].source_tensors.size(), 9U);
    const Checkpoint checkpoint(model.path());
    for (const LayerRecord& record : alone)
        for (const auto& [name, hash] : record.source_tensors)
            EXPECT_EQ(hash, hash_of(checkpoint.tensor(name).bytes)) << name;
    for (const ReadAhead weights : {ReadAhead::to_device, ReadAhead::to_host}) {
        const std::vector<LayerRecord> others = quantize({.ranks = 2, .residency = {0, weights}, .finished = 1});
        for (std::size_t layer = 0; layer < 2; ++layer)
            EXPECT_EQ(alone[layer].source_tensors, others[layer].source_tensors);
    }
    // GPUs read each some of the tensors, and of more ranks than tensors some none; all know of all.
    for (const int ranks : {2, 11})
        for (const ReadAhead weights : {ReadAhead::to_device, ReadAhead::to_host}) {
            const std::vector<LayerRecord> others =
                quantize({.ranks = ranks, .nccl = true, .residency = {1 << 20, weights}, .make = [] {
                              return std::make_unique<testing::DistantBackend>();
                          }});
            expect_same(alone, others);
            for (std::size_t layer = 0; layer < 2; ++layer)
                EXPECT_EQ(alone[layer].source_tensors, others[layer].source_tensors);
        }
}

class Gaps : public testing::TinyRun {
  protected:
    Gaps() : TinyRun(4) {}
    using Layers = std::vector<std::int64_t>;
    using Events = std::vector<std::pair<std::string, std::int64_t>>;  // what was done, and the layer

    static std::vector<std::string> files_of(const RunDirectory& run) {
        std::vector<std::string> files;
        for (std::int64_t layer = 0; layer < 4; ++layer)
            files.push_back(test::bytes_of(run.layer_path(layer)));
        return files;
    }
    /// Of the last pass.
    static Events events_of(const RunDirectory& run) {
        std::ifstream log(run.path() / "log.jsonl");
        Events all;
        for (std::string line; std::getline(log, line);) {
            const nlohmann::json event = nlohmann::json::parse(line);
            all.emplace_back(event["event"], event["event"] == "discarded" ? event["from"] : event["layer"]);
        }
        return {all.begin() + 4, all.end()};
    }
    static void rewrite(const RunDirectory& run, LayerRecord record) {
        record.hash.clear();
        write_layer(run.layer_path(record.layer), record);
    }
};

TEST_F(Gaps, AreFilledAndWhatIsThereStays) {
    const std::vector<std::pair<Layers, Events>> cases{
        {{0}, {{"layer", 0}}},
        {{2}, {{"replayed", 0}, {"replayed", 1}, {"layer", 2}}},
        {{3}, {{"replayed", 0}, {"replayed", 1}, {"replayed", 2}, {"layer", 3}}},
        {{0, 2}, {{"layer", 0}, {"replayed", 1}, {"layer", 2}}},
        {{1, 2}, {{"replayed", 0}, {"layer", 1}, {"layer", 2}}},
        {{}, {}},
    };
    for (const InputsFrom inputs : {InputsFrom::sequential, InputsFrom::original}) {
        settings.inputs = inputs;
        const std::vector<LayerRecord> whole = quantize({});
        EXPECT_EQ(whole[0].made_after, "");
        EXPECT_EQ(whole[3].made_after, whole[2].hash);
        EXPECT_EQ(whole[2].hash, inputs == InputsFrom::sequential ? layer_hash(whole[2]) : source_hash(whole[2]));
        for (const auto& [gaps, events] : cases)
            for (const int ranks : {1, 3}) {
                std::vector<std::string> before;
                Way way{.ranks = ranks};
                way.meanwhile = [&](const RunDirectory& run) {
                    before = files_of(run);
                    for (const std::int64_t gap : gaps)
                        std::filesystem::remove(run.layer_path(gap));
                };
                way.afterwards = [&](const RunDirectory& run) {
                    const std::vector<std::string> after = files_of(run);
                    for (std::int64_t layer = 0; layer < 4; ++layer)
                        EXPECT_EQ(after[layer] != before[layer], std::ranges::count(gaps, layer) > 0) << layer;
                    EXPECT_EQ(events_of(run), events);
                };
                expect_same(whole, quantize(way));
            }
    }
}

// As on another device: what its inputs came from is not what is there now.
TEST_F(Gaps, WhatWasMadeAfterAnotherLayerIsDoneAgain) {
    const std::vector<LayerRecord> whole = quantize({});
    for (const int ranks : {1, 3}) {
        Way way{.ranks = ranks};
        way.meanwhile = [&](const RunDirectory& run) {
            std::filesystem::remove(run.layer_path(1));
            LayerRecord third = run.layer(2), fourth = run.layer(3);
            third.made_after = "another";
            fourth.made_after = layer_hash(third);
            rewrite(run, third);
            rewrite(run, fourth);
        };
        way.afterwards = [](const RunDirectory& run) {
            EXPECT_EQ(events_of(run),
                      (Events{{"replayed", 0}, {"layer", 1}, {"discarded", 2}, {"layer", 2}, {"layer", 3}}));
        };
        expect_same(whole, quantize(way));

        way.meanwhile = [&](const RunDirectory& run) {  // ended before it came to the next one
            LayerRecord second = run.layer(1);
            second.modules[0].codes[0] ^= 1;
            rewrite(run, second);
        };
        way.afterwards = [&](const RunDirectory& run) {
            EXPECT_EQ(events_of(run), (Events{{"replayed", 0}, {"replayed", 1}, {"layer", 2}, {"layer", 3}}));
            EXPECT_NE(run.layer(1).hash, whole[1].hash);
            run.require_finished();
        };
        quantize(way);
    }
}

TEST_F(QuantizeTest, ALostConnectionEndsTheRunAtEveryRank) {
    NcclWorld world(2);
    world.lost_from = 20;
    const test::ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(
        folder / "run", {{"model", {{"path", model.path().string()}, {"layers", 2}}}, {"layers", 2}});
    const RunTarget target{&run, settings.alpha, FinishedLayers(2)};
    const Checkpoint checkpoint(model.path());
    const Chunks work = chunks();
    testing::run_ranks(2, [&](Communicator& comm) {
        const auto backend = make_backend("cpu");
        const auto collectives = make_nccl_collectives(*backend, comm, std::make_unique<NcclStandIn>(world));
        PhaseClock clock;
        Progress progress(clock, settings.layers, false);
        try {
            quantize_model(settings, model.family(), checkpoint, work, std::span(&target, 1), -1,
                           {*backend, comm, *collectives}, progress);
            ADD_FAILURE() << "it ended well";
        } catch (const Failure& failure) {
            const std::string said = failure.what();
            EXPECT_NE(said.find("layer 0, inputs of"), std::string::npos) << said;
            EXPECT_NE(said.find("NCCL lost the other ranks"), std::string::npos) << said;
        }
    });
}

}  // namespace
}  // namespace fairgptq
