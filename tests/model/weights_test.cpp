// Reading weights: values, refusals, sharing of tied embeddings, and the thread that reads ahead.
#include "model/weights.hpp"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "model/model_runner.hpp"
#include "model/tiny_models.hpp"
#include "support_files/late_copies.hpp"

namespace fairgptq {
namespace {

using testing::expect_refused;
using testing::StoredTensor;
using testing::TinyModel;

const std::string down = "model.layers.1.mlp.down_proj.weight";

class Weights : public ::testing::Test {
  protected:
    LayerWeights read(std::int64_t layer) {
        const Checkpoint checkpoint(model_.path());
        return read_layer(*backend_, model_.family(), checkpoint, layer);
    }
    /// Writes the model with one tensor changed, and reads all of it.
    void expect_reading_refused(const std::function<void(StoredTensor&)>& change, const std::string& name,
                                const std::vector<std::string>& parts) {
        const auto whole = model_.tensors();
        change(model_.tensors().at(name));
        model_.write();
        expect_refused(
            [&] {
                const Checkpoint checkpoint(model_.path());
                read_outer(*backend_, model_.family(), checkpoint);
                for (std::int64_t layer = 0; layer < 2; ++layer)
                    read_layer(*backend_, model_.family(), checkpoint, layer);
            },
            parts);
        model_.tensors() = whole;
    }
    std::unique_ptr<Backend> backend_ = make_backend("cpu");
    TinyModel model_{{"llama", testing::tiny_llama_config()}};
};

TEST_F(Weights, ReadsValuesOfEveryType) {
    for (const char* dtype : {"F32", "F16", "BF16"}) {
        TinyModel model({"llama", testing::tiny_llama_config(), dtype});
        const Checkpoint checkpoint(model.path());
        const LayerWeights layer = read_layer(*backend_, model.family(), checkpoint, 1);
        EXPECT_EQ(layer.layer, 1);
        EXPECT_EQ(layer.linears.size(), 7U);
        const MatrixView<float> weight = layer.linears.at("mlp.down_proj").weight.float32();
        ASSERT_EQ(weight.rows, 24);
        ASSERT_EQ(weight.cols, 40);
        const std::vector<float>& expected = model.tensors().at(down).values;
        for (std::int64_t row = 0; row < 24; ++row)
            for (std::int64_t col = 0; col < 40; ++col)
                ASSERT_EQ(weight(row, col), expected[static_cast<std::size_t>(row * 40 + col)]) << dtype;
        EXPECT_EQ(layer.linears.at("mlp.down_proj").bias, nullptr);
        EXPECT_EQ(layer.input_norm.weight[23], model.tensors().at("model.layers.1.input_layernorm.weight").values[23]);
        EXPECT_EQ(layer.input_norm.bias, nullptr);
        EXPECT_EQ(layer.query_norm.weight, nullptr);
    }
}

TEST_F(Weights, ReadsTensorsThatBeginAtAnyByte) {
    // The format lets a tensor of one byte come first, which leaves every float after it unaligned.
    nlohmann::json header;
    std::string data = "x";
    header["first"] = {{"dtype", "U8"}, {"shape", {1}}, {"data_offsets", {0, 1}}};
    for (const auto& [name, tensor] : model_.tensors()) {
        const std::size_t begin = data.size();
        data += testing::stored_bytes(tensor);
        header[name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    std::ofstream(model_.path() / "model.safetensors", std::ios::binary) << testing::safetensors_file(text, data);
    const LayerWeights layer = read(1);
    const std::vector<float>& expected = model_.tensors().at(down).values;
    EXPECT_EQ(std::memcmp(layer.linears.at("mlp.down_proj").weight.data, expected.data(), expected.size() * 4), 0);
}

TEST_F(Weights, SharesATiedEmbedding) {
    nlohmann::json config = testing::tiny_llama_config();
    for (const bool tied : {false, true}) {
        config["tie_word_embeddings"] = tied;
        const TinyModel model({"llama", config});
        const Checkpoint checkpoint(model.path());
        const OuterWeights outer = read_outer(*backend_, model.family(), checkpoint);
        EXPECT_EQ(outer.lm_head.data == outer.embedding.data, tied);
        EXPECT_EQ(outer.lm_head.rows, 50);
        EXPECT_EQ(outer.lm_head.cols, 24);
        std::size_t bytes = 0;
        for (const Buffer& buffer : outer.memory)
            bytes += buffer.bytes();
        EXPECT_EQ(bytes, outer_bytes(model.family(), DType::float32));
        // 50 · 24 floats are 4800 bytes, a whole number of 64; the norm's 96 take 128.
        EXPECT_EQ(bytes, (tied ? 1U : 2U) * 4800 + 128);
    }
}

TEST_F(Weights, TakesTheMemoryItSays) {
    const LayerWeights layer = read(0);
    std::size_t bytes = 0;
    for (const Buffer& buffer : layer.memory)
        bytes += buffer.bytes();
    EXPECT_EQ(bytes, layer_bytes(model_.family(), DType::float32));
    // Query and output 32 · 24, key and value 16 · 24, three of 40 · 24; two norms of 24 floats in 128 bytes each.
    EXPECT_EQ(bytes, 4U * 24 * (2 * 32 + 2 * 16 + 3 * 40) + 2 * 128);
    EXPECT_EQ(layer_bytes(model_.family(), DType::bfloat16), 2U * 24 * (2 * 32 + 2 * 16 + 3 * 40) + 2 * 128);
}

TEST_F(Weights, RefusesNanAndInfinityWhereverTheyAre) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float infinity = std::numeric_limits<float>::infinity();
    for (const char* dtype : {"F32", "F16", "BF16"})
        for (const float value : {nan, infinity, -infinity})
            for (const std::size_t place : {std::size_t{0}, std::size_t{517}, std::size_t{959}}) {
                SCOPED_TRACE(fmt::format("{} {} at {}", dtype, value, place));
                expect_reading_refused(
                    [&](StoredTensor& tensor) {
                        tensor.dtype = dtype;
                        tensor.values.at(place) = value;
                    },
                    down, {"'" + down + "'", "NaN or infinity", "model.safetensors"});
            }
    // The largest finite values are not mistaken for them.
    for (const char* dtype : {"F32", "F16", "BF16"}) {
        StoredTensor& tensor = model_.tensors().at(down);
        tensor.dtype = dtype;
        tensor.values[0] = std::string(dtype) == "F16" ? -65504.0F : -0x1.FEp127F;
        model_.write();
        EXPECT_EQ(static_cast<const float*>(read(1).linears.at("mlp.down_proj").weight.data)[0], tensor.values[0]);
    }
}

TEST_F(Weights, ReadsEightBitFloatsTimesTheirFactors) {
    StoredTensor& tensor = model_.tensors().at(down);
    tensor.dtype = "F8_E4M3";
    for (std::size_t i = 0; i < tensor.values.size(); ++i)
        tensor.values[i] = to_float(Float8{static_cast<std::uint8_t>(i % 127)});
    model_.tensors()[down + "_scale_inv"] = {{1, 1}, {0.3F}, "F32"};
    model_.write();
    const LayerWeights layer = read(1);
    const auto* found = static_cast<const float*>(layer.linears.at("mlp.down_proj").weight.data);
    for (std::size_t i = 0; i < tensor.values.size(); ++i)
        ASSERT_EQ(found[i], to_float(to_bfloat16(tensor.values[i] * 0.3F))) << i;
    expect_reading_refused([](StoredTensor& it) { it.values[5] = 1e9F; }, down, {"'" + down + "'", "NaN"});
    const std::string factors = down + "_scale_inv";
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 1e36F, -1e36F})
        expect_reading_refused([&](StoredTensor& it) { it.values[0] = bad; }, factors,
                               {"'" + factors + "'", "infinity"});
    model_.tensors().at(factors).values[0] = 0.4F;
    model_.write();
    EXPECT_NE(read(1).hashes.at(down), layer.hashes.at(down));
}

TEST_F(Weights, RefusesNanOutsideTheLayers) {
    for (const char* name : {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"})
        expect_reading_refused(
            [](StoredTensor& tensor) { tensor.values.back() = std::numeric_limits<float>::quiet_NaN(); }, name, {name});
}

TEST_F(Weights, RefusesMissingAndMisshapenTensorsBeforeReading) {
    const auto whole = model_.tensors();
    const auto check = [&] {
        const Checkpoint checkpoint(model_.path());
        check_tensors(model_.family(), checkpoint);
    };
    EXPECT_NO_THROW(check());
    for (const auto& [name, tensor] : whole) {
        SCOPED_TRACE(name);
        model_.tensors() = whole;
        model_.tensors().erase(name);
        model_.write();
        expect_refused(check, {"'" + name + "'", "no tensor"});
        model_.tensors() = whole;
        model_.tensors().at(name).shape.insert(model_.tensors().at(name).shape.begin(), 1);
        model_.write();
        expect_refused(check, {"'" + name + "'", "shape"});
    }
    model_.tensors() = whole;
    model_.tensors().at(down).dtype = "I16";
    model_.write();
    expect_refused(check, {"'" + down + "'", "I16"});
}

TEST_F(Weights, ReadsExpertsAndTheirRouter) {
    nlohmann::json config = testing::tiny_llama_config();
    config.update({{"architectures", {"OlmoeForCausalLM"}},
                   {"model_type", "olmoe"},
                   {"num_experts", 3},
                   {"num_experts_per_tok", 2}});
    TinyModel model({"olmoe", config, "F16"});
    {
        const Checkpoint checkpoint(model.path());
        check_tensors(model.family(), checkpoint);
        const LayerWeights layer = read_layer(*backend_, model.family(), checkpoint, 1);
        EXPECT_EQ(layer.linears.size(), 4U + 3 * 3);
        EXPECT_EQ(layer.hashes.count("model.layers.1.mlp.gate.weight"), 1U);
        const std::vector<float>& expected = model.tensors().at("model.layers.1.mlp.gate.weight").values;
        ASSERT_EQ(layer.router.rows, 3);
        ASSERT_EQ(layer.router.cols, 24);
        for (std::int64_t row = 0; row < 3; ++row)
            for (std::int64_t col = 0; col < 24; ++col)
                ASSERT_EQ(layer.router.float32()(row, col), expected[static_cast<std::size_t>(row * 24 + col)]);
        EXPECT_EQ(layer.memory.front().bytes(), layer_bytes(model.family(), DType::float32));
    }
    const auto whole = model.tensors();
    const auto refused = [&](const std::vector<std::string>& parts) {
        model.write();
        expect_refused([&] { check_tensors(model.family(), Checkpoint(model.path())); }, parts);
        model.tensors() = whole;
    };
    model.tensors().erase("model.layers.1.mlp.gate.weight");
    refused({"model.layers.1.mlp.gate.weight"});
    model.tensors().erase("model.layers.1.mlp.experts.2.up_proj.weight");
    refused({"model.layers.1.mlp.experts.2.up_proj.weight"});
    model.tensors().erase("model.layers.0.mlp.experts.0.gate_proj.weight");
    model.tensors()["model.layers.0.mlp.experts.gate_up_proj.weight"] = {{80, 24}, std::vector<float>(80 * 24), "F16"};
    refused({"model.safetensors", "as 'model.layers.0.mlp.experts.gate_up_proj.weight'",
             "as 'model.layers.0.mlp.experts.0.gate_proj.weight'", "save_pretrained"});
    model.tensors().erase("model.layers.0.mlp.experts.0.gate_proj.weight");  // another layer's has the right name
    refused({"has no tensor 'model.layers.0.mlp.experts.0.gate_proj.weight'"});
}

TEST_F(Weights, AllExpertsInOneTensorAreOneEach) {
    nlohmann::json config = testing::tiny_llama_config();
    config.update({{"architectures", {"Qwen3MoeForCausalLM"}},
                   {"model_type", "qwen3_moe"},
                   {"num_experts", 3},
                   {"num_experts_per_tok", 2},
                   {"moe_intermediate_size", 40}});
    TinyModel model({"experts", config, "BF16"});
    const LayerWeights apart = read_layer(*backend_, model.family(), Checkpoint(model.path()), 0);
    const std::string experts = "model.layers.0.mlp.experts.";
    StoredTensor both{{3, 80, 24}, {}, "BF16"}, second{{3, 24, 40}, {}, "BF16"};
    for (int expert = 0; expert < 3; ++expert)
        for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
            const std::string name = fmt::format("{}{}.{}.weight", experts, expert, part);
            std::vector<float>& values = (std::string_view(part) == "down_proj" ? second : both).values;
            const std::vector<float>& own = model.tensors().at(name).values;
            values.insert(values.end(), own.begin(), own.end());
            model.tensors().erase(name);
        }
    model.tensors()[experts + "gate_up_proj"] = both;
    model.tensors()[experts + "down_proj"] = second;
    model.write();
    const Checkpoint checkpoint(model.path());
    check_tensors(model.family(), checkpoint);
    EXPECT_FALSE(checkpoint.has(experts + "gate_up_proj"));
    EXPECT_EQ(checkpoint.tensor(experts + "2.up_proj.weight").shape, (std::vector<std::int64_t>{40, 24}));
    const LayerWeights together = read_layer(*backend_, model.family(), checkpoint, 0);
    EXPECT_EQ(together.hashes, apart.hashes);
    for (const auto& [name, linear] : apart.linears) {
        const TensorView other = together.linears.at(name).weight;
        ASSERT_EQ(testing::to_host(*backend_, other), testing::to_host(*backend_, linear.weight)) << name;
    }

    const auto whole = model.tensors();
    const auto refused = [&](const std::vector<std::string>& parts) {
        model.write();
        expect_refused([&] { check_tensors(model.family(), Checkpoint(model.path())); }, parts);
        model.tensors() = whole;
    };
    model.tensors()[experts + "gate_up_proj"].shape = {3, 24, 80};  // as some files have it: the other way round
    refused({"experts.0.gate_proj.weight", "[12, 80]", "[40, 24]"});
    model.tensors()[experts + "1.down_proj.weight"] = {{24, 40}, std::vector<float>(24 * 40), "BF16"};
    refused({"holds expert 1", "experts.1.down_proj.weight", "beside it"});
    for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1} << 40}) {  // numbers that are not believed
        model.tensors()[experts + "down_proj"] = {{count, 24, 0}, {}, "BF16"};
        refused({"experts.0.down_proj.weight"});
    }
    model.tensors()[experts + "down_proj"] = {{4097, 1, 1}, std::vector<float>(4097), "BF16"};
    refused({"experts.0.down_proj.weight"});
}

