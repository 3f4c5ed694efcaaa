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

}  // namespace
}  // namespace fairgptq::testing
