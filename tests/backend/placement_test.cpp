// Where a tensor's rows begin, and what lies between them, changes no byte of what is computed: fast paths for rows
// that begin at a multiple of 16 bytes give what the others give, which the operations' own tests compare with the
// reference.
#include <array>

#include "backends.hpp"

namespace fairgptq::testing {
namespace {

/// Elements between rows, and before the first.
struct Place {
    std::int64_t gap = 0;
    std::int64_t offset = 0;
};
constexpr std::array<Place, 5> places{{{0, 0}, {16, 0}, {8, 4}, {3, 0}, {0, 1}}};
constexpr Place odd{3, 1};

class PlacementTest : public BackendTest {
  protected:
    DeviceMatrix put(const HostMatrix& matrix, Place place) const {
        const std::int64_t elements = matrix.rows * (matrix.cols + place.gap) + place.offset;
        const std::size_t size = size_of(type);
        DeviceMatrix result{backend->allocate(static_cast<std::size_t>(elements) * size), {}};
        backend->zero(result.buffer.data(), result.buffer.bytes());
        result.view =
            TensorView(static_cast<std::byte*>(result.buffer.data()) + static_cast<std::size_t>(place.offset) * size,
                       type, matrix.rows, matrix.cols + place.gap)
                .cols_from(0, matrix.cols);
        backend->upload(result.view, matrix.values.data(), DType::float32);
        return result;
    }
    /// What lies between rows must still be the zeros that put() left.
    void expect_gaps_untouched(const DeviceMatrix& matrix, Place place) const {
        std::vector<std::byte> bytes(matrix.buffer.bytes());
        backend->synchronize();
        backend->copy_to_host(bytes.data(), matrix.buffer.data(), bytes.size());
        const auto size = static_cast<std::int64_t>(size_of(type));
        const std::int64_t stride = matrix.view.cols + place.gap;
        for (std::int64_t i = 0; i < std::ssize(bytes) / size; ++i) {
            if (i >= place.offset && (i - place.offset) % stride < matrix.view.cols) continue;
            for (std::int64_t byte = i * size; byte < (i + 1) * size; ++byte)
                ASSERT_EQ(bytes[static_cast<std::size_t>(byte)], std::byte{0}) << "element " << i;
        }
    }
    /// float32 values at a multiple of 4 elements, or one beyond.
    Buffer vector_at(std::int64_t offset, const HostMatrix& values) const {
        std::vector<float> shifted(static_cast<std::size_t>(offset), 0);
        shifted.insert(shifted.end(), values.values.begin(), values.values.end());
        return upload_vector(shifted);
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(PlacementTest);

/// Below, at and above a chunk of 16 bytes; a warp's and a block's threads; and what a thread of them keeps.
const std::vector<std::int64_t> widths{1, 3, 4, 7, 8, 9, 120, 128, 256, 264, 512, 516, 1016, 1024, 1032, 2048, 4096};

TEST_P(PlacementTest, Norm) {
    std::vector<std::int64_t> all = widths;
    all.insert(all.end(), {8192, 8200, 16384, 16392});
    for (const std::int64_t cols : all) {
        const std::int64_t rows = cols > 1032 ? 2 : 9;
        const HostMatrix x = rounded(random_matrix(rows, cols, 1, 3.0F));
        const HostMatrix weight = random_matrix(1, cols, 2);
        const HostMatrix bias = random_matrix(1, cols, 3);
        for (const bool centred : {false, true}) {
            const auto norm = [&](TensorView inputs, std::int64_t vectors, TensorView output) {
                const Buffer weights = vector_at(vectors, weight);
                const Buffer biases = vector_at(vectors, bias);
                if (centred)
                    backend->layer_norm(inputs, weights.as<float>() + vectors, biases.as<float>() + vectors, 0.1F,
                                        output);
                else
                    backend->rms_norm(inputs, weights.as<float>() + vectors, 0.1F, output);
                return download(output).values;
            };
            const std::vector<float> expected = norm(put(x, odd).view, 1, put(x, odd).view);
            for (const Place& place : places)
                for (const std::int64_t vectors : {0, 1}) {
                    const DeviceMatrix inputs = put(x, place);
                    const DeviceMatrix output = put(x, place);
                    ASSERT_EQ(norm(inputs.view, vectors, output.view), expected) << cols << " columns";
                    expect_gaps_untouched(output, place);
                    ASSERT_EQ(norm(inputs.view, vectors, inputs.view), expected) << cols << " columns, in place";
                }
        }
    }
}

TEST_P(PlacementTest, Activation) {
    for (const Activation activation : {Activation::silu, Activation::relu, Activation::gelu, Activation::gelu_tanh,
                                        Activation::sigmoid, Activation::identity})
        for (const std::int64_t cols : widths)
            for (const std::int64_t rows : {1, 5}) {
                if (cols > 1032 && (rows > 1 || activation == Activation::gelu)) continue;  // enough is enough
                const HostMatrix gate = rounded(random_matrix(rows, cols, 1, 3.0F));
                const HostMatrix up = rounded(random_matrix(rows, cols, 2));
                const auto gated = [&](Place gates, Place others) {
                    const DeviceMatrix a = put(gate, gates), b = put(up, others), output = put(up, others);
                    backend->gated_activation(activation, a.view, b.view, output.view);
                    expect_gaps_untouched(output, others);
                    return download(output.view).values;
                };
                const auto plain = [&](Place from, Place to) {
                    const DeviceMatrix a = put(gate, from), output = put(up, to);
                    backend->activation(activation, a.view, output.view);
                    expect_gaps_untouched(output, to);
                    return download(output.view).values;
                };
                const std::vector<float> expected_gated = gated(odd, odd);
                const std::vector<float> expected = plain(odd, odd);
                for (const Place& place : places) {
                    ASSERT_EQ(gated(place, place), expected_gated) << rows << " x " << cols;
                    ASSERT_EQ(gated(place, {}), expected_gated) << rows << " x " << cols;
                    ASSERT_EQ(plain(place, place), expected) << rows << " x " << cols;
                    ASSERT_EQ(plain({}, place), expected) << rows << " x " << cols;
                }
            }
}

TEST_P(PlacementTest, EmbedAndAdd) {
    const std::vector<std::int32_t> ids{4, 0, 4, 2, 1};
    for (const std::int64_t cols : widths) {
        const HostMatrix table = rounded(random_matrix(5, cols, 1));
        const HostMatrix before = rounded(random_matrix(5, cols, 2));
        for (const bool accumulate : {false, true}) {
            const auto embed = [&](Place from, Place to) {
                const DeviceMatrix entries = put(table, from), output = put(before, to);
                backend->embed(entries.view, ids, output.view, accumulate);
                expect_gaps_untouched(output, to);
                return download(output.view).values;
            };
            const std::vector<float> expected = embed(odd, odd);
            for (const Place& place : places) {
                ASSERT_EQ(embed(place, place), expected) << cols;
                ASSERT_EQ(embed({}, place), expected) << cols;
            }
        }
    }
}

TEST_P(PlacementTest, Rotary) {
    for (const std::int64_t head_dim : {2, 8, 16, 24, 64, 128, 300, 512}) {
        const std::int64_t half = head_dim / 2;
        const HostMatrix x = rounded(random_matrix(4, 3 * head_dim, 1));
        // One far from the others, where a CPU does not take seconds for what is between.
        const std::vector<std::int64_t> positions{0, 3, head_dim == 16 ? 70000 : 700, 1};
        std::vector<float> frequencies;
        for (std::int64_t i = 0; i < half; ++i)
            frequencies.push_back(std::pow(10000.0F, -static_cast<float>(i) / static_cast<float>(half)));
        for (const RotaryPairs pairs : {RotaryPairs::halves, RotaryPairs::neighbours}) {
            const auto rotary = [&](Place place) {
                const DeviceMatrix heads = put(x, place);
                backend->rotary_at(heads.view, head_dim, positions, frequencies, 1.5F, pairs);
                expect_gaps_untouched(heads, place);
                return download(heads.view).values;
            };
            const std::vector<float> expected = rotary(odd);
            for (const Place& place : places)
                ASSERT_EQ(rotary(place), expected) << head_dim;
        }
    }
}

TEST_P(PlacementTest, Scale) {
    for (const std::int64_t cols : {1, 4, 7, 8, 9, 1032}) {
        const HostMatrix x = rounded(random_matrix(5, cols, 1));
        const HostMatrix y = rounded(random_matrix(5, cols, 2));
        const auto scale = [&](Place from, Place to, bool add) {
            const DeviceMatrix inputs = put(x, from);
            const DeviceMatrix output = put(y, to);
            backend->scale(inputs.view, 0.22F, output.view, add);
            expect_gaps_untouched(output, to);
            return download(output.view).values;
        };
        for (const bool add : {false, true}) {
            const std::vector<float> expected = scale(odd, odd, add);
            for (const Place& place : places) {
                ASSERT_EQ(scale(place, place, add), expected) << cols;
                ASSERT_EQ(scale({}, place, add), expected) << cols;
            }
        }
    }
}

TEST_P(PlacementTest, SoftCap) {
    for (const std::int64_t cols : {1, 4, 7, 8, 9, 1032}) {
        const HostMatrix x = rounded(random_matrix(5, cols, 1));
        const auto capped = [&](Place place) {
            const DeviceMatrix values = put(x, place);
            backend->soft_cap(values.view, 1.5F);
            expect_gaps_untouched(values, place);
            return download(values.view).values;
        };
        const std::vector<float> expected = capped(odd);
        for (const Place& place : places)
            ASSERT_EQ(capped(place), expected) << cols;
    }
}

TEST_P(PlacementTest, ScatterRows) {
    const std::vector<std::int32_t> ids{4, 0, 2};
    const std::vector<float> factors{0.22F, -1.7F, 0.9F};
    for (const std::int64_t cols : {1, 4, 7, 8, 9, 1032}) {
        const HostMatrix x = rounded(random_matrix(3, cols, 1));
        const HostMatrix y = rounded(random_matrix(5, cols, 2));
        const auto scatter = [&](Place from, Place to) {
            const DeviceMatrix inputs = put(x, from), output = put(y, to);
            backend->scatter_rows(inputs.view, ids, factors, output.view);
            expect_gaps_untouched(output, to);
            return download(output.view).values;
        };
        const std::vector<float> expected = scatter(odd, odd);
        for (const Place& place : places) {
            ASSERT_EQ(scatter(place, place), expected) << cols;
            ASSERT_EQ(scatter({}, place), expected) << cols;
        }
    }
}

TEST_P(PlacementTest, Convolution) {
    const std::vector<std::int32_t> previous{-1, 0, 1, 2, -1, 1};
    const std::int64_t rows = std::ssize(previous);
    for (const std::int64_t cols : {1, 4, 7, 8, 9, 264, 1032})
        for (const std::int64_t width : {1, 3, 4}) {
            const HostMatrix x = rounded(random_matrix(rows, cols, 1));
            const HostMatrix weight = random_matrix(cols, width, 2);
            const auto convolve = [&](Place from, Place to, std::int64_t vectors) {
                const DeviceMatrix inputs = put(x, from), output = put(x, to);
                const Buffer weights = vector_at(vectors, weight);
                backend->convolve(inputs.view, weights.as<float>() + vectors, width, previous, true, output.view);
                expect_gaps_untouched(output, to);
                return download(output.view).values;
            };
            const std::vector<float> expected = convolve(odd, odd, 1);
            for (const Place& place : places)
                for (const std::int64_t vectors : {0, 1}) {
                    ASSERT_EQ(convolve(place, place, vectors), expected) << cols << " columns, width " << width;
                    ASSERT_EQ(convolve({}, place, vectors), expected) << cols << " columns, width " << width;
                }
        }
}

TEST_P(PlacementTest, DeltaRule) {
    const std::vector<DeltaSequence> sequences{{{}, {0, 4}}, {{0, 3}, {4, 6}}};
    for (const DeltaShape& shape : {DeltaShape{1, 2, 7, 9}, {1, 2, 16, 24}, {2, 2, 64, 72}}) {
        const HostMatrix mixed = rounded(random_matrix(6, shape.mixed_cols(), 1));
        const HostMatrix gates = random_matrix(6, 2 * shape.value_heads, 2), heads = random_matrix(2, 2, 3);
        const HostMatrix state = random_matrix(2, shape.state_elements(), 4);
        const HostMatrix before = rounded(random_matrix(6, shape.value_cols(), 5));
        const auto delta_rule = [&](Place from, Place to, std::int64_t vectors) {
            const DeviceMatrix inputs = put(mixed, from), output = put(before, to);
            const DeviceMatrix both = upload(gates, DType::float32, vectors);
            const Buffer of_heads = vector_at(vectors, heads), states = vector_at(vectors, state);
            const float* decay = of_heads.as<float>() + vectors;
            backend->delta_rule(inputs.view, both.view.float32(), decay, decay + 2, sequences, shape,
                                states.as<float>() + vectors, output.view);
            expect_gaps_untouched(output, to);
            std::vector<float> result = download(output.view).values;
            const std::vector<float> left = download_vector<float>(states);
            result.insert(result.end(), left.begin() + vectors, left.end());
            return result;
        };
        const std::vector<float> expected = delta_rule(odd, odd, 1);
        for (const Place& place : places) {
            ASSERT_EQ(delta_rule(place, place, 0), expected) << shape.key_dim;
            ASSERT_EQ(delta_rule({}, place, 1), expected) << shape.key_dim;
        }
    }
}

TEST_P(PlacementTest, LogProbabilities) {
    for (const std::int64_t vocabulary : {1, 3, 4, 8, 9, 1024, 1032, 2048, 2056, 5000}) {
        HostMatrix logits = rounded(random_matrix(3, vocabulary, 1, 10.0F));
        logits(1, vocabulary / 2) = logits(1, vocabulary - 1) = 64;  // of equal ones the first
        const std::vector<std::int32_t> targets{0, static_cast<std::int32_t>(vocabulary - 1),
                                                static_cast<std::int32_t>(vocabulary / 3)};
        const auto score = [&](Place place) {
            const DeviceMatrix rows = put(logits, place);
            std::vector<float> result(3);
            std::vector<std::int32_t> best(3);
            backend->token_log_probabilities(rows.view, targets, result, best);
            EXPECT_EQ(best[1], vocabulary / 2);
            result.insert(result.end(), best.begin(), best.end());
            return result;
        };
        const std::vector<float> expected = score(odd);
        for (const Place& place : places)
            ASSERT_EQ(score(place), expected) << vocabulary;
    }
}

TEST_P(PlacementTest, LinearWithABias) {
    for (const std::int64_t cols : {1, 4, 7, 8, 64, 264, 1032}) {
        const HostMatrix x = integer_matrix(3, 16, 1);
        const HostMatrix weight = integer_matrix(cols, 16, 2);
        const HostMatrix bias = integer_matrix(1, cols, 3);
        const HostMatrix before = integer_matrix(3, cols, 4);
        for (const bool accumulate : {false, true}) {
            const auto linear = [&](Place place, std::int64_t vectors) {
                const DeviceMatrix inputs = put(x, {}), weights = put(weight, {}), output = put(before, place);
                const Buffer biases = vector_at(vectors, bias);
                backend->linear(inputs.view, weights.view, biases.as<float>() + vectors, output.view, accumulate);
                expect_gaps_untouched(output, place);
                return download(output.view).values;
            };
            const std::vector<float> expected = linear(odd, 1);
            for (const Place& place : places)
                for (const std::int64_t vectors : {0, 1})
                    ASSERT_EQ(linear(place, vectors), expected) << cols;
        }
    }
}

}  // namespace
}  // namespace fairgptq::testing
