// Exports of a made-up run over a made-up model: what the formats' own arithmetic makes of the files is what the run
// holds.
#include "export/export.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <regex>

#include "export/bit_stream.hpp"
#include "export/safetensors_writer.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"
#include "model/weights.hpp"
#include "run/module_grids.hpp"
#include "run/sample.hpp"
#include "support/error.hpp"
#include "support/half.hpp"
#include "support_files/refusal.hpp"

namespace fairgptq {
namespace {

using nlohmann::json;
using test::bytes_of;
using test::sample_module;
using test::SampleShape;
using test::ScratchFolder;
using testing::expect_refused;

constexpr std::int64_t hidden = 64, wide = 96, layers = 2, vocabulary = 40;

json tiny_config(bool tied) {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"hidden_size", hidden},
            {"intermediate_size", wide},
            {"num_hidden_layers", layers},
            {"num_attention_heads", 4},
            {"num_key_value_heads", 2},
            {"vocab_size", vocabulary},
            {"max_position_embeddings", 64},
            {"rms_norm_eps", 1e-5},
            {"hidden_act", "silu"},
            {"rope_theta", 10000.0},
            {"tie_word_embeddings", tied},
            {"torch_dtype", "bfloat16"}};
}

/// The same as the text model of one that takes pictures, too.
json with_pictures(json text) {
    text.erase("architectures");
    text["model_type"] = "mistral";
    text["sliding_window"] = nullptr;
    return {{"architectures", {"Mistral3ForConditionalGeneration"}},
            {"model_type", "mistral3"},
            {"text_config", text},
            {"vision_config", {{"hidden_size", 4}}},
            {"tie_word_embeddings", text["tie_word_embeddings"]},
            {"dtype", "bfloat16"}};
}

/// A Llama of two layers with numbers that only have to be recognised again. The tied one stores a head all the same.
void write_model(const std::filesystem::path& folder, bool tied, bool pictures = false) {
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json") << (pictures ? with_pictures(tiny_config(tied)) : tiny_config(tied)).dump();
    std::ofstream(folder / "tokenizer.json") << "{\"a\": 1}";
    std::ofstream(folder / "generation_config.json") << "{}";
    std::ofstream(folder / "chat_template.jinja") << "{{ x }}";
    std::ofstream(folder / "vocab.txt") << "a";
    std::ofstream(folder / "README.md") << "no";
    std::ofstream(folder / "pytorch_model.bin") << "no";
    const Family family = describe_family(read_config(folder));
    std::vector<TensorPlan> tensors{
        {family.embedding, "BF16", {vocabulary, hidden}},
        {pictures ? "language_model.lm_head.weight" : "lm_head.weight", "BF16", {vocabulary, hidden}},
        {family.final_norm + ".weight", "F32", {hidden}}};
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        for (const StageSpec& stage : family.stages)
            for (const LinearSpec& linear : stage.linears)
                tensors.push_back({family.layer(layer) + linear.name + ".weight", "BF16", {linear.rows, linear.cols}});
        tensors.push_back({family.layer(layer) + family.input_norm + ".weight", "BF16", {hidden}});
        tensors.push_back({family.layer(layer) + family.mlp_norm + ".weight", "BF16", {hidden}});
    }
    for (const std::string& part : family.other_parts)
        tensors.push_back({part + ".layers.1.weight", "F32", {3, 5}});
    SafetensorsWriter writer(folder, tensors, 1U << 30U);
    unsigned char value = 1;
    for (const TensorPlan& tensor : tensors) {
        // Bytes below 0x40 make small, finite numbers of any type.
        std::vector<std::byte> bytes(tensor.bytes());
        for (std::byte& byte : bytes)
            byte = static_cast<std::byte>(value = static_cast<unsigned char>((value * 5 + 3) % 64));
        writer.write(tensor.name, bytes);
    }
    writer.finish();
}

struct RunOptions {
    SampleShape shape = {};
    std::int64_t quantized = layers;
    std::int64_t finished = layers;
    bool whole_rows = false;
    bool tied = false;
    bool pictures = false;
    ModuleSettings modules = {};
};

