#include "backend/activation.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {
namespace {

cuda::PlainActivation plain(Activation activation) {
    switch (activation) {
        case Activation::silu:
            return cuda::PlainActivation::silu;
        case Activation::relu:
            return cuda::PlainActivation::relu;
        case Activation::gelu:
            return cuda::PlainActivation::gelu;
        case Activation::gelu_tanh:
            return cuda::PlainActivation::gelu_tanh;
        case Activation::sigmoid:
            return cuda::PlainActivation::sigmoid;
        case Activation::identity:
            break;
    }
    return cuda::PlainActivation::identity;
}

void check_same(const TensorView& a, const TensorView& b) {
    if (a.rows != b.rows || a.cols != b.cols)
        throw Failure("activation: [{}, {}] and [{}, {}] should be the same size", a.rows, a.cols, b.rows, b.cols);
    cuda::require_one_type("activation", a, b);
}

}  // namespace

void CudaBackend::gated_activation(Activation activation, TensorView gate, TensorView up, TensorView output) {
    check_same(gate, up);
    check_same(gate, output);
    memory_.use();
    cuda::check(
        cuda::launch_activation(plain(activation), cuda::plain(gate), cuda::plain(up), cuda::plain(output), stream()),
        "gated_activation");
}

void CudaBackend::activation(Activation activation, TensorView inputs, TensorView output) {
    check_same(inputs, output);
    memory_.use();
    cuda::check(cuda::launch_activation(plain(activation), cuda::plain(inputs), {}, cuda::plain(output), stream()),
                "activation");
}

}  // namespace fairgptq
