#include "model/weights.hpp"

#include <omp.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <iterator>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "support/aligned.hpp"
#include "support/checksum.hpp"
#include "support/deal.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

/// One tensor that a layer (or the outer part) wants, and where its place on the device is to be noted.
struct Wanted {
    std::string name;
    std::vector<std::int64_t> shape;
    DType type;
    TensorView* matrix = nullptr;    // either this
    const float** vector = nullptr;  // or this
    bool read = true;
    float offset = 0;  // added to a vector's values

    std::int64_t rows() const {
        return std::accumulate(shape.begin(), shape.end() - 1, std::int64_t{1}, std::multiplies());
    }
    std::int64_t cols() const { return shape.back(); }
    std::size_t bytes() const { return static_cast<std::size_t>(rows() * cols()) * size_of(type); }
};

using WantedList = std::vector<Wanted>;

void want_norm(WantedList& list, const Family& family, const std::string& name, std::int64_t size,
               LayerWeights::Norm& norm) {
    list.push_back({name + ".weight", {size}, DType::float32, nullptr, &norm.weight, true, family.norm_offset});
    if (family.norm == NormKind::layer) list.push_back({name + ".bias", {size}, DType::float32, nullptr, &norm.bias});
}

WantedList wanted_of_layer(const Family& family, std::int64_t layer, DType type, LayerWeights& weights,
                           const LinearChoice& unread = {}) {
    const std::string prefix = family.layer(layer);
    const ModelConfig& config = family.config;
    WantedList list;
    for (const StageSpec& stage : family.stages_of(layer))
        for (const LinearSpec& linear : stage.linears) {
            LinearWeights& place = weights.linears[linear.name];
            const bool read = !unread || !unread(layer, linear.name);
            list.push_back(
                {prefix + linear.name + ".weight", {linear.rows, linear.cols}, type, &place.weight, nullptr, read});
            if (linear.bias)
                list.push_back({prefix + linear.name + ".bias", {linear.rows}, DType::float32, nullptr, &place.bias});
        }
    if (family.has_experts(layer)) {
        const std::int64_t hidden = config.hidden_size;
        list.push_back({prefix + family.router + ".weight", {config.experts, hidden}, type, &weights.router});
        if (!family.router_bias.empty()) {
            std::vector<std::int64_t> shape{config.experts};
            if (family.router_bias_rows == 1) shape.insert(shape.begin(), 1);
            list.push_back({prefix + family.router_bias, shape, DType::float32, nullptr, &weights.router_bias});
        }
        if (!family.shared_gate.empty())
            list.push_back({prefix + family.shared_gate + ".weight", {1, hidden}, type, &weights.shared_gate});
    }
    const auto want = [&](const std::string& name, std::int64_t size, LayerWeights::Norm& norm) {
        if (!name.empty()) want_norm(list, family, prefix + name, size, norm);
    };
    want(family.input_norm, config.hidden_size, weights.input_norm);
    want(family.mlp_norm, config.hidden_size, weights.mlp_norm);
    want(family.attention_output_norm, config.hidden_size, weights.attention_output_norm);
    want(family.mlp_output_norm, config.hidden_size, weights.mlp_output_norm);
    if (config.is_recurrent(layer)) {
        const DeltaShape& shape = config.delta;
        const Family::RecurrentNames& names = family.recurrent;
        const auto want_gate = [&](const std::string& name, TensorView& place) {
            const std::int64_t rows = names.decay_gate.empty() ? 2 * shape.value_heads : shape.value_heads;
            if (!name.empty()) list.push_back({prefix + name + ".weight", {rows, config.hidden_size}, type, &place});
        };
        const auto want_vector = [&](const std::string& name, std::vector<std::int64_t> sizes, const float*& place) {
            list.push_back({prefix + name, std::move(sizes), DType::float32, nullptr, &place});
        };
        want_vector(names.convolution, {config.convolved_cols(), 1, config.convolution_width}, weights.convolution);
        if (!config.has_delta()) return list;
        want_gate(names.beta, weights.delta.beta);
        want_gate(names.decay_gate, weights.delta.decay_gate);
        want_vector(names.decay, {shape.value_heads}, weights.delta.decay);
        want_vector(names.step, {shape.value_heads}, weights.delta.step);
        want_vector(names.norm + ".weight", {shape.value_dim}, weights.delta.norm);
        return list;
    }
    want(family.query_norm, family.query_norm_size(), weights.query_norm);
    want(family.key_norm, family.key_norm_size(), weights.key_norm);
    return list;
}

