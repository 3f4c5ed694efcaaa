#include "backend/delta_rule.hpp"

#include "backends.hpp"
#include "reference/delta_rule.hpp"
#include "threads.hpp"

namespace fairgptq::testing {
namespace {

class DeltaRuleTest : public BackendTest {
  protected:
    struct Inputs {
        HostMatrix mixed, gates;
        std::vector<float> decay, step;
    };
    Inputs random_inputs(std::int64_t rows, const DeltaShape& shape) const {
        return {rounded(random_matrix(rows, shape.mixed_cols(), 1)),
                random_matrix(rows, 2 * shape.value_heads, 2, 2.0F), random_matrix(1, shape.value_heads, 3).values,
                random_matrix(1, shape.value_heads, 4).values};
    }
    struct Result {
        HostMatrix output;
        std::vector<float> states;
    };
    /// @param states empty: none
    Result run(const Inputs& inputs, const std::vector<DeltaSequence>& sequences, const DeltaShape& shape,
               const std::vector<float>& states = {}, std::int64_t gap = 8) const {
        const DeviceMatrix mixed = upload(inputs.mixed, type, gap);
        const DeviceMatrix gates = upload(inputs.gates, DType::float32, gap);
        const DeviceMatrix output = device_matrix(inputs.mixed.rows, shape.value_cols(), type, gap);
        const Buffer decay = upload_vector(inputs.decay), step = upload_vector(inputs.step);
        const Buffer kept = upload_vector(states);
        backend->delta_rule(mixed.view, gates.view.float32(), decay.as<float>(), step.as<float>(), sequences, shape,
                            states.empty() ? nullptr : kept.as<float>(), output.view);
        EXPECT_EQ(download(mixed.view).values, inputs.mixed.values) << "inputs are only read";
        return {download(output.view), download_vector<float>(kept)};
    }
    void expect_reference(std::int64_t rows, const std::vector<DeltaSequence>& sequences, const DeltaShape& shape,
                          bool with_states) {
        SCOPED_TRACE(::testing::Message() << rows << " rows, " << shape.key_heads << "/" << shape.value_heads
                                          << " heads of " << shape.key_dim << "/" << shape.value_dim);
        const Inputs inputs = random_inputs(rows, shape);
        std::vector<float> states;
        if (with_states) states = random_matrix(std::ssize(sequences), shape.state_elements(), 5).values;
        std::vector<double> expected_states(states.begin(), states.end());
        const reference::Matrix expected = reference::delta_rule(inputs.mixed.view(), inputs.gates.view(), inputs.decay,
                                                                 inputs.step, sequences, shape, expected_states);
        // A state's element is what tokens before have left, each fading and each off by a few roundings of sums of
        // key_dim products; keys of length 1 let no error grow.
        const auto largest = [](const auto& values) {
            double most = 1;
            for (const auto value : values)
                most = std::max(most, std::fabs(static_cast<double>(value)));
            return most;
        };
        const double roundings = static_cast<double>(shape.key_dim + 16) * static_cast<double>(rows + 4);
        const double error = roundings * float32_roundoff;
        for (const std::int64_t gap : {8, 3}) {
            const Result result = run(inputs, sequences, shape, states, gap);
            expect_near(result.output, expected, [&](std::int64_t row, std::int64_t col) {
                return error * largest(expected.values) + unit_roundoff(type) * std::fabs(expected(row, col)) + 1e-7;
            });
            ASSERT_EQ(result.states.size(), expected_states.size());
            for (std::size_t i = 0; i < states.size(); ++i)
                ASSERT_NEAR(result.states[i], expected_states[i], error * largest(expected_states)) << i;
        }
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(DeltaRuleTest);

std::vector<DeltaSequence> sequences_of(const std::vector<std::int64_t>& offsets) {
    std::vector<DeltaSequence> sequences;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i)
        sequences.push_back({{}, {offsets[i], offsets[i + 1]}});
    return sequences;
}

TEST_P(DeltaRuleTest, FollowsTheDefinition) {
    for (const std::vector<std::int64_t>& offsets :
         {std::vector<std::int64_t>{0}, {0, 1}, {0, 0, 2, 2}, {0, 11, 12, 29}, {0, 15, 31, 48}})
        for (const DeltaShape& shape : {DeltaShape{1, 1, 4, 4}, {2, 4, 16, 8}, {1, 3, 8, 40}})
            for (const bool with_states : {false, true})
                expect_reference(offsets.back(), sequences_of(offsets), shape, with_states);
}

TEST_P(DeltaRuleTest, WidthsOfHeads) {
    for (const std::int64_t key_dim : {1, 7, 15, 16, 17, 31, 32, 33, 64, 96, 127, 128})
        expect_reference(19, sequences_of({0, 3, 19}), {1, 2, key_dim, 24}, true);
    for (const std::int64_t value_dim : {1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 192, 256})
        expect_reference(19, sequences_of({0, 3, 19}), {1, 2, 12, value_dim}, true);
}

TEST_P(DeltaRuleTest, LongSequences) {
    expect_reference(300, sequences_of({0, 300}), {1, 2, 16, 16}, false);
    expect_reference(130, sequences_of({0, 1, 130}), {1, 1, 128, 128}, false);
}

TEST_P(DeltaRuleTest, SequencesShareAPrefix) {
    const DeltaShape shape{2, 2, 16, 24};
    const std::vector<DeltaSequence> shared{{{}, {0, 5}}, {{0, 5}, {5, 9}}, {{0, 3}, {9, 10}}, {{5, 6}, {10, 20}}};
    expect_reference(20, shared, shape, false);
    expect_reference(20, shared, shape, true);
    // Rows of no sequence stay as they are.
    const Result result = run(random_inputs(20, shape), {{{0, 5}, {7, 9}}}, shape);
    for (const std::int64_t row : {0, 4, 5, 6, 9, 19})
        for (std::int64_t col = 0; col < shape.value_cols(); ++col)
            ASSERT_EQ(result.output(row, col), 0) << row;
}

/// One token at a time, from the state that the ones before have left, gives what the whole sequence does.
TEST_P(DeltaRuleTest, StatesGoOnWhereTheyEnded) {
    const DeltaShape shape{2, 4, 16, 40};
    const Inputs inputs = random_inputs(9, shape);
    const std::vector<float> zeros(static_cast<std::size_t>(2 * shape.state_elements()), 0);
    const Result whole = run(inputs, {{{}, {0, 4}}, {{}, {4, 9}}}, shape, zeros);
    Result part = run(inputs, {{{}, {0, 3}}, {{}, {4, 7}}}, shape, zeros);
    part = run(inputs, {{{}, {3, 4}}, {{}, {7, 9}}}, shape, part.states);
    EXPECT_EQ(part.states, whole.states);
    for (const std::int64_t row : {3, 7, 8})
        for (std::int64_t col = 0; col < shape.value_cols(); ++col)
            ASSERT_EQ(part.output(row, col), whole.output(row, col)) << row;
}

/// Gates at their ends: nothing is forgotten, all is, nothing is learned; no NaN.
TEST_P(DeltaRuleTest, GatesAtTheirEnds) {
    const DeltaShape shape{1, 2, 8, 8};
    Inputs inputs = random_inputs(4, shape);
    inputs.gates.values = {90, -90, 90, -90, -90, 90, -90, 90, 0, 0, 1e30F, -1e30F, 1e30F, -1e30F, 0, 0};
    inputs.decay = {3, -80};
    std::vector<double> none;
    const std::vector<DeltaSequence> sequence{{{}, {0, 4}}};
    const Result result = run(inputs, sequence, shape);
    for (const float value : result.output.values)
        ASSERT_TRUE(std::isfinite(value));
    // The last token of the first head learns nothing and has forgotten nothing; that before has forgotten all.
    inputs.gates.values = {90, -90, 90, -90, -90, 90, -90, 90, 0, 0, 60, -60, 60, -60, 0, 0};
    const reference::Matrix expected = reference::delta_rule(inputs.mixed.view(), inputs.gates.view(), inputs.decay,
                                                             inputs.step, sequence, shape, none);
    expect_near(run(inputs, sequence, shape).output, expected,
                [&](std::int64_t, std::int64_t) { return 1e-5 + unit_roundoff(type); });
}

TEST_P(DeltaRuleTest, TheSameBytesWithAnyNumberOfThreads) {
    const DeltaShape shape{2, 4, 32, 72};
    const Inputs inputs = random_inputs(40, shape);
    const std::vector<DeltaSequence> sequences = sequences_of({0, 7, 40});
    EXPECT_TRUE(same_for_any_threads([&] { return run(inputs, sequences, shape).output.values; }));
}

TEST_P(DeltaRuleTest, WhatDoesNotGoTogetherIsRefused) {
    const DeltaShape shape{1, 2, 8, 8};
    const Inputs inputs = random_inputs(4, shape);
    EXPECT_THROW(run(inputs, {{{}, {0, 5}}}, shape), Failure);
    EXPECT_THROW(run(inputs, {{{2, 1}, {3, 4}}}, shape), Failure);
    EXPECT_THROW(run(inputs, {{{}, {-1, 2}}}, shape), Failure);
    const std::vector<DeltaSequence> all{{{}, {0, 4}}};
    const DeviceMatrix mixed = upload(inputs.mixed), narrow = device_matrix(4, shape.mixed_cols() - 1, type);
    const DeviceMatrix gates = upload_float32(inputs.gates), output = device_matrix(4, 16, type);
    const Buffer heads = upload_vector(inputs.decay);
    const auto rule = [&](const DeviceMatrix& from, const DeltaShape& other) {
        backend->delta_rule(from.view, gates.view.float32(), heads.as<float>(), heads.as<float>(), all, other, nullptr,
                            output.view);
    };
    EXPECT_NO_THROW(rule(mixed, shape));
    EXPECT_THROW(rule(narrow, shape), Failure);
    for (const DeltaShape& wrong : {DeltaShape{0, 2, 8, 8}, {3, 2, 8, 8}, {1, 2, 0, 8}, {1, 2, 8, 0}, {1, 2, 129, 8}})
        EXPECT_THROW(rule(mixed, wrong), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
