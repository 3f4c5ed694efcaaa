// NCCL and CUDA behind nccl_calls.hpp; compiled where the build has both.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/event.hpp"
#include "backend/cuda/memory.hpp"
#include "comm/nccl_calls.hpp"

namespace fairgptq {
namespace {

class GpuCalls final : public NcclCalls {
  public:
    explicit GpuCalls(CudaBackend& backend) : backend_(made_current(backend)) {
        static_assert(sizeof(Id) == sizeof(ncclUniqueId));
    }
    GpuCalls(const GpuCalls&) = delete;
    GpuCalls& operator=(const GpuCalls&) = delete;
    ~GpuCalls() override {
        if (left_ && comm_ != nullptr) ncclCommDestroy(comm_);
        if (!left_) abort();
    }

    std::string version() const override {
        int version = 0;
        check(ncclGetVersion(&version), "ncclGetVersion");
        return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
    }

    // NCCL chooses its ways by size, and since version 2.22 connects each at its first use.
    std::size_t trial_bytes() const override { return std::size_t{16} << 20U; }

    Id make_id() override {
        ncclUniqueId made;
        check(ncclGetUniqueId(&made), "ncclGetUniqueId");
        Id id;
        std::memcpy(id.data(), &made, sizeof(made));
        return id;
    }

    void join(const Id& id, int rank, int ranks) override {
        ncclUniqueId given;
        std::memcpy(&given, id.data(), sizeof(given));
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        check(ncclCommInitRankConfig(&comm_, ranks, given, rank, &config), "ncclCommInitRankConfig");
    }

    State state() override {
        ncclResult_t result = ncclSuccess;
        if (ncclCommGetAsyncError(comm_, &result) != ncclSuccess) return State::failed;
        return result == ncclSuccess ? State::ready : result == ncclInProgress ? State::busy : State::failed;
    }

    std::string problem() override {
        ncclResult_t result = ncclSuccess;
        const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
        const char* details = ncclGetLastError(comm_);
        return fmt::format("{}{}{}", ncclGetErrorString(asked != ncclSuccess ? asked : result),
                           details != nullptr && *details != '\0' ? "; " : "", details != nullptr ? details : "");
    }

    void follow_device() override {
        made_current(backend_);
        begin_.record(backend_.stream());
        begin_.delay(stream_.get());
    }

    void all_reduce_sum(std::span<double> values) override {
        check(ncclAllReduce(values.data(), values.data(), values.size(), ncclDouble, ncclSum, comm_, stream_.get()),
              "ncclAllReduce");
    }

    void reduce_sum(std::span<double> values, int root) override {
        check(ncclReduce(values.data(), values.data(), values.size(), ncclDouble, ncclSum, root, comm_, stream_.get()),
              "ncclReduce");
    }

    // Shares may differ by a tile of rows, which ncclAllGather cannot: then a broadcast of each, in one launch.
    void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                    std::span<const std::size_t> sizes) override {
        if (std::ranges::count(sizes, mine.size()) == std::ssize(sizes)) {
            check(ncclAllGather(mine.data(), all.data(), mine.size(), ncclUint8, comm_, stream_.get()),
                  "ncclAllGather");
            return;
        }
        check(ncclGroupStart(), "ncclGroupStart");
        std::byte* place = all.data();
        for (std::size_t root = 0; root < sizes.size(); place += sizes[root++])
            if (sizes[root] > 0)
                check(ncclBroadcast(mine.data(), place, sizes[root], ncclUint8, static_cast<int>(root), comm_,
                                    stream_.get()),
                      "ncclBroadcast");
        check(ncclGroupEnd(), "ncclGroupEnd");
    }

    void mark_end() override { end_.record(stream_.get()); }
    bool device_has_come() override { return begin_.happened(); }
    bool finished() override { return end_.happened(); }

    void leave() override {
        check(ncclCommFinalize(comm_), "ncclCommFinalize");
        left_ = true;
    }

    // NCCL ends the transfers at once, but some of its versions wait then for the other ranks to give up, too: it is
    // left to that.
    void abort() noexcept override {
        constexpr std::chrono::seconds long_enough(3);
        const ncclComm_t comm = std::exchange(comm_, nullptr);
        if (comm == nullptr) return;
        try {
            const auto done = std::make_shared<std::promise<void>>();
            std::thread([comm, done] {
                ncclCommAbort(comm);
                done->set_value();
            }).detach();
            done->get_future().wait_for(long_enough);
        } catch (const std::exception&) {  // no thread can be had: the process ends without it
        }
    }

  private:
    /// Its GPU is the calling thread's: streams and events are made on that, and NCCL works with it.
    static CudaBackend& made_current(CudaBackend& backend) {
        cuda::check(cudaSetDevice(backend.device()), "cudaSetDevice");
        return backend;
    }
    void check(ncclResult_t result, const char* call) const {
        if (result == ncclSuccess || result == ncclInProgress) return;
        const char* details = comm_ != nullptr ? ncclGetLastError(comm_) : nullptr;
        throw Failure("{} failed: {}{}{}", call, ncclGetErrorString(result),
                      details != nullptr && *details != '\0' ? "; " : "", details != nullptr ? details : "");
    }

    CudaBackend& backend_;
    cuda::Stream stream_;
    cuda::Event begin_, end_;
    ncclComm_t comm_ = nullptr;
    bool left_ = false;
};

}  // namespace

bool built_with_nccl() {
    return true;
}

std::unique_ptr<NcclCalls> make_nccl_calls(Backend& backend) {
    auto* gpu = dynamic_cast<CudaBackend*>(&backend);
    if (gpu == nullptr) throw Failure("NCCL needs a GPU, and this rank computes on {}", backend.name());
    return std::make_unique<GpuCalls>(*gpu);
}

}  // namespace fairgptq
