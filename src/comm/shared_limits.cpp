#include "comm/shared_limits.hpp"

#include <algorithm>
#include <string>

namespace fairgptq {

std::vector<SharedLimit> shared_limits(const std::vector<Limit>& mine, Communicator& comm) {
    const std::string machine = machine_id();
    const auto line = [&](const Limit& limit) { return machine + ' ' + limit.holder + '\n'; };
    std::string lines = "\n";
    for (const Limit& limit : mine)
        lines += line(limit);
    const std::vector<std::string> all = comm.gather_strings(lines);
    std::vector<SharedLimit> shared;
    for (const Limit& limit : mine)
        shared.push_back({limit, static_cast<int>(std::count_if(all.begin(), all.end(), [&](const std::string& other) {
                              return other.find('\n' + line(limit)) != std::string::npos;
                          }))});
    return shared;
}

}  // namespace fairgptq
