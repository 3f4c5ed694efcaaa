// Matrices written row after row, read back with HDF5's own reading.
#include "support/hdf5_rows.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <optional>

#include "support/error.hpp"
#include "support/hdf5.hpp"
#include "support_files/temporary_folder.hpp"

namespace fairgptq {
namespace {

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> result;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        result.push_back(entry.path().filename());
    return result;
}

TEST(Hdf5Rows, ReadsBackAsWritten) {
    for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 5}, {1000, 700}}) {
        const testing::TemporaryFolder folder;
        std::vector<float> values(static_cast<std::size_t>(rows * cols));
        std::iota(values.begin(), values.end(), -3.5F);
        h5::RowWriter writer(folder / "m.h5", "logits", rows, cols);
        EXPECT_FALSE(std::filesystem::exists(folder / "m.h5"));
        for (int row = 0; row < rows; ++row)
            writer.append(
                std::span(values).subspan(static_cast<std::size_t>(row * cols), static_cast<std::size_t>(cols)));
        writer.finish();
        const h5::File file = h5::File::open(folder / "m.h5");
        EXPECT_EQ(file.root().names(), std::vector<std::string>{"logits"});
        EXPECT_EQ(file.root().shape("logits"), (std::vector<std::int64_t>{rows, cols}));
        EXPECT_EQ(file.root().read<float>("logits", 2), values);
        EXPECT_EQ(files_in(folder.path()), std::vector<std::filesystem::path>{"m.h5"});
    }
}

TEST(Hdf5Rows, RefusesMoreOrFewerValuesThanItHolds) {
    const testing::TemporaryFolder folder;
    const std::vector<float> values(7);
    std::optional<h5::RowWriter> writer;
    writer.emplace(folder / "m.h5", "logits", 2, 3);
    EXPECT_THROW(writer->append(values), Failure);
    writer->append(std::span(values).first(3));
    EXPECT_THROW(writer->finish(), Failure);
    writer.reset();
    EXPECT_TRUE(files_in(folder.path()).empty());
}

TEST(Hdf5Rows, LeavesWhatWasThereUnlessFinished) {
    const testing::TemporaryFolder folder;
    const std::vector<float> values(4, 1);
    h5::RowWriter first(folder / "m.h5", "logits", 1, 4);
    first.append(values);
    first.finish();
    { const h5::RowWriter abandoned(folder / "m.h5", "logits", 2, 4); }
    EXPECT_EQ(h5::File::open(folder / "m.h5").root().read<float>("logits"), values);
    EXPECT_EQ(files_in(folder.path()).size(), 1U);
}

TEST(Hdf5Rows, RefusesWhatDoesNotFitBeforeAnyWork) {
    const testing::TemporaryFolder folder;
    // 2^42 rows of 2^10 floats: 2^54 bytes, more than any file system here holds.
    EXPECT_THROW(h5::RowWriter(folder / "m.h5", "logits", std::int64_t{1} << 42, 1 << 10), Failure);
    EXPECT_TRUE(files_in(folder.path()).empty());
    EXPECT_THROW(h5::RowWriter(folder / "no/m.h5", "logits", 1, 1), Failure);
}

}  // namespace
}  // namespace fairgptq