TEST_F(Weights, ExpertsOfEightBitFloatsInOneTensorHaveTheirFactors) {
    nlohmann::json config = testing::tiny_llama_config();
    config.update({{"architectures", {"Qwen3MoeForCausalLM"}},
                   {"model_type", "qwen3_moe"},
                   {"num_experts", 2},
                   {"num_experts_per_tok", 1},
                   {"moe_intermediate_size", 128}});
    TinyModel model({"experts", config, "BF16"});
    const std::string experts = "model.layers.0.mlp.experts.";
    for (int expert = 0; expert < 2; ++expert)
        for (const char* part : {"gate_proj", "up_proj", "down_proj"})
            model.tensors().erase(fmt::format("{}{}.{}.weight", experts, expert, part));
    const auto floats = [](std::int64_t count) {
        std::vector<float> values(static_cast<std::size_t>(count));
        for (std::size_t i = 0; i < values.size(); ++i)
            values[i] = to_float(Float8{static_cast<std::uint8_t>(i % 101)});
        return values;
    };
    const std::vector<float> both = floats(2 * 256 * 24), second = floats(2 * 24 * 128);
    model.tensors()[experts + "gate_up_proj"] = {{2, 256, 24}, both, "F8_E4M3"};
    model.tensors()[experts + "gate_up_proj_scale_inv"] = {{2, 2, 1}, {0.1F, 0.2F, 0.3F, 0.4F}, "F32"};
    model.tensors()[experts + "down_proj"] = {{2, 24, 128}, second, "F8_E4M3"};
    model.tensors()[experts + "down_proj_scale_inv"] = {{2, 1, 1}, {0.5F, 0.6F}, "F32"};
    model.write();
    const Checkpoint checkpoint(model.path());
    check_tensors(model.family(), checkpoint);
    const LayerWeights layer = read_layer(*backend_, model.family(), checkpoint, 0);
    const auto expect_values = [&](const char* name, const std::vector<float>& whole, std::size_t first, float factor) {
        const auto found = testing::to_host(*backend_, layer.linears.at(name).weight);
        for (std::size_t i = 0; i < found.size(); ++i)
            ASSERT_EQ(found[i], to_float(to_bfloat16(whole[first + i] * factor))) << name << " " << i;
    };
    expect_values("mlp.experts.0.gate_proj", both, 0, 0.1F);
    expect_values("mlp.experts.0.up_proj", both, 128 * 24, 0.2F);
    expect_values("mlp.experts.1.gate_proj", both, 256 * 24, 0.3F);
    expect_values("mlp.experts.1.up_proj", both, 384 * 24, 0.4F);
    expect_values("mlp.experts.1.down_proj", second, 24 * 128, 0.6F);
    EXPECT_EQ(std::ranges::count_if(checkpoint.names(), [](const std::string& name) { return name.ends_with("_inv"); }),
              0);
    // Of 192 rows a factor would be of the last gates and the first ups.
    model.tensors()[experts + "gate_up_proj"].shape = {2, 192, 32};
    model.write();
    EXPECT_TRUE(Checkpoint(model.path()).has(experts + "gate_up_proj_scale_inv"));
    expect_refused([&] { (void)Checkpoint(model.path()).tensor(experts + "0.gate_proj.weight").dtype(); },
                   {"experts.0.gate_proj.weight", "F8_E4M3", "without a factor"});
}

