// Softmax runs along with the products, block of keys after block (online softmax, arXiv 2205.14135), so the scores of
// a long sequence are never held. The query heads that share a key head are stacked, which makes each of the two
// products of a block one BLAS call with enough rows to be worth it, even for sequences of a dozen tokens.
#include "backend/attention.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/blas.hpp"
#include "backend/cpu/fast_exp.hpp"

namespace fairgptq {

namespace {

constexpr std::int64_t block_queries = 64;  // tokens
constexpr std::int64_t block_keys = 128;    // tokens
constexpr std::int64_t block_heads = 4;     // query heads stacked at most
constexpr std::int64_t vector = 16;         // block_keys is a multiple of it
constexpr float infinity = std::numeric_limits<float>::infinity();

struct Task {
    RowRange queries;                 // rows of query and output
    std::int64_t first_position = 0;  // of the first query
    RowRange prefix, own;             // rows of key and value; `own` ends with the last query's
    RowRange heads;                   // query heads of one key head
    std::int64_t key_head = 0;
};

std::vector<Task> make_tasks(std::span<const CachedSequence> sequences, const AttentionShape& shape) {
    const std::int64_t group = shape.heads / shape.key_value_heads;
    std::vector<Task> tasks;
    for (const CachedSequence& sequence : sequences) {
        const std::int64_t before = sequence.own.size() - sequence.queries.size();  // own positions without a query
        for (std::int64_t query = 0; query < sequence.queries.size(); query += block_queries) {
            const std::int64_t end = std::min(query + block_queries, sequence.queries.size());
            const Task task{{sequence.queries.begin + query, sequence.queries.begin + end},
                            sequence.prefix.size() + before + query,
                            sequence.prefix,
                            {sequence.own.begin, sequence.own.begin + before + end},
                            {},
                            0};
            for (std::int64_t key_head = 0; key_head < shape.key_value_heads; ++key_head)
                for (std::int64_t head = key_head * group; head < (key_head + 1) * group; head += block_heads) {
                    tasks.push_back(task);
                    tasks.back().heads = {head, std::min(head + block_heads, (key_head + 1) * group)};
                    tasks.back().key_head = key_head;
                }
        }
    }
    return tasks;
}

/// One thread's working memory. A row is one query head of one token.
struct Scratch {
    explicit Scratch(const AttentionShape& shape)
        : query(static_cast<std::size_t>(rows * shape.head_dim)),
          sum(static_cast<std::size_t>(rows * shape.value_size())),
          scores(static_cast<std::size_t>(rows * block_keys)),
          largest(static_cast<std::size_t>(rows)),
          weight(largest.size()) {}

