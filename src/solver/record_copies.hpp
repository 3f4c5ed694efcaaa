// Codes and scales on their way from the device to the records of their modules. A GPU copies them into page-locked
// memory on a stream of its own, while it computes on; the host unpacks them when it is told to, which is best while
// the GPU has work.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "solver/gathering.hpp"
#include "solver/solve.hpp"

namespace fairgptq {

class RecordCopies {
  public:
    /// Page-locked memory grows to what the largest stage needs, and is kept. `memory` must outlive the object.
    explicit RecordCopies(MemoryOperations& memory) : memory_(memory) {}
    RecordCopies(const RecordCopies&) = delete;
    RecordCopies& operator=(const RecordCopies&) = delete;
    ~RecordCopies();

    /// Begins to copy the grids of a stack of modules, and keeps their memory until finish(). What the device was asked
    /// for before is done first.
    /// @param names of the modules whose rows the stack holds, in its order
    void begin(GatheredGrids grids, std::vector<std::string> names);
    /// Puts codes, scales and zeros into the modules that they are of, and forgets them.
    /// @param modules whose rows, cols and groups are set; others may be among them
    /// @throws Failure if a module is missing
    void finish(std::vector<ModuleSolution>& modules);

  private:
    struct Stack {
        GatheredGrids grids;
        std::vector<std::string> names;
        Buffer host;  // scales, codes, zeros; none where the host reads the device's memory
    };
    Buffer room_for(std::size_t bytes);

    MemoryOperations& memory_;
    std::unique_ptr<Transfers> transfers_;  // where the host does not read the device's memory
    std::vector<Buffer> rooms_;             // free ones
    std::vector<Stack> stacks_;
};

}  // namespace fairgptq
