// Element types that are known at run time only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fairgptq {

enum class DType : std::uint8_t { float32, float16, bfloat16 };

constexpr std::size_t size_of(DType type) {
    return type == DType::float32 ? 4 : 2;
}

/// As Hugging Face's configurations spell it.
constexpr const char* name_of(DType type) {
    return type == DType::float32 ? "float32" : type == DType::float16 ? "float16" : "bfloat16";
}

}  // namespace fairgptq