WantedList wanted_outside(const Family& family, DType type, OuterWeights& weights) {
    const ModelConfig& config = family.config;
    WantedList list{{family.embedding, {config.vocab_size, config.hidden_size}, type, &weights.embedding, nullptr}};
    if (!family.positions.empty())
        list.push_back({family.positions,
                        {config.max_positions + family.position_offset, config.hidden_size},
                        type,
                        &weights.positions,
                        nullptr});
    want_norm(list, family, family.final_norm, config.hidden_size, weights.final_norm);
    if (family.lm_head != family.embedding)
        list.push_back({family.lm_head, {config.vocab_size, config.hidden_size}, type, &weights.lm_head, nullptr});
    return list;
}

std::size_t bytes_of(const WantedList& list) {
    std::size_t total = 0;
    for (const Wanted& wanted : list)
        total += aligned(wanted.bytes());
    return total;
}

/// Where a list's tensors lie in their memory: one rank's after another's.
struct Layout {
    std::vector<int> owners;
    std::vector<std::size_t> places;
    std::vector<std::size_t> parts;  // bytes of each rank

    Layout(const WantedList& list, int ranks) : places(list.size()), parts(static_cast<std::size_t>(ranks)) {
        std::vector<std::int64_t> sizes;
        for (const Wanted& wanted : list)
            sizes.push_back(static_cast<std::int64_t>(aligned(wanted.bytes())));
        owners = deal(sizes, ranks);
        std::size_t place = 0;
        for (int rank = 0; rank < ranks; ++rank)
            for (std::size_t i = 0; i < list.size(); ++i) {
                if (owners[i] != rank) continue;
                places[i] = place;
                place += static_cast<std::size_t>(sizes[i]);
                parts[static_cast<std::size_t>(rank)] += static_cast<std::size_t>(sizes[i]);
            }
    }
};

/// Goes through a tensor's bytes once: in blocks that are still in the cache when they are hashed.
/// @returns its hash. @throws InvalidInput if it holds NaN or infinity
std::string check_and_hash(const HostTensor& tensor) {
    constexpr std::size_t block = std::size_t{128} << 10U;
    Hasher hasher;
    for (std::size_t at = 0; at < tensor.bytes.size(); at += block) {
        const std::span<const std::byte> bytes = tensor.bytes.subspan(at, std::min(block, tensor.bytes.size() - at));
        if (tensor.any_not_finite(bytes))
            throw InvalidInput("{}: tensor '{}' holds NaN or infinity", tensor.file, tensor.name);
        hasher.add(bytes);
    }
    tensor.require_finite_scales();
    if (tensor.scales != nullptr) hasher.add(tensor.scales->bytes);  // as HostTensor::hash
    return hasher.hash();
}

/// Tells the kernel what a rank will read. @returns it
std::vector<std::size_t> announce(const Checkpoint& checkpoint, const WantedList& list, const Layout& layout,
                                  int rank) {
    std::vector<std::size_t> mine;
    for (std::size_t i = 0; i < list.size(); ++i)
        if (list[i].read && layout.owners[i] == rank) mine.push_back(i);
    for (const std::size_t i : mine)
        checkpoint.will_need(list[i].name);
    return mine;
}

/// Checks and hashes tensors, a thread each, which brings them from the disk to the host's memory.
void check_and_hash(const Checkpoint& checkpoint, const WantedList& list, std::span<const std::size_t> which,
                    TensorHashes& all) {
    std::vector<std::string> hashes(which.size());
    std::vector<std::exception_ptr> problems(which.size());
#pragma omp parallel for schedule(dynamic) num_threads(static_cast <int>(which.size()))
    for (std::size_t k = 0; k < which.size(); ++k) {
        const Wanted& wanted = list[which[k]];
        try {
            hashes[k] = check_and_hash(checkpoint.tensor(wanted.name, wanted.shape));
        } catch (...) {
            problems[k] = std::current_exception();
        }
    }
    for (std::size_t k = 0; k < which.size(); ++k) {
        if (problems[k]) std::rethrow_exception(problems[k]);
        all[list[which[k]].name] = std::move(hashes[k]);
    }
}

