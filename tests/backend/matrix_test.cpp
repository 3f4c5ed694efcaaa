#include "backend/matrix.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "backends.hpp"
#include "reference/products.hpp"
#include "threads.hpp"

namespace fairgptq::testing {
namespace {

class MatrixTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS(MatrixTest);

std::vector<std::int32_t> shuffled(std::int64_t n, unsigned seed) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    return order;
}

HostMatrix symmetric(std::int64_t n, unsigned seed) {
    HostMatrix matrix = random_matrix(n, n, seed);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < i; ++j)
            matrix(i, j) = matrix(j, i);
    return matrix;
}

TEST_P(MatrixTest, CombineReordersAddsAndDamps) {
    for (const std::int64_t n : {0, 1, 5, 130}) {
        HostMatrix h = symmetric(n, 1);
        HostMatrix c = symmetric(n, 2);
        if (n > 3) {
            h(2, 2) = c(2, 2) = 0;  // dead
            h(3, 3) = 0;            // alive by its covariance
        }
        const std::vector<std::int32_t> order = shuffled(n, 3);
        const DeviceMatrix device_h = upload_float32(h);
        const DeviceMatrix device_c = upload_float32(c);
        const DeviceMatrix out = device_matrix(n, n, DType::float32);
        for (const float alpha : {0.0F, 0.5F}) {
            backend->combine(device_h.view.float32(), device_c.view.float32(), alpha, 0.25F, order, out.view.float32());
            const HostMatrix result = download(out.view);
            for (std::int64_t i = 0; i < n; ++i)
                for (std::int64_t j = 0; j < n; ++j) {
                    const std::int32_t from_i = order[static_cast<std::size_t>(i)];
                    const std::int32_t from_j = order[static_cast<std::size_t>(j)];
                    double expected = h(from_i, from_j) + alpha * c(from_i, from_j) + (i == j ? 0.25 : 0);
                    if (i == j && n > 3 && from_i == 2) expected = 1;
                    ASSERT_NEAR(result(i, j), expected, 3 * float32_roundoff * (std::fabs(expected) + 4));
                }
        }
        backend->combine(device_h.view.float32(), {}, 0.5F, 0, order, out.view.float32());
        const HostMatrix result = download(out.view);
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int32_t from = order[static_cast<std::size_t>(i)];
            ASSERT_EQ(result(i, i), h(from, from) == 0 ? 1 : h(from, from));
        }
    }
}

TEST_P(MatrixTest, GatherMovesAndKillsColumns) {
    for (const std::int64_t rows : {0, 1, 70})
        for (const std::int64_t n : {1, 16, 131})
            for (const DType from : {DType::float32, DType::float16, DType::bfloat16}) {
                const HostMatrix in = integer_matrix(rows, n, 4);  // the same numbers in every type
                std::vector<std::uint16_t> halves;
                for (const float value : in.values)
                    halves.push_back(from == DType::float16 ? to_half(value).bits : to_bfloat16(value).bits);
                const Buffer device_in = from == DType::float32 ? upload_vector(in.values) : upload_vector(halves);
                const TensorView view = device_in.tensor(from, rows, n);
                const std::vector<std::int32_t> order = shuffled(n, 5);
                std::vector<std::uint8_t> dead(static_cast<std::size_t>(n));
                dead[static_cast<std::size_t>(n / 2)] = 1;
                std::vector<std::int32_t> natural(static_cast<std::size_t>(n));
                std::iota(natural.begin(), natural.end(), 0);
                const DeviceMatrix out = device_matrix(rows, n, DType::float32);
                for (const auto& columns : {order, natural}) {
                    backend->gather_columns(view, columns, dead, out.view.float32());
                    const HostMatrix result = download(out.view);
                    for (std::int64_t r = 0; r < rows; ++r)
                        for (std::int64_t i = 0; i < n; ++i) {
                            const std::int32_t column = columns[static_cast<std::size_t>(i)];
                            ASSERT_EQ(result(r, i), column == n / 2 ? 0 : in(r, column));
                        }
                }
                backend->gather_columns(view, natural, {}, out.view.float32());
                EXPECT_EQ(download(out.view).values, in.values);
            }
}

