// NCCL between emulated GPUs, of threads or of processes on one host: a rank's part of an exchange is a file in memory
// that the others wait for, so that an exchange is under way until all ranks' streams have come to it.
//
// It holds callers to what NCCL asks of them in its non-blocking mode: a call returns while it is under way, is put on
// its stream when the caller asks for the state, and no other may follow before that; ranks that share a GPU are
// refused; a rank that aborts is an error at all others.
#include <nccl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "emulation.hpp"

namespace {

namespace fs = std::filesystem;

/// One call, or a group's. Each rank gives the bytes that `mine` has, and gets all ranks'.
struct Operation {
    struct Broadcast {
        const void* from;
        void* to;
        std::size_t bytes;
        int root;
    };
    std::vector<Broadcast> broadcasts;
    const double* addends = nullptr;  // of a sum
    double* sums = nullptr;
    int root = -1;  // of a sum that one rank gets; or all
    std::size_t count = 0;
    cudaStream_t stream = nullptr;
};

/// What is on a stream still refers to them, and other ranks have to find their files.
struct Aborted {
    std::vector<ncclComm_t> comms;
    ~Aborted();
    static std::vector<ncclComm_t>& all() {
        static Aborted one;
        return one.comms;
    }
};

thread_local int group_depth = 0;
thread_local ncclComm_t group_of = nullptr;

}  // namespace

struct ncclComm {
    std::string id;
    int rank = 0, ranks = 0, device = 0;
    ncclResult_t state = ncclInProgress;
    std::string problem;
    bool joined = false, aborted = false, leaving = false;
    std::unique_ptr<Operation> open;     // a group that is not ended
    std::unique_ptr<Operation> waiting;  // asked for, and not on its stream yet
    cudaStream_t stream = nullptr;       // the last call's
    std::int64_t begun = 0, done = 0;    // exchanges on streams