/// A CPU reads with one core, while the others compute; beside a GPU they have nothing else to do.
std::size_t reading_threads(const Backend& backend) {
    return backend.host_accessible()
               ? 1
               : static_cast<std::size_t>(std::clamp(omp_get_max_threads() / 2, 1, tensors_at_once));
}

/// Goes through a rank's tensors, as many at a time as there are threads: no more are in memory at once.
template <class Work>
void in_batches(std::span<const std::size_t> tensors, std::size_t threads, const Work& work) {
    for (std::size_t begin = 0; begin < tensors.size(); begin += threads)
        work(tensors.subspan(begin, std::min(threads, tensors.size() - begin)));
}

/// Checks and hashes a rank's tensors of the list.
TensorHashes bring_to_host(const Checkpoint& checkpoint, const WantedList& list, ReadShare share, std::size_t threads) {
    TensorHashes hashes;
    in_batches(announce(checkpoint, list, Layout(list, share.ranks), share.rank), threads,
               [&](std::span<const std::size_t> batch) { check_and_hash(checkpoint, list, batch, hashes); });
    return hashes;
}

/// A vector's values plus an offset, in float32.
std::vector<float> with_offset(const std::byte* values, DType type, std::int64_t count, float offset) {
    std::vector<float> sums = to_floats(values, type, static_cast<std::size_t>(count));
    for (float& sum : sums)
        sum += offset;
    return sums;
}

/// Uploads a rank's tensors of the list to `memory`, of bytes_of(list), and notes the places of all. Returns when they
/// are there.
/// @param hashes empty, unless bring_to_host has seen the tensors; else they are checked and hashed before they go
/// @returns the bytes of each rank
std::vector<std::size_t> upload_tensors(Transfers& transfers, const Checkpoint& checkpoint, const WantedList& list,
                                        TensorHashes& hashes, void* memory, ReadShare share, std::size_t threads) {
    const bool checked = !hashes.empty();
    const Layout layout(list, share.ranks);
    const auto view_of = [&](std::size_t i) {
        return TensorView(static_cast<std::byte*>(memory) + layout.places[i], list[i].type, list[i].rows(),
                          list[i].cols());
    };
    for (std::size_t i = 0; i < list.size(); ++i) {
        if (list[i].matrix != nullptr)
            *list[i].matrix = view_of(i);
        else
            *list[i].vector = static_cast<const float*>(view_of(i).data);
    }
    std::vector<std::byte> copy;  // one after another's
    const auto upload = [&](std::size_t i) {
        const HostTensor& tensor = checkpoint.tensor(list[i].name, list[i].shape);
        const std::byte* source = tensor.values(copy).data();
        // The format does not promise that a tensor begins at a multiple of its element size.
        if (reinterpret_cast<std::uintptr_t>(source) % size_of(tensor.dtype()) !=
            0) {  // NOLINT: alignment of an address
            copy.assign(tensor.bytes.begin(), tensor.bytes.end());
            source = copy.data();
        }
        if (list[i].offset != 0) {
            const std::vector<float> shifted = with_offset(source, tensor.dtype(), list[i].cols(), list[i].offset);
            transfers.upload(view_of(i), shifted.data(), DType::float32);
        } else {
            transfers.upload(view_of(i), source, tensor.dtype());
        }
        checkpoint.done_with(list[i].name);
    };
    in_batches(announce(checkpoint, list, layout, share.rank), threads, [&](std::span<const std::size_t> batch) {
        if (!checked) check_and_hash(checkpoint, list, batch, hashes);
        std::ranges::for_each(batch, upload);
    });
    transfers.finish();
    return layout.parts;
}

}  // namespace

LayerWeights read_layer(Backend& backend, const Family& family, const Checkpoint& checkpoint, std::int64_t layer) {
    LayerWeights weights;
    weights.layer = layer;
    weights.memory.push_back(backend.allocate(layer_bytes(family, backend.activation_type())));
    weights.parts = upload_tensors(*backend.make_transfers(), checkpoint,
                                   wanted_of_layer(family, layer, backend.activation_type(), weights), weights.hashes,
                                   weights.memory.front().data(), {}, reading_threads(backend));
    return weights;
}

