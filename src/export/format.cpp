#include "export/format.hpp"

#include <cstring>

#include "support/error.hpp"
#include "support/half.hpp"

namespace fairgptq {

std::unique_ptr<ExportFormat> make_format(const ExportOptions& options) {
    if (options.dtype && options.format != "dense")
        throw InvalidInput("--dtype is for --format dense; {} fixes the types of its tensors", options.format);
    if (options.format == "gptq") return make_gptq_format();
    if (options.format == "compressed-tensors") return make_compressed_tensors_format();
    if (options.format == "dense") return make_dense_format(options.dtype.value_or(DType::float16));
    if (options.format == "gguf") throw InvalidInput("--format gguf: tools/to_gguf.py writes a run as GGUF");
    throw InvalidInput("--format must be one of gptq, compressed-tensors, dense, not '{}'", options.format);
}

std::vector<std::byte> to_bytes(const std::vector<float>& values, DType dtype) {
    if (dtype == DType::float32) return to_bytes<float>(values);
    std::vector<std::byte> bytes(values.size() * 2);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::uint16_t bits = dtype == DType::float16 ? to_half(values[i]).bits : to_bfloat16(values[i]).bits;
        std::memcpy(bytes.data() + 2 * i, &bits, 2);
    }
    return bytes;
}

}  // namespace fairgptq
