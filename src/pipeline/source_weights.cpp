#include "pipeline/source_weights.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comm/together.hpp"
#include "run/quantized_model.hpp"
#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {

namespace {

std::string json_of(const TensorHashes& hashes) {
    return json_text(nlohmann::json(hashes));
}
TensorHashes hashes_of(const std::string& text) {
    return parse_json(text).get<TensorHashes>();
}

}  // namespace

TensorHashes broadcast_hashes(const TensorHashes& hashes, Communicator& comm) {
    return comm.size() == 1 ? hashes : hashes_of(comm.broadcast_string(json_of(hashes), 0));
}

TensorHashes SourceWeights::read(std::int64_t layer, const std::function<const TensorHashes&()>& read) const {
    const TensorHashes* mine = nullptr;
    together(comm_, [&] {
        mine = &read();
        for (std::size_t i = 0; i < targets_.size(); ++i)
            if (disk_.is_done(i, std::max<std::int64_t>(layer, 0)))
                require_same_tensors(*mine, targets_[i].source_tensors, layer, checkpoint_, *targets_[i].run);
    });
    if (comm_.size() == 1) return *mine;
    if (shared_) {
        TensorHashes all;
        for (const std::string& text : comm_.gather_strings(json_of(*mine)))
            all.merge(hashes_of(text));
        return all;
    }
    const TensorHashes first = broadcast_hashes(*mine, comm_);
    together(comm_, [&] {
        for (const auto& [name, hash] : *mine)
            if (const auto other = first.find(name); other == first.end() || other->second != hash)
                throw InvalidInput(
                    "tensor '{}' in {} is not what rank 0 reads there: every rank needs the same model, so replace "
                    "the copy on this rank's node",
                    name, checkpoint_.tensor(name).file);
    });
    return *mine;
}

}  // namespace fairgptq
