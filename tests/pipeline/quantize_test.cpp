// Whole runs of a tiny model in one process: however ranks exchange, the layers' records are the same.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
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

const ModuleSolution* find_module(const LayerRecord& record, const std::string& name) {
    const auto found = std::ranges::find(record.modules, name, &ModuleSolution::name);
    return found == record.modules.end() ? nullptr : &*found;
}

// What is left as it is makes the next one's inputs as it does in the original model.
TEST_F(QuantizeTest, ModulesThatAreIgnoredStayAsTheyAre) {
    settings.inputs = InputsFrom::original;
    const std::vector<LayerRecord> original = quantize({});
    settings.inputs = InputsFrom::sequential;
    const std::vector<LayerRecord> sequential = quantize({});
    const auto expect_codes = [](const LayerRecord& a, const LayerRecord& b, const std::string& name, bool same) {
        const ModuleSolution *one = find_module(a, name), *other = find_module(b, name);
        ASSERT_TRUE(one != nullptr && other != nullptr) << name;
        EXPECT_EQ(one->codes == other->codes, same) << name;
    };
    modules.ignore = {"q_proj", "k_proj", "v_proj", "*.layers.1.mlp.up_proj"};
    const std::vector<LayerRecord> parts = quantize({});
    EXPECT_EQ(parts[0].modules.size(), 4U);
    EXPECT_EQ(parts[1].modules.size(), 3U);
    expect_codes(parts[0], original[0], "self_attn.o_proj", true);
    expect_codes(parts[0], sequential[0], "self_attn.o_proj", false);
    EXPECT_TRUE(find_module(parts[0], "mlp.up_proj"));
    EXPECT_FALSE(find_module(parts[1], "mlp.up_proj"));
    EXPECT_EQ(parts[1].source_tensors, original[1].source_tensors);
    modules.ignore = {"*.layers.0.*"};
    const std::vector<LayerRecord> second = quantize({});
    EXPECT_TRUE(second[0].modules.empty());
    EXPECT_EQ(second[1].modules.size(), 7U);
    expect_codes(second[1], original[1], "self_attn.q_proj", true);
    expect_codes(second[1], sequential[1], "self_attn.q_proj", false);
    for (const InputsFrom inputs : {InputsFrom::sequential, InputsFrom::original})
        for (const auto& ignored : std::vector<std::vector<std::string>>{
                 {"q_proj", "k_proj", "v_proj", "*.layers.1.mlp.up_proj"}, {"*.layers.0.*"}}) {
            settings.inputs = inputs;
            modules.ignore = ignored;
            const std::vector<LayerRecord> alone = quantize({});
            expect_same(alone, quantize({.ranks = 3}), 0);
            expect_same(alone, quantize({.finished = 1}), 0);
            expect_same(alone, quantize({.ranks = 2, .nccl = true, .residency = {0, ReadAhead::to_host}}), 0);
        }
}

TEST_F(QuantizeTest, ModulesMayHaveGridsOfTheirOwn) {
    settings.alpha.alpha = 0;
    const std::vector<LayerRecord> four = quantize({});
    settings.solver.grid.bits = 8;
    settings.solver.grid.group_size = 64;
    const std::vector<LayerRecord> eight = quantize({});
    settings.solver.grid = {};
    settings.solver.grid.group_size = 32;
    modules.map = {{"*.layers.0.self_attn.k_proj", {.symmetric = false}},
                   {"*.layers.0.self_attn.*", {.bits = 8, .group_size = 64}},
                   {"*.down_proj", {.group_size = -1}}};
    const std::vector<LayerRecord> mixed = quantize({});
    for (const char* name : {"self_attn.q_proj", "self_attn.v_proj"})
        EXPECT_EQ(find_module(mixed[0], name)->codes, find_module(eight[0], name)->codes);
    EXPECT_FALSE(find_module(mixed[0], "self_attn.k_proj")->symmetric);
    EXPECT_EQ(find_module(mixed[0], "self_attn.k_proj")->bits, 4);
    EXPECT_EQ(find_module(mixed[1], "self_attn.q_proj")->bits, 4);
    EXPECT_EQ(find_module(mixed[1], "mlp.down_proj")->groups, 1);
    EXPECT_LT(find_module(mixed[0], "self_attn.o_proj")->reconstruction,
              0.1 * find_module(four[0], "self_attn.o_proj")->reconstruction);
    expect_same(mixed, quantize({.ranks = 3}));
    expect_same(mixed, quantize({.ranks = 2, .nccl = true, .finished = 1}));
    expect_same(mixed, quantize({.ranks = 2, .make = [] { return std::make_unique<testing::DistantBackend>(); }}));
}