OuterWeights read_outer(Backend& backend, const Family& family, const Checkpoint& checkpoint, ReadShare share) {
    OuterWeights weights;
    weights.memory.push_back(backend.allocate(outer_bytes(family, backend.activation_type())));
    weights.parts = upload_tensors(*backend.make_transfers(), checkpoint,
                                   wanted_outside(family, backend.activation_type(), weights), weights.hashes,
                                   weights.memory.front().data(), share, reading_threads(backend));
    if (family.lm_head == family.embedding) weights.lm_head = weights.embedding;
    return weights;
}

namespace {

/// What experts are called where nothing has the name that they should have.
void check_names_of_experts(const Family& family, const Checkpoint& checkpoint) {
    const std::vector<std::int64_t> kinds = family.kinds_of_layers();
    const auto layer = std::ranges::find_if(kinds, [&](std::int64_t kind) { return family.has_experts(kind); });
    const std::string own =
        family.stages_of(*layer)[static_cast<std::size_t>(family.attention_stages)].linears[0].name + ".weight";
    const std::string expected = family.layer(*layer) + own;
    if (checkpoint.has(expected)) return;
    for (const std::string& name : checkpoint.names())
        if (!name.ends_with(own) &&
            (name.find(".experts.gate_up_proj") != std::string::npos || name.ends_with(".experts.0.gate_proj.weight")))
            throw InvalidInput(
                "{} has experts as '{}', where this architecture's are expected as '{}', as transformers' "
                "save_pretrained writes them",
                checkpoint.tensor(name).file, name, expected);
}

}  // namespace

void check_tensors(const Family& family, const Checkpoint& checkpoint) {
    const auto check = [&](const WantedList& list) {
        for (const Wanted& wanted : list)
            (void)checkpoint.tensor(wanted.name, wanted.shape).dtype();
    };
    if (family.is_mixture()) check_names_of_experts(family, checkpoint);
    OuterWeights outer;
    check(wanted_outside(family, DType::float32, outer));
    for (std::int64_t layer = 0; layer < family.config.layers; ++layer) {
        LayerWeights weights;
        check(wanted_of_layer(family, layer, DType::float32, weights));
    }
}

std::size_t layer_bytes(const Family& family, DType activation_type) {
    std::size_t most = 0;
    for (const std::int64_t layer : family.kinds_of_layers()) {
        LayerWeights weights;
        most = std::max(most, bytes_of(wanted_of_layer(family, layer, activation_type, weights)));
    }
    return most;
}

std::size_t outer_bytes(const Family& family, DType activation_type) {
    OuterWeights weights;
    return bytes_of(wanted_outside(family, activation_type, weights));
}

struct LayerPrefetcher::Impl {
    Backend& backend;
    const Family& family;
    const Checkpoint& checkpoint;
    const std::int64_t first, end;
    const ReadAhead ahead;
    const ReadShare share;
    const LinearChoice unread;
    const std::unique_ptr<Transfers> transfers;
    const std::size_t threads;
    std::int64_t handed_out = 0;

    std::mutex mutex;
    std::condition_variable_any changed;
    std::vector<Buffer> slots;
    std::vector<bool> taken;            // by a layer that is read or has been handed out
    std::optional<LayerWeights> ready;  // ReadAhead::to_device
    bool on_host = false;               // ReadAhead::to_host: the next layer is
    TensorHashes host_hashes;           // of that layer
    std::exception_ptr failure;
    std::jthread thread;  // last: it starts when the rest is there, and is joined before the rest goes

    Impl(Backend& device, const Family& description, const Checkpoint& source, std::int64_t from, std::int64_t to,
         ReadAhead where, ReadShare part, LinearChoice passed_over)
        : backend(device),
          family(description),
          checkpoint(source),
          first(from),
          end(to),
          ahead(where),
          share(part),
          unread(std::move(passed_over)),
          transfers(device.make_transfers()),
          threads(reading_threads(device)) {
        const std::int64_t most = ahead == ReadAhead::to_device ? 2 : ahead == ReadAhead::to_host ? 1 : 0;
        const std::int64_t at_once = std::min(end - first, most);
        for (std::int64_t slot = 0; slot < at_once; ++slot)
            slots.push_back(backend.allocate(layer_bytes(family, backend.activation_type())));
        taken.resize(slots.size());
        thread = std::jthread([this](const std::stop_token& stop) { read_ahead(stop); });
    }