TEST_F(Weights, SayWhatTheyWereMadeOf) {
    // One tensor of more than a block of what is looked at together, too.
    nlohmann::json config = testing::tiny_llama_config();
    config["vocab_size"] = 3000;
    for (const bool tied : {false, true}) {
        config["tie_word_embeddings"] = tied;
        const TinyModel model({"llama", config, "BF16"});
        const Checkpoint checkpoint(model.path());
        EXPECT_GT(checkpoint.tensor("model.embed_tokens.weight").bytes.size(), 128U << 10U);
        TensorHashes found = read_outer(*backend_, model.family(), checkpoint).hashes;
        EXPECT_EQ(found.size(), tied ? 2U : 3U);
        for (std::int64_t layer = 0; layer < 2; ++layer)
            found.merge(read_layer(*backend_, model.family(), checkpoint, layer).hashes);
        TensorHashes expected;
        for (const std::string& name : checkpoint.names())
            expected[name] = hash_of(checkpoint.tensor(name).bytes);
        EXPECT_EQ(found, expected);
    }
}

class Prefetcher : public Weights {
  protected:
    const Checkpoint checkpoint_{model_.path()};
};

TEST_F(Prefetcher, HandsOutLayersInOrder) {
    LayerPrefetcher layers(*backend_, model_.family(), checkpoint_, 0, 2);
    for (std::int64_t expected = 0; expected < 2; ++expected) {
        const LayerWeights layer = layers.next();
        EXPECT_EQ(layer.layer, expected);
        const std::string name = model_.family().layer(expected) + "mlp.down_proj.weight";
        const std::vector<float>& values = model_.tensors().at(name).values;
        EXPECT_EQ(std::memcmp(layer.linears.at("mlp.down_proj").weight.data, values.data(), values.size() * 4), 0);
    }
    EXPECT_THROW(layers.next(), Failure);
}