json quantization_of(const RunOptions& options) {
    json quantization{{"bits", options.shape.bits},
                      {"group_size", options.whole_rows ? -1 : options.shape.group_size},
                      {"symmetric", options.shape.symmetric},
                      {"scale_dtype", options.shape.scales_float32 ? "f32" : "f16"}};
    add_to_json(options.modules, quantization);
    return quantization;
}

struct Sample {
    ScratchFolder folder;
    std::vector<LayerRecord> records;
    std::string layer_prefix;
    std::filesystem::path model() const { return folder / "model"; }
    RunDirectory run() const { return RunDirectory::open(folder / "run"); }

    explicit Sample(const RunOptions& options) {
        write_model(model(), options.tied, options.pictures);
        const Family family = describe_family(read_config(model()));
        layer_prefix = options.pictures ? "language_model.model.layers." : "model.layers.";
        json files = json::array();
        const Checkpoint checkpoint(model());
        for (const auto& file : checkpoint.files())
            files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"header_hash", file.header_hash}});
        const RunDirectory run = RunDirectory::create(folder / "run", {{"model",
                                                                        {{"path", model().string()},
                                                                         {"layers", layers},
                                                                         {"files", files},
                                                                         {"config_hash", config_hash(model())}}},
                                                                       {"layers", options.quantized},
                                                                       {"quantization", quantization_of(options)}});
        const ModuleGrids grids = recorded_grids(run.settings(), family);
        unsigned seed = 0;
        for (std::int64_t layer = 0; layer < options.finished; ++layer) {
            LayerRecord record{layer, run.fingerprint(), {}};
            for (const std::string& name : checkpoint.names())
                if (name.starts_with(family.layer(layer)) || (layer == 0 && !name.starts_with(layer_prefix)))
                    record.source_tensors[name] = hash_of(checkpoint.tensor(name).bytes);
            for (const StageSpec& stage : family.stages) {
                for (const LinearSpec& linear : stage.linears) {
                    const std::optional<Grid> grid = grids(layer, linear.name);
                    if (!grid) continue;
                    SampleShape shape = options.shape;
                    shape.rows = linear.rows;
                    shape.cols = linear.cols;
                    shape.group_size = grid->group_size < 0 ? linear.cols : grid->group_size;
                    shape.bits = grid->bits;
                    shape.symmetric = grid->symmetric;
                    record.modules.push_back(sample_module(linear.name, shape, ++seed));
                }
            }
            write_layer(run.layer_path(layer), record);
            records.push_back(record);
        }
    }
};

float value_at(const ModuleSolution& module, std::int64_t row, std::int64_t col) {
    const std::int64_t group = row * module.groups + module.group_index[col];
    return module.scales[group] * static_cast<float>(module.codes[row * module.cols + col] - module.zeros[group]);
}

template <class T>
std::vector<T> values_of(const HostTensor& tensor) {
    std::vector<T> values(tensor.bytes.size() / sizeof(T));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
}

/// Field `index` of a stream of `bits`-bit fields in words `stride` apart, read bit by bit.
int field(const std::uint32_t* words, std::int64_t stride, std::int64_t index, int bits) {
    int value = 0;
    for (int bit = 0; bit < bits; ++bit) {
        const std::int64_t at = index * bits + bit;
        value |= static_cast<int>((words[at / 32 * stride] >> (at % 32)) & 1U) << bit;
    }
    return value;
}

float gptq_value(const Checkpoint& out, const std::string& name, int bits, bool version1, std::int64_t row,
                 std::int64_t col) {
    const HostTensor& qweight = out.tensor(name + ".qweight");
    const std::int64_t rows = qweight.shape[1];
    const std::int64_t group = values_of<std::int32_t>(out.tensor(name + ".g_idx"))[col];
    const std::int64_t zero_words = out.tensor(name + ".qzeros").shape[1];
    const int code = field(values_of<std::uint32_t>(qweight).data() + row, rows, col, bits);
    const int zero =
        field(values_of<std::uint32_t>(out.tensor(name + ".qzeros")).data() + group * zero_words, 1, row, bits);
    const float scale = to_float(values_of<Float16>(out.tensor(name + ".scales"))[group * rows + row]);
    return scale * static_cast<float>(code - zero - (version1 ? 1 : 0));
}

