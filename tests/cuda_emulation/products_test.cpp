// What becomes of products where cuBLASLt refuses what it took on the machines that one has seen.
#include "backend/cuda_products.hpp"
#include "emulation.hpp"
#include "support_files/said.hpp"

namespace fairgptq::testing {
namespace {

class RefusedProducts : public WithCudaProducts {
  protected:
    void TearDown() override { emulation::set_matmul_refusals({}); }
    /// With and without parts.
    void expect_right_products() {
        cuda::Products split(*memory, {16, 48, 64});
        expect_rows_independent(*memory, *products, 6, 16);
        expect_rows_independent(*memory, *products, 129, 65);
        expect_rows_independent(*memory, split, 64, 96);
    }
    /// A word of each Products.
    std::int64_t words() const { return said.count("cuBLASLt has no kernel"); }

    Said said;
};

TEST_F(RefusedProducts, NoneNeedsNoWord) {
    expect_right_products();
    EXPECT_EQ(said.text(), "");
}

TEST_F(RefusedProducts, NoKernelIsOffered) {
    emulation::set_matmul_refusals({.offers = true});
    expect_right_products();
    EXPECT_EQ(words(), 2) << said.text();
    EXPECT_EQ(said.count("float32 [16, 6], aligned to 4 bytes"), 1) << said.text();
}

TEST_F(RefusedProducts, NoKernelTakesRowsWithGaps) {
    emulation::set_matmul_refusals({.gaps = true});
    expect_right_products();
    EXPECT_EQ(words(), 2) << said.text();
}

TEST_F(RefusedProducts, ACallIsRefusedThoughItsKernelWasChecked) {
    emulation::set_matmul_refusals({.calls_from_rows = 1});
    expect_right_products();
    EXPECT_EQ(words(), 2) << said.text();
}

// Fewer rows with the same kernel: no word, and the bytes that all rows at once give.
TEST_F(RefusedProducts, ACallOfManyRowsIsRefused) {
    const HostMatrix a = random_matrix(300, 64, 1), b = random_matrix(64, 128, 2);
    const auto multiply = [&] {
        const Buffer device_a = memory->allocate(a.values.size() * sizeof(float)),
                     device_b = memory->allocate(b.values.size() * sizeof(float)),
                     c = memory->allocate(300 * 128 * sizeof(float));
        memory->copy_to_device(device_a.data(), a.values.data(), device_a.bytes());
        memory->copy_to_device(device_b.data(), b.values.data(), device_b.bytes());
        products->fixed_order(cuda::Transpose::no, 1, device_a.matrix<const float>(300, 64),
                              device_b.matrix<const float>(64, 128), 0, c.matrix<float>(300, 128));
        std::vector<float> values(300 * 128);
        memory->copy_to_host(values.data(), c.data(), c.bytes());
        return values;
    };
    const std::vector<float> at_once = multiply();
    for (const std::int64_t rows : {256, 64, 2}) {
        emulation::set_matmul_refusals({.calls_from_rows = rows});
        EXPECT_EQ(multiply(), at_once) << rows;
    }
    EXPECT_EQ(said.text(), "");
}

}  // namespace
}  // namespace fairgptq::testing
