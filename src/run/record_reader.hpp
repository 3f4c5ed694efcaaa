// A run's finished layers, each read and unpacked while the one before is used.
#pragma once

#include <cstdint>
#include <future>
#include <utility>

#include "run/run_directory.hpp"

namespace fairgptq {

/// Not for two threads at once; and while a layer is being read ahead, nothing else may use HDF5, which need not be
/// built for threads.
class RecordReader {
  public:
    explicit RecordReader(RunDirectory run) : run_(std::move(run)) {}

    /// @param next whether the layer after it, which is there, will be asked for next
    /// @throws InvalidInput as RunDirectory::layer does
    LayerRecord layer(std::int64_t index, bool next) {
        if (index != ahead_of_) ahead_ = {};  // waits for another one, where layers are not asked for in order
        LayerRecord record = ahead_.valid() ? ahead_.get() : run_.layer(index);
        ahead_of_ = index + 1;
        if (next) ahead_ = std::async([this, index = ahead_of_] { return run_.layer(index); });
        return record;
    }

  private:
    RunDirectory run_;
    std::int64_t ahead_of_ = -1;
    std::future<LayerRecord> ahead_;  // last: its thread reads run_
};

}  // namespace fairgptq
