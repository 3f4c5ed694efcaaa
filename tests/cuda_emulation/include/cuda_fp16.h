#pragma once

#include "support/half.hpp"

struct __half {
    fairgptq::Float16 stored;
};
inline float __half2float(__half value) {
    return fairgptq::to_float(value.stored);
}
inline __half __float2half_rn(float value) {
    return {fairgptq::to_half(value)};
}