class Mixture : public testing::TinyRun {
  protected:
    explicit Mixture(const nlohmann::json& changes = nlohmann::json::object(), std::int64_t layers = 2)
        : TinyRun(layers, mixture(changes)) {}

    using Row = std::vector<double>;

    static const ModuleSolution& module_of(const LayerRecord& record, const std::string& name) {
        return *std::ranges::find(record.modules, name, &ModuleSolution::name);
    }
    /// A matrix of the model's file.
    static std::vector<Row> weights_of(const Checkpoint& checkpoint, const std::string& name) {
        const HostTensor& tensor = checkpoint.tensor(name + ".weight");
        const auto cols = static_cast<std::size_t>(tensor.shape[1]);
        const std::vector<float> values =
            to_floats(tensor.bytes.data(), tensor.dtype(), cols * static_cast<std::size_t>(tensor.shape[0]));
        std::vector<Row> rows;
        for (auto row = values.begin(); row != values.end(); row += static_cast<std::ptrdiff_t>(cols))
            rows.emplace_back(row, row + static_cast<std::ptrdiff_t>(cols));
        return rows;
    }
    /// W − Q.
    static std::vector<Row> errors_of(std::vector<Row> weights, const ModuleSolution& module) {
        for (std::size_t row = 0; row < weights.size(); ++row)
            for (std::size_t col = 0; col < weights[row].size(); ++col) {
                const std::size_t group =
                    row * static_cast<std::size_t>(module.groups) + static_cast<std::size_t>(module.group_index[col]);
                weights[row][col] -= static_cast<double>(module.scales[group]) *
                                     (module.codes[row * weights[row].size() + col] - module.zeros[group]);
            }
        return weights;
    }
    static Row times(const std::vector<Row>& weights, const Row& x) {
        Row product;
        for (const Row& row : weights)
            product.push_back(std::inner_product(row.begin(), row.end(), x.begin(), 0.0));
        return product;
    }
    static double squares(const Row& x) { return std::inner_product(x.begin(), x.end(), x.begin(), 0.0); }
    static Row difference(Row a, const Row& b) {
        for (std::size_t i = 0; i < a.size(); ++i)
            a[i] -= b[i];
        return a;
    }
};

TEST_F(Mixture, RanksResumptionAndMemoryChangeNoByte) {
    const auto distant = [] { return std::make_unique<testing::DistantBackend>(); };
    for (const InputsFrom inputs : {InputsFrom::sequential, InputsFrom::original}) {
        settings.inputs = inputs;
        const std::vector<LayerRecord> alone = quantize({});
        ASSERT_EQ(alone[0].modules.size(), 4U + 3 * 6);
        expect_same(alone, quantize({.finished = 1, .make = distant}));
        expect_same(alone, quantize({.ranks = 2, .residency = {100, ReadAhead::to_host}}));
        expect_same(alone, quantize({.ranks = 3, .nccl = true, .finished = 1, .make = distant}));
        expect_same(alone, quantize({.ranks = 4, .residency = {0, ReadAhead::to_device}, .finished = 1}));
    }
}

TEST_F(Mixture, ExpertsAreDealtAsOftenAsThereAreAsManyAsRanks) {
    for (const auto& [ranks, dealt] : std::vector<std::pair<int, int>>{{1, 0}, {2, 6}, {4, 4}, {6, 6}, {7, 0}}) {
        testing::Begun begun;
        const std::vector<LayerRecord> some = quantize({.ranks = ranks, .begun = &begun});
        // H and C of both halves of an expert, in two layers; and of two stages of attention and the other experts.
        EXPECT_EQ(begun.sums_for_one, 2 * 2 * 2 * dealt) << ranks;
        EXPECT_EQ(begun.sums, 2 * 2 * (2 + 2 * (6 - dealt))) << ranks;
        begun = {};
        expect_same(some, quantize({.ranks = ranks, .begun = &begun, .deals = false}));
        EXPECT_EQ(begun.sums_for_one, 0) << ranks;
    }
}

class SharedExpert : public Mixture {
  protected:
    explicit SharedExpert(std::int64_t dense_layers = 0) : Mixture(mixture_with_shared(dense_layers)) {}
};

class DenseLayerBeforeExperts : public SharedExpert {
  protected:
    DenseLayerBeforeExperts() : SharedExpert(1) {}
};