    std::size_t free_slot() const {
        return static_cast<std::size_t>(std::find(taken.begin(), taken.end(), false) - taken.begin());
    }

    /// A slot, which is free again when the buffer goes.
    Buffer lend(std::size_t slot) {
        return {slots[slot].data(), slots[slot].bytes(), [this, slot](void*) {
                    const std::lock_guard lock(mutex);
                    taken[slot] = false;
                    changed.notify_all();
                }};
    }

    LayerWeights upload(std::int64_t layer, Buffer memory, TensorHashes hashes = {}) {
        LayerWeights weights;
        weights.layer = layer;
        weights.hashes = std::move(hashes);
        weights.memory.push_back(std::move(memory));
        weights.parts = upload_tensors(*transfers, checkpoint,
                                       wanted_of_layer(family, layer, backend.activation_type(), weights, unread),
                                       weights.hashes, weights.memory.front().data(), share, threads);
        return weights;
    }

    void read_ahead(const std::stop_token& stop) {
        omp_set_num_threads(static_cast<int>(threads));  // OpenMP's count is each thread's own
        for (std::int64_t layer = first; layer < end; ++layer) {
            std::size_t slot = 0;
            {
                // Reading begins when the layer before has been taken: not more than one is ever waiting.
                std::unique_lock lock(mutex);
                const auto wanted = [&] {
                    if (ahead == ReadAhead::to_host) return !on_host;
                    slot = free_slot();
                    return !ready.has_value() && (ahead == ReadAhead::to_keep || slot < slots.size());
                };
                if (!changed.wait(lock, stop, wanted)) return;
                if (ahead == ReadAhead::to_device) taken[slot] = true;
            }
            std::optional<LayerWeights> weights;
            TensorHashes hashes;
            std::exception_ptr problem;
            try {
                if (ahead == ReadAhead::to_host) {
                    LayerWeights places;
                    hashes = bring_to_host(checkpoint,
                                           wanted_of_layer(family, layer, backend.activation_type(), places, unread),
                                           share, threads);
                } else {
                    const std::size_t bytes = layer_bytes(family, backend.activation_type());
                    weights = upload(layer, ahead == ReadAhead::to_device ? lend(slot) : backend.allocate(bytes));
                }
            } catch (...) {
                problem = std::current_exception();
            }
            const std::lock_guard lock(mutex);
            on_host = !weights && !problem;
            host_hashes = std::move(hashes);
            ready = std::move(weights);
            failure = problem;
            changed.notify_all();
            if (problem) return;
        }
    }

    LayerWeights next() {
        std::unique_lock lock(mutex);
        if (first + handed_out >= end)
            throw Failure("layer {} was asked of a reader that ends before it", first + handed_out);
        changed.wait(lock, [&] { return ready.has_value() || on_host || failure; });
        if (failure) std::rethrow_exception(failure);
        const std::int64_t layer = first + handed_out++;
        if (ready) {
            LayerWeights weights = std::move(*ready);
            ready.reset();
            changed.notify_all();
            return weights;
        }
        if (taken.front()) throw Failure("layer {} was asked for before the one before it was given back", layer);
        taken.front() = true;
        TensorHashes hashes = std::move(host_hashes);
        lock.unlock();
        LayerWeights weights = upload(layer, lend(0), std::move(hashes));
        // Only now: the thread reads the disk for the next layer, not beside the upload of this one.
        lock.lock();
        on_host = false;
        changed.notify_all();
        return weights;
    }
};

LayerPrefetcher::LayerPrefetcher(Backend& backend, const Family& family, const Checkpoint& checkpoint,
                                 std::int64_t first, std::int64_t end, ReadAhead ahead, ReadShare share,
                                 LinearChoice unread)
    : impl_(std::make_unique<Impl>(backend, family, checkpoint, first, end, ahead, share, std::move(unread))) {}
LayerPrefetcher::~LayerPrefetcher() = default;
LayerWeights LayerPrefetcher::next() {
    return impl_->next();
}

std::string config_hash(const std::filesystem::path& model_dir) {
    std::ifstream stream(model_dir / "config.json", std::ios::binary);
    return hash_of(std::string{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()});
}

}  // namespace fairgptq