float compressed_value(const Checkpoint& out, const std::string& name, int bits, bool symmetric, std::int64_t row,
                       std::int64_t col) {
    const std::int64_t words = out.tensor(name + ".weight_packed").shape[1];
    const HostTensor& scales = out.tensor(name + ".weight_scale");
    const std::int64_t groups = scales.shape[1];
    const std::int64_t cols = values_of<std::int64_t>(out.tensor(name + ".weight_shape"))[1];
    const std::int64_t group = col / (cols / groups);
    const int half = 1 << (bits - 1);
    const int code =
        field(values_of<std::uint32_t>(out.tensor(name + ".weight_packed")).data() + row * words, 1, col, bits);
    int zero = half;
    if (!symmetric)
        zero =
            field(values_of<std::uint32_t>(out.tensor(name + ".weight_zero_point")).data() + group, groups, row, bits);
    const std::int64_t at = row * groups + group;
    const float scale =
        scales.dtype_name == "F32" ? values_of<float>(scales)[at] : to_float(values_of<Float16>(scales)[at]);
    return scale * static_cast<float>((code - half) - (zero - half));
}

/// Every module of every layer, at places that cover all columns and some rows.
void compare(const Sample& sample,
             const std::function<float(const std::string&, std::int64_t, std::int64_t)>& exported) {
    for (const LayerRecord& record : sample.records) {
        for (const ModuleSolution& module : record.modules) {
            const std::string name = sample.layer_prefix + fmt::format("{}.{}", record.layer, module.name);
            for (std::int64_t col = 0; col < module.cols; ++col) {
                const std::int64_t row = (col * 7 + 3) % module.rows;
                ASSERT_EQ(exported(name, row, col), value_at(module, row, col)) << name << " " << row << " " << col;
            }
        }
    }
}

void expect_untouched(const Sample& sample, const std::filesystem::path& out, bool tied = false,
                      const std::function<std::string(const std::string&)>& renamed = std::identity()) {
    const Checkpoint before(sample.model());
    const Checkpoint after(out);
    for (const std::string& name : before.names()) {
        if (name.find("_proj") != std::string::npos) continue;
        if (tied && name.ends_with("lm_head.weight")) {
            EXPECT_FALSE(after.has(renamed(name)));
            continue;
        }
        const HostTensor& a = before.tensor(name);
        const HostTensor& b = after.tensor(renamed(name));
        EXPECT_EQ(a.dtype_name, b.dtype_name) << name;
        EXPECT_EQ(a.shape, b.shape) << name;
        EXPECT_TRUE(std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end())) << name;
    }
    for (const char* name : {"tokenizer.json", "generation_config.json", "chat_template.jinja", "vocab.txt"})
        EXPECT_EQ(bytes_of(sample.model() / name), bytes_of(out / name)) << name;
    EXPECT_FALSE(std::filesystem::exists(out / "README.md"));
    EXPECT_FALSE(std::filesystem::exists(out / "pytorch_model.bin"));
}

json config_of(const std::filesystem::path& out) {
    return json::parse(bytes_of(out / "config.json"));
}

TEST(BitStream, PacksAsOneLongNumber) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const std::int64_t count : {0, 1, 7, 8, 9, 10, 11, 31, 32, 33, 64, 96}) {
            const ModuleSolution module =
                sample_module("", {.rows = 2, .cols = count + 1, .group_size = count + 1, .bits = bits}, 3);
            const std::int64_t words = words_for(count, bits);
            std::vector<std::uint32_t> packed(static_cast<std::size_t>(3 * words), 0xabababab);
            pack_words(module.codes.data(), 2, count, bits, packed.data(), 3);
            for (std::int64_t i = 0; i < count; ++i)
                ASSERT_EQ(field(packed.data(), 3, i, bits), module.codes[2 * i])
                    << bits << " bits, " << i << " of " << count;
            for (std::int64_t bit = count * bits; bit < words * 32; ++bit)
                ASSERT_EQ((packed[bit / 32 * 3] >> (bit % 32)) & 1U, 0U) << "what is left over is not zero";
            for (std::int64_t i = 0; i < 3 * words; ++i)
                ASSERT_TRUE(i % 3 == 0 || packed[i] == 0xababababU) << "wrote between its words";
        }
    }
}