TEST_P(MatrixTest, GatherMovesCodes) {
    for (const std::int64_t rows : {0, 1, 70})
        for (const std::int64_t n : {1, 16, 131, 300}) {
            std::vector<std::uint8_t> codes;
            for (std::int64_t i = 0; i < rows * n; ++i)
                codes.push_back(static_cast<std::uint8_t>(i * 37 % 251));
            const Buffer in = upload_vector(codes), out = backend->allocate(codes.size());
            const std::vector<std::int32_t> order = shuffled(n, 6);
            backend->gather_codes(in.matrix<const std::uint8_t>(rows, n), order, out.matrix<std::uint8_t>(rows, n));
            const auto moved = download_vector<std::uint8_t>(out);
            for (std::int64_t r = 0; r < rows; ++r)
                for (std::int64_t i = 0; i < n; ++i)
                    ASSERT_EQ(moved[static_cast<std::size_t>(r * n + i)],
                              codes[static_cast<std::size_t>(r * n + order[static_cast<std::size_t>(i)])]);
        }
}

TEST_P(MatrixTest, ShiftIsTheDebiasedTarget) {
    for (const std::int64_t rows : {0, 1, 64, 100})
        for (const std::int64_t n : {1, 7, 8, 9, 128, 131, 300}) {
            SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(n));
            const HostMatrix weights = random_matrix(rows, n, 1);
            const HostMatrix covariance = symmetric(n, 2);
            HostMatrix inverse = random_matrix(n, n, 3);
            for (std::int64_t i = 0; i < n; ++i)
                for (std::int64_t j = 0; j < i; ++j)
                    inverse(i, j) = 0;
            const std::vector<std::int32_t> order = shuffled(n, 4);
            constexpr float alpha = 0.375F;

            const reference::Matrix w = reference::copy(weights.view());
            const reference::Matrix c = reference::copy(covariance.view());
            const reference::Matrix r = reference::copy(inverse.view());
            const auto shift = [&](const reference::Matrix& a, const reference::Matrix& b, const reference::Matrix& d) {
                return reference::product(
                    reference::product(reference::columns_in_order(reference::product(a, b), order),
                                       reference::transposed(d)),
                    d);
            };
            const reference::Matrix moved = shift(w, c, r);
            const reference::Matrix bound =
                shift(reference::magnitudes(w), reference::magnitudes(c), reference::magnitudes(r));
            reference::Matrix expected = reference::columns_in_order(w, order);
            for (std::size_t i = 0; i < expected.values.size(); ++i)
                expected.values[i] -= alpha * moved.values[i];

            const DeviceMatrix device_weights = upload_float32(weights);
            const DeviceMatrix device_covariance = upload_float32(covariance);
            const DeviceMatrix device_inverse = upload_float32(inverse);
            const DeviceMatrix target = device_matrix(rows, n, DType::float32);
            backend->gather_columns(device_weights.view, order, {}, target.view.float32());
            std::vector<double> bias(static_cast<std::size_t>((rows + 63) / 64));
            backend->shift_target(device_weights.view.float32(), device_covariance.view.float32(), alpha,
                                  device_inverse.view.float32(), order, target.view.float32(), bias);
            // Three products of n terms each.
            expect_near(download(target.view), expected, [&](std::int64_t row, std::int64_t col) {
                return (3 * static_cast<double>(n) + 3) * float32_roundoff *
                       (alpha * bound(row, col) + std::fabs(expected(row, col)));
            });
            for (std::size_t tile = 0; tile < bias.size(); ++tile) {
                const auto first = static_cast<std::int64_t>(tile) * 64;
                const std::int64_t count = std::min<std::int64_t>(64, rows - first);
                ASSERT_NEAR(
                    bias[tile], reference::quadratic_form(w, c, first, count),
                    (static_cast<double>(n) + 2) * float32_roundoff *
                        reference::quadratic_form(reference::magnitudes(w), reference::magnitudes(c), first, count));
            }
        }
}

TEST_P(MatrixTest, SubtractMayOverwriteItsSecondOperand) {
    const HostMatrix a = random_matrix(67, 19, 1);
    const HostMatrix b = random_matrix(67, 19, 2);
    const DeviceMatrix device_a = upload_float32(a);
    const DeviceMatrix device_b = upload_float32(b);
    backend->subtract(device_a.view.float32(), device_b.view.float32(), device_b.view.float32());
    const HostMatrix result = download(device_b.view);
    for (std::size_t i = 0; i < a.values.size(); ++i)
        ASSERT_EQ(result.values[i], a.values[i] - b.values[i]);
}

