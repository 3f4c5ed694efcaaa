// One large float32 matrix in an HDF5 file, written row after row: it need not fit in memory, as h5::File's contents
// do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "support/files.hpp"

namespace fairgptq::h5 {

/// HDF5 only lays the file out; the rows are written beside it, to the place that it gave them. So a full disk is an
/// exception, which HDF5 itself does not survive (see h5::File).
class RowWriter {
  public:
    /// Makes a temporary file beside `path`, of its final size, which goes again unless finish() is reached.
    /// @throws Failure naming file and reason: no permission, or no room for all the rows
    RowWriter(std::filesystem::path path, const std::string& dataset, std::int64_t rows, std::int64_t cols);
    /// The next values, row after row. @throws Failure naming file and reason, or if they are more than the matrix
    /// holds
    void append(std::span<const float> values);
    /// Flushes to the disk and gives the file its name. @throws Failure naming file and reason, or if values are
    /// missing
    void finish();

  private:
    std::filesystem::path path_, temporary_;
    FileDescriptor file_;
    RemovedOnFailure guard_;
    std::uint64_t missing_bytes_;
};

}  // namespace fairgptq::h5