TEST(GptqExport, HoldsTheRunsValues) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const bool symmetric : {true, false}) {
            for (const bool shuffled : {true, false}) {
                SCOPED_TRACE(fmt::format("{} bits, symmetric {}, shuffled {}", bits, symmetric, shuffled));
                const Sample sample({.shape = {.bits = bits, .symmetric = symmetric, .shuffled = shuffled}});
                const auto out = sample.folder / "out";
                export_run(sample.run(), out, {.format = "gptq", .dtype = {}});
                {
                    const Checkpoint files(out);
                    compare(sample, [&](const std::string& name, std::int64_t row, std::int64_t col) {
                        return gptq_value(files, name, bits, symmetric, row, col);
                    });
                    EXPECT_FALSE(files.has("model.layers.0.mlp.up_proj.weight"));
                }
                expect_untouched(sample, out);
                const json settings = config_of(out)["quantization_config"];
                EXPECT_EQ(settings, json::parse(bytes_of(out / "quantize_config.json")));
                EXPECT_EQ(settings["bits"], bits);
                EXPECT_EQ(settings["group_size"], 32);
                EXPECT_EQ(settings["sym"], symmetric);
                EXPECT_EQ(settings["desc_act"], shuffled);
                EXPECT_EQ(settings["checkpoint_format"], symmetric ? "gptq" : "gptq_v2");
                EXPECT_FALSE(settings.contains("dynamic"));
            }
        }
    }
}

TEST(GptqExport, SymmetricZerosOfFourBitsAreSevens) {
    const Sample sample({});
    export_run(sample.run(), sample.folder / "out", {.format = "gptq", .dtype = {}});
    const Checkpoint files(sample.folder / "out");
    for (const std::uint32_t word : values_of<std::uint32_t>(files.tensor("model.layers.1.mlp.up_proj.qzeros")))
        ASSERT_EQ(word, 0x77777777U);
}

TEST(CompressedTensorsExport, HoldsTheRunsValues) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const bool symmetric : {true, false}) {
            for (const bool float32 : {true, false}) {
                SCOPED_TRACE(fmt::format("{} bits, symmetric {}, float32 {}", bits, symmetric, float32));
                const Sample sample({.shape = {.bits = bits, .symmetric = symmetric, .scales_float32 = float32}});
                const auto out = sample.folder / "out";
                export_run(sample.run(), out, {.format = "compressed-tensors", .dtype = {}});
                const Checkpoint files(out);
                compare(sample, [&](const std::string& name, std::int64_t row, std::int64_t col) {
                    return compressed_value(files, name, bits, symmetric, row, col);
                });
                EXPECT_EQ(files.has("model.layers.0.mlp.up_proj.weight_zero_point"), !symmetric);
                expect_untouched(sample, out);
                const json weights = config_of(out)["quantization_config"]["config_groups"]["group_0"]["weights"];
                EXPECT_EQ(weights["num_bits"], bits);
                EXPECT_EQ(weights["symmetric"], symmetric);
                EXPECT_EQ(weights["strategy"], "group");
                EXPECT_EQ(weights["group_size"], 32);
            }
        }
    }
}

TEST(DenseExport, HoldsTheRunsValuesInItsType) {
    const Sample sample({.shape = {.symmetric = false, .shuffled = true, .scales_float32 = true}});
    export_run(sample.run(), sample.folder / "f32", {.format = "dense", .dtype = DType::float32});
    export_run(sample.run(), sample.folder / "bf16", {.format = "dense", .dtype = DType::bfloat16});
    export_run(sample.run(), sample.folder / "f16", {.format = "dense", .dtype = {}});
    const Checkpoint f32(sample.folder / "f32"), bf16(sample.folder / "bf16"), f16(sample.folder / "f16");
    EXPECT_EQ(config_of(sample.folder / "f32")["torch_dtype"], "float32");
    EXPECT_EQ(config_of(sample.folder / "bf16")["torch_dtype"], "bfloat16");
    EXPECT_EQ(config_of(sample.folder / "f16")["torch_dtype"], "float16");
    EXPECT_FALSE(config_of(sample.folder / "f16").contains("quantization_config"));
    compare(sample, [&](const std::string& name, std::int64_t row, std::int64_t col) {
        const HostTensor& tensor = f32.tensor(name + ".weight");
        const std::int64_t at = row * tensor.shape[1] + col;
        const float value = values_of<float>(tensor)[at];
        EXPECT_EQ(values_of<Float16>(f16.tensor(name + ".weight"))[at].bits, to_half(value).bits);
        EXPECT_EQ(values_of<BFloat16>(bf16.tensor(name + ".weight"))[at].bits, to_bfloat16(value).bits);
        return value;
    });
    expect_untouched(sample, sample.folder / "f16");
}

