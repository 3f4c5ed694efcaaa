#include "run/layer_writer.hpp"

#include <chrono>
#include <utility>

#include "support/error.hpp"

namespace fairgptq {

void LayerWriter::write(std::filesystem::path file, LayerRecord record) {
    finish();
    thread_ = std::thread([this, file = std::move(file), record = std::move(record)] {
        try {
            try {
                last_hash_ = write_layer(file, record);
            } catch (const Failure&) {  // a shared file system may fail once: a layer's work is worth a second try
                std::this_thread::sleep_for(std::chrono::seconds(2));
                last_hash_ = write_layer(file, record);
            }
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
