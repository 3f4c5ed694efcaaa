// Copies between host and device beside what the device computes.
#pragma once

#include <cstddef>

#include "support/views.hpp"

namespace fairgptq {

class Buffer;

/// One direction of copies, in order, on a stream of its own where the device has streams. Between it and what the
/// device is asked for there is no order but what follow_device() and lead_device() make. One thread at a time uses it.
class Transfers {
  public:
    virtual ~Transfers() = default;
    /// Host memory that the device copies at its full rate (page-locked).
    /// @throws Failure that says how much was asked for when there is not enough
    virtual Buffer allocate_host(std::size_t bytes) = 0;

    /// Converts element type on the way, as MemoryOperations::upload does. `host` is any memory of `type` elements, row
    /// after row without gaps; it has been read when the call returns, but may not have arrived.
    virtual void upload(TensorView to, const void* host, DType type) = 0;
    /// Rows without gaps in memory of allocate_host, of the tensor's own type: read and written until finish().
    virtual void fetch(TensorView to, const void* host) = 0;
    virtual void store(void* host, TensorView from) = 0;
    virtual void store_bytes(void* host, const void* device, std::size_t bytes) = 0;

    /// Copies asked for from here on wait for what the device was asked for before.
    virtual void follow_device() = 0;
    /// What the device is asked for from here on waits for the copies asked for before.
    virtual void lead_device() = 0;
    /// Returns when every copy has arrived.
    virtual void finish() = 0;
};

}  // namespace fairgptq
