// On-chip memory whose size a launch says. The only declaration of its kind: the tests' emulation replaces this file.
#pragma once

namespace fairgptq::cuda {

template <class T>
__device__ T* dynamic_on_chip() {
    extern __shared__ __align__(16) unsigned char on_chip[];
    return reinterpret_cast<T*>(on_chip);
}

}  // namespace fairgptq::cuda
