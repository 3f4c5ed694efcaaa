// Writes the last layer's file in a thread while the next layer computes.
#pragma once

#include <exception>
#include <filesystem>
#include <string>
#include <thread>

#include "run/layer_file.hpp"

namespace fairgptq {

/// One file at a time. A failure is thrown by the next call, so that nothing more is computed than the layer in
/// progress.
class LayerWriter {
  public:
    LayerWriter() = default;
    LayerWriter(const LayerWriter&) = delete;
    LayerWriter& operator=(const LayerWriter&) = delete;
    ~LayerWriter() {
        if (thread_.joinable()) thread_.join();
    }

    /// Waits for the file before, then writes this one in the background, a second time if it failed.
    void write(std::filesystem::path file, LayerRecord record);
    /// Waits until the last file is safe.
    void finish();
    /// LayerRecord::hash of the last file, after finish().
    const std::string& last_hash() const { return last_hash_; }

  private:
    std::thread thread_;
    std::string last_hash_;
    std::exception_ptr failure_;
};

}  // namespace fairgptq
