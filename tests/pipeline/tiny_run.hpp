// Whole runs of a tiny model in one process, on any backend.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "comm/nccl_collectives.hpp"
#include "model/tiny_models.hpp"
#include "pipeline/quantize.hpp"
#include "pipeline/solve_shares.hpp"
#include "run/sample.hpp"
#include "support_files/counting_collectives.hpp"
#include "support_files/late_copies.hpp"
#include "support_files/nccl_stand_in.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq::testing {

class TinyRun : public ::testing::Test {
  protected:
    struct Way {
        int ranks = 1;
        bool nccl = false;
        Residency residency = {};
        std::int64_t finished = 0;  // layers that are replayed from an earlier run
        /// What each rank computes with.
        std::function<std::unique_ptr<Backend>()> make = [] { return std::make_unique<LateBackend>(); };
        std::function<void(const Backend&)> at_end = {};
        Begun* begun = nullptr;  // counts what ranks exchange
        bool deals = true;       // experts, where it pays
        /// What happens to a run that is whole before it is resumed, and what is to be seen of it then.
        std::function<void(const RunDirectory&)> meanwhile = {}, afterwards = {};
    };

    explicit TinyRun(std::int64_t layers = 2, const nlohmann::json& changes = nlohmann::json::object())
        : model{{"wide", config(layers, changes), "F16"}} {
        settings.solver.grid.group_size = 32;
        settings.chunk_tokens = 40;
        settings.layers = layers;
    }

    static nlohmann::json config(std::int64_t layers, const nlohmann::json& changes) {
        nlohmann::json config = tiny_llama_config();
        config.update(
            {{"hidden_size", 128}, {"intermediate_size", 192}, {"head_dim", 32}, {"num_hidden_layers", layers}});
        config.update(changes);
        return config;
    }

    /// What makes it a mixture of experts.
    static nlohmann::json mixture(const nlohmann::json& changes = nlohmann::json::object()) {
        nlohmann::json config{{"architectures", {"Qwen3MoeForCausalLM"}},
                              {"model_type", "qwen3_moe"},
                              {"num_experts", 6},
                              {"num_experts_per_tok", 2},
                              {"moe_intermediate_size", 64},
                              {"norm_topk_prob", true}};
        config.update(changes);
        return config;
    }

    /// Five experts, two that every token reaches as one, and layers before them that have none.
    static nlohmann::json mixture_with_shared(std::int64_t dense_layers) {
        return mixture({{"architectures", {"Glm4MoeForCausalLM"}},
                        {"model_type", "glm4_moe"},
                        {"num_experts", nullptr},
                        {"n_routed_experts", 5},
                        {"n_shared_experts", 2},
                        {"routed_scaling_factor", 1.5},
                        {"first_k_dense_replace", dense_layers}});
    }

    /// DeepSeek-V3's: latents of queries and of keys and values, experts in groups, the first layer without.
    static nlohmann::json with_latents(const nlohmann::json& changes = nlohmann::json::object()) {
        nlohmann::json config = mixture_with_shared(1);
        config.update({{"architectures", {"DeepseekV3ForCausalLM"}},
                       {"model_type", "deepseek_v3"},
                       {"num_key_value_heads", 4},
                       {"q_lora_rank", 96},
                       {"kv_lora_rank", 64},
                       {"qk_nope_head_dim", 24},
                       {"qk_rope_head_dim", 8},
                       {"v_head_dim", 16},
                       {"n_routed_experts", 6},
                       {"n_group", 3},
                       {"topk_group", 2}});
        config.update(changes);
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
            folder / "run",
            {{"model", {{"path", model.path().string()}, {"layers", settings.layers}}}, {"layers", settings.layers}});
        const Checkpoint checkpoint(model.path());
        const Chunks work = chunks();
        if (way.deals) way.residency.experts_at_once = experts_at_once(model.family(), way.ranks, 1);
        NcclWorld world(way.ranks);
        const auto pass = [&](std::int64_t stop_after) {
            const RunTarget target{&run, settings.alpha, run.finished_layers(true)};
            run_ranks(way.ranks, [&](Communicator& comm) {
                const auto backend = way.make();
                const auto through = way.nccl
                                         ? make_nccl_collectives(*backend, comm, std::make_unique<NcclStandIn>(world))
                                         : make_host_collectives(*backend, comm);
                Begun ignored;
                CountingCollectives collectives(*through, comm, way.begun != nullptr ? *way.begun : ignored);
                PhaseClock clock([&backend] { backend->synchronize(); });
                const PhaseClock::Shown shown(clock, backend->make_timeline());
                Progress progress(clock, settings.layers, false);
                EXPECT_EQ(quantize_model(settings, {settings.solver, modules, model.family()}, model.family(),
                                         checkpoint, work, std::span(&target, 1), stop_after,
                                         {*backend, comm, collectives, way.residency}, progress),
                          stop_after > 0 ? Outcome::stopped : Outcome::done);
                if (way.at_end) way.at_end(*backend);
            });
        };
        if (way.finished > 0) pass(way.finished);
        pass(-1);
        if (way.meanwhile) {
            way.meanwhile(run);
            pass(-1);
            way.afterwards(run);
        }
        std::vector<LayerRecord> records;
        for (std::int64_t layer = 0; layer < settings.layers; ++layer)
            records.push_back(run.layer(layer));
        return records;
    }

    /// @param least modules that each layer has
    static void expect_same(const std::vector<LayerRecord>& a, const std::vector<LayerRecord>& b,
                            std::size_t least = 7) {
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t layer = 0; layer < a.size(); ++layer) {
            EXPECT_EQ(a[layer].hash, b[layer].hash);
            EXPECT_EQ(a[layer].made_after, b[layer].made_after);
            ASSERT_GE(a[layer].modules.size(), least);
            ASSERT_EQ(a[layer].modules.size(), b[layer].modules.size());
            for (std::size_t i = 0; i < a[layer].modules.size(); ++i) {
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

    TinyModel model;
    QuantizeSettings settings;
    ModuleSettings modules;

  private:
    static void append(Sequences& sequences, const std::vector<std::int32_t>& ids) {
        sequences.ids.insert(sequences.ids.end(), ids.begin(), ids.end());
        sequences.offsets.push_back(sequences.tokens());
    }
};

}  // namespace fairgptq::testing