TEST_F(Prefetcher, GivesTheSameWhereverLayersWait) {
    testing::LateBackend late;
    for (const ReadAhead ahead : {ReadAhead::to_device, ReadAhead::to_host, ReadAhead::to_keep}) {
        LayerPrefetcher layers(late, model_.family(), checkpoint_, 0, 2, ahead);
        for (std::int64_t expected = 0; expected < 2; ++expected) {
            const LayerWeights layer = layers.next();
            const LayerWeights read = this->read(expected);
            ASSERT_EQ(layer.linears.size(), read.linears.size());
            for (const auto& [name, linear] : read.linears) {
                const TensorView found = layer.linears.at(name).weight;
                const auto bytes = static_cast<std::size_t>(found.rows * found.cols) * sizeof(float);
                EXPECT_EQ(std::memcmp(found.data, linear.weight.data, bytes), 0) << name;
            }
            EXPECT_EQ(std::memcmp(layer.mlp_norm.weight, read.mlp_norm.weight, 24 * sizeof(float)), 0);
            EXPECT_EQ(layer.hashes, read.hashes);
            EXPECT_EQ(layer.hashes.size(), 9U);
        }
        EXPECT_THROW(layers.next(), Failure);
    }
}

/// As ranks do that send each other what they have read; of more ranks than tensors some read nothing.
TEST_F(Prefetcher, RanksReadEachTensorOnce) {
    for (const ReadAhead ahead : {ReadAhead::to_device, ReadAhead::to_host, ReadAhead::to_keep})
        for (const int ranks : {1, 2, 3, 4, 11}) {
            SCOPED_TRACE(ranks);
            std::vector<std::unique_ptr<LayerPrefetcher>> readers;
            for (int rank = 0; rank < ranks; ++rank)
                readers.push_back(std::make_unique<LayerPrefetcher>(*backend_, model_.family(), checkpoint_, 0, 2,
                                                                    ahead, ReadShare{rank, ranks}));
            for (std::int64_t index = 0; index < 2; ++index) {
                std::vector<LayerWeights> parts;
                TensorHashes hashes;
                std::size_t tensors = 0, place = 0, most = 0;
                for (auto& reader : readers) {
                    parts.push_back(reader->next());
                    const LayerWeights& part = parts.back();
                    ASSERT_EQ(part.parts, parts.front().parts);
                    const std::size_t bytes = part.parts.at(parts.size() - 1);
                    std::memcpy(parts.front().memory.front().as<std::byte>() + place,
                                part.memory.front().as<std::byte>() + place, parts.size() == 1 ? 0 : bytes);
                    place += bytes;
                    most = std::max(most, bytes);
                    tensors += part.hashes.size();
                    hashes.insert(part.hashes.begin(), part.hashes.end());
                }
                EXPECT_EQ(place, layer_bytes(model_.family(), DType::float32));
                EXPECT_LT(most, ranks == 1 ? place + 1 : place * 2 / 3);
                const LayerWeights read = this->read(index);
                EXPECT_EQ(hashes, read.hashes);
                EXPECT_EQ(tensors, read.hashes.size());
                for (const auto& [name, linear] : read.linears) {
                    const TensorView found = parts.front().linears.at(name).weight;
                    const auto bytes = static_cast<std::size_t>(found.rows * found.cols) * sizeof(float);
                    EXPECT_EQ(std::memcmp(found.data, linear.weight.data, bytes), 0) << name;
                }
                EXPECT_EQ(std::memcmp(parts.front().input_norm.weight, read.input_norm.weight, 24 * sizeof(float)), 0);
                EXPECT_EQ(std::memcmp(parts.front().mlp_norm.weight, read.mlp_norm.weight, 24 * sizeof(float)), 0);
            }
        }
}