TEST_F(DenseLayerBeforeExperts, RanksResumptionAndMemoryChangeNoByte) {
    const std::vector<LayerRecord> alone = quantize({});
    ASSERT_EQ(alone[0].modules.size(), 7U);
    ASSERT_EQ(alone[1].modules.size(), 4U + 3 * 6);
    EXPECT_EQ(alone[0].modules[4].name, "mlp.gate_proj");
    EXPECT_EQ(alone[1].modules.back().name, "mlp.shared_experts.down_proj");
    EXPECT_EQ(alone[1].modules.back().cols, 128);
    const auto distant = [] { return std::make_unique<testing::DistantBackend>(); };
    expect_same(alone, quantize({.ranks = 2, .residency = {100, ReadAhead::to_host}, .finished = 1}));
    expect_same(alone, quantize({.ranks = 3, .nccl = true, .make = distant}));
}

class Latents : public Mixture {
  protected:
    explicit Latents(const nlohmann::json& changes = nlohmann::json::object()) : Mixture(with_latents(changes)) {}

    /// Whatever a run is interrupted, shared or kept in, queries are those that the solved linears make: a resumed one
    /// goes through a finished layer in one piece.
    void expect_one_result(std::size_t attention_modules) {
        const auto distant = [] { return std::make_unique<testing::DistantBackend>(); };
        std::vector<std::vector<std::uint8_t>> codes;
        for (const InputsFrom inputs : {InputsFrom::sequential, InputsFrom::original}) {
            settings.inputs = inputs;
            const std::vector<LayerRecord> alone = quantize({});
            ASSERT_EQ(alone[0].modules.size(), attention_modules + 3);
            ASSERT_EQ(alone[1].modules.size(), attention_modules + 3 * 7);
            codes.push_back(module_of(alone[0], "self_attn.kv_b_proj").codes);
            expect_same(alone, quantize({.ranks = 2, .residency = {100, ReadAhead::to_host}}));
            expect_same(alone, quantize({.finished = 1, .make = distant}));
            expect_same(alone,
                        quantize({.ranks = 3, .nccl = true, .residency = {0, ReadAhead::to_device}, .finished = 1}));
        }
        EXPECT_NE(codes[0], codes[1]);
        settings.inputs = InputsFrom::sequential;
        for (const std::string ignored : {"q_a_proj", "*.q_*", "kv_a_proj_with_mqa", "kv_b_proj"}) {
            if (ignored == "q_a_proj" && model.config().latent.query_rank == 0) continue;
            modules.ignore = {ignored};
            const std::vector<LayerRecord> alone = quantize({});
            expect_same(alone, quantize({.ranks = 2, .finished = 1}), 0);
        }
    }
};

class LatentsOfKeysAlone : public Latents {
  protected:
    LatentsOfKeysAlone()
        : Latents({{"architectures", {"DeepseekV2ForCausalLM"}},
                   {"model_type", "deepseek_v2"},
                   {"q_lora_rank", nullptr},
                   {"norm_topk_prob", false},
                   {"topk_method", "group_limited_greedy"}}) {}
};

TEST_F(Latents, RanksResumptionAndMemoryChangeNoByte) {
    expect_one_result(5);
}

TEST_F(LatentsOfKeysAlone, RanksResumptionAndMemoryChangeNoByte) {
    expect_one_result(4);
}

