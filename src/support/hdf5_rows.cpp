#include "support/hdf5_rows.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "support/error.hpp"
#include "support/hdf5.hpp"

namespace fairgptq::h5 {
namespace {

/// Makes the file with its one dataset, all of it allocated and none of it written. @returns where its values begin
haddr_t lay_out(const std::string& file, const std::string& dataset, const std::array<hsize_t, 2>& extents) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // a failure is said once, below
    const Handle access(H5Pcreate(H5P_FILE_ACCESS));
    H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
    const Handle output(H5Fcreate(file.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()));
    const Handle space(H5Screate_simple(2, extents.data(), nullptr));
    const Handle properties(H5Pcreate(H5P_DATASET_CREATE));
    H5Pset_obj_track_times(properties.get(), 0);
    H5Pset_layout(properties.get(), H5D_CONTIGUOUS);
    H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER);
    const Handle matrix(H5Dcreate2(output.get(), dataset.c_str(), H5T_IEEE_F32LE, space.get(), H5P_DEFAULT,
                                   properties.get(), H5P_DEFAULT));
    const haddr_t place = H5Dget_offset(matrix.get());
    if (matrix.get() < 0 || place == HADDR_UNDEF || H5Fflush(output.get(), H5F_SCOPE_GLOBAL) < 0)
        throw Failure("{} could not be laid out: HDF5 refused it", file);
    return place;
}

/// Room for the whole file is taken before HDF5 sees it. @throws Failure if there is none
void reserve(const FileDescriptor& file, std::uint64_t bytes, const std::filesystem::path& path) {
    const int problem = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes));
    if (problem == ENOSPC || problem == EFBIG)
        throw Failure("{} cannot be written: its {} bytes do not fit ({})", path.string(), bytes,
                      std::strerror(problem));
}

}  // namespace

RowWriter::RowWriter(std::filesystem::path path, const std::string& dataset, std::int64_t rows, std::int64_t cols)
    : path_(std::move(path)),
      temporary_(temporary_name(path_)),
      file_(create_file(temporary_)),
      guard_(temporary_),
      missing_bytes_(static_cast<std::uint64_t>(rows * cols) * sizeof(float)) {
    static_assert(std::endian::native == std::endian::little);
    if (missing_bytes_ == 0) throw Failure("{} would hold no values", path_.string());
    reserve(file_, missing_bytes_ + (1U << 16U), path_);
    const haddr_t place =
        lay_out(temporary_.string(), dataset, {static_cast<hsize_t>(rows), static_cast<hsize_t>(cols)});
    if (::lseek(file_.get(), static_cast<off_t>(place), SEEK_SET) < 0)
        throw Failure("{} cannot be written: {}", path_.string(), std::strerror(errno));
}

void RowWriter::append(std::span<const float> values) {
    if (values.size_bytes() > missing_bytes_) throw Failure("{} was given more values than it holds", path_.string());
    write_all(file_, {reinterpret_cast<const char*>(values.data()), values.size_bytes()}, path_);  // NOLINT: as bytes
    missing_bytes_ -= values.size_bytes();
}

void RowWriter::finish() {
    if (missing_bytes_ > 0) throw Failure("{} lacks its last {} bytes", path_.string(), missing_bytes_);
    flush_to_disk(file_, path_);
    rename_into_place(temporary_, path_);
    guard_.keep();
}

}  // namespace fairgptq::h5
