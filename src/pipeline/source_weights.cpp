#include "pipeline/source_weights.hpp"

#include <nlohmann/json.hpp>

#include "comm/together.hpp"
#include "run/quantized_model.hpp"
#include "support/error.hpp"

namespace fairgptq {

TensorHashes broadcast_hashes(const TensorHashes& hashes, Communicator& comm, int root) {
    if (comm.size() == 1) return hashes;
    return nlohmann::json::parse(comm.broadcast_string(nlohmann::json(hashes).dump(), root)).get<TensorHashes>();
}

TensorHashes SourceWeights::read(std::int64_t layer, const std::function<const TensorHashes&()>& read) const {
    const TensorHashes* mine = nullptr;
    together(comm_, [&] {
        mine = &read();
        for (const RunTarget& target : targets_)
            require_same_tensors(*mine, target.source_tensors, layer, checkpoint_, *target.run);
    });
    if (comm_.size() == 1) return *mine;
    if (shared_) {
        TensorHashes all;
        for (int rank = 0; rank < comm_.size(); ++rank)
            all.merge(broadcast_hashes(*mine, comm_, rank));
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