// H of the tokens that reach an expert, C of the pairs that reach it with both their tokens, by plain loops; both
// divided by what the layer has of them.
TEST_F(SharedExpert, AnExpertsStatisticsAreOfWhatReachesIt) {
    settings.inputs = InputsFrom::original;
    settings.alpha.alpha = 0.3;
    const LayerRecord record = quantize({}).front();
    const Checkpoint checkpoint(model.path());
    const Family& family = model.family();
    const auto backend = make_backend("cpu");
    const OuterWeights outer = read_outer(*backend, family, checkpoint);
    const LayerWeights layer = read_layer(*backend, family, checkpoint, 0);
    const Chunks work = chunks();
    Decoder decoder(*backend, family, work.max_tokens);
    const std::int64_t widest = Decoder::widest_input(family);
    struct Figures {
        double tokens = 0, pairs = 0, reconstruction = 0, bias = 0;
    };
    std::int64_t left_out = 0;
    for (std::size_t expert = 0; expert < 6; ++expert) {
        const bool shared = expert == 5;
        const std::string prefix = shared ? "mlp.shared_experts." : fmt::format("mlp.experts.{}.", expert);
        const std::string full = family.layer(0) + prefix;
        const std::vector<Row> gate = weights_of(checkpoint, full + "gate_proj");
        const std::vector<Row> up = weights_of(checkpoint, full + "up_proj");
        const std::vector<Row> down = weights_of(checkpoint, full + "down_proj");
        const std::vector<Row> gate_error = errors_of(gate, module_of(record, prefix + "gate_proj"));
        const std::vector<Row> down_error = errors_of(down, module_of(record, prefix + "down_proj"));
        Figures first, second;
        for (const Chunk& chunk : work.all) {
            const Buffer hidden = backend->allocate(static_cast<std::size_t>(chunk.tokens.tokens() * 128) * 4);
            const Buffer inputs = backend->allocate(static_cast<std::size_t>(chunk.tokens.tokens() * widest) * 4);
            ChunkState state{hidden.tensor(DType::float32, chunk.tokens.tokens(), 128),
                             inputs.tensor(DType::float32, chunk.tokens.tokens(), widest), chunk.tokens.offsets};
            decoder.embed(outer, chunk.tokens, state);
            decoder.begin_layer(layer, state);
            decoder.run_stage(0, layer, state);
            decoder.run_stage(1, layer, state);
            const std::vector<std::int32_t>& reached = state.routing->experts[expert].rows;
            const auto reaches = [&](std::int32_t row) { return shared || std::ranges::count(reached, row) == 1; };
            const auto input_of = [&](std::int32_t row) {
                // Of the expert that every token reaches.
                const float* values = decoder.stage_input(0, family.stage_count(0) - 2, state).float32().row(row);
                return Row(values, values + 128);
            };
            const auto wide_of = [&](std::int32_t row) {
                Row wide = times(gate, input_of(row));
                const Row factors = times(up, input_of(row));
                for (std::size_t i = 0; i < wide.size(); ++i)
                    wide[i] = wide[i] / (1 + std::exp(-wide[i])) * factors[i];
                return wide;
            };
            for (std::int32_t row = 0; row < chunk.tokens.tokens(); ++row) {
                if (!reaches(row) || !chunk.in_hessian) continue;
                first.tokens += 1;
                first.reconstruction += squares(times(gate_error, input_of(row)));
                second.reconstruction += squares(times(down_error, wide_of(row)));
            }
            for (const PairColumn& column : chunk.pair_columns) {
                left_out += reaches(column.first0) != reaches(column.first1) ? 1 : 0;
                if (!reaches(column.first0) || !reaches(column.first1)) continue;
                first.pairs += 1;
                first.bias += squares(times(gate, difference(input_of(column.first0), input_of(column.first1))));
                second.bias += squares(times(down, difference(wide_of(column.first0), wide_of(column.first1))));
            }
        }
        ASSERT_GT(first.tokens, 0);
        ASSERT_GT(first.pairs, 0);
        const auto expect = [&](const char* linear, const Figures& figures) {
            const ModuleSolution& module = module_of(record, prefix + linear);
            const double reconstruction = 2 * figures.reconstruction / static_cast<double>(work.hessian_tokens);
            const double bias = 2 * figures.bias / static_cast<double>(work.pair_columns);
            EXPECT_NEAR(module.reconstruction, reconstruction, 1e-4 * reconstruction) << module.name;
            EXPECT_NEAR(module.bias_before, bias, 1e-4 * bias) << module.name;
            EXPECT_LT(module.bias_after, module.bias_before) << module.name;
        };
        expect("gate_proj", first);
        expect("down_proj", second);
    }
    EXPECT_GT(left_out, 0);
}

TEST_F(SharedExpert, ExpertsMayBeIgnored) {
    const std::vector<LayerRecord> all = quantize({});
    modules.ignore = {"mlp.experts.1.up_proj", "*.mlp.experts.2.*", "*.shared_experts.*"};
    const std::vector<LayerRecord> some = quantize({});
    EXPECT_EQ(some[0].modules.size(), all[0].modules.size() - 1 - 3 - 3);
    EXPECT_FALSE(find_module(some[0], "mlp.experts.2.down_proj"));
    EXPECT_EQ(find_module(some[0], "mlp.experts.0.up_proj")->codes,
              find_module(all[0], "mlp.experts.0.up_proj")->codes);
    expect_same(some, quantize({.ranks = 3, .finished = 1}));
    // A round of experts of which none is quantized, and one in which a rank has none to solve.
    modules.ignore = {"*.layers.0.mlp.experts.[01].*", "*.layers.1.mlp.experts.0.down_proj"};
    expect_same(quantize({}), quantize({.ranks = 2, .nccl = true}));
}

