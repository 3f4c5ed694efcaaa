// In place of src/backend/cuda/on_chip.cuh: what the launch asked for, no byte more.
#pragma once

namespace emulation {
void* dynamic_on_chip();
}

namespace fairgptq::cuda {

template <class T>
T* dynamic_on_chip() {
    return static_cast<T*>(emulation::dynamic_on_chip());
}

}  // namespace fairgptq::cuda
