// The public face of run/ (include/fairgptq/run.hpp).
#include <nlohmann/json.hpp>
#include <utility>

#include "fairgptq/run.hpp"
#include "run/run_directory.hpp"
#include "support/json.hpp"

namespace fairgptq {

struct Run::Impl {
    RunDirectory directory;
};

Run::Run(const std::string& directory) : impl_(new Impl{RunDirectory::open(directory)}) {}
Run::~Run() = default;
Run::Run(Run&&) noexcept = default;
Run& Run::operator=(Run&&) noexcept = default;

std::int64_t Run::layers() const {
    return impl_->directory.layers();
}
std::int64_t Run::finished_layers() const {
    return impl_->directory.finished_layers(false).first_missing();
}
std::string Run::model_directory() const {
    return impl_->directory.model_path().string();
}
std::string Run::settings() const {
    return json_text(impl_->directory.settings());
}

std::vector<QuantizedLinear> Run::layer(std::int64_t index) const {
    std::vector<QuantizedLinear> linears;
    for (ModuleSolution& module : impl_->directory.layer(index).modules) {
        QuantizedLinear linear;
        linear.name = std::move(module.name);
        linear.rows = module.rows;
        linear.cols = module.cols;
        linear.groups = module.groups;
        linear.group_size = module.group_size;
        linear.bits = module.bits;
        linear.symmetric = module.symmetric;
        linear.codes = std::move(module.codes);
        linear.scales = std::move(module.scales);
        linear.zeros = std::move(module.zeros);
        linear.group_index = std::move(module.group_index);
        linear.alpha = module.alpha;
        linear.reconstruction = module.reconstruction;
        linear.bias_before = module.bias_before;
        linear.bias_after = module.bias_after;
        linears.push_back(std::move(linear));
    }
    return linears;
}

std::vector<float> QuantizedLinear::dequantize() const {
    std::vector<float> values(codes.size());
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t col = 0; col < cols; ++col) {
            const std::int64_t group = row * groups + group_index[col];
            values[row * cols + col] = scales[group] * static_cast<float>(codes[row * cols + col] - zeros[group]);
        }
    }
    return values;
}

}  // namespace fairgptq
