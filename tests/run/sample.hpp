// A made-up quantized module, for tests of what is written and read.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "run/layer_file.hpp"
#include "support/half.hpp"

namespace fairgptq::test {

/// A folder of this test's own; removed when it goes.
class ScratchFolder {
  public:
    ScratchFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "fairgptq-test-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
        path_ = name;
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    ~ScratchFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

inline std::string bytes_of(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

struct SampleShape {
    std::int64_t rows = 8, cols = 64, group_size = 32;
    int bits = 4;
    bool symmetric = true;
    bool shuffled = false;  // columns in the order of activations: groups scattered over the row
    bool scales_float32 = false;
};

inline ModuleSolution sample_module(const std::string& name, const SampleShape& shape, unsigned seed) {
    std::mt19937 random(seed);
    ModuleSolution module;
    module.name = name;
    module.rows = shape.rows;
    module.cols = shape.cols;
    module.group_size = shape.group_size;
    module.groups = shape.cols / shape.group_size;
    module.bits = shape.bits;
    module.symmetric = shape.symmetric;
    module.scales_float32 = shape.scales_float32;
    const int codes_end = 1 << shape.bits;
    for (std::int64_t i = 0; i < module.rows * module.cols; ++i)
        module.codes.push_back(static_cast<std::uint8_t>(random() % codes_end));
    for (std::int64_t i = 0; i < module.rows * module.groups; ++i) {
        const float scale = 1e-3F * static_cast<float>(1 + random() % 1000);
        module.scales.push_back(shape.scales_float32 ? scale : to_float(to_half(scale)));
        module.zeros.push_back(static_cast<std::uint8_t>(shape.symmetric ? codes_end / 2 : random() % codes_end));
    }
    for (std::int64_t col = 0; col < module.cols; ++col)
        module.group_index.push_back(static_cast<std::int32_t>(col / shape.group_size));
    if (shape.shuffled) std::shuffle(module.group_index.begin(), module.group_index.end(), random);
    module.alpha = 0.1;
    module.damp_used = 0.01;
    module.reconstruction = 1.5;
    module.bias_before = 20.25;
    module.bias_after = 3.125;
    module.shift_norm = 0.0625;
    module.seconds = 0.5;
    for (std::int64_t col = 0; col < module.cols; ++col)
        module.column_sensitivity.push_back(static_cast<float>(random() % 99));
    return module;
}

}  // namespace fairgptq::test