TEST_P(MatrixTest, QuadraticFormsOfTilesOf64Rows) {
    for (const std::int64_t rows : {0, 1, 63, 64, 65, 130})
        for (const std::int64_t n : {1, 8, 127, 128, 129, 260}) {
            const HostMatrix a = random_matrix(rows, n, 1);
            const HostMatrix m = symmetric(n, 2);
            const DeviceMatrix device_a = upload_float32(a);
            const DeviceMatrix device_m = upload_float32(m);
            std::vector<double> sums(static_cast<std::size_t>((rows + 63) / 64));
            backend->quadratic_forms(device_a.view.float32(), device_m.view.float32(), sums);
            const reference::Matrix exact_a = reference::copy(a.view());
            const reference::Matrix exact_m = reference::copy(m.view());
            for (std::size_t tile = 0; tile < sums.size(); ++tile) {
                const auto first = static_cast<std::int64_t>(tile) * 64;
                const std::int64_t count = std::min<std::int64_t>(64, rows - first);
                const double expected = reference::quadratic_form(exact_a, exact_m, first, count);
                const double bound = reference::quadratic_form(reference::magnitudes(exact_a),
                                                               reference::magnitudes(exact_m), first, count);
                ASSERT_NEAR(sums[tile], expected, (static_cast<double>(n) + 2) * float32_roundoff * bound);
                // The figure of a tile does not depend on the tiles around it.
                std::vector<double> alone(1);
                backend->quadratic_forms(device_a.view.float32().rows_from(first, count), device_m.view.float32(),
                                         alone);
                ASSERT_EQ(alone[0], sums[tile]);
            }
        }
}

const std::vector<std::int64_t> rows_around_tiles{0, 1, 63, 64, 65, 130};
const std::vector<std::int64_t> columns_around_strips{1, 127, 128, 129, 511, 512, 513, 1030};

TEST_P(MatrixTest, SquaresOfTilesOf64Rows) {
    for (const std::int64_t rows : rows_around_tiles)
        for (const std::int64_t n : columns_around_strips) {
            const HostMatrix a = random_matrix(rows, n, 1);
            const HostMatrix b = random_matrix(rows, n, 2);
            const DeviceMatrix device_a = upload_float32(a);
            const DeviceMatrix device_b = upload_float32(b);
            for (const bool with_b : {true, false}) {
                SCOPED_TRACE(fmt::format("{} x {}, with b {}", rows, n, with_b));
                std::vector<double> squares(static_cast<std::size_t>((rows + 63) / 64), std::nan(""));
                backend->tile_squares(device_a.view.float32(), with_b ? device_b.view.float32() : MatrixView<float>(),
                                      squares);
                for (std::size_t tile = 0; tile < squares.size(); ++tile) {
                    const std::int64_t first = static_cast<std::int64_t>(tile) * 64;
                    double expected = 0;
                    for (std::int64_t r = first; r < std::min(first + 64, rows); ++r)
                        for (std::int64_t c = 0; c < n; ++c)
                            expected += std::pow(
                                static_cast<double>(a(r, c)) - (with_b ? static_cast<double>(b(r, c)) : 0.0), 2);
                    ASSERT_NEAR(squares[tile], expected, static_cast<double>(64 * n + 2) * 0x1p-53 * expected);
                }
            }
        }
}

TEST_P(MatrixTest, ColumnErrorsOverTilesThatAreRounded) {
    for (const std::int64_t rows : rows_around_tiles)
        for (const std::int64_t n : columns_around_strips) {
            SCOPED_TRACE(fmt::format("{} x {}", rows, n));
            const HostMatrix a = random_matrix(rows, n, 1);
            const HostMatrix b = random_matrix(rows, n, 2);
            std::vector<double> errors(static_cast<std::size_t>(n), std::nan(""));
            backend->column_errors(upload_float32(a).view.float32(), upload_float32(b).view.float32(), errors);
            for (std::int64_t c = 0; c < n; ++c) {
                double expected = 0;
                for (std::int64_t first = 0; first < rows; first += 64) {
                    double tile = 0;
                    for (std::int64_t r = first; r < std::min(first + 64, rows); ++r)
                        tile += std::pow(static_cast<double>(a(r, c)) - static_cast<double>(b(r, c)), 2);
                    expected += static_cast<float>(tile);
                }
                // A product and a sum in one rounding may send a tile's sum to the next float32.
                ASSERT_NEAR(errors[static_cast<std::size_t>(c)], expected, 0x1p-23 * expected);
            }
        }
}