    static constexpr std::int64_t rows = block_queries * block_heads;
    std::vector<float> query;  // scaled
    std::vector<float> sum;    // Σ exp(score − largest) · value
    std::vector<float> scores;
    std::vector<float> largest;  // score so far
    std::vector<float> weight;   // Σ exp(score − largest)
};

/// Turns the scores of one row into exp(score − largest), with 0 outside the keys it sees, and brings what was summed
/// before to the same largest score. `width` counts the padding behind the row's keys, too: whole vectors only.
void soften(float* scores, std::int64_t width, RowRange visible, float& largest, float& weight,
            MatrixView<float> sum_row) {
    if (visible.begin >= visible.end) {
        std::fill_n(scores, width, 0.0F);
        return;
    }
    std::fill(scores, scores + visible.begin, -infinity);
    std::fill(scores + visible.end, scores + width, -infinity);
    float block_largest = largest;
#pragma omp simd reduction(max : block_largest)
    for (std::int64_t key = 0; key < width; ++key)
        block_largest = scores[key] > block_largest ? scores[key] : block_largest;
    float block_weight = 0;
#pragma omp simd reduction(+ : block_weight)
    for (std::int64_t key = 0; key < width; ++key) {
        scores[key] = fast_exp(scores[key] - block_largest);
        block_weight += scores[key];
    }
    const float correction = fast_exp(largest - block_largest);
    weight = weight * correction + block_weight;
    largest = block_largest;
    float* sums = sum_row.row(0);
#pragma omp simd
    for (std::int64_t i = 0; i < sum_row.cols; ++i)
        sums[i] *= correction;
}

struct Tensors {
    MatrixView<const float> query, key, value;
    MatrixView<float> output;
};

void attend(const Task& task, const AttentionShape& shape, const Tensors& tensors, Scratch& scratch) {
    const std::int64_t dim = shape.head_dim;
    const std::int64_t value_dim = shape.value_size();
    const std::int64_t tokens = task.queries.size();
    const std::int64_t rows = tokens * task.heads.size();
    const auto first_key = [&](std::int64_t position) {
        return shape.window == 0 ? 0 : std::max<std::int64_t>(0, position - shape.window + 1);
    };
    const MatrixView<float> query(scratch.query.data(), rows, dim);
    const MatrixView<float> sum(scratch.sum.data(), rows, value_dim);
    for (std::int64_t row = 0; row < rows; ++row) {
        const float* from =
            tensors.query.row(task.queries.begin + row % tokens) + (task.heads.begin + row / tokens) * dim;
        float* to = query.row(row);
#pragma omp simd
        for (std::int64_t i = 0; i < dim; ++i)
            to[i] = from[i] * shape.scale;
    }
    std::fill_n(scratch.sum.data(), rows * value_dim, 0.0F);
    std::fill_n(scratch.largest.data(), rows, -infinity);
    std::fill_n(scratch.weight.data(), rows, 0.0F);

    /// Positions from the first that any query sees, `position` being that of the range's first row.
    const auto see = [&](RowRange range, std::int64_t position) {
        const std::int64_t skipped =
            std::clamp<std::int64_t>(first_key(task.first_position) - position, 0, range.size());
        for (std::int64_t key = range.begin + skipped; key < range.end; key += block_keys) {
            const std::int64_t keys = std::min(block_keys, range.end - key);
            const std::int64_t key_position = position + key - range.begin;
            const std::int64_t width = (keys + vector - 1) / vector * vector;
            const MatrixView<float> scores(scratch.scores.data(), rows, keys, width);
            blas::gemm(blas::Transpose::no, blas::Transpose::yes, 1.0F, query,
                       tensors.key.block(key, task.key_head * dim, keys, dim), 0.0F, scores);
            for (std::int64_t row = 0; row < rows; ++row) {
                const std::int64_t at = task.first_position + row % tokens;
                const RowRange visible{std::max<std::int64_t>(first_key(at) - key_position, 0),
                                       std::min(at + 1 - key_position, keys)};
                const auto index = static_cast<std::size_t>(row);
                if (shape.cap > 0) cap_softly(scores.row(row), width, shape.cap);
                soften(scores.row(row), width, visible, scratch.largest[index], scratch.weight[index],
                       sum.rows_from(row, 1));
            }
            blas::gemm(blas::Transpose::no, blas::Transpose::no, 1.0F, scores,
                       tensors.value.block(key, task.key_head * shape.value_step(), keys, value_dim), 1.0F, sum);
        }
    };
    see(task.prefix, 0);
    see(task.own, task.prefix.size());

    for (std::int64_t row = 0; row < rows; ++row) {
        const float factor = 1.0F / scratch.weight[static_cast<std::size_t>(row)];
        const float* from = sum.row(row);
        float* to =
            tensors.output.row(task.queries.begin + row % tokens) + (task.heads.begin + row / tokens) * value_dim;
#pragma omp simd
        for (std::int64_t i = 0; i < value_dim; ++i)
            to[i] = from[i] * factor;
    }
}

}  // namespace

void CpuBackend::cached_attention(TensorView query, TensorView key, TensorView value,
                                  std::span<const CachedSequence> sequences, const AttentionShape& shape,
                                  TensorView output) {
    check_attention(query, key, value, sequences, shape, output);
    const Tensors tensors{query.float32(), key.float32(), value.float32(), output.float32()};
    const auto tasks = make_tasks(sequences, shape);
#pragma omp parallel
    {
        Scratch scratch(shape);
#pragma omp for schedule(dynamic)
        for (std::size_t task = 0; task < tasks.size(); ++task)
            attend(tasks[task], shape, tensors, scratch);
    }
}

}  // namespace fairgptq
