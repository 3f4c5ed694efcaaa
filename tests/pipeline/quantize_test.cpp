// Whole runs of a tiny model in one process: however ranks exchange, the layers' records are the same.
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

TEST_F(QuantizeTest, ALostConnectionEndsTheRunAtEveryRank) {
    NcclWorld world(2);
    world.lost_from = 20;
    const test::ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(
        folder / "run", {{"model", {{"path", model.path().string()}, {"layers", 2}}}, {"layers", 2}});
    const RunTarget target{&run, settings.alpha, 0};
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