/// So does the solver find weights to refuse.
TEST_P(MatrixTest, SquaresTellWhatIsNotFinite) {
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")})
        for (const std::int64_t col : {0, 511, 599}) {
            HostMatrix broken = random_matrix(70, 600, 1);
            broken(69, col) = bad;
            const DeviceMatrix device = upload_float32(broken);
            std::vector<double> squares(2);
            backend->tile_squares(device.view.float32(), device.view.float32(), squares);
            EXPECT_TRUE(std::isnan(squares[1]));
            EXPECT_EQ(squares[0], 0);
        }
}

TEST_P(MatrixTest, DiagonalComesToTheHost) {
    const HostMatrix a = random_matrix(65, 65, 1);
    const DeviceMatrix device = upload_float32(a);
    std::vector<float> diagonal(65);
    backend->diagonal(device.view.float32(), diagonal);
    for (std::int64_t i = 0; i < 65; ++i)
        ASSERT_EQ(diagonal[static_cast<std::size_t>(i)], a(i, i));
}

TEST_P(MatrixTest, SizesThatDisagreeAreRefused) {
    const DeviceMatrix a = device_matrix(65, 3, DType::float32);
    const DeviceMatrix b = device_matrix(65, 4, DType::float32);
    const DeviceMatrix square = device_matrix(3, 3, DType::float32);
    const std::vector<std::int32_t> order{0, 1, 2};
    const std::vector<std::int32_t> short_order{0, 1};
    std::vector<double> sums(2);
    std::vector<double> one_sum(1);
    std::vector<float> floats(2);
    const auto view = [](const DeviceMatrix& matrix) { return matrix.view.float32(); };
    EXPECT_THROW(backend->combine(view(square), {}, 0, 0, short_order, view(square)), Failure);
    EXPECT_THROW(backend->gather_columns(a.view, short_order, {}, view(a)), Failure);
    EXPECT_THROW(backend->gather_columns(a.view, order, {}, view(b)), Failure);
    EXPECT_THROW(backend->shift_target(view(a), view(square), 1, view(square), order, view(b), sums), Failure);
    EXPECT_THROW(backend->shift_target(view(a), view(square), 1, view(square), order, view(a), one_sum), Failure);
    EXPECT_THROW(backend->subtract(view(a), view(b), view(a)), Failure);
    EXPECT_THROW(backend->quadratic_forms(view(a), view(square), one_sum), Failure);
    EXPECT_THROW(backend->quadratic_forms(view(b), view(square), sums), Failure);
    EXPECT_THROW(backend->tile_squares(view(a), view(a), one_sum), Failure);
    EXPECT_THROW(backend->tile_squares(view(a), view(b), sums), Failure);
    std::vector<double> three(3);
    EXPECT_THROW(backend->column_errors(view(a), view(a), sums), Failure);
    EXPECT_THROW(backend->column_errors(view(a), view(b), three), Failure);
    EXPECT_THROW(backend->diagonal(view(square), floats), Failure);
    EXPECT_THROW(backend->diagonal(view(a), floats), Failure);
}

TEST_P(MatrixTest, ThreadsChangeNothing) {
    const std::int64_t n = 300;
    const DeviceMatrix weights = upload_float32(random_matrix(200, n, 1));
    const DeviceMatrix covariance = upload_float32(symmetric(n, 2));
    const DeviceMatrix inverse = upload_float32(random_matrix(n, n, 3));
    const std::vector<std::int32_t> order = shuffled(n, 4);
    EXPECT_TRUE(same_for_any_threads([&] {
        const DeviceMatrix target = device_matrix(200, n, DType::float32);
        std::vector<double> bias(4);
        backend->shift_target(weights.view.float32(), covariance.view.float32(), 0.5F, inverse.view.float32(), order,
                              target.view.float32(), bias);
        std::vector<float> values = download(target.view).values;
        values.insert(values.end(), bias.begin(), bias.end());
        return values;
    }));
    EXPECT_TRUE(same_for_any_threads([&] {
        std::vector<double> sums(4);
        backend->quadratic_forms(weights.view.float32(), covariance.view.float32(), sums);
        return sums;
    }));
}

}  // namespace
}  // namespace fairgptq::testing
