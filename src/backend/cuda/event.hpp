// What one stream tells another, or the host, with one owner.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/check.hpp"

namespace fairgptq::cuda {

/// An event without timing. One that was never recorded has happened.
class Event {
  public:
    Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
    ~Event() {
        if (event_ != nullptr) cudaEventDestroy(event_);
    }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
    /// What the stream is asked for from here on waits for the event.
    void delay(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }
    void wait() const { check(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
    bool happened() const {
        const cudaError_t status = cudaEventQuery(event_);
        if (status == cudaErrorNotReady) {
            cudaGetLastError();  // not to be found by the next call's check
            return false;
        }
        check(status, "cudaEventQuery");
        return true;
    }

  private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace fairgptq::cuda
