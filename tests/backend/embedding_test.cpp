#include "backend/embedding.hpp"

#include "backends.hpp"

namespace fairgptq::testing {
namespace {

class EmbeddingTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(EmbeddingTest);

TEST_P(EmbeddingTest, GathersAndAdds) {
    const HostMatrix table = integer_matrix(50, 33, 1);
    const DeviceMatrix device_table = upload(table);
    for (const std::vector<std::int32_t>& ids : {std::vector<std::int32_t>{}, {49}, {3, 3, 0, 49, 7}}) {
        const auto tokens = static_cast<std::int64_t>(ids.size());
        const HostMatrix before = integer_matrix(tokens, table.cols, 2);
        const DeviceMatrix output = upload(before);
        backend->embed(device_table.view, ids, output.view, true);
        const HostMatrix added = download(output.view);
        backend->embed(device_table.view, ids, output.view, false);
        const HostMatrix gathered = download(output.view);
        for (std::int64_t token = 0; token < tokens; ++token)
            for (std::int64_t col = 0; col < table.cols; ++col) {
                const float entry = table(ids[static_cast<std::size_t>(token)], col);
                ASSERT_EQ(added(token, col), before(token, col) + entry);
                ASSERT_EQ(gathered(token, col), entry);
            }
    }
}

TEST_P(EmbeddingTest, TokensBeyondTheTableAreRefused) {
    const DeviceMatrix table = device_matrix(5, 4, type);
    const DeviceMatrix output = device_matrix(1, 4, type);
    for (const std::int32_t id : {-1, 5}) {
        const std::vector<std::int32_t> ids{id};
        EXPECT_THROW(backend->embed(table.view, ids, output.view, false), InvalidInput);
    }
    const std::vector<std::int32_t> two{0, 1};
    EXPECT_THROW(backend->embed(table.view, two, output.view, false), Failure);
}

class EmbeddingsInARow : public BackendTest {};
FAIRGPTQ_ON_BACKENDS(EmbeddingsInARow);

/// Longer and shorter lists than a GPU's backend keeps on their way, which are gone when the call returns.
TEST_P(EmbeddingsInARow, EachGathersWhatItWasAskedFor) {
    const HostMatrix table = integer_matrix(50, 2, 1);
    const DeviceMatrix device_table = upload(table);
    const std::vector<std::int64_t> counts{30'000, 30'000, 30'000, 1, 60'000, 50'000, 70'000, 20'000};
    const auto id_of = [](std::size_t call, std::int64_t token) {
        return static_cast<std::int32_t>((static_cast<std::int64_t>(call) * 13 + token * 7) % 50);
    };
    std::vector<DeviceMatrix> outputs;  // all of them first: a GPU that gives memory waits for what it was asked before
    for (const std::int64_t count : counts)
        outputs.push_back(device_matrix(count, 2, type));
    backend->embed(device_table.view, std::vector<std::int32_t>(70'000), outputs[6].view, false);  // so for its ids
    for (std::size_t call = 0; call < counts.size(); ++call) {
        std::vector<std::int32_t> ids(static_cast<std::size_t>(counts[call]));
        for (std::int64_t token = 0; token < counts[call]; ++token)
            ids[static_cast<std::size_t>(token)] = id_of(call, token);
        backend->embed(device_table.view, ids, outputs[call].view, false);
    }
    for (std::size_t call = 0; call < counts.size(); ++call) {
        const HostMatrix found = download(outputs[call].view);
        for (std::int64_t token = 0; token < counts[call]; ++token)
            ASSERT_EQ(found(token, 1), table(id_of(call, token), 1)) << "call " << call << ", token " << token;
    }
}

}  // namespace
}  // namespace fairgptq::testing
