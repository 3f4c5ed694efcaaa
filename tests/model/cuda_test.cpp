// Every form of model on a GPU against plain loops, in every type of activations.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/model_runner.hpp"
#include "model/tiny_models.hpp"

namespace fairgptq {
namespace {

using testing::TinyModel;

/// Logits of every token, one after another, of activations of any type.
std::vector<float> logits_of(const ForwardModel& model, const ChunkTokens& chunk) {
    Backend& backend = model.backend;
    std::vector<std::int32_t> columns(static_cast<std::size_t>(model.family.config.vocab_size));
    std::iota(columns.begin(), columns.end(), 0);
    std::vector<float> logits;
    run_model(model, std::span(&chunk, 1), [&](const FinishedChunk& finished) {
        visit_logits(backend, finished, [&](std::int64_t, TensorView rows) {
            const Buffer converted = backend.allocate(static_cast<std::size_t>(rows.rows * rows.cols) * sizeof(float));
            const MatrixView<float> view = converted.matrix<float>(rows.rows, rows.cols);
            backend.gather_columns(rows, columns, {}, view);
            const std::vector<float> values = testing::to_host(backend, TensorView(view));
            logits.insert(logits.end(), values.begin(), values.end());
        });
    });
    return logits;
}

/// Of the largest logit. In sixteen bits a layer rounds its weights and a dozen results, each by up to half a unit: as
/// many errors of random signs, which the products keep in proportion, and an error of one logit in a hundred is four
/// times the usual one. In float32 it is as on the CPU (forward_test.cpp).
double tolerance(const Family& family, DType type) {
    const auto layers = static_cast<double>(family.config.layers);
    const auto wide = static_cast<double>(Decoder::widest_input(family));
    if (type == DType::float32) return (4 * layers + 1) * wide * std::sqrt(wide) * 0x1p-24;
    return 4 * std::sqrt(2 * 12 * layers + 2) * (type == DType::float16 ? 0x1p-12 : 0x1p-9);
}

class CudaForward : public ::testing::TestWithParam<testing::TinyModelCase> {};

TEST_P(CudaForward, AgreesWithPlainLoopsInEveryType) {
    const TinyModel model(GetParam());
    const Checkpoint checkpoint(model.path());
    const ChunkTokens chunk{model.random_tokens(33, 1), {0, 1, 6, 8, 24, 32, 33}};
    std::vector<double> expected;
    for (std::size_t s = 0; s + 1 < chunk.offsets.size(); ++s)
        for (const reference::Row& row :
             model.reference()
                 .run(std::span(chunk.ids).subspan(static_cast<std::size_t>(chunk.offsets[s]),
                                                   static_cast<std::size_t>(chunk.offsets[s + 1] - chunk.offsets[s])))
                 .logits)
            expected.insert(expected.end(), row.begin(), row.end());
    double largest = 0;
    for (const double value : expected)
        largest = std::max(largest, std::abs(value));
    for (const DType type : {DType::float32, DType::float16, DType::bfloat16}) {
        SCOPED_TRACE(name_of(type));
        std::unique_ptr<Backend> backend;
        try {
            backend = make_backend("cuda", 0, type);
        } catch (const InvalidInput& error) {
            GTEST_SKIP() << "not tested on a GPU: " << error.what();
        }
        const std::vector<float> found = logits_of({*backend, model.family(), checkpoint, {}}, chunk);
        ASSERT_EQ(found.size(), expected.size());
        std::vector<double> errors(33, 0);  // the largest of each token
        for (std::size_t i = 0; i < found.size(); ++i) {
            ASSERT_TRUE(std::isfinite(found[i])) << i;
            double& error = errors[i / (found.size() / errors.size())];
            error = std::max(error, std::abs(static_cast<double>(found[i]) - expected[i]));
        }
        // In sixteen bits a token that two experts are nearly as good for may go to the other one.
        const int astray = model.family().is_mixture() && type != DType::float32 ? 6 : 0;
        EXPECT_LE(std::ranges::count_if(
                      errors, [&](double error) { return error > tolerance(model.family(), type) * largest; }),
                  astray);
    }
}

INSTANTIATE_TEST_SUITE_P(Families, CudaForward, ::testing::ValuesIn(testing::tiny_model_cases()),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace fairgptq