TEST_F(SharedExpert, DealtExpertsMayHaveGridsAndAlphasOfTheirOwn) {
    modules.map = {{"*.experts.1.*", {.bits = 8, .symmetric = false}}, {"*.experts.2.up_proj", {.group_size = 64}}};
    settings.alpha.map = {{"*.experts.0.gate_proj", 0.5}, {"*.experts.3.*", 0}, {"*", 0.1}};
    for (const ColumnOrder order : {ColumnOrder::none, ColumnOrder::activation}) {
        settings.solver.order = order;
        const std::vector<LayerRecord> alone = quantize({});
        EXPECT_EQ(find_module(alone[0], "mlp.experts.1.up_proj")->bits, 8);
        EXPECT_EQ(find_module(alone[0], "mlp.experts.0.gate_proj")->alpha, 0.5);
        for (const int ranks : {2, 4, 5})
            expect_same(alone, quantize({.ranks = ranks, .nccl = ranks == 4, .finished = ranks == 5 ? 1 : 0}));
    }
}

/// More experts than tokens reach.
class LonelyExperts : public Mixture {
  protected:
    LonelyExperts() : Mixture({{"num_experts", 90}, {"num_experts_per_tok", 1}, {"num_hidden_layers", 1}}, 1) {
        settings.alpha.alpha = 0.3;
        settings.chunk_tokens = 400;
        settings.inputs = InputsFrom::original;
    }

    /// Tokens of H that reach each.
    std::vector<std::size_t> reached() const {
        const Checkpoint checkpoint(model.path());
        const auto backend = make_backend("cpu");
        const OuterWeights outer = read_outer(*backend, model.family(), checkpoint);
        const LayerWeights layer = read_layer(*backend, model.family(), checkpoint, 0);
        const Chunks work = chunks();
        Decoder decoder(*backend, model.family(), work.max_tokens);
        const std::int64_t widest = Decoder::widest_input(model.family());
        const Buffer hidden = backend->allocate(static_cast<std::size_t>(work.max_tokens * 128) * 4);
        const Buffer inputs = backend->allocate(static_cast<std::size_t>(work.max_tokens * widest) * 4);
        std::vector<std::size_t> counts(90);
        for (const Chunk& chunk : work.all) {
            ChunkState state{hidden.tensor(DType::float32, chunk.tokens.tokens(), 128),
                             inputs.tensor(DType::float32, chunk.tokens.tokens(), widest), chunk.tokens.offsets};
            decoder.embed(outer, chunk.tokens, state);
            decoder.run_layer(layer, state);
            for (std::size_t expert = 0; expert < 90; ++expert)
                counts[expert] += state.routing->experts[expert].rows.size();
        }
        return counts;
    }
};

TEST_F(LonelyExperts, AreRoundedToNearest) {
    const std::vector<LayerRecord> alone = quantize({});
    expect_same(alone, quantize({.ranks = 2}));
    const Checkpoint checkpoint(model.path());
    const std::vector<std::size_t> counts = reached();
    const auto lonely = std::ranges::count(counts, 0U);
    EXPECT_GT(lonely, 5);
    EXPECT_LT(lonely, 60);
    for (std::size_t expert = 0; expert < counts.size(); ++expert)
        for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) {
            const std::string name = fmt::format("mlp.experts.{}.{}", expert, linear);
            const ModuleSolution& module = module_of(alone[0], name);
            EXPECT_EQ(module.reconstruction == 0, counts[expert] == 0) << name;
            if (counts[expert] > 0) continue;
            EXPECT_EQ(module.bias_before, 0);
            EXPECT_EQ(module.bias_after, 0);
            EXPECT_EQ(module.shift_norm, 0);
            const std::vector<Row> errors = errors_of(weights_of(checkpoint, model.family().layer(0) + name), module);
            for (std::size_t row = 0; row < errors.size(); ++row)
                for (std::size_t col = 0; col < errors[row].size(); ++col) {
                    const auto group = row * static_cast<std::size_t>(module.groups) +
                                       static_cast<std::size_t>(module.group_index[col]);
                    ASSERT_LE(std::abs(errors[row][col]), 0.51 * static_cast<double>(module.scales[group])) << name;
                }
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
    world.lost_from = NcclWorld::tried_out + 19;
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
            quantize_model(settings, {settings.solver, modules, model.family()}, model.family(), checkpoint, work,
                           std::span(&target, 1), -1, {*backend, comm, *collectives}, progress);
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
