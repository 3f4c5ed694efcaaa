// Model folders that a test makes for itself: config.json and safetensors, well-formed or not.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "support/half.hpp"
#include "support_files/refusal.hpp"
#include "support_files/temporary_folder.hpp"

namespace fairgptq::testing {

/// A folder of a test's own that files are written into.
class ModelFolder : public testing::TemporaryFolder {
  public:
    std::filesystem::path write(const std::string& name, const std::string& content) const {
        std::ofstream(path() / name, std::ios::binary) << content;
        return path() / name;
    }
};

/// A safetensors file with this header text (its length in front, as `claimed_length` if given) and these data.
inline std::string safetensors_file(const std::string& header, const std::string& data,
                                    std::optional<std::uint64_t> claimed_length = {}) {
    const std::uint64_t length = claimed_length.value_or(header.size());
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, 8);
    return file + header + data;
}

struct StoredTensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
    std::string dtype = "F32";
};

/// The values as the format stores them, rounded to the dtype; 8-bit floats have to be some.
inline std::string stored_bytes(const StoredTensor& tensor) {
    std::string bytes;
    for (const float value : tensor.values) {
        if (tensor.dtype == "F8_E4M3") {
            std::uint8_t bits = 0;
            const auto is = [&] { return to_float(Float8{bits}) == value && std::signbit(value) == (bits > 127); };
            while (!is() && bits != 0xff)
                ++bits;
            bytes.push_back(static_cast<char>(bits));
        } else if (tensor.dtype == "F32") {
            bytes.append(reinterpret_cast<const char*>(&value), 4);
        } else {
            const std::uint16_t bits = tensor.dtype == "F16" ? to_half(value).bits : to_bfloat16(value).bits;
            bytes.append(reinterpret_cast<const char*>(&bits), 2);
        }
    }
    return bytes;
}

inline std::string safetensors_file(const std::map<std::string, StoredTensor>& tensors) {
    nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
    std::string data;
    for (const auto& [name, tensor] : tensors) {
        const std::size_t begin = data.size();
        data += stored_bytes(tensor);
        header[name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
    }
    return safetensors_file(header.dump(), data);
}

}  // namespace fairgptq::testing
