// Host values that an operation is given again and again: layer after layer, and for queries as for keys.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "backend/cuda/memory.hpp"
#include "backend/cuda/small_uploads.hpp"

namespace fairgptq::cuda {

/// Values on the device, copied there only when they are not the last ones.
class Kept {
  public:
    Kept(Memory& memory, SmallUploads& uploads) : uploads_(uploads), scratch_(memory) {}

    /// @returns the values on the device, until the next call
    template <class T>
    const T* on_device(std::span<const T> values) {
        const std::span<const std::byte> bytes = std::as_bytes(values);
        T* place = scratch_.get<T>(std::ssize(values));  // grows only for values that are not the last ones
        if (!std::ranges::equal(bytes, last_)) {
            last_.clear();  // a copy that fails leaves nothing to be taken for it
            uploads_.copy(place, values.data(), values.size_bytes());
            last_.assign(bytes.begin(), bytes.end());
        }
        return place;
    }

  private:
    SmallUploads& uploads_;
    Scratch scratch_;
    std::vector<std::byte> last_;
};

}  // namespace fairgptq::cuda
