// Continuations of prompts, token by token, with a KV cache.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/forward.hpp"

namespace fairgptq {

/// The most probable token after each prompt, the one after that, and so on; of equally probable ones the first.
/// An end token is a token like any other. All prompts of a batch go through a layer together; a batch is as large as
/// `batch_tokens` positions of prompt and continuation allow, and a quarter of this rank's share of what is free for
/// keys and values; one prompt at least. Weights stay in memory where they fit into half of this rank's share of what
/// is free, and are read anew for every token where not.
/// @param prompts  none empty
/// @param progress hears of the share that is done; may be empty
/// @param sharing  ranks that share the device's memory
/// @returns [prompts], `tokens` tokens each
/// @throws InvalidInput as read_layer does, or if a sequence outgrows learned positions;
///         Failure if the backend has no attention over cached keys
std::vector<std::vector<std::int32_t>> generate_greedily(const ForwardModel& model,
                                                         std::span<const std::vector<std::int32_t>> prompts,
                                                         std::int64_t tokens,
                                                         const std::function<void(double)>& progress = {},
                                                         int sharing = 1, std::int64_t batch_tokens = 8192);

}  // namespace fairgptq
