// Named ranges on a profiler's timeline.
#pragma once

#include <string>

namespace fairgptq {

/// Ranges of the thread that calls: each push has its pop, the last one first.
class Timeline {
  public:
    virtual ~Timeline() = default;
    virtual void push(const std::string& name) = 0;
    virtual void pop() = 0;
};

}  // namespace fairgptq
