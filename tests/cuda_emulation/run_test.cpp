// Whole runs of a tiny model on an emulated GPU.
#include "backend/cuda/backend.hpp"
#include "pipeline/tiny_run.hpp"

namespace fairgptq::testing {
namespace {

class EmulatedRun : public TinyRun {
  protected:
    static Way on_gpu(Way way = {}) {
        way.make = [] { return std::make_unique<CudaBackend>(0, DType::float16); };
        return way;
    }
};

// A replayed layer is dequantized from its file, one that was just solved from the codes on the GPU.
TEST_F(EmulatedRun, RanksAndReplayedLayersChangeNoByte) {
    for (const ColumnOrder order : {ColumnOrder::none, ColumnOrder::activation}) {
        settings.solver.order = order;
        settings.alpha.modules = "q_proj,down_proj";  // two solves in a stage
        const std::vector<LayerRecord> alone = quantize(on_gpu());
        expect_same(alone, quantize(on_gpu({.finished = 1})));
        expect_same(alone, quantize(on_gpu({.ranks = 2})));
        expect_same(alone, quantize(on_gpu({.residency = {100, ReadAhead::to_host}})));
    }
}

}  // namespace
}  // namespace fairgptq::testing
