#include "backend/attention.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "backends.hpp"
#include "reference/attention.hpp"
#include "threads.hpp"

namespace fairgptq::testing {
namespace {

struct Inputs {
    HostMatrix query, key, value;
};

class AttentionTest : public BackendTest {
  protected:
    /// Elements between the rows of all tensors. Tensor cores need rows at multiples of 16 bytes.
    std::int64_t gap = 8;

    Inputs random_inputs(std::int64_t tokens, const AttentionShape& shape, float deviation = 1) const {
        return {rounded(random_matrix(tokens, shape.heads * shape.head_dim, 1, deviation)),
                rounded(random_matrix(tokens, shape.key_value_heads * shape.head_dim, 2, deviation)),
                rounded(random_matrix(tokens, shape.value_cols(), 3))};
    }
    HostMatrix attention(const Inputs& inputs, const std::vector<std::int64_t>& offsets,
                         const AttentionShape& shape) const {
        const DeviceMatrix query = upload(inputs.query, type, gap);
        const DeviceMatrix key = upload(inputs.key, type, gap);
        const DeviceMatrix value = upload(inputs.value, type, gap);
        const DeviceMatrix output = device_matrix(inputs.query.rows, shape.heads * shape.value_size(), type, gap);
        backend->attention(query.view, key.view, value.view, offsets, shape, output.view);
        return download(output.view);
    }
    HostMatrix cached(const Inputs& inputs, const std::vector<CachedSequence>& sequences, std::int64_t rows,
                      const AttentionShape& shape) const {
        const DeviceMatrix query = upload(inputs.query, type, gap);
        const DeviceMatrix key = upload(inputs.key, type, gap);
        const DeviceMatrix value = upload(inputs.value, type, gap);
        const DeviceMatrix output = device_matrix(rows, shape.heads * shape.value_size(), type, gap);
        backend->cached_attention(query.view, key.view, value.view, sequences, shape, output.view);
        return download(output.view);
    }
    /// The rows of prefix and sequence, end to end.
    static HostMatrix written_out(const HostMatrix& matrix, const CachedSequence& sequence) {
        HostMatrix result(sequence.prefix.size() + sequence.own.size(), matrix.cols);
        for (std::int64_t row = 0; row < result.rows; ++row)
            for (std::int64_t col = 0; col < matrix.cols; ++col)
                result(row, col) =
                    matrix(row < sequence.prefix.size() ? sequence.prefix.begin + row
                                                        : sequence.own.begin + row - sequence.prefix.size(),
                           col);
        return result;
    }
    void expect_shared_prefix(std::int64_t shared, const std::vector<std::int64_t>& lengths,
                              const AttentionShape& shape) const;
    void expect_reference(const Inputs& inputs, const std::vector<std::int64_t>& offsets, const AttentionShape& shape) {
        SCOPED_TRACE(::testing::Message()
                     << offsets.back() << " tokens, " << shape.heads << "/" << shape.key_value_heads << " heads of "
                     << shape.head_dim << " (values " << shape.value_dim << ", " << shape.values_apart
                     << " apart), window " << shape.window);
        const reference::Matrix expected =
            reference::attention(inputs.query.view(), inputs.key.view(), inputs.value.view(), offsets, shape);
        // A score, a float32 sum of head_dim products, is off by (head_dim + 2)·u·scale·Σ|q·k|, and exp turns that into
        // a relative error of a weight, of the numerator and the denominator alike; their sums over the keys add (keys
        // + 10)·u each, where 10 covers exp itself (below 8u) and the division. The result is rounded to its type, and
        // on a GPU's tensor cores the weights before it.
        double query_norm = 0;
        double key_norm = 0;
        double largest_value = 0;
        for (std::int64_t row = 0; row < inputs.query.rows; ++row) {
            for (std::int64_t head = 0; head < shape.heads; ++head)
                query_norm = std::max(query_norm, norm(inputs.query, row, head, shape));
            for (std::int64_t head = 0; head < shape.key_value_heads; ++head)
                key_norm = std::max(key_norm, norm(inputs.key, row, head, shape));
        }
        for (const float v : inputs.value.values)
            largest_value = std::max(largest_value, std::fabs(static_cast<double>(v)));
        const double score_error = static_cast<double>(shape.head_dim + 2) *
                                       std::fabs(static_cast<double>(shape.scale)) * query_norm * key_norm +
                                   16 * static_cast<double>(shape.cap);  // 10⁻⁶ of it
        const double bound =
            2 * (score_error + static_cast<double>(inputs.query.rows) + 10) * float32_roundoff * largest_value +
            (backend->host_accessible() ? 1 : 2) * unit_roundoff(type) * largest_value;
        for (const std::int64_t rows_apart : {8, 3}) {
            gap = rows_apart;
            SCOPED_TRACE(::testing::Message() << gap << " elements between rows");
            expect_near(attention(inputs, offsets, shape), expected, [&](std::int64_t, std::int64_t) { return bound; });
        }
    }

