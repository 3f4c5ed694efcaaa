// Expressions of config.json, used as vLLM, transformers and GPTQModel use them: from a name's start, on the names that
// each of them has.
#include "export/schemes.hpp"

#include <gtest/gtest.h>

#include <regex>

#include "model/plain_config.hpp"

namespace fairgptq {
namespace {

Family plain(std::int64_t layers) {
    return describe_family(testing::plain_config(layers));
}
Family mixture(std::int64_t layers) {
    return describe_family(testing::mixture_config(layers));
}

Schemes schemes_of(const Family& family, const ModuleSettings& settings, std::int64_t layers = -1) {
    return find_schemes(ModuleGrids({}, settings, family), family, layers < 0 ? family.config.layers : layers);
}

bool matches(const std::vector<std::string>& expressions, const std::string& name) {
    return std::ranges::any_of(expressions, [&](const std::string& expression) {
        return std::regex_search(name, std::regex(expression), std::regex_constants::match_continuous);
    });
}

/// Which scheme a program finds for a name: −1 none, 0 the common one, then the others.
int found(const Schemes& schemes, const std::string& name) {
    if (matches(schemes.ignored, name)) return -1;
    int answer = 0;
    for (std::size_t i = 0; i < schemes.others.size(); ++i)
        if (matches(schemes.others[i].second, name)) {
            EXPECT_EQ(answer, 0) << name << " is matched twice";
            answer = static_cast<int>(i) + 1;
        }
    return answer;
}

TEST(Schemes, OfOneGridHaveNoExpressions) {
    for (const Family& family : {plain(3), mixture(3)}) {
        const Schemes schemes = schemes_of(family, {});
        EXPECT_TRUE(schemes.others.empty() && schemes.ignored.empty());
        EXPECT_TRUE(schemes.fused_alike && schemes.experts_alike && schemes.experts_everywhere);
        EXPECT_EQ(schemes.all().size(), 1U);
    }
}

TEST(Schemes, EveryLinearIsFoundUnderItsNameAndTheNameOfWhatItIsComputedIn) {
    const Family family = plain(12);
    const ModuleSettings settings{{"*.layers.1.self_attn.[qkv]_proj", "*.layers.1[01].mlp.*"},
                                  {{"*.layers.2.mlp.gate_proj", {.bits = 8}},
                                   {"*.layers.2.mlp.up_proj", {.bits = 8}},
                                   {"*.o_proj", {.group_size = 32}},
                                   {"*.layers.3.*", {.bits = 8}}}};
    const ModuleGrids grids({}, settings, family);
    const Schemes schemes = find_schemes(grids, family, 12);
    EXPECT_TRUE(schemes.fused_alike);
    ASSERT_EQ(schemes.others.size(), 2U);
    EXPECT_EQ(schemes.common, Scheme());
    for (std::int64_t layer = 0; layer < 12; ++layer)
        for (const StageSpec& stage : family.stages_of(layer))
            for (const LinearSpec& linear : stage.linears) {
                const std::string name = family.layer(layer) + linear.name;
                const int scheme = found(schemes, name);
                const std::optional<Grid> grid = grids(layer, linear.name);
                ASSERT_EQ(scheme >= 0, grid.has_value()) << name;
                if (grid) {
                    EXPECT_EQ(schemes.all()[static_cast<std::size_t>(scheme)],
                              (Scheme{grid->bits, grid->group_size, grid->symmetric}))
                        << name;
                }
            }
    EXPECT_EQ(found(schemes, "model.layers.1.self_attn.qkv_proj"), -1);
    EXPECT_EQ(found(schemes, "model.layers.11.self_attn.qkv_proj"), 0);
    EXPECT_EQ(found(schemes, "model.layers.10.mlp.gate_up_proj"), -1);
    EXPECT_EQ(found(schemes, "model.layers.2.mlp.gate_up_proj"), found(schemes, "model.layers.3.mlp.down_proj"));
    EXPECT_EQ(found(schemes, "model.layers.3.self_attn.qkv_proj"), found(schemes, "model.layers.3.mlp.up_proj"));
    EXPECT_EQ(found(schemes, "model.layers.4.mlp.gate_up_proj"), 0);
}

TEST(Schemes, PartsThatDifferAreSaidSo) {
    const Family family = plain(3);
    const Schemes ignored = schemes_of(family, {{"*.layers.1.self_attn.q_proj"}, {}});
    EXPECT_FALSE(ignored.fused_alike);
    EXPECT_EQ(found(ignored, "model.layers.1.self_attn.q_proj"), -1);
    EXPECT_EQ(found(ignored, "model.layers.1.self_attn.k_proj"), 0);
    EXPECT_EQ(found(ignored, "model.layers.0.self_attn.q_proj"), 0);
    // The others' expression is of all layers but that one.
    const Schemes mixed =
        schemes_of(family, {{"*.layers.1.self_attn.q_proj"}, {{"*.self_attn.[qkv]_proj", {.bits = 8}}}});
    EXPECT_EQ(found(mixed, "model.layers.1.self_attn.q_proj"), -1);
    EXPECT_EQ(found(mixed, "model.layers.1.self_attn.v_proj"), 1);
    EXPECT_EQ(found(mixed, "model.layers.2.self_attn.qkv_proj"), 1);
    EXPECT_FALSE(mixed.fused_alike);
}

TEST(Schemes, ExpertsOfALayerAreOne) {
    const Family family = mixture(4);
    const Schemes first = schemes_of(family, {{"*.layers.0.*", "*.layers.2.mlp.experts.*"}, {}});
    EXPECT_TRUE(first.experts_alike);
    EXPECT_FALSE(first.experts_everywhere);
    for (const char* name :
         {"model.layers.2.mlp.experts", "model.layers.2.mlp.experts.0.gate_proj",
          "model.layers.2.mlp.experts.2.down_proj", "model.layers.0.mlp.down_proj", "model.layers.0.mlp.gate_up_proj"})
        EXPECT_EQ(found(first, name), -1) << name;
    for (const char* name : {"model.layers.1.mlp.experts", "model.layers.1.mlp.experts.0.gate_proj",
                             "model.layers.2.mlp.shared_experts.gate_up_proj", "model.layers.3.mlp.experts"})
        EXPECT_EQ(found(first, name), 0) << name;

    const Schemes everywhere = schemes_of(family, {{}, {{"*.experts.*", {.bits = 8}}}});
    EXPECT_TRUE(everywhere.experts_alike && everywhere.experts_everywhere);
    EXPECT_EQ(found(everywhere, "model.layers.3.mlp.experts"), 1);
    EXPECT_EQ(found(everywhere, "model.layers.3.mlp.shared_experts.down_proj"), 0);
    EXPECT_FALSE(schemes_of(family, {{}, {}}, 3).experts_everywhere) << "a trial leaves some as they are";

    for (const ModuleSettings& settings :
         {ModuleSettings{{"mlp.experts.1.up_proj"}, {}}, ModuleSettings{{}, {{"*.experts.2.*", {.bits = 8}}}},
          ModuleSettings{{}, {{"*.experts.*.down_proj", {.group_size = 64}}}}})
        EXPECT_FALSE(schemes_of(family, settings).experts_alike);
}

// transformers takes the scheme of an expression with "experts" in it for that of all routed experts.
TEST(Schemes, ASharedExpertIsNotTakenForTheOthers) {
    const Schemes schemes = schemes_of(mixture(4), {{}, {{"*.shared_experts.*", {.bits = 8}}}});
    ASSERT_EQ(schemes.others.size(), 1U);
    EXPECT_EQ(found(schemes, "model.layers.3.mlp.shared_experts.gate_up_proj"), 1);
    EXPECT_EQ(found(schemes, "model.layers.3.mlp.shared_experts.down_proj"), 1);
    EXPECT_EQ(found(schemes, "model.layers.3.mlp.experts.0.down_proj"), 0);
    for (const std::string& expression : schemes.others[0].second)
        EXPECT_EQ(expression.find("experts"), std::string::npos) << expression;
    EXPECT_TRUE(schemes.experts_everywhere);
}

TEST(Schemes, TheCommonOneIsOneThatIsUsed) {
    const Schemes schemes = schemes_of(plain(3), {{"down_proj"}, {{"*", {.bits = 8}}}});
    EXPECT_EQ(schemes.common.bits, 8);
    EXPECT_TRUE(schemes.others.empty());
    EXPECT_EQ(found(schemes, "model.layers.0.mlp.down_proj"), -1);
}

TEST(Schemes, AsymmetricExpertsAreSaidSo) {
    EXPECT_FALSE(schemes_of(mixture(3), {{}, {{"*.layers.1.mlp.experts.*", {.symmetric = false}}}}).experts_symmetric);
    EXPECT_TRUE(schemes_of(mixture(3), {{}, {{"*.layers.0.*", {.symmetric = false}}}}).experts_symmetric);
}

}  // namespace
}  // namespace fairgptq
