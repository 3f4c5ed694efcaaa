#include "run/layer_writer.hpp"

#include <utility>

namespace fairgptq {

void LayerWriter::write(std::filesystem::path file, LayerRecord record) {
    finish();
    thread_ = std::thread([this, file = std::move(file), record = std::move(record)] {
        try {
            write_layer(file, record);
        } catch (...) {
            failure_ = std::current_exception();
        }
    });
}

void LayerWriter::finish() {
    if (thread_.joinable()) thread_.join();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace fairgptq