/// Beside a GPU several threads read, a tensor each.
TEST_F(Prefetcher, ThreadsReadTheSame) {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "GCC's OpenMP is not instrumented: its threads look like races";
#endif
    testing::DistantBackend distant;
    const LayerWeights expected = read(1);
    const int before = omp_get_max_threads();
    for (const int threads : {1, 2, 4, 6, 8, 16}) {
        SCOPED_TRACE(threads);
        omp_set_num_threads(threads);
        for (const ReadAhead ahead : {ReadAhead::to_device, ReadAhead::to_host}) {
            LayerPrefetcher layers(distant, model_.family(), checkpoint_, 1, 2, ahead);
            const LayerWeights layer = layers.next();
            EXPECT_EQ(layer.hashes, expected.hashes);
            for (const auto& [name, linear] : expected.linears) {
                const TensorView found = layer.linears.at(name).weight;
                const auto bytes = static_cast<std::size_t>(found.rows * found.cols) * sizeof(float);
                EXPECT_EQ(std::memcmp(found.data, linear.weight.data, bytes), 0) << name;
            }
        }
    }
    // Of two broken tensors the first is named, whoever comes to it first.
    const std::string up = "model.layers.1.mlp.up_proj.weight";
    for (const std::string& name : {up, down})
        model_.tensors().at(name).values.back() = std::numeric_limits<float>::quiet_NaN();
    model_.write();
    const Checkpoint broken(model_.path());
    for (int repetition = 0; repetition < 10; ++repetition)
        expect_refused([&] { read_layer(distant, model_.family(), broken, 1); }, {"'" + up + "'", "NaN or infinity"});
    omp_set_num_threads(before);
}

