#pragma once

#include "support/half.hpp"

struct __nv_bfloat16 {
    fairgptq::BFloat16 stored;
};
inline float __bfloat162float(__nv_bfloat16 value) {
    return fairgptq::to_float(value.stored);
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    return {fairgptq::to_bfloat16(value)};
}