    fs::path file(const std::string& what, int of) const {
        return "/dev/shm/" + id + "." + what + "." + std::to_string(of);
    }
    void publish(const std::string& what, const void* data, std::size_t bytes) const {
        const fs::path whole = file(what, rank), part = whole.string() + ".part";
        std::ofstream(part, std::ios::binary)
            .write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
        fs::rename(part, whole);
    }
    bool all_have(const std::string& what) const {
        for (int of = 0; of < ranks; ++of)
            if (!fs::exists(file(what, of))) return false;
        return true;
    }
    std::string contents(const std::string& what, int of) const {
        std::string bytes(fs::file_size(file(what, of)), '\0');
        std::ifstream(file(what, of), std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        return bytes;
    }
    void forget(const std::string& what) const { fs::remove(file(what, rank)); }
    bool other_aborted() const {
        for (int of = 0; of < ranks; ++of)
            if (of != rank && fs::exists(file("abort", of))) return true;
        return false;
    }
};

namespace {

std::string name_of(std::int64_t exchange) {
    return "exchange" + std::to_string(exchange);
}

Aborted::~Aborted() {
    for (const ncclComm_t comm : comms) {
        for (const std::string& what :
             {std::string("joined"), std::string("abort"), name_of(comm->begun - 1), name_of(comm->begun - 2)})
            comm->forget(what);
        delete comm;
    }
}

/// This rank's bytes of an exchange, as the device has them now.
std::string mine(const ncclComm& comm, const Operation& operation) {
    std::string bytes;
    const auto add = [&](const void* data, std::size_t size) {
        emulation::require_inside(data, size, "NCCL (from)");
        bytes.append(static_cast<const char*>(data), size);
    };
    const emulation::DeviceAccess access;
    for (const Operation::Broadcast& one : operation.broadcasts)
        if (one.root == comm.rank) add(one.from, one.bytes);
    if (operation.addends != nullptr) add(operation.addends, operation.count * sizeof(double));
    return bytes;
}

void receive(const ncclComm& comm, const Operation& operation, const std::string& exchange) {
    std::vector<std::string> all;
    for (int of = 0; of < comm.ranks; ++of)
        all.push_back(comm.contents(exchange, of));
    const emulation::DeviceAccess access;
    std::vector<std::size_t> at(all.size());
    for (const Operation::Broadcast& one : operation.broadcasts) {
        const auto root = static_cast<std::size_t>(one.root);
        if (at[root] + one.bytes > all[root].size()) emulation::fail("NCCL: ranks disagree on a broadcast's size");
        emulation::require_inside(one.to, one.bytes, "NCCL (to)");
        std::memcpy(one.to, all[root].data() + at[root], one.bytes);
        at[root] += one.bytes;
    }
    for (std::size_t root = 0; root < all.size() && operation.sums == nullptr; ++root)
        if (at[root] != all[root].size()) emulation::fail("NCCL: ranks disagree on a broadcast's size");
    if (operation.sums == nullptr || (operation.root >= 0 && operation.root != comm.rank)) return;
    emulation::require_inside(operation.sums, operation.count * sizeof(double), "NCCL (sums)");
    std::vector<double> sums(operation.count), addends(operation.count);
    for (const std::string& one : all) {
        if (one.size() != operation.count * sizeof(double)) emulation::fail("NCCL: ranks disagree on a sum's size");
        std::memcpy(addends.data(), one.data(), one.size());
        for (std::size_t i = 0; i < sums.size(); ++i)
            sums[i] += addends[i];
    }
    std::memcpy(operation.sums, sums.data(), sums.size() * sizeof(double));
}

void put_on_stream(ncclComm& comm, const std::shared_ptr<Operation>& operation) {
    const std::int64_t number = comm.begun++;
    comm.stream = operation->stream;
    emulation::enqueue_attempt(operation->stream, [&comm, operation, number, given = false]() mutable {
        if (comm.aborted) return true;
        const std::string name = name_of(number);
        if (!given) {
            const std::string bytes = mine(comm, *operation);
            comm.publish(name, bytes.data(), bytes.size());
            given = true;
        }
        if (!comm.all_have(name)) return false;
        receive(comm, *operation, name);
        // All have come to this one, and so have all that the one before gave.
        if (number > 0) comm.forget(name_of(number - 1));
        ++comm.done;
        return true;
    });
}

/// Whether the last call is done with, after a step of what is under way.
ncclResult_t advance(ncclComm& comm) {
    if (comm.state != ncclInProgress && comm.state != ncclSuccess) return comm.state;
    if (comm.other_aborted()) {
        comm.problem = "another rank aborted";
        return comm.state = ncclRemoteError;
    }
    if (!comm.joined) {
        if (!comm.all_have("joined")) return ncclInProgress;
        for (int other = 0; other < comm.ranks; ++other)
            if (other != comm.rank && comm.contents("joined", other) == comm.contents("joined", comm.rank)) {
                comm.problem = "ranks " + std::to_string(comm.rank) + " and " + std::to_string(other) + " have one GPU";
                return comm.state = ncclInvalidUsage;
            }
        comm.joined = true;
    }
    if (comm.waiting) put_on_stream(comm, std::shared_ptr<Operation>(std::move(comm.waiting)));
    if (comm.stream != nullptr) emulation::step(comm.stream);
    if (comm.leaving && (comm.done < comm.begun || !comm.all_have("left"))) return ncclInProgress;
    return comm.state = ncclSuccess;
}

ncclResult_t begin(ncclComm_t comm, cudaStream_t stream, Operation&& operation) {
    const std::lock_guard lock(emulation::runtime_lock());
    if (comm == nullptr || !emulation::is_this_threads(stream)) return ncclInvalidArgument;
    if (comm->state != ncclSuccess || comm->leaving) return ncclInvalidUsage;  // the call before is under way
    operation.stream = stream;
    if (group_depth == 0) {
        comm->waiting = std::make_unique<Operation>(std::move(operation));
        return comm->state = ncclInProgress;
    }
    if (group_of != nullptr && group_of != comm) emulation::fail("NCCL: a group over several communicators");
    group_of = comm;
    if (!comm->open) comm->open = std::make_unique<Operation>();
    comm->open->stream = stream;
    if (operation.broadcasts.size() != 1) emulation::fail("NCCL: only broadcasts in groups here");
    comm->open->broadcasts.push_back(operation.broadcasts.front());
    return ncclInProgress;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
    *version = 22809;
    return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    static std::atomic<int> made{0};
    std::memset(id, 0, sizeof(*id));
    std::snprintf(id->internal, sizeof(id->internal), "emulated_nccl_%d_%d", static_cast<int>(getpid()), made++);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
    if (config->blocking != 0 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
    *comm = new ncclComm;
    (*comm)->id = id.internal;
    (*comm)->rank = rank;
    (*comm)->ranks = ranks;
    cudaGetDevice(&(*comm)->device);
    char gpu[16] = {};
    cudaDeviceGetPCIBusId(gpu, sizeof(gpu), (*comm)->device);
    (*comm)->publish("joined", gpu, std::strlen(gpu));
    return ncclInProgress;
}
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    const std::lock_guard lock(emulation::runtime_lock());
    if (comm->state != ncclSuccess) return ncclInvalidUsage;
    comm->leaving = true;
    comm->publish("left", "", 0);
    return comm->state = ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    const std::lock_guard lock(emulation::runtime_lock());
    if (!comm->leaving || comm->state != ncclSuccess) emulation::fail("NCCL: destroyed before it is finalized");
    // The others may still look for it: rank 0's program takes all away when the last has come here.
    comm->publish("gone", "", 0);
    comm->forget("joined");
    if (comm->begun > 0) comm->forget(name_of(comm->begun - 1));
    if (comm->all_have("gone"))
        for (int of = 0; of < comm->ranks; ++of)
            for (const char* what : {"left", "gone"})
                fs::remove(comm->file(what, of));
    delete comm;
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    std::unique_lock lock(emulation::runtime_lock());
    comm->publish("abort", "", 0);
    comm->aborted = true;
    if (comm->stream != nullptr) emulation::step(comm->stream);
    Aborted::all().push_back(comm);
    if (emulation::equipment().nccl_aborts_alone) return ncclSuccess;
    std::vector<fs::path> words;  // the process may end meanwhile, and the communicator with it
    for (int of = 0; of < comm->ranks; ++of)
        words.push_back(comm->file("abort", of));
    lock.unlock();
    for (const fs::path& word : words)
        while (!fs::exists(word))
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
    const std::lock_guard lock(emulation::runtime_lock());
    *result = advance(*comm);
    return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
    switch (result) {
        case ncclSuccess:
            return "no error";
        case ncclInvalidArgument:
            return "invalid argument";
        case ncclInvalidUsage:
            return "invalid usage";
        case ncclRemoteError:
            return "remote process exited or there was a network error";
        case ncclInProgress:
            return "NCCL operation in progress";
    }
    return "unknown result code";
}
const char* ncclGetLastError(ncclComm_t comm) {
    return comm->problem.c_str();
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclDouble || operation != ncclSum) return ncclInvalidArgument;
    Operation sum;
    sum.addends = static_cast<const double*>(from);
    sum.sums = static_cast<double*>(to);
    sum.count = count;
    return begin(comm, stream, std::move(sum));
}
ncclResult_t ncclReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t operation,
                        int root, ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclDouble || operation != ncclSum || root < 0 || root >= comm->ranks) return ncclInvalidArgument;
    Operation sum;
    sum.addends = static_cast<const double*>(from);
    sum.sums = static_cast<double*>(to);
    sum.count = count;
    sum.root = root;
    return begin(comm, stream, std::move(sum));
}
ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclUint8 || root < 0 || root >= comm->ranks) return ncclInvalidArgument;
    Operation broadcast;
    broadcast.broadcasts.push_back({from, to, count, root});
    return begin(comm, stream, std::move(broadcast));
}
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    if (type != ncclUint8) return ncclInvalidArgument;
    Operation gathering;
    for (int root = 0; root < comm->ranks; ++root)
        gathering.broadcasts.push_back(
            {from, static_cast<std::byte*>(to) + static_cast<std::size_t>(root) * count, count, root});
    return begin(comm, stream, std::move(gathering));
}
ncclResult_t ncclGroupStart() {
    ++group_depth;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
    const std::lock_guard lock(emulation::runtime_lock());
    if (group_depth == 0) return ncclInvalidUsage;
    if (--group_depth > 0 || group_of == nullptr) return ncclSuccess;
    ncclComm& comm = *std::exchange(group_of, nullptr);
    comm.waiting = std::move(comm.open);
    return comm.state = ncclInProgress;
}