TEST_F(Prefetcher, AHeldLayerIsNotOverwritten) {
    LayerPrefetcher on_device(*backend_, model_.family(), checkpoint_, 0, 2);
    const LayerWeights first = on_device.next(), second = on_device.next();
    EXPECT_NE(first.memory.front().data(), second.memory.front().data());
    LayerPrefetcher on_host(*backend_, model_.family(), checkpoint_, 0, 2, ReadAhead::to_host);
    const LayerWeights held = on_host.next();
    EXPECT_THROW(on_host.next(), Failure);
    std::vector<LayerWeights> kept;
    {
        LayerPrefetcher to_keep(*backend_, model_.family(), checkpoint_, 0, 2, ReadAhead::to_keep);
        kept.push_back(to_keep.next());
        kept.push_back(to_keep.next());
    }
    EXPECT_EQ(std::memcmp(kept[1].linears.at("mlp.down_proj").weight.data,
                          second.linears.at("mlp.down_proj").weight.data, 4 * 24 * 40),
              0);
}

TEST_F(Prefetcher, StartsAnywhereAndMayHaveNothingToDo) {
    LayerPrefetcher last(*backend_, model_.family(), checkpoint_, 1, 2);
    EXPECT_EQ(last.next().layer, 1);
    LayerPrefetcher none(*backend_, model_.family(), checkpoint_, 2, 2);
    EXPECT_THROW(none.next(), Failure);
}

TEST_F(Prefetcher, EndsWithoutBeingAsked) {
    for (int taken = 0; taken < 2; ++taken)
        for (int repetition = 0; repetition < 20; ++repetition) {
            LayerPrefetcher layers(*backend_, model_.family(), checkpoint_, 0, 2);
            for (int i = 0; i < taken; ++i)
                layers.next();
        }
}

TEST_F(Weights, PrefetcherThrowsWhatTheThreadMet) {
    model_.tensors().erase(down);
    model_.write();
    const Checkpoint checkpoint(model_.path());
    for (const ReadAhead ahead : {ReadAhead::to_device, ReadAhead::to_host}) {
        LayerPrefetcher layers(*backend_, model_.family(), checkpoint, 0, 2, ahead);
        EXPECT_EQ(layers.next().layer, 0);
        for (int again = 0; again < 2; ++again)
            expect_refused([&] { layers.next(); }, {down});
    }
    // Nor does a failure that nobody asks for hang the end.
    const LayerPrefetcher ignored(*backend_, model_.family(), checkpoint, 1, 2);
}

}  // namespace
}  // namespace fairgptq