TEST(Export, ATiedHeadIsLeftOut) {
    const Sample sample({.tied = true});
    for (const char* format : {"gptq", "compressed-tensors", "dense"}) {
        export_run(sample.run(), sample.folder / format, {.format = format, .dtype = {}});
        expect_untouched(sample, sample.folder / format, true);
    }
}

TEST(Export, OneScaleARowIsSaidSo) {
    const Sample sample({.whole_rows = true});
    export_run(sample.run(), sample.folder / "gptq", {.format = "gptq", .dtype = {}});
    EXPECT_EQ(config_of(sample.folder / "gptq")["quantization_config"]["group_size"], -1);
    export_run(sample.run(), sample.folder / "ct", {.format = "compressed-tensors", .dtype = {}});
    const json weights = config_of(sample.folder / "ct")["quantization_config"]["config_groups"]["group_0"]["weights"];
    EXPECT_EQ(weights["strategy"], "channel");
    EXPECT_TRUE(weights["group_size"].is_null());
    const Checkpoint files(sample.folder / "ct");
    compare(sample, [&](const std::string& name, std::int64_t row, std::int64_t col) {
        return compressed_value(files, name, 4, true, row, col);
    });
}

TEST(Export, ATrialNamesTheLayersItLeftAlone) {
    const Sample sample({.quantized = 1, .finished = 1});
    export_run(sample.run(), sample.folder / "gptq", {.format = "gptq", .dtype = {}});
    const std::string pattern = "^model\\.layers\\.(1)\\..*";
    EXPECT_EQ(config_of(sample.folder / "gptq")["quantization_config"]["dynamic"],
              json({{"-:" + pattern, json::object()}}));
    export_run(sample.run(), sample.folder / "ct", {.format = "compressed-tensors", .dtype = {}});
    EXPECT_EQ(config_of(sample.folder / "ct")["quantization_config"]["ignore"], json({"lm_head", "re:" + pattern}));
    for (const char* format : {"gptq", "ct"}) {
        const Checkpoint files(sample.folder / format);
        EXPECT_TRUE(files.has("model.layers.1.mlp.up_proj.weight"));
        EXPECT_FALSE(files.has("model.layers.0.mlp.up_proj.weight"));
    }
}

