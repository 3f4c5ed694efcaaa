// Safetensors files, whole and damaged.
#include "model/safetensors.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "model/model_files.hpp"
#include "support/files.hpp"

namespace fairgptq {
namespace {

using testing::expect_refused;
using testing::safetensors_file;

TEST(Safetensors, ReadsEveryFloatType) {
    const testing::ModelFolder folder;
    const std::vector<float> values{1, -2.5F, 0, 3, 0.125F, -65504};
    folder.write("model.safetensors", safetensors_file({{"a", {{2, 3}, values, "F32"}},
                                                        {"b", {{6}, values, "F16"}},
                                                        {"c", {{1, 6, 1}, values, "BF16"}},
                                                        {"empty", {{0, 5}, {}, "F16"}}}));
    const Checkpoint checkpoint(folder.path());
    EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b", "c", "empty"}));
    EXPECT_TRUE(checkpoint.has("a"));
    EXPECT_FALSE(checkpoint.has("d"));
    EXPECT_EQ(checkpoint.tensor("a").dtype(), DType::float32);
    EXPECT_EQ(checkpoint.tensor("b").dtype(), DType::float16);
    EXPECT_EQ(checkpoint.tensor("c").dtype(), DType::bfloat16);
    EXPECT_EQ(checkpoint.tensor("a").shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(std::memcmp(checkpoint.tensor("a").bytes.data(), values.data(), 24), 0);
    EXPECT_EQ(checkpoint.tensor("b").bytes.size(), 12U);
    EXPECT_TRUE(checkpoint.tensor("empty").bytes.empty());
    EXPECT_EQ(checkpoint.tensor("a").file, (folder.path() / "model.safetensors").string());
    for (const std::string& name : checkpoint.names()) {
        checkpoint.will_need(name);
        checkpoint.done_with(name);
    }
    EXPECT_EQ(std::memcmp(checkpoint.tensor("a").bytes.data(), values.data(), 24), 0);

    const std::vector<std::int64_t> other{3, 2};
    expect_refused([&] { checkpoint.tensor("a", other); }, {"'a'", "[2, 3]", "[3, 2]", "model.safetensors"});
    expect_refused([&] { (void)checkpoint.tensor("nothing"); }, {"'nothing'", folder.path().string()});
}

/// 8-bit floats of all codes but NaN, over and over.
testing::StoredTensor floats8(std::int64_t rows, std::int64_t cols) {
    testing::StoredTensor tensor{{rows, cols}, {}, "F8_E4M3"};
    for (std::int64_t i = 0; i < rows * cols; ++i)
        tensor.values.push_back(to_float(Float8{static_cast<std::uint8_t>(i * 37 % 127 + (i % 2 == 0 ? 0 : 128))}));
    return tensor;
}

TEST(Safetensors, EightBitFloatsCountByTheirBlocks) {
    for (const char* type : {"F32", "BF16"})
        for (const auto& [rows, cols] :
             std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {128, 128}, {129, 127}, {300, 257}, {0, 5}}) {
            const testing::ModelFolder folder;
            const std::int64_t blocks = (cols + 127) / 128;
            testing::StoredTensor scales{{(rows + 127) / 128, blocks}, {}, type};
            for (std::int64_t i = 0; i < scales.shape[0] * blocks; ++i)
                scales.values.push_back(0.001F * static_cast<float>(i + 1));
            const testing::StoredTensor matrix = floats8(rows, cols);
            folder.write("model.safetensors", safetensors_file({{"w.weight", matrix}, {"w.weight_scale_inv", scales}}));
            const Checkpoint checkpoint(folder.path());
            EXPECT_EQ(checkpoint.names(), std::vector<std::string>{"w.weight"});
            const HostTensor& tensor = checkpoint.tensor("w.weight");
            EXPECT_EQ(tensor.dtype(), DType::bfloat16);
            EXPECT_FALSE(tensor.any_not_finite(tensor.bytes));
            std::vector<std::byte> room;
            const std::span<const std::byte> values = tensor.values(room);
            ASSERT_EQ(std::ssize(values), 2 * rows * cols);
            for (std::int64_t row = 0; row < rows; ++row)
                for (std::int64_t col = 0; col < cols; ++col) {
                    std::uint16_t bits = 0;
                    std::memcpy(&bits, values.data() + 2 * (row * cols + col), 2);
                    const float scale = scales.values[static_cast<std::size_t>(row / 128 * blocks + col / 128)];
                    const float factor = type == std::string("F32") ? scale : to_float(to_bfloat16(scale));
                    ASSERT_EQ(bits,
                              to_bfloat16(matrix.values[static_cast<std::size_t>(row * cols + col)] * factor).bits)
                        << row << " " << col;
                }
            if (rows == 0) continue;
            const std::string before = tensor.hash();
            scales.values.back() *= 2;
            folder.write("model.safetensors", safetensors_file({{"w.weight", matrix}, {"w.weight_scale_inv", scales}}));
            EXPECT_NE(Checkpoint(folder.path()).tensor("w.weight").hash(), before);
        }
}

TEST(Safetensors, EightBitFloatsThatCannotBeReadAreRefused) {
    const auto read = [](const std::map<std::string, testing::StoredTensor>& tensors) {
        const testing::ModelFolder folder;
        folder.write("model.safetensors", safetensors_file(tensors));
        const Checkpoint checkpoint(folder.path());
        const HostTensor& tensor = checkpoint.tensor("w");
        EXPECT_EQ(checkpoint.names().size(), 2U) << "what is no factor of another tensor is one of its own";
        (void)tensor.dtype();
    };
    const testing::StoredTensor matrix = floats8(130, 20);
    expect_refused(
        [&] {
            read({{"w", matrix}, {"other_scale_inv", {{2, 1}, {1, 1}, "F32"}}});
        },
        {"'w'", "F8_E4M3", "'w_scale_inv'"});
    expect_refused(
        [&] {
            read({{"w", matrix}, {"w_scale_inv", {{1, 1}, {1}, "F32"}}});
        },
        {"'w'", "128 × 128", "'w_scale_inv'"});
    expect_refused([&] { read({{"w", matrix}, {"w_scale_inv", {{2}, {1, 1}, "F32"}}}); }, {"'w_scale_inv'"});
    EXPECT_NO_THROW(
        read({{"w", {{130, 20}, std::vector<float>(2600), "F32"}}, {"w_scale_inv", {{2, 1}, {1, 1}, "F32"}}}));
    testing::StoredTensor holed = matrix;
    holed.values[7] = 1e9F;  // there is none, and NaN is written
    const testing::ModelFolder folder;
    folder.write("model.safetensors", safetensors_file({{"w", holed}, {"w_scale_inv", {{2, 1}, {1, 1}, "F32"}}}));
    const Checkpoint checkpoint(folder.path());
    EXPECT_TRUE(checkpoint.tensor("w").any_not_finite(checkpoint.tensor("w").bytes));
}

/// The share of a mapped file's pages that are in memory, whoever brought them.
double share_in_memory(std::span<const std::byte> bytes) {
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page * page;  // NOLINT: page address
    const std::size_t length = reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size() - begin;  // NOLINT
    std::vector<unsigned char> pages((length + page - 1) / page);
    if (::mincore(reinterpret_cast<void*>(begin), length, pages.data()) != 0) return 0;  // NOLINT
    const auto there = std::count_if(pages.begin(), pages.end(), [](unsigned char one) { return (one & 1U) != 0; });
    return static_cast<double>(there) / static_cast<double>(pages.size());
}

TEST(Safetensors, AllOfALargeTensorIsReadAhead) {
    constexpr std::size_t elements = std::size_t{24} << 20U;
    const testing::ModelFolder folder;
    folder.write("model.safetensors",
                 safetensors_file(fmt::format(R"({{"a":{{"dtype":"F16","shape":[{}],"data_offsets":[0,{}]}}}})",
                                              elements, 2 * elements),
                                  std::string(2 * elements, 'x')));
    const FileDescriptor file(::open((folder.path() / "model.safetensors").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::fdatasync(file.get()), 0);
    ASSERT_EQ(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    const Checkpoint checkpoint(folder.path());
    const std::span<const std::byte> bytes = checkpoint.tensor("a").bytes;
    if (share_in_memory(bytes) > 0.5) GTEST_SKIP() << "this file system keeps its files in memory";
    checkpoint.will_need("a");
    for (int wait = 0; wait < 200 && share_in_memory(bytes) < 1; ++wait)
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(share_in_memory(bytes), 1);
}

TEST(Safetensors, RefusesTypesThatAreNotFloats) {
    const testing::ModelFolder folder;
    folder.write("model.safetensors",
                 safetensors_file(R"({"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}})", "12345678"));
    const Checkpoint checkpoint(folder.path());
    expect_refused([&] { (void)checkpoint.tensor("a").dtype(); }, {"'a'", "I32", "model.safetensors"});
}

struct Damage {
    const char* what;
    std::string file;
    std::vector<std::string> message;
};

TEST(Safetensors, RefusesDamagedFiles) {
    const auto one = [](const std::string& entry) { return safetensors_file("{\"a\":" + entry + "}", "12345678"); };
    const std::vector<Damage> cases{
        {"empty file", "", {"truncated"}},
        {"seven bytes", "1234567", {"truncated"}},
        {"header longer than the file", safetensors_file("{}", "", 3), {"truncated", "3 bytes"}},
        {"header of 2^64 - 1 bytes", safetensors_file("{}", "", ~0ULL), {"18446744073709551615"}},
        {"header of 2^63 bytes", safetensors_file("{}", "", 1ULL << 63U), {"9223372036854775808"}},
        {"header over the format's limit", safetensors_file("{}", "", 100000001), {"100000001"}},
        {"no header", safetensors_file("", ""), {"JSON"}},
        {"header that is not JSON", safetensors_file("{\"a\":", ""), {"JSON"}},
        {"header that is a list", safetensors_file("[]", ""), {"object"}},
        {"header that is not UTF-8", safetensors_file("{\"\xff\xfe\":{}}", ""), {"JSON"}},
        {"the same tensor twice",
         safetensors_file(
             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
             "12345678"),
         {"'a'", "twice"}},
        {"entry of another kind", one("3"), {"'a'", "object"}},
        {"no dtype", one(R"({"shape":[2],"data_offsets":[0,8]})"), {"'a'", "dtype"}},
        {"unknown dtype", one(R"({"dtype":"Q4","shape":[2],"data_offsets":[0,8]})"), {"'a'", "Q4"}},
        {"dtype of another kind", one(R"({"dtype":4,"shape":[2],"data_offsets":[0,8]})"), {"'a'", "dtype"}},
        {"no shape", one(R"({"dtype":"F32","data_offsets":[0,8]})"), {"'a'", "shape"}},
        {"shape of another kind", one(R"({"dtype":"F32","shape":"2","data_offsets":[0,8]})"), {"'a'", "shape"}},
        {"negative extent", one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), {"'a'", "-2"}},
        {"fractional extent", one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), {"'a'", "2.0"}},
        {"extent of 2^64 - 1",
         one(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"),
         {"'a'", "63 bits"}},
        {"shape that overflows to the right size",
         one(R"({"dtype":"F32","shape":[4611686018427387904,4,2],"data_offsets":[0,8]})"),
         {"'a'", "overflows"}},
        {"shape larger than the data", one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), {"'a'", "8", "12"}},
        {"shape smaller than the data", one(R"({"dtype":"F16","shape":[2],"data_offsets":[0,8]})"), {"'a'", "8", "4"}},
        {"no offsets", one(R"({"dtype":"F32","shape":[2]})"), {"'a'", "data_offsets"}},
        {"one offset", one(R"({"dtype":"F32","shape":[2],"data_offsets":[8]})"), {"'a'", "data_offsets"}},
        {"falling offsets", one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), {"'a'", "rising"}},
        {"negative offset", one(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"), {"'a'", "-8"}},
        {"offsets outside the file", one(R"({"dtype":"F32","shape":[2],"data_offsets":[4,12]})"), {"'a'", "truncated"}},
        {"offsets far outside",
         one(R"({"dtype":"F32","shape":[2],"data_offsets":[9223372036854775800,9223372036854775807]})"),
         {"'a'", "truncated"}},
        {"gap before", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"), {"'a'", "gap"}},
        {"bytes after", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"), {"4 bytes after"}},
        {"overlap",
         safetensors_file(
             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
             "123456"),
         {"'b'", "overlap"}},
        {"the same bytes twice",
         safetensors_file(
             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
             "1234"),
         {"overlap"}},
    };
    for (const Damage& damage : cases) {
        SCOPED_TRACE(damage.what);
        const testing::ModelFolder folder;
        folder.write("model.safetensors", damage.file);
        std::vector<std::string> parts = damage.message;
        parts.emplace_back("model.safetensors");
        expect_refused([&] { const Checkpoint checkpoint(folder.path()); }, parts);
    }
}

// Whatever is cut off or changed in the header, the answer is a tensor table or InvalidInput, nothing else.
TEST(Safetensors, SurvivesEveryTruncationAndByteFlip) {
    const std::string whole = safetensors_file({{"a", {{2, 2}, {1, 2, 3, 4}, "F16"}}, {"b", {{3}, {1, 2, 3}, "F32"}}});
    const testing::ModelFolder folder;
    const auto try_file = [&](const std::string& content) {
        folder.write("model.safetensors", content);
        try {
            const Checkpoint checkpoint(folder.path());
            return true;
        } catch (const InvalidInput&) {
            return false;
        }
    };
    ASSERT_TRUE(try_file(whole));
    for (std::size_t length = 0; length < whole.size(); ++length)
        EXPECT_FALSE(try_file(whole.substr(0, length))) << length;
    for (std::size_t place = 0; place < whole.size() - 20; ++place)
        for (const unsigned flip : {1U, 0x20U, 0x80U}) {
            std::string changed = whole;
            changed[place] = static_cast<char>(static_cast<unsigned char>(changed[place]) ^ flip);
            EXPECT_NO_THROW(try_file(changed)) << place;
        }
}

class Sharded : public ::testing::Test {
  protected:
    Sharded() {
        folder.write("one.safetensors", safetensors_file({{"a", {{2}, {1, 2}}}}));
        folder.write("two.safetensors", safetensors_file({{"b", {{2}, {3, 4}}}, {"c", {{1}, {5}}}}));
    }
    void index(const std::string& text) const { folder.write("model.safetensors.index.json", text); }
    void refuse(const std::string& text, const std::vector<std::string>& parts) const {
        index(text);
        expect_refused([&] { const Checkpoint checkpoint(folder.path()); }, parts);
    }
    testing::ModelFolder folder;
};

TEST_F(Sharded, ReadsAllShards) {
    index(
        R"({"metadata":{"total_size":20},"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"}})");
    const Checkpoint checkpoint(folder.path());
    EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b", "c"}));
    EXPECT_NE(checkpoint.tensor("c").file.find("two.safetensors"), std::string::npos);
    ASSERT_EQ(checkpoint.files().size(), 2U);
    EXPECT_EQ(checkpoint.files()[0].name, "one.safetensors");
    EXPECT_EQ(checkpoint.files()[0].bytes, std::filesystem::file_size(folder.path() / "one.safetensors"));
    EXPECT_EQ(checkpoint.files()[0].header_hash.size(), 32U);
    EXPECT_NE(checkpoint.files()[0].header_hash, checkpoint.files()[1].header_hash);
}

TEST_F(Sharded, RefusesBadIndexes) {
    refuse("{", {"index.json", "JSON"});
    refuse("{}", {"index.json", "weight_map"});
    refuse(R"({"weight_map":{}})", {"index.json", "weight_map"});
    refuse(R"({"weight_map":{"a":3}})", {"index.json", "'a'"});
    refuse(R"({"weight_map":{"a":""}})", {"index.json", "'a'"});
    refuse(R"({"weight_map":{"a":".."}})", {"index.json", "'a'", "same folder"});
    refuse(R"({"weight_map":{"a":"../one.safetensors"}})", {"index.json", "'a'", "same folder"});
    refuse(R"({"weight_map":{"a":"/etc/passwd"}})", {"index.json", "'a'", "same folder"});
    refuse(R"({"weight_map":{"a":"one\u0000.safetensors"}})", {"index.json", "'a'", "same folder"});
    refuse(R"({"weight_map":{"a":"three.safetensors"}})", {"index.json", "three.safetensors", "missing"});
    refuse(R"({"weight_map":{"a":"one.safetensors","d":"two.safetensors"}})", {"index.json", "'d'", "two.safetensors"});
    refuse(R"({"weight_map":{"a":"two.safetensors","b":"two.safetensors","c":"one.safetensors"}})",
           {"index.json", "'a'"});
    refuse(R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})", {"index.json", "'a'", "twice"});
    folder.write("two.safetensors", safetensors_file({{"a", {{2}, {3, 4}}}}));
    refuse(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})",
           {"'a'", "one.safetensors", "two.safetensors"});
    folder.write("two.safetensors", "");
    refuse(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})", {"two.safetensors", "truncated"});
}

TEST(Safetensors, RefusesAFolderWithoutModel) {
    const testing::ModelFolder folder;
    expect_refused([&] { const Checkpoint checkpoint(folder.path()); }, {folder.path().string(), "model.safetensors"});
    std::filesystem::create_directory(folder.path() / "model.safetensors");
    expect_refused([&] { const Checkpoint checkpoint(folder.path()); }, {"model.safetensors", "not a file"});
}

}  // namespace
}  // namespace fairgptq
