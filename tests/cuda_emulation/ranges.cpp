// NVTX that remembers every range with those around it. A pop without its push, and a domain that goes while one of its
// ranges is open, end the program.
#include <string>
#include <utility>
#include <vector>

#include "emulation.hpp"
#include "nvtx3/nvToolsExt.h"

struct EmulatedDomain {
    std::string name;
    std::vector<std::string> open;
};

namespace emulation {
namespace {
std::vector<std::string> seen;
}  // namespace

std::vector<std::string> take_ranges() {
    const std::lock_guard lock(runtime_lock());
    return std::exchange(seen, {});
}
}  // namespace emulation

using namespace emulation;

nvtxDomainHandle_t nvtxDomainCreateA(const char* name) {
    return new EmulatedDomain{name, {}};
}
void nvtxDomainDestroy(nvtxDomainHandle_t domain) {
    if (!domain->open.empty()) fail("NVTX's domain goes while the range %s is open", domain->open.back().c_str());
    delete domain;
}
int nvtxDomainRangePushEx(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* attributes) {
    const std::lock_guard lock(runtime_lock());
    if (attributes->version != NVTX_VERSION || attributes->size != sizeof(*attributes) ||
        attributes->messageType != NVTX_MESSAGE_TYPE_ASCII)
        fail("NVTX got attributes of version %d and type %d", static_cast<int>(attributes->version),
             static_cast<int>(attributes->messageType));
    domain->open.emplace_back(attributes->message.ascii);
    std::string path = domain->name;
    for (const std::string& one : domain->open)
        path += " / " + one;
    seen.push_back(path);
    return static_cast<int>(domain->open.size()) - 1;
}
int nvtxDomainRangePop(nvtxDomainHandle_t domain) {
    if (domain->open.empty()) fail("NVTX's range is popped, and none is open");
    domain->open.pop_back();
    return static_cast<int>(domain->open.size());
}