TEST(Export, LinearsThatAreLeftOrOtherwiseQuantizedAreSaidSo) {
    const Sample sample({.modules = {{"*.layers.1.self_attn.[qkv]_proj", "*.layers.0.mlp.down_proj"},
                                     {{"*.down_proj", {.bits = 8, .group_size = -1}}}}});
    export_run(sample.run(), sample.folder / "gptq", {.format = "gptq", .dtype = {}});
    export_run(sample.run(), sample.folder / "ct", {.format = "compressed-tensors", .dtype = {}});
    export_run(sample.run(), sample.folder / "dense", {.format = "dense", .dtype = DType::float32});
    const std::string qkv = "^model\\.layers\\.(1)\\.self_attn\\.(q_proj|k_proj|v_proj|qkv_proj)$";
    const std::string down = "^model\\.layers\\.(0)\\.mlp\\.down_proj$";
    const std::string eight = "^model\\.layers\\.(1)\\.mlp\\.down_proj$";
    const json gptq = config_of(sample.folder / "gptq")["quantization_config"];
    EXPECT_EQ(gptq["bits"], 4);
    EXPECT_EQ(gptq["checkpoint_format"], "gptq");
    EXPECT_EQ(gptq["dynamic"], json({{"-:" + qkv, json::object()},
                                     {"-:" + down, json::object()},
                                     {"+:" + eight, {{"bits", 8}, {"group_size", -1}, {"sym", true}}}}));
    const json ct = config_of(sample.folder / "ct")["quantization_config"];
    EXPECT_EQ(ct["config_groups"]["group_0"]["targets"], json({"Linear"}));
    EXPECT_EQ(ct["config_groups"]["group_0"]["weights"]["num_bits"], 4);
    EXPECT_EQ(ct["config_groups"]["group_1"]["targets"], json({"re:" + eight}));
    EXPECT_EQ(ct["config_groups"]["group_1"]["weights"]["num_bits"], 8);
    EXPECT_EQ(ct["config_groups"]["group_1"]["weights"]["strategy"], "channel");
    EXPECT_EQ(ct["config_groups"].size(), 2U);
    const std::set<std::string> ignored(ct["ignore"].begin(), ct["ignore"].end());
    EXPECT_EQ(ignored, (std::set<std::string>{"lm_head", "re:" + qkv, "re:" + down}));
    const Checkpoint before(sample.model());
    for (const char* format : {"gptq", "ct", "dense"}) {
        const Checkpoint files(sample.folder / format);
        compare(sample, [&](const std::string& name, std::int64_t row, std::int64_t col) {
            const int bits = name.ends_with("down_proj") ? 8 : 4;
            if (std::string(format) == "gptq") return gptq_value(files, name, bits, true, row, col);
            if (std::string(format) == "ct") return compressed_value(files, name, bits, true, row, col);
            const HostTensor& tensor = files.tensor(name + ".weight");
            return values_of<float>(tensor)[row * tensor.shape[1] + col];
        });
        for (const char* left : {"1.self_attn.q_proj", "1.self_attn.k_proj", "1.self_attn.v_proj", "0.mlp.down_proj"}) {
            const std::string name = fmt::format("model.layers.{}.weight", left);
            EXPECT_EQ(files.tensor(name).dtype_name, "BF16") << name;
            EXPECT_TRUE(std::ranges::equal(files.tensor(name).bytes, before.tensor(name).bytes)) << name;
        }
    }
}

TEST(Export, OneAsymmetricModuleMakesAllZerosStandAsTheyAre) {
    const Sample sample({.modules = {{}, {{"*.o_proj", {.symmetric = false}}}}});
    export_run(sample.run(), sample.folder / "gptq", {.format = "gptq", .dtype = {}});
    const json gptq = config_of(sample.folder / "gptq")["quantization_config"];
    EXPECT_EQ(gptq["sym"], true);
    EXPECT_EQ(gptq["checkpoint_format"], "gptq_v2");
    EXPECT_EQ(
        gptq["dynamic"],
        json({{"+:^model\\.layers\\.\\d+\\.self_attn\\.o_proj$", {{"bits", 4}, {"group_size", 32}, {"sym", false}}}}));
    const Checkpoint files(sample.folder / "gptq");
    compare(sample, [&](const std::string& name, std::int64_t row, std::int64_t col) {
        return gptq_value(files, name, 4, false, row, col);
    });
}

TEST(Export, ALayerThatIsNotAsTheSettingsSayIsRefused) {
    const Sample sample({});
    LayerRecord record = sample.records[1];
    const auto refuse = [&](const std::string& part) {
        write_layer(sample.run().layer_path(1), record);
        expect_refused([&] { export_run(sample.run(), sample.folder / "out", {.format = "dense", .dtype = {}}); },
                       {part});
    };
    record.modules[2] = sample_module(record.modules[2].name, {.rows = 32, .bits = 8}, 1);
    refuse("model.layers.1.self_attn.v_proj is not quantized as the run's settings say");
    record.modules.erase(record.modules.begin() + 2);
    refuse("has 6 modules, where the model and the run's settings have 7");
}

