// Layer files: what is written comes back, the same record gives the same bytes, and nothing damaged is ever accepted.
#include "run/layer_file.hpp"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>

#include "run/sample.hpp"
#include "support/error.hpp"
#include "support/files.hpp"
#include "support/hdf5.hpp"
#include "support_files/refusal.hpp"

namespace fairgptq {
namespace {

using test::bytes_of;
using test::sample_module;
using test::SampleShape;
using test::ScratchFolder;

void put_bytes(const std::filesystem::path& file, const std::string& bytes) {
    std::ofstream(file, std::ios::binary) << bytes;
}

LayerRecord sample_record() {
    return {
        7,
        "0123456789abcdef",
        {sample_module("self_attn.q_proj", {}, 1),
         sample_module("self_attn.k_proj", {.rows = 3, .cols = 96, .group_size = 96, .bits = 3, .symmetric = false}, 2),
         sample_module("mlp.down_proj", {.rows = 5, .bits = 8, .shuffled = true, .scales_float32 = true}, 3)},
        {{"model.layers.7.mlp.down_proj.weight", "00ff"}, {"model.layers.7.input_layernorm.weight", "0123"}}};
}

void expect_equal(const ModuleSolution& a, const ModuleSolution& b) {
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.rows, b.rows);
    EXPECT_EQ(a.cols, b.cols);
    EXPECT_EQ(a.groups, b.groups);
    EXPECT_EQ(a.bits, b.bits);
    EXPECT_EQ(a.group_size, b.group_size);
    EXPECT_EQ(a.symmetric, b.symmetric);
    EXPECT_EQ(a.scales_float32, b.scales_float32);
    EXPECT_EQ(a.codes, b.codes);
    EXPECT_EQ(a.scales, b.scales);
    EXPECT_EQ(a.zeros, b.zeros);
    EXPECT_EQ(a.group_index, b.group_index);
    EXPECT_EQ(a.alpha, b.alpha);
    EXPECT_EQ(a.damp_used, b.damp_used);
    EXPECT_EQ(a.reconstruction, b.reconstruction);
    EXPECT_EQ(a.bias_before, b.bias_before);
    EXPECT_EQ(a.bias_after, b.bias_after);
    EXPECT_EQ(a.shift_norm, b.shift_norm);
    EXPECT_EQ(a.seconds, b.seconds);
    EXPECT_EQ(a.column_sensitivity, b.column_sensitivity);
}

TEST(LayerFile, ComesBackAsItWasWritten) {
    const ScratchFolder folder;
    const LayerRecord record = sample_record();
    write_layer(folder / "layer.h5", record);
    const LayerRecord read = read_layer_file(folder / "layer.h5");
    EXPECT_EQ(read.layer, record.layer);
    EXPECT_EQ(read.fingerprint, record.fingerprint);
    EXPECT_EQ(read.source_tensors, record.source_tensors);
    ASSERT_EQ(read.modules.size(), record.modules.size());
    for (std::size_t i = 0; i < record.modules.size(); ++i)
        expect_equal(read.modules[i], record.modules[i]);
    const LayerRecord header = read_layer_header(folder / "layer.h5");
    EXPECT_EQ(header.layer, record.layer);
    EXPECT_EQ(header.fingerprint, record.fingerprint);
    EXPECT_EQ(header.source_tensors, record.source_tensors);
    EXPECT_TRUE(header.modules.empty());
    EXPECT_EQ(header.hash, layer_hash(record));
    EXPECT_EQ(header.made_after, "");
}

TEST(LayerFile, ItsHashIsOfWhatTheLayerHasBecome) {
    const ScratchFolder folder;
    LayerRecord record = sample_record();
    const std::string hash = write_layer(folder / "layer.h5", record);
    EXPECT_EQ(hash, layer_hash(record));
    EXPECT_EQ(hash.size(), 32U);
    record.modules[0].seconds += 1;  // how it was made
    record.modules[0].reconstruction += 1;
    EXPECT_EQ(layer_hash(record), hash);
    const auto changed = [&](const auto& change) {
        LayerRecord other = record;
        change(other);
        return layer_hash(other) != hash;
    };
    EXPECT_TRUE(changed([](LayerRecord& other) { other.made_after = "a"; }));
    EXPECT_TRUE(changed([](LayerRecord& other) { other.source_tensors.begin()->second = "00fe"; }));  // a norm, say
    EXPECT_TRUE(changed([](LayerRecord& other) { other.modules[0].name = "self_attn.v_proj"; }));
    EXPECT_TRUE(changed([](LayerRecord& other) { other.modules[1].codes.back() ^= 1; }));
    EXPECT_TRUE(changed([](LayerRecord& other) { other.modules[2].scales[0] *= 2; }));
    EXPECT_TRUE(changed([](LayerRecord& other) { other.modules[1].zeros[0] ^= 1; }));
    EXPECT_TRUE(changed([](LayerRecord& other) { std::ranges::reverse(other.modules[0].group_index); }));
    record.made_after = hash;
    const std::string after = write_layer(folder / "layer.h5", record);
    EXPECT_EQ(read_layer_header(folder / "layer.h5").hash, after);
    EXPECT_EQ(read_layer_file(folder / "layer.h5").made_after, hash);

    record.hash = source_hash(record);
    EXPECT_EQ(write_layer(folder / "layer.h5", record), record.hash);
    EXPECT_EQ(read_layer_file(folder / "layer.h5").hash, record.hash);
    record.modules[0].codes[0] ^= 1;
    EXPECT_EQ(source_hash(record), record.hash);
    record.source_tensors.begin()->second = "00fe";
    EXPECT_NE(source_hash(record), record.hash);
}

TEST(LayerFile, SourceTensorsThatAreNoHashesAreRefused) {
    for (const char* text : {"", "[]", "{\"a\": 1}", "{\"a\": \"b\""}) {
        const ScratchFolder folder;
        {
            h5::File file = h5::File::create(folder / "layer.h5");
            file.root().set("format", "fairgptq-layer");
            file.root().set("version", 3);
            file.root().set("layer", 0);
            file.root().set("fingerprint", "f");
            file.root().set("modules", "[]");
            file.root().set("source_tensors", text);
            file.seal();
        }
        SCOPED_TRACE(text);
        testing::expect_refused([&] { read_layer_header(folder / "layer.h5"); }, {"'source_tensors'"});
    }
}

TEST(LayerFile, IsLaidOutAsTheInterfaceSays) {
    const ScratchFolder folder;
    write_layer(folder / "layer.h5", sample_record());
    const h5::File file = h5::File::open(folder / "layer.h5");
    const h5::Group module = file.root().group("self_attn.k_proj");
    EXPECT_EQ(module.integer("rows"), 3);
    EXPECT_EQ(module.integer("cols"), 96);
    EXPECT_EQ(module.integer("bits"), 3);
    EXPECT_EQ(module.integer("group_size"), 96);
    EXPECT_EQ(module.integer("sym"), 0);
    EXPECT_EQ(module.number("bias_after"), 3.125);
    EXPECT_EQ(module.shape("codes"), (std::vector<std::int64_t>{3, 36}));
    EXPECT_EQ(module.shape("scales"), (std::vector<std::int64_t>{3, 1}));
    EXPECT_EQ(module.shape("zeros"), (std::vector<std::int64_t>{3, 1}));
    EXPECT_EQ(module.shape("group_index"), (std::vector<std::int64_t>{96}));
    EXPECT_EQ(module.shape("column_sensitivity"), (std::vector<std::int64_t>{96}));
    EXPECT_EQ(module.element_bytes("scales"), 2U);
    EXPECT_EQ(file.root().group("mlp.down_proj").element_bytes("scales"), 4U);
}

TEST(LayerFile, TheSameRecordGivesTheSameBytesUnderItsOneName) {
    const ScratchFolder folder;
    write_layer(folder / "a.h5", sample_record());
    write_layer(folder / "b.h5", sample_record());
    write_layer(folder / "b.h5", sample_record());  // over an older one
    EXPECT_EQ(bytes_of(folder / "a.h5"), bytes_of(folder / "b.h5"));
    const auto entries = std::distance(std::filesystem::directory_iterator(folder.path()), {});
    EXPECT_EQ(entries, 2) << "temporary files are left";
}

TEST(LayerFile, TruncatedAnywhereIsRefused) {
    const ScratchFolder folder;
    write_layer(folder / "layer.h5", sample_record());
    const std::string whole = bytes_of(folder / "layer.h5");
    std::mt19937 random(11);
    std::vector<std::size_t> lengths{0, 1, 15, 16, 511, 512, 513, 520, whole.size() - 1};
    for (int i = 0; i < 200; ++i)
        lengths.push_back(random() % whole.size());
    for (const std::size_t length : lengths) {
        put_bytes(folder / "cut.h5", whole.substr(0, length));
        EXPECT_THROW(read_layer_file(folder / "cut.h5"), InvalidInput) << "cut to " << length;
        EXPECT_THROW(read_layer_header(folder / "cut.h5"), InvalidInput) << "cut to " << length;
    }
    put_bytes(folder / "cut.h5", whole + '\0');
    EXPECT_THROW(read_layer_file(folder / "cut.h5"), InvalidInput) << "one byte longer";
}

TEST(LayerFile, AFlippedBitAnywhereIsRefused) {
    const ScratchFolder folder;
    write_layer(folder / "layer.h5", sample_record());
    const std::string whole = bytes_of(folder / "layer.h5");
    std::mt19937 random(12);
    const auto refuse = [&](std::size_t position) {
        std::string damaged = whole;
        damaged[position] = static_cast<char>(damaged[position] ^ (1 << (random() % 8)));
        put_bytes(folder / "flipped.h5", damaged);
        EXPECT_THROW(read_layer_file(folder / "flipped.h5"), InvalidInput) << "byte " << position;
    };
    for (std::size_t position = 0; position < 512; ++position)
        refuse(position);
    for (int i = 0; i < 500; ++i)
        refuse(random() % whole.size());
}

/// A file that is whole and sealed, but says what cannot be: `change` edits a module's group after it is written.
void expect_module_refused(const std::string& what, const std::function<void(h5::Group&)>& write_group) {
    const ScratchFolder folder;
    const auto path = folder / "layer.h5";
    {
        h5::File file = h5::File::create(path);
        file.root().set("format", "fairgptq-layer");
        file.root().set("version", 3);
        file.root().set("layer", 0);
        file.root().set("fingerprint", "f");
        file.root().set("made_after", "");
        file.root().set("hash", "h");
        file.root().set("source_tensors", "{}");
        file.root().set("modules", "[\"m\"]");
        h5::Group group = file.root().create_group("m");
        write_group(group);
        file.seal();
    }
    testing::expect_refused([&] { read_layer_file(path); }, {path.string() + ":/m", what});
}

struct Hostile {
    std::int64_t rows = 2, cols = 8, bits = 4, group_size = 4;
    std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(8, 0x21);
    std::vector<float> scales{1, 2, 3, 4};
    std::vector<std::uint8_t> zeros{8, 8, 8, 8};
    std::vector<std::int32_t> group_index{0, 0, 0, 0, 1, 1, 1, 1};
    double alpha = 0.1;
    std::string left_out = {};

