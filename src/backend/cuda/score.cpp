#include "backend/score.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::token_log_probabilities(TensorView logits, std::span<const std::int32_t> targets,
                                          std::span<float> log_probabilities, std::span<std::int32_t> best) {
    if (std::ssize(targets) != logits.rows || log_probabilities.size() != targets.size() ||
        (!best.empty() && best.size() != targets.size()))
        throw Failure("token_log_probabilities: {} rows of logits, {} targets and {} results should be as many",
                      logits.rows, targets.size(), log_probabilities.size());
    for (const std::int32_t target : targets)
        if (target < 0 || target >= logits.cols)
            throw InvalidInput("token {} is not in a vocabulary of {}", target, logits.cols);
    const std::int32_t* device_targets = on_device(targets, indices_);
    auto* results = first_.get<float>(logits.rows);
    auto* places = best.empty() ? nullptr : second_.get<std::int32_t>(logits.rows);
    cuda::check(cuda::launch_log_probabilities(cuda::plain(logits), device_targets, results, places, stream()),
                "token_log_probabilities");
    memory_.copy_to_host(log_probabilities.data(), results, log_probabilities.size_bytes());
    if (places != nullptr) memory_.copy_to_host(best.data(), places, best.size_bytes());
}

}  // namespace fairgptq