TEST(Export, WhatSeesPicturesStaysAsItIs) {
    for (const bool tied : {false, true}) {
        const Sample sample({.quantized = 1, .finished = 1, .tied = tied, .pictures = true});
        export_run(sample.run(), sample.folder / "gptq", {.format = "gptq", .dtype = {}});
        export_run(sample.run(), sample.folder / "ct", {.format = "compressed-tensors", .dtype = {}});
        export_run(sample.run(), sample.folder / "dense", {.format = "dense", .dtype = {}});
        for (const char* format : {"ct", "dense"})
            expect_untouched(sample, sample.folder / format, tied);
        // As GPTQModel asks for them.
        const auto loaded = [](const std::string& name) {
            if (name.ends_with("lm_head.weight")) return std::string("lm_head.weight");
            const bool text = name.starts_with("language_model.model.");
            return text ? "model.language_model." + name.substr(21) : "model." + name;
        };
        expect_untouched(sample, sample.folder / "gptq", tied, loaded);
        const Checkpoint gptq(sample.folder / "gptq");
        compare(sample, [&](const std::string& name, std::int64_t row, std::int64_t col) {
            return gptq_value(gptq, loaded(name), 4, true, row, col);
        });
        const json dense = config_of(sample.folder / "dense");
        EXPECT_EQ(dense["dtype"], "float16");
        EXPECT_FALSE(dense.contains("torch_dtype"));
        EXPECT_EQ(dense["text_config"]["torch_dtype"], "float16");

        // Patterns as the two formats' readers use them: from the beginning, on the names of the program that reads.
        std::vector<std::string> left;
        const json dynamic = config_of(sample.folder / "gptq")["quantization_config"]["dynamic"];
        for (const auto& [pattern, nothing] : dynamic.items())
            left.push_back(pattern.substr(2));
        json expected{"lm_head", "language_model.lm_head"};
        for (const std::string& pattern : left)
            expected.push_back("re:" + pattern);
        json ignored = config_of(sample.folder / "ct")["quantization_config"]["ignore"];
        std::sort(ignored.begin(), ignored.end());
        std::sort(expected.begin(), expected.end());
        EXPECT_EQ(ignored, expected);
        const auto is_left = [&](const std::string& name) {
            return std::any_of(left.begin(), left.end(), [&](const std::string& pattern) {
                return std::regex_search(name, std::regex(pattern), std::regex_constants::match_continuous);
            });
        };
        for (const std::string prefix : {"language_model.model.", "model.language_model.", "language_model."}) {
            EXPECT_TRUE(is_left(prefix + "layers.1.mlp.up_proj"));
            EXPECT_FALSE(is_left(prefix + "layers.0.mlp.up_proj"));
            EXPECT_FALSE(is_left(prefix + "layers.11.mlp.up_proj"));
        }
        for (const std::string prefix : {"", "model."}) {
            EXPECT_TRUE(is_left(prefix + "vision_tower.transformer.layers.0.attention.q_proj"));
            EXPECT_TRUE(is_left(prefix + "multi_modal_projector.linear_1"));
        }
    }
}

TEST(Export, ShardsHoldTheSameTensors) {
    const Sample sample({});
    export_run(sample.run(), sample.folder / "one", {.format = "gptq", .dtype = {}});
    export_run(sample.run(), sample.folder / "many", {.format = "gptq", .dtype = {}, .max_shard_bytes = 6000});
    EXPECT_TRUE(std::filesystem::exists(sample.folder / "one/model.safetensors"));
    EXPECT_FALSE(std::filesystem::exists(sample.folder / "one/model.safetensors.index.json"));
    const json index = json::parse(bytes_of(sample.folder / "many/model.safetensors.index.json"));
    const Checkpoint one(sample.folder / "one"), many(sample.folder / "many");
    ASSERT_EQ(one.names(), many.names());
    std::uint64_t total = 0;
    std::map<std::string, std::uint64_t> shard_bytes;
    std::map<std::string, int> shard_tensors;
    for (const std::string& name : one.names()) {
        const HostTensor& a = one.tensor(name);
        const HostTensor& b = many.tensor(name);
        EXPECT_TRUE(std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end())) << name;
        total += a.bytes.size();
        shard_bytes[index["weight_map"][name]] += a.bytes.size();
        ++shard_tensors[index["weight_map"][name]];
    }
    EXPECT_EQ(index["metadata"]["total_size"], total);
    EXPECT_GT(shard_bytes.size(), 3U);
    for (const auto& [shard, bytes] : shard_bytes) {
        EXPECT_TRUE(bytes <= 6000 || shard_tensors[shard] == 1) << shard;
        EXPECT_TRUE(std::filesystem::exists(sample.folder / "many" / shard)) << shard;
    }
}

