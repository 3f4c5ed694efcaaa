// Whole runs of a tiny model in one process: however ranks exchange, the layers' records are the same.
#include "pipeline/quantize.hpp"

#include <gtest/gtest.h>

#include "comm/nccl_collectives.hpp"
#include "model/tiny_models.hpp"
#include "run/sample.hpp"
#include "support_files/late_copies.hpp"
#include "support_files/nccl_stand_in.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

using testing::NcclStandIn;
using testing::NcclWorld;

class QuantizeTest : public ::testing::Test {
  protected:
    struct Way {
        int ranks = 1;
        bool nccl = false;
        Residency residency = {};
        std::int64_t finished = 0;  // layers that are replayed from an earlier run
    };

    QuantizeTest() {
        settings.solver.grid.group_size = 32;
        settings.chunk_tokens = 40;
        settings.layers = 2;
    }

    static nlohmann::json config() {
        nlohmann::json config = testing::tiny_llama_config();
        config.update({{"hidden_size", 128}, {"intermediate_size", 192}, {"head_dim", 32}});
        return config;
    }

    Chunks chunks() const {
        TokenFile file;
        file.path = "tokens.h5";
        for (unsigned pair = 0; pair < 30; ++pair)
            for (Sequences* side : {&file.stereotype, &file.anti_stereotype})
                append(*side, model.random_tokens(4 + pair % 5, 2 * pair + (side == &file.stereotype ? 0 : 1)));
        for (unsigned text = 0; text < 12; ++text)
            append(file.text, model.random_tokens(30, 1000 + text));
        return make_chunks(file, HessianSource::both, PairAlignment::position, settings.chunk_tokens);
    }

    std::vector<LayerRecord> quantize(Way way) const {
        const test::ScratchFolder folder;
        const RunDirectory run = RunDirectory::create(
            folder / "run", {{"model", {{"path", model.path().string()}, {"layers", 2}}}, {"layers", 2}});
        const Checkpoint checkpoint(model.path());
        const Chunks work = chunks();
        NcclWorld world(way.ranks);
        const auto pass = [&](std::int64_t finished, std::int64_t stop_after) {
            const RunTarget target{&run, settings.alpha, finished};
            testing::run_ranks(way.ranks, [&](Communicator& comm) {
                testing::LateBackend backend;
                const auto collectives =
                    way.nccl ? make_nccl_collectives(backend, comm, std::make_unique<NcclStandIn>(world))
                             : make_host_collectives(backend, comm);
                PhaseClock clock;
                Progress progress(clock, settings.layers, false);
                EXPECT_EQ(quantize_model(settings, model.family(), checkpoint, work, std::span(&target, 1), stop_after,
                                         {backend, comm, *collectives, way.residency}, progress),
                          stop_after > 0 ? Outcome::stopped : Outcome::done);
            });
        };
        if (way.finished > 0) pass(0, way.finished);
        pass(way.finished, -1);
        return {run.layer(0), run.layer(1)};
    }

    static void expect_same(const std::vector<LayerRecord>& a, const std::vector<LayerRecord>& b) {
        for (std::size_t layer = 0; layer < 2; ++layer) {
            ASSERT_EQ(a[layer].modules.size(), 7U);
            ASSERT_EQ(b[layer].modules.size(), 7U);
            for (std::size_t i = 0; i < 7; ++i) {
                const ModuleSolution &one = a[layer].modules[i], &other = b[layer].modules[i];
                EXPECT_EQ(one.name, other.name);
                EXPECT_EQ(one.codes, other.codes) << one.name;
                EXPECT_EQ(one.scales, other.scales) << one.name;
                EXPECT_EQ(one.zeros, other.zeros) << one.name;
                EXPECT_EQ(one.group_index, other.group_index) << one.name;
                EXPECT_EQ(one.reconstruction, other.reconstruction) << one.name;
                EXPECT_EQ(one.bias_after, other.bias_after) << one.name;
                EXPECT_EQ(one.column_sensitivity, other.column_sensitivity) << one.name;
            }
        }
    }

    testing::TinyModel model{{"wide", config(), "F16"}};
    QuantizeSettings settings;

  private:
    static void append(Sequences& sequences, const std::vector<std::int32_t>& ids) {
        sequences.ids.insert(sequences.ids.end(), ids.begin(), ids.end());
        sequences.offsets.push_back(sequences.tokens());
    }
};

TEST_F(QuantizeTest, NcclGivesWhatOneRankGives) {
    const std::vector<LayerRecord> alone = quantize({});
    expect_same(alone, quantize({.ranks = 3}));
    expect_same(alone, quantize({.ranks = 3, .nccl = true}));
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
