// NVTX is headers alone: without Nsight Systems attached a range is a call through an empty pointer.
#include "support/timeline.hpp"

#include "backend/cuda/backend.hpp"

#ifdef FAIRGPTQ_NVTX
#include <nvtx3/nvToolsExt.h>

namespace fairgptq {
namespace {

class NvtxTimeline final : public Timeline {
  public:
    NvtxTimeline() = default;
    NvtxTimeline(const NvtxTimeline&) = delete;
    NvtxTimeline& operator=(const NvtxTimeline&) = delete;
    ~NvtxTimeline() override { nvtxDomainDestroy(domain_); }

    void push(const std::string& name) override {
        nvtxEventAttributes_t attributes{};
        attributes.version = NVTX_VERSION;
        attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
        attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
        attributes.message.ascii = name.c_str();
        nvtxDomainRangePushEx(domain_, &attributes);
    }
    void pop() override { nvtxDomainRangePop(domain_); }

  private:
    nvtxDomainHandle_t domain_ = nvtxDomainCreateA("fairgptq");
};

}  // namespace

std::unique_ptr<Timeline> CudaBackend::make_timeline() {
    return std::make_unique<NvtxTimeline>();
}

}  // namespace fairgptq
#else
namespace fairgptq {

std::unique_ptr<Timeline> CudaBackend::make_timeline() {
    return nullptr;
}

}  // namespace fairgptq
#endif