TEST(Export, WhatDoesNotFitAFormatIsRefusedAndNothingIsLeft) {
    const auto refuse = [](const RunOptions& options, const char* format, const std::string& part) {
        const Sample sample(options);
        expect_refused([&] { export_run(sample.run(), sample.folder / "out", {.format = format, .dtype = {}}); },
                       {part});
        std::set<std::string> left;
        for (const auto& entry : std::filesystem::directory_iterator(sample.folder.path()))
            left.insert(entry.path().filename());
        EXPECT_EQ(left, (std::set<std::string>{"model", "run"}));
    };
    refuse({.shape = {.shuffled = true}}, "compressed-tensors",
           "self_attn.q_proj has groups that are not neighbouring");
    refuse({.shape = {.scales_float32 = true}}, "gptq", "float32 scales");
    refuse({.finished = 1}, "dense", "1 of 2 layers");
    refuse({}, "awq", "--format must be one of");
    refuse({}, "gguf", "tools/to_gguf.py");
}

TEST(Export, AFolderInUseAChangedModelAndAStrayTypeAreRefused) {
    const Sample sample({});
    std::filesystem::create_directory(sample.folder / "out");
    export_run(sample.run(), sample.folder / "out", {.format = "dense", .dtype = {}});
    expect_refused([&] { export_run(sample.run(), sample.folder / "out", {.format = "dense", .dtype = {}}); },
                   {"not an empty folder"});
    expect_refused(
        [&] { export_run(sample.run(), sample.folder / "new", {.format = "gptq", .dtype = DType::float32}); },
        {"--dtype"});
    write_model(sample.model(), false);  // the same bytes again
    export_run(sample.run(), (sample.folder / "again").string() + "/", {.format = "dense", .dtype = {}});
    std::string bytes = bytes_of(sample.model() / "model.safetensors");
    bytes.replace(bytes.find("input_layernorm"), 5, "INPUT");
    std::ofstream(sample.model() / "model.safetensors", std::ios::binary) << bytes;
    expect_refused([&] { export_run(sample.run(), sample.folder / "new", {.format = "dense", .dtype = {}}); },
                   {"its files have changed"});
}

TEST(Export, ATensorThatIsNoLongerWhatTheRunWasMadeOfIsRefused) {
    const auto change = [](const Sample& sample, const std::string& name) {
        const std::string whole = bytes_of(sample.model() / "model.safetensors");
        std::uint64_t header_bytes = 0;
        std::memcpy(&header_bytes, whole.data(), 8);
        const json header = json::parse(whole.substr(8, header_bytes));
        const std::uint64_t place = 8 + header_bytes + header[name]["data_offsets"][0].get<std::uint64_t>();
        std::fstream file(sample.model() / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(place));
        file.put(static_cast<char>(whole[place] ^ 1));
    };
    for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
                             "model.layers.1.post_attention_layernorm.weight"}) {
        const Sample sample({});
        change(sample, name);
        expect_refused([&] { export_run(sample.run(), sample.folder / "out", {.format = "gptq", .dtype = {}}); },
                       {fmt::format("tensor '{}'", name), (sample.model() / "model.safetensors").string()});
        EXPECT_FALSE(std::filesystem::exists(sample.folder / "out"));
    }
    // What the export replaces it does not read, nor has a trial seen the layers that it did not come to.
    const Sample sample({});
    change(sample, "model.layers.1.mlp.up_proj.weight");
    EXPECT_NO_THROW(export_run(sample.run(), sample.folder / "out", {.format = "gptq", .dtype = {}}));
    const Sample trial({.quantized = 1, .finished = 1});
    change(trial, "model.layers.1.mlp.up_proj.weight");
    EXPECT_NO_THROW(export_run(trial.run(), trial.folder / "out", {.format = "gptq", .dtype = {}}));
}

}  // namespace
}  // namespace fairgptq