  private:
    static double norm(const HostMatrix& matrix, std::int64_t row, std::int64_t head, const AttentionShape& shape) {
        double squares = 0;
        for (std::int64_t i = 0; i < shape.head_dim; ++i)
            squares += std::pow(static_cast<double>(matrix(row, head * shape.head_dim + i)), 2);
        return std::sqrt(squares);
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(AttentionTest);

AttentionShape shape_of(std::int64_t heads, std::int64_t key_value_heads, std::int64_t head_dim,
                        std::int64_t window = 0) {
    return {heads, key_value_heads, head_dim, 1.0F / std::sqrt(static_cast<float>(head_dim)), window};
}

TEST_P(AttentionTest, RaggedSequences) {
    for (const std::vector<std::int64_t>& offsets :
         {std::vector<std::int64_t>{0}, {0, 1}, {0, 0, 2, 2}, {0, 11, 23, 24, 40}, {0, 63, 127, 192}})
        for (const AttentionShape& shape :
             {shape_of(1, 1, 16), shape_of(9, 3, 64), shape_of(4, 4, 20), shape_of(10, 2, 32)})
            expect_reference(random_inputs(offsets.back(), shape), offsets, shape);
}

TEST_P(AttentionTest, LongSequencesCrossBlocks) {
    // Blocks are of 64 queries and 128 keys, and the other way round on tensor cores; warps have 16 or 32 queries.
    for (const std::int64_t tokens : {15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193, 257, 300}) {
        const AttentionShape shape = shape_of(2, 1, 16);
        expect_reference(random_inputs(tokens, shape), {0, tokens}, shape);
    }
}

TEST_P(AttentionTest, SlidingWindow) {
    for (const std::int64_t window : {1, 2, 63, 64, 65, 100, 128, 129, 300, 400}) {
        const AttentionShape shape = shape_of(2, 2, 16, window);
        expect_reference(random_inputs(310, shape), {0, 300, 310}, shape);
    }
}

TEST_P(AttentionTest, WidthsOfHeads) {
    for (const std::int64_t width :
         {1, 7, 8, 24, 63, 64, 65, 72, 80, 96, 104, 120, 128, 136, 184, 192, 200, 250, 256, 264, 512})
        expect_reference(random_inputs(70, shape_of(2, 1, width)), {0, 3, 70}, shape_of(2, 1, width));
}

TEST_P(AttentionTest, WideHeadsOfLongSequences) {
    for (const std::int64_t width : {96, 128, 192, 256})
        expect_reference(random_inputs(200, shape_of(3, 1, width)), {0, 200}, shape_of(3, 1, width));
}

AttentionShape with_values(AttentionShape shape, std::int64_t value_dim, std::int64_t values_apart = 0) {
    shape.value_dim = value_dim;
    shape.values_apart = values_apart;
    return shape;
}

TEST_P(AttentionTest, ValuesMayBeNarrowerThanKeysAndHaveGaps) {
    for (const auto& [width, value_dim, values_apart] : std::vector<std::array<std::int64_t, 3>>{{24, 16, 0},
                                                                                                 {24, 16, 32},
                                                                                                 {192, 128, 256},
                                                                                                 {192, 128, 0},
                                                                                                 {64, 64, 72},
                                                                                                 {128, 8, 24},
                                                                                                 {12, 5, 7},
                                                                                                 {256, 256, 448},
                                                                                                 {264, 136, 300},
                                                                                                 {64, 60, 64}}) {
        expect_reference(random_inputs(70, with_values(shape_of(4, 2, width), value_dim, values_apart)), {0, 3, 70},
                         with_values(shape_of(4, 2, width), value_dim, values_apart));
        expect_shared_prefix(17, {1, 5, 40}, with_values(shape_of(2, 2, width, 20), value_dim, values_apart));
    }
    const AttentionShape latent = with_values(shape_of(2, 2, 192), 128, 256);
    expect_reference(random_inputs(200, latent), {0, 200}, latent);
}

TEST_P(AttentionTest, AScaleMayBeAnything) {
    for (const float scale : {0.0F, -0.3F, 2.0F}) {
        AttentionShape shape = shape_of(2, 1, 16);
        shape.scale = scale;
        const Inputs inputs = random_inputs(100, shape);
        expect_reference(inputs, {0, 100}, shape);
    }
}

TEST_P(AttentionTest, CappedScores) {
    const auto check = [&](float cap, AttentionShape shape, float deviation, std::int64_t tokens) {
        shape.cap = cap;
        expect_reference(random_inputs(tokens, shape, deviation), {0, 7, tokens}, shape);
    };
    for (const std::int64_t width : {16, 100, 128, 136, 256, 264})
        check(1.5F, shape_of(2, 1, width, 40), 2, 70);
    check(50, shape_of(2, 1, 64), 2, 130);
    check(50, shape_of(2, 1, 64), 100, 70);  // far above the cap
    AttentionShape negative = shape_of(2, 1, 64);
    negative.scale = -0.3F;
    check(2, negative, 1, 70);
}

TEST_P(AttentionTest, LargeScoresNeitherOverflowNorVanish) {
    const AttentionShape shape = shape_of(2, 1, 16);
    expect_reference(random_inputs(200, shape, 20.0F), {0, 200}, shape);
}

TEST_P(AttentionTest, SequencesDoNotSeeEachOther) {
    const AttentionShape shape = shape_of(3, 3, 32);
    Inputs inputs = random_inputs(30, shape);
    const HostMatrix before = attention(inputs, {0, 10, 30}, shape);
    for (std::int64_t col = 0; col < inputs.key.cols; ++col)
        inputs.key(3, col) = inputs.value(3, col) = 5;
    const HostMatrix after = attention(inputs, {0, 10, 30}, shape);
    for (std::int64_t row = 0; row < 30; ++row) {
        bool same = true;
        for (std::int64_t col = 0; col < before.cols; ++col)
            same = same && before(row, col) == after(row, col);
        EXPECT_EQ(same, row < 3 || row >= 10) << "token " << row;
    }
}

/// A prefix of `shared` tokens and sequences that begin with it, by cached attention; every row against plain loops
/// over the sequences written out.
void AttentionTest::expect_shared_prefix(std::int64_t shared, const std::vector<std::int64_t>& lengths,
                                         const AttentionShape& shape) const {
    SCOPED_TRACE(::testing::Message() << shared << " shared tokens, window " << shape.window);
    std::vector<CachedSequence> sequences{{{0, shared}, {}, {0, shared}}};
    std::int64_t rows = shared;
    for (const std::int64_t length : lengths) {
        sequences.push_back({{rows, rows + length}, {0, shared}, {rows, rows + length}});
        rows += length;
    }
    const Inputs inputs = random_inputs(rows, shape);
    const HostMatrix found = cached(inputs, sequences, rows, shape);
    for (const CachedSequence& sequence : sequences) {
        const Inputs alone{written_out(inputs.query, sequence), written_out(inputs.key, sequence),
                           written_out(inputs.value, sequence)};
        const std::int64_t total = alone.query.rows;
        const HostMatrix expected = attention(alone, {0, total}, shape);
        // Both are within the bound of plain loops; on the CPU they differ in where blocks of keys end.
        const double bound =
            backend->host_accessible() ? 4 * (static_cast<double>(total) + 30) * unit_roundoff(type) : 0;
        for (std::int64_t row = 0; row < sequence.queries.size(); ++row)
            for (std::int64_t col = 0; col < found.cols; ++col)
                ASSERT_NEAR(found(sequence.queries.begin + row, col),
                            expected(total - sequence.queries.size() + row, col), bound * 5);
    }
}

TEST_P(AttentionTest, SequencesMayShareAPrefix) {
    // An emulated GPU takes its time for the wide ones: fewer cases there.
    for (const std::int64_t shared : {1, 17, 127, 128, 129, 300})
        expect_shared_prefix(shared, {1, 5, 64, 0, 65, 130}, shape_of(2, 2, 16));
    if (backend->host_accessible())
        for (const std::int64_t shared : {1, 17, 127, 128, 129, 300})
            expect_shared_prefix(shared, {1, 5, 64, 0, 65, 130}, shape_of(9, 3, 64));
    else
        expect_shared_prefix(17, {1, 5, 0, 20}, shape_of(6, 3, 64));
}

TEST_P(AttentionTest, WindowsReachIntoASharedPrefix) {
    for (const std::int64_t window : {1, 2, 3, 20, 100, 128, 200, 500})
        expect_shared_prefix(140, {1, 3, 30, 150}, shape_of(2, 1, 16, window));
}

TEST_P(AttentionTest, QueriesMayBeTheLastTokensOfTheirKeys) {
    // A cache of two sequences with room for 200 positions each, of which 150 and 3 are there; 1 and 2 queries.
    for (const std::int64_t window : {0, 40}) {
        const AttentionShape shape = shape_of(4, 2, 16, window);
        Inputs inputs = random_inputs(400, shape);
        const std::vector<CachedSequence> sequences{{{0, 1}, {}, {0, 150}}, {{1, 3}, {}, {200, 203}}};
        const HostMatrix all_queries = inputs.query;
        inputs.query = HostMatrix(3, inputs.query.cols);
        for (std::int64_t col = 0; col < inputs.query.cols; ++col) {
            inputs.query(0, col) = all_queries(149, col);
            inputs.query(1, col) = all_queries(201, col);
            inputs.query(2, col) = all_queries(202, col);
        }
        const HostMatrix found = cached(inputs, sequences, 3, shape);
        const HostMatrix whole = attention({all_queries, inputs.key, inputs.value}, {0, 200, 400}, shape);
        const double bound = 20 * 200 * unit_roundoff(type);
        for (std::int64_t col = 0; col < found.cols; ++col) {
            EXPECT_NEAR(found(0, col), whole(149, col), bound);
            EXPECT_NEAR(found(1, col), whole(201, col), bound);
            EXPECT_NEAR(found(2, col), whole(202, col), bound);
        }
    }
}

TEST_P(AttentionTest, CachedRowsThatDoNotFitAreRefused) {
    const AttentionShape shape = shape_of(2, 2, 8);
    const Inputs inputs = random_inputs(5, shape);
    const auto run = [&](const CachedSequence& sequence) { cached(inputs, {sequence}, 5, shape); };
    EXPECT_NO_THROW(run({{3, 5}, {0, 3}, {3, 5}}));
    EXPECT_THROW(run({{3, 6}, {0, 3}, {2, 5}}), Failure);
    EXPECT_THROW(run({{3, 5}, {-1, 3}, {3, 5}}), Failure);
    EXPECT_THROW(run({{3, 5}, {3, 2}, {3, 5}}), Failure);
    EXPECT_THROW(run({{3, 5}, {0, 3}, {4, 6}}), Failure);
    EXPECT_THROW(run({{2, 5}, {0, 3}, {3, 5}}), Failure);
}

TEST_P(AttentionTest, ThreadsChangeNothing) {
    const AttentionShape shape = shape_of(6, 2, 64);
    const Inputs inputs = random_inputs(400, shape);
    EXPECT_TRUE(same_for_any_threads([&] { return attention(inputs, {0, 12, 25, 330, 400}, shape).values; }));
}

TEST_P(AttentionTest, WhatDoesNotFitIsRefused) {
    const AttentionShape good = shape_of(4, 2, 8);
    const Inputs inputs = random_inputs(5, good);
    EXPECT_NO_THROW(attention(inputs, {0, 5}, good));
    EXPECT_THROW(attention(inputs, {0, 4}, good), Failure);
    EXPECT_THROW(attention(inputs, {0, 6, 5}, good), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, shape_of(4, 3, 8)), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, shape_of(4, 4, 8)), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, shape_of(4, 0, 8)), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, shape_of(4, 2, 16)), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, shape_of(4, 2, 8, -1)), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, with_values(good, 9)), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, with_values(good, -1)), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, with_values(good, 4)), Failure);  // the tensor has more
    EXPECT_THROW(attention(inputs, {0, 5}, with_values(good, 4, 3)), Failure);
    EXPECT_THROW(attention(inputs, {0, 5}, with_values(good, 0, -8)), Failure);
    for (const float cap : {-1.0F, std::numeric_limits<float>::quiet_NaN()}) {
        AttentionShape bad = good;
        bad.cap = cap;
        EXPECT_THROW(attention(inputs, {0, 5}, bad), Failure) << cap;
    }
}

}  // namespace
}  // namespace fairgptq::testing
