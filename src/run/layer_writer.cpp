#include "run/layer_writer.hpp"

#include <utility>

namespace fairgptq {

void LayerWriter::write(std::filesystem::path file, LayerRecord record, std::function<void()> written) {
    finish();
    thread_ = std::thread([this, file = std::move(file), record = std::move(record), written = std::move(written)] {
        try {
            write_layer(file, record);
            written();
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
