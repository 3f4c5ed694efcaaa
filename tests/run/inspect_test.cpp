// What `inspect` shows is what the layer files hold, summed where it says so, within a terminal's width.
#include "run/inspect.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "run/sample.hpp"

namespace fairgptq {
namespace {

using nlohmann::json;
using test::sample_module;
using test::ScratchFolder;

/// A run of three layers with two finished: bias 20.25 -> 3.125 in every module but the last, which had no pairs.
RunDirectory sample_run(const ScratchFolder& folder, const json& more = json::object()) {
    const json settings{{"model", {{"path", "/models/tiny"}, {"layers", 3}, {"files", json::array({1, 2})}}},
                        {"layers", 3},
                        {"quantization", {{"alpha", 0.1}, {"solver", "joint"}}}};
    json all = settings;
    all["quantization"].update(more);
    RunDirectory run = RunDirectory::create(folder / "run", all);
    for (const std::int64_t layer : {0, 1}) {
        LayerRecord record{layer,
                           run.fingerprint(),
                           {sample_module("self_attn.q_proj", {}, 1), sample_module("mlp.down_proj", {}, 2)}};
        if (layer == 1) record.modules[1].alpha = record.modules[1].bias_before = record.modules[1].bias_after = 0;
        write_layer(run.layer_path(layer), record);
    }
    return run;
}

TEST(Inspect, JsonHoldsEveryModuleAndTheirSums) {
    const ScratchFolder folder;
    const RunDirectory run = sample_run(folder);
    const nlohmann::ordered_json report = inspect_json(run);
    EXPECT_EQ(report["layers"], 3);
    EXPECT_EQ(report["finished_layers"], 2);
    EXPECT_EQ(report["fingerprint"], run.fingerprint());
    EXPECT_EQ(json(report["settings"]), run.settings());
    ASSERT_EQ(report["modules"].size(), 4U);
    const auto& last = report["modules"][3];
    EXPECT_EQ(last["layer"], 1);
    EXPECT_EQ(last["module"], "mlp.down_proj");
    EXPECT_EQ(last["alpha"], 0);
    EXPECT_EQ(last["damp_used"], 0.01);
    EXPECT_EQ(last["reconstruction"], 1.5);
    EXPECT_EQ(last["shift_norm"], 0.0625);
    const auto& totals = report["totals"];
    EXPECT_EQ(totals["self_attn.q_proj"]["modules"], 2);
    EXPECT_EQ(totals["self_attn.q_proj"]["bias_before"], 40.5);
    EXPECT_EQ(totals["self_attn.q_proj"]["bias_after"], 6.25);
    EXPECT_EQ(totals["mlp.down_proj"]["bias_before"], 20.25);
    EXPECT_EQ(totals["mlp.down_proj"]["seconds"], 1.0);
}

TEST(Inspect, TextSaysTheSameWithinAHundredColumns) {
    const ScratchFolder folder;
    const std::string text = inspect_text(inspect_json(sample_run(folder)));
    for (const char* part :
         {"2 of 3 layers finished (go on with quantize --resume)", "quantization.solver          joint",
          "model.files                  2 files", "1 self_attn.q_proj", "15.4%"})
        EXPECT_NE(text.find(part), std::string::npos) << part << " is not in\n" << text;
    std::istringstream lines(text);
    bool without_pairs = false;
    for (std::string line; std::getline(lines, line);) {
        EXPECT_TRUE(line.size() <= 100 || line.starts_with("/")) << line;
        if (line.starts_with("  1 mlp.down_proj")) without_pairs = line.find(" - ") != std::string::npos;
    }
    EXPECT_TRUE(without_pairs) << "a share of no bias at all is shown in\n" << text;
}

TEST(Inspect, TextShowsGridsWhereThereAreSeveral) {
    const ScratchFolder folder;
    const ScratchFolder plain;
    EXPECT_EQ(inspect_text(inspect_json(sample_run(plain))).find("4/32"), std::string::npos);
    const RunDirectory run = sample_run(folder, {{"module_map", {{"*", {{"bits", 8}}}}}});
    LayerRecord record{1, run.fingerprint(), {sample_module("self_attn.q_proj", {.symmetric = false}, 1)}};
    for (const int expert : {0, 1, 2})
        record.modules.push_back(sample_module(fmt::format("mlp.experts.{}.up_proj", expert),
                                               {.group_size = 64, .bits = expert == 1 ? 8 : 3}, 3));
    write_layer(run.layer_path(1), record);
    const std::string text = inspect_text(inspect_json(run));
    for (const char* part : {"0 self_attn.q_proj              4/32 ", "1 self_attn.q_proj             4/32a ",
                             "1 mlp.experts.*.up_proj  3/row 8/row ", "grid: bits and columns of a group"})
        EXPECT_NE(text.find(part), std::string::npos) << part << " is not in\n" << text;
}

TEST(Inspect, ARunThatHasJustBegunShowsItsSettings) {
    const ScratchFolder folder;
    const RunDirectory run = RunDirectory::create(folder / "run", {{"layers", 3}, {"solver", "joint"}});
    const std::string text = inspect_text(inspect_json(run));
    EXPECT_NE(text.find("0 of 3 layers"), std::string::npos) << text;
    EXPECT_EQ(text.find("self_attn"), std::string::npos) << text;
}

}  // namespace
}  // namespace fairgptq
