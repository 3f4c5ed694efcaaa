// What another project writes to quantize one matrix with libfairgptq.
#include <fairgptq/run.hpp>
#include <fairgptq/solve.hpp>

int main() {
    const std::vector<float> weights(2 * 32, 0.5F), none;
    std::vector<float> hessian(32 * 32, 0.1F);
    for (std::size_t i = 0; i < 32; ++i)
        hessian[33 * i] = 1;
    const auto quantized = fairgptq::quantize_matrix(weights, 2, 32, hessian, none, {.alpha = 0, .group_size = 32});
    return quantized.codes.size() == 64 && quantized.values[5] > 0.4F && quantized.values[5] < 0.6F ? 0 : 1;
}