    void operator()(h5::Group& group) const {
        const auto want = [&](const char* name) { return left_out != name; };
        group.set("rows", rows);
        group.set("cols", cols);
        group.set("bits", bits);
        group.set("group_size", group_size);
        group.set("sym", true);
        group.set("alpha", alpha);
        for (const char* name : {"damp_used", "reconstruction", "bias_before", "bias_after", "shift_norm", "seconds"})
            if (want(name)) group.set(name, 0.0);
        if (want("codes")) group.write<std::uint8_t>("codes", codes, {2, static_cast<std::int64_t>(codes.size()) / 2});
        if (want("scales")) group.write<float>("scales", scales, {2, static_cast<std::int64_t>(scales.size()) / 2});
        if (want("zeros")) group.write<std::uint8_t>("zeros", zeros, {2, static_cast<std::int64_t>(zeros.size()) / 2});
        if (want("group_index"))
            group.write<std::int32_t>("group_index", group_index, {static_cast<std::int64_t>(group_index.size())});
    }
};

TEST(LayerFile, SealedButImpossibleContentsAreRefusedByName) {
    expect_module_refused("5 bits", Hostile{.bits = 5});
    expect_module_refused("-3 rows", Hostile{.rows = -3});
    expect_module_refused("codes has the shape [2, 4] where its attributes ask for [1099511, 4]",
                          Hostile{.rows = 1099511});
    expect_module_refused("groups of 3 columns", Hostile{.group_size = 3});
    expect_module_refused("groups of 0 columns", Hostile{.group_size = 0});
    expect_module_refused("scales has the shape [2, 3]", Hostile{.scales = {1, 2, 3, 4, 5, 6}});
    expect_module_refused("a scale that is not finite",
                          Hostile{.scales = {1, 2, std::numeric_limits<float>::quiet_NaN(), 4}});
    expect_module_refused("a scale that is not finite",
                          Hostile{.scales = {1, 2, std::numeric_limits<float>::infinity(), 4}});
    expect_module_refused("a zero of 7", Hostile{.zeros = {8, 7, 8, 8}});
    expect_module_refused("a group_index of 2", Hostile{.group_index = {0, 0, 0, 0, 1, 1, 1, 2}});
    expect_module_refused("a group_index of -1", Hostile{.group_index = {0, 0, 0, 0, 1, 1, 1, -1}});
    expect_module_refused("5 columns in group 0", Hostile{.group_index = {0, 0, 0, 0, 0, 1, 1, 1}});
    expect_module_refused("group_index has the shape [7]", Hostile{.group_index = {0, 0, 0, 0, 1, 1, 1}});
    expect_module_refused("a value of alpha that is not finite",
                          Hostile{.alpha = std::numeric_limits<double>::quiet_NaN()});
    for (const char* name : {"codes", "scales", "zeros", "group_index"})
        expect_module_refused(std::string(name) + " is missing", Hostile{.left_out = name});
    expect_module_refused("lacks the attribute 'seconds'", Hostile{.left_out = "seconds"});
}

TEST(LayerFile, WhatCannotBeReadBackIsNotWritten) {
    const ScratchFolder folder;
    LayerRecord record = sample_record();
    record.modules[0].codes[3] = 16;
    EXPECT_THROW(write_layer(folder / "layer.h5", record), Failure);
    record = sample_record();
    record.modules[0].scales[0] = 0.1F;  // not a float16
    EXPECT_THROW(write_layer(folder / "layer.h5", record), Failure);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(LayerFile, AFolderThatIsNotThereIsNamed) {
    try {
        write_layer("/nowhere/at/all/layer.h5", sample_record());
        FAIL();
    } catch (const Failure& problem) {
        EXPECT_NE(std::string(problem.what()).find("/nowhere/at/all/layer.h5"), std::string::npos) << problem.what();
    }
}

/// In a process of its own: a limit on file sizes stays for good, and a crash at exit must show.
[[noreturn]] void write_under_limit(const std::filesystem::path& file, rlim_t limit) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limits{limit, limit};
    ::setrlimit(RLIMIT_FSIZE, &limits);
    for (int attempt = 0; attempt < 3; ++attempt) {
        try {
            write_layer(file, sample_record());
            std::exit(3);
        } catch (const Failure& problem) {
            // No message can leave this process: its stderr is a file, too.
            if (std::string(problem.what()) != file.string() + " could not be written: File too large") std::exit(5);
        }
    }
    std::exit(std::filesystem::exists(file) || std::filesystem::exists(temporary_name(file)) ? 4 : 0);
}

TEST(LayerFileDeathTest, AFullDiskIsOneSentenceAndLeavesNothing) {
    const ScratchFolder folder;
    write_layer(folder / "whole.h5", sample_record());
    const auto size = static_cast<rlim_t>(std::filesystem::file_size(folder / "whole.h5"));
    for (const rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{600}, size / 2, size - 1})
        EXPECT_EXIT(write_under_limit(folder / "layer.h5", limit), ::testing::ExitedWithCode(0), "");
}

TEST(LayerFile, ATinyDiskIsOneSentenceAndLeavesTheOldFile) {
    const ScratchFolder folder;
    if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=64k") != 0)
        GTEST_SKIP() << "a file system of 64 KiB cannot be mounted here";
    LayerRecord record = sample_record();
    write_layer(folder / "layer.h5", record);
    const std::string before = bytes_of(folder / "layer.h5");
    record.modules[0] = sample_module("self_attn.q_proj", {.rows = 64, .cols = 4096}, 4);
    try {
        write_layer(folder / "layer.h5", record);
        ADD_FAILURE() << "128 KiB went into 64";
    } catch (const Failure& problem) {
        EXPECT_NE(std::string(problem.what()).find("layer.h5 could not be written: No space left on device"),
                  std::string::npos)
            << problem.what();
    }
    EXPECT_EQ(bytes_of(folder / "layer.h5"), before);
    EXPECT_FALSE(std::filesystem::exists(temporary_name(folder / "layer.h5")));
    ::umount(folder.path().c_str());
}

}  // namespace
}  // namespace fairgptq
