#include "run/layer_writer.hpp"

#include <chrono>
#include <mutex>
#include <utility>

#include "support/error.hpp"

namespace fairgptq {
namespace {

std::mutex one_at_a_time;  // HDF5 need not be built for threads, and runs of one pass have a writer each

}  // namespace

void LayerWriter::write(std::filesystem::path file, LayerRecord record) {
    finish();
    thread_ = std::thread([this, file = std::move(file), record = std::move(record)] {
        try {
            const auto write = [&] {
                const std::lock_guard lock(one_at_a_time);
                last_hash_ = write_layer(file, record);
            };
            try {
                write();
            } catch (const Failure&) {  // a shared file system may fail once: a layer's work is worth a second try
                std::this_thread::sleep_for(std::chrono::seconds(2));
                write();
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
