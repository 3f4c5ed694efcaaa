#include "support/hdf5.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <limits>

#include "support/error.hpp"
#include "support_files/refusal.hpp"
#include "support_files/temporary_folder.hpp"
#include "support_files/token_file.hpp"

namespace fairgptq::h5 {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::refusal_of;
using testing::remove_seal;
using testing::TemporaryFolder;

std::string bytes_of(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

void write_sample(const std::filesystem::path& path) {
    File file = File::create(path);
    const Group& root = file.root();
    root.write("floats", std::vector<float>{1.5F, -2.0F, 3.25F, 0, 5, 6}, {2, 3});
    root.write("doubles", std::vector<double>{1e-300}, {1});
    root.write("bytes", std::vector<std::uint8_t>{0, 255}, {2});
    root.write("longs", std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min(), 7}, {2});
    root.write("none", std::vector<std::int32_t>{}, {0});
    root.write("scalar", std::vector<std::int32_t>{42}, {});
    const std::vector<float> halves{0.5F, -65504.0F};
    const std::vector<std::int64_t> two{2};
    root.write_half("halves", halves, two);
    root.write_strings("words", {"one", "", "Δ and α"});
    const Group group = root.create_group("group");
    group.create_group("inner").write("x", std::vector<std::int32_t>{1}, {1});
    group.set("integer", std::int64_t{-3});
    group.set("number", 0.1);
    group.set("text", "words of text");
    group.set("flag", true);
    file.seal();
}

TEST(Hdf5, ReadsWhatWasWritten) {
    const TemporaryFolder folder;
    write_sample(folder / "s.h5");
    for (const bool sealed : {true, false}) {
        if (!sealed) remove_seal(folder / "s.h5");
        const File file = File::open(folder / "s.h5");
        const Group& root = file.root();
        EXPECT_THAT(root.shape("floats"), ElementsAre(2, 3));
        EXPECT_THAT(root.read<float>("floats", 2), ElementsAre(1.5F, -2.0F, 3.25F, 0, 5, 6));
        EXPECT_THAT(root.read<double>("floats"), ElementsAre(1.5, -2.0, 3.25, 0, 5, 6));
        EXPECT_THAT(root.read<double>("doubles"), ElementsAre(1e-300));
        EXPECT_THAT(root.read<std::uint8_t>("bytes"), ElementsAre(0, 255));
        EXPECT_THAT(root.read<std::int32_t>("bytes"), ElementsAre(0, 255));
        EXPECT_THAT(root.read<std::int64_t>("longs"), ElementsAre(std::numeric_limits<std::int64_t>::min(), 7));
        EXPECT_THAT(root.read<std::int32_t>("none", 1), ElementsAre());
        EXPECT_THAT(root.read<std::int32_t>("scalar", 0), ElementsAre(42));
        EXPECT_THAT(root.read<float>("halves"), ElementsAre(0.5F, -65504.0F));
        EXPECT_EQ(root.element_bytes("halves"), 2U);
        EXPECT_THAT(root.read_strings("words"), ElementsAre("one", "", "Δ and α"));
        EXPECT_THAT(root.names(),
                    ElementsAre("bytes", "doubles", "floats", "group", "halves", "longs", "none", "scalar", "words"));
        EXPECT_TRUE(root.has("group/inner/x"));
        EXPECT_FALSE(root.has("group/outer/x"));
        EXPECT_TRUE(root.is_dataset("floats"));
        EXPECT_FALSE(root.is_dataset("group"));
        const Group group = root.group("group");
        EXPECT_EQ(group.integer("integer"), -3);
        EXPECT_EQ(group.number("number"), 0.1);
        EXPECT_EQ(group.text("text"), "words of text");
        EXPECT_EQ(group.integer("flag"), 1);
        EXPECT_THAT(group.attribute_names(), ElementsAre("flag", "integer", "number", "text"));
        EXPECT_EQ(group.group("inner").where(), (folder / "s.h5").string() + ":/group/inner");
    }
}

TEST(Hdf5, RefusesWhatIsNotAsExpected) {
    const TemporaryFolder folder;
    write_sample(folder / "s.h5");
    const File file = File::open(folder / "s.h5");
    const Group& root = file.root();
    EXPECT_THAT(refusal_of([&] { root.read<float>("absent"); }), HasSubstr("s.h5:/absent is missing"));
    EXPECT_THAT(refusal_of([&] { root.read<float>("group"); }), HasSubstr("s.h5:/group is not a readable dataset"));
    EXPECT_THAT(refusal_of([&] { root.read<float>("floats", 1); }), HasSubstr("has 2 dimensions where 1 are expected"));
    EXPECT_THAT(refusal_of([&] { root.read<std::int32_t>("floats"); }), HasSubstr("where integers are expected"));
    EXPECT_THAT(refusal_of([&] { root.read<float>("words"); }), HasSubstr("does not hold numbers"));
    EXPECT_THAT(refusal_of([&] { root.read_strings("floats"); }), HasSubstr("is not a list of strings"));
    EXPECT_THAT(refusal_of([&] { root.group("floats"); }), HasSubstr("is not a readable group"));
    const Group group = root.group("group");
    EXPECT_THAT(refusal_of([&] { group.number("absent"); }), HasSubstr("s.h5:/group lacks the attribute 'absent'"));
    EXPECT_THAT(refusal_of([&] { group.number("text"); }), HasSubstr("'text' is not a number"));
    EXPECT_THAT(refusal_of([&] { group.integer("number"); }), HasSubstr("'number' is not a whole number"));
    EXPECT_THAT(refusal_of([&] { group.text("integer"); }), HasSubstr("'integer' is not text"));
}

TEST(Hdf5, EqualContentsGiveEqualBytes) {
    const TemporaryFolder folder;
    write_sample(folder / "a.h5");
    write_sample(folder / "b.h5");
    EXPECT_EQ(bytes_of(folder / "a.h5"), bytes_of(folder / "b.h5"));
}

TEST(Hdf5, AFileThatWasNotSealedIsNotThere) {
    const TemporaryFolder folder;
    {
        const File file = File::create(folder / "s.h5");
        file.root().set("x", 1);
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Hdf5, TellsDamageUnderASeal) {
    const TemporaryFolder folder;
    write_sample(folder / "s.h5");
    EXPECT_NO_THROW(File::open(folder / "s.h5", Seal::required));
    const std::string whole = bytes_of(folder / "s.h5");
    const auto opened = [&](const std::string& bytes, Seal seal) {
        std::ofstream(folder / "d.h5", std::ios::binary) << bytes;
        return refusal_of([&] { File::open(folder / "d.h5", seal); });
    };
    for (const std::size_t place : {std::size_t{20}, std::size_t{512}, whole.size() / 2, whole.size() - 1}) {
        std::string damaged = whole;
        damaged[place] = static_cast<char>(damaged[place] ^ 1);
        EXPECT_THAT(opened(damaged, Seal::optional), HasSubstr("do not match its checksum")) << place;
    }
    EXPECT_THAT(opened(whole.substr(0, whole.size() - 1), Seal::optional), HasSubstr("do not match its checksum"));
    EXPECT_THAT(opened(whole + "x", Seal::optional), HasSubstr("do not match its checksum"));
    EXPECT_THAT(opened(whole.substr(0, 100), Seal::required), HasSubstr("it is only 100 bytes long"));
    EXPECT_THAT(opened("", Seal::required), HasSubstr("it is only 0 bytes long"));
    const std::string unsealed = std::string(512, '\0') + whole.substr(512);
    EXPECT_EQ(opened(unsealed, Seal::optional), "");
    EXPECT_THAT(opened(unsealed, Seal::required), HasSubstr("do not match its checksum"));
}

/// Makes a file with HDF5 itself, in ways that this project does not write.
std::filesystem::path made_by_hdf5(const TemporaryFolder& folder, const std::function<void(hid_t)>& fill) {
    const Handle file(H5Fcreate((folder / "h.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
    fill(file.get());
    return folder / "h.h5";
}

TEST(Hdf5, TakesNoMemoryForShapesThatTheFileCannotHold) {
    const TemporaryFolder folder;
    for (const hsize_t values : {hsize_t{1} << 34U, hsize_t{1} << 62U}) {
        const auto path = made_by_hdf5(folder, [&](hid_t file) {
            const Handle space(H5Screate_simple(1, &values, nullptr));
            // Chunks that are never written take no room in the file.
            const Handle chunked(H5Pcreate(H5P_DATASET_CREATE));
            const hsize_t chunk = 1024;
            H5Pset_chunk(chunked.get(), 1, &chunk);
            const Handle plain(
                H5Dcreate2(file, "plain", H5T_NATIVE_INT32, space.get(), H5P_DEFAULT, chunked.get(), H5P_DEFAULT));
            H5Pset_deflate(chunked.get(), 1);
            const Handle packed(
                H5Dcreate2(file, "packed", H5T_NATIVE_INT32, space.get(), H5P_DEFAULT, chunked.get(), H5P_DEFAULT));
            const Handle type(H5Tcopy(H5T_C_S1));
            H5Tset_size(type.get(), H5T_VARIABLE);
            const Handle words(
                H5Dcreate2(file, "words", type.get(), space.get(), H5P_DEFAULT, chunked.get(), H5P_DEFAULT));
        });
        const File file = File::open(path);
        for (const char* name : {"plain", "packed"})
            EXPECT_THAT(refusal_of([&] { file.root().read<std::int32_t>(name); }),
                        HasSubstr(std::string("h.h5:/") + name))
                << values;
        EXPECT_THAT(refusal_of([&] { file.root().read_strings("words"); }), HasSubstr("h.h5:/words")) << values;
    }
}

TEST(Hdf5, ReadsPackedData) {
    const TemporaryFolder folder;
    std::vector<std::int32_t> zeros(1U << 20U, 0);  // deflate's best case
    const auto path = made_by_hdf5(folder, [&](hid_t file) {
        const hsize_t size = zeros.size();
        const Handle space(H5Screate_simple(1, &size, nullptr));
        const Handle properties(H5Pcreate(H5P_DATASET_CREATE));
        H5Pset_chunk(properties.get(), 1, &size);
        H5Pset_deflate(properties.get(), 9);
        const Handle data(
            H5Dcreate2(file, "zeros", H5T_NATIVE_INT32, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT));
        H5Dwrite(data.get(), H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data());
    });
    EXPECT_EQ(File::open(path).root().read<std::int32_t>("zeros"), zeros);
}

TEST(Hdf5, FollowsNothingIntoOtherFiles) {
    const TemporaryFolder folder;
    write_sample(folder / "s.h5");
    std::ofstream(folder / "raw") << std::string(64, 'x');
    const auto path = made_by_hdf5(folder, [&](hid_t file) {
        H5Lcreate_external((folder / "s.h5").c_str(), "/floats", file, "link", H5P_DEFAULT, H5P_DEFAULT);
        const hsize_t size = 4;
        const Handle space(H5Screate_simple(1, &size, nullptr));
        const Handle properties(H5Pcreate(H5P_DATASET_CREATE));
        H5Pset_external(properties.get(), (folder / "raw").c_str(), 0, 16);
        const Handle data(
            H5Dcreate2(file, "elsewhere", H5T_NATIVE_INT32, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT));
    });
    const File file = File::open(path);
    EXPECT_THAT(refusal_of([&] { file.root().read<float>("link"); }),
                HasSubstr("h.h5:/link is a link to another file"));
    EXPECT_THAT(refusal_of([&] { file.root().read<std::int32_t>("elsewhere"); }),
                HasSubstr("h.h5:/elsewhere has its data in another file"));
}

TEST(Hdf5, GroupsThatGoInCirclesEnd) {
    const TemporaryFolder folder;
    const auto path =
        made_by_hdf5(folder, [](hid_t file) { H5Lcreate_hard(file, "/", file, "self", H5P_DEFAULT, H5P_DEFAULT); });
    EXPECT_TRUE(File::open(path).root().has("self/self/self"));
}

}  // namespace
}  // namespace fairgptq::h5
