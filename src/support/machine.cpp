#include "support/machine.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>

#include "support/split.hpp"

namespace fairgptq {
namespace {

namespace fs = std::filesystem;

/// A cgroup hierarchy as this process sees it: what of it is mounted where, and the process's place under that.
struct Hierarchy {
    std::string device;  // the same for all who see it
    fs::path root, mount, place;
    bool unified = false;  // version 2
};

bool lists(const std::string& words, const std::string& word) {
    return std::ranges::count(split(words), word) > 0;
}

/// The process's cgroup in the hierarchy of `controller` (version 1), or in the one of version 2.
std::optional<std::string> cgroup_of(const fs::path& proc, const std::string& controller, bool unified) {
    std::ifstream stream(proc / "cgroup");
    for (std::string line; std::getline(stream, line);) {  // "4:memory:/slurm/job_1", "0::/init.scope"
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        if (unified ? line.starts_with("0::") : lists(controllers, controller)) return line.substr(second + 1);
    }
    return std::nullopt;
}

std::vector<Hierarchy> hierarchies(const fs::path& proc, const std::string& controller) {
    std::vector<Hierarchy> all;
    std::ifstream stream(proc / "mountinfo");
    for (std::string line; std::getline(stream, line);) {
        // "31 23 0:27 /root /mount options [more …] - type source super-options"
        std::istringstream words(line);
        std::string id, parent, device, root, mount, word, type, source, options;
        words >> id >> parent >> device >> root >> mount;
        while (words >> word && word != "-") {
        }
        words >> type >> source >> options;
        const bool unified = type == "cgroup2";
        if (!unified && (type != "cgroup" || !lists(options, controller))) continue;
        const std::optional<std::string> cgroup = cgroup_of(proc, controller, unified);
        if (!cgroup) continue;
        // A container may see its own cgroup as the root of the mount, and be told its path on the host. Of a cgroup
        // that is not mounted nothing is known.
        const fs::path place = fs::path(*cgroup).lexically_relative(root);
        if (!place.empty() && *place.begin() != "..") all.push_back({device, root, mount, place, unified});
    }
    return all;
}

/// Calls `visit` with every cgroup's folder from the mount down to the process's own, and the cgroup's own path.
template <class Visit>
void for_each_cgroup(const Hierarchy& hierarchy, const Visit& visit) {
    fs::path folder = hierarchy.mount, cgroup = hierarchy.root;
    visit(folder, cgroup.string());
    for (const fs::path& part : hierarchy.place) {
        if (part == "." || part.empty()) continue;
        folder /= part;
        cgroup /= part;
        visit(folder, cgroup.string());
    }
}

std::optional<std::string> first_line(const fs::path& file) {
    std::ifstream stream(file);
    std::string line;
    if (!std::getline(stream, line) || line.empty()) return std::nullopt;
    return line;
}

/// Above 0; nothing for "max", -1 and what is no number.
std::optional<double> number(const std::string& text) {
    std::istringstream stream(text);
    double value = 0;
    if (!(stream >> value) || !(value > 0)) return std::nullopt;
    return value;
}

std::optional<double> read_number(const fs::path& file) {
    const std::optional<std::string> line = first_line(file);
    return line ? number(*line) : std::nullopt;
}

std::optional<double> memory_of(const fs::path& cgroup, bool unified) {
    return read_number(cgroup / (unified ? "memory.max" : "memory.limit_in_bytes"));
}

std::optional<double> cores_of(const fs::path& cgroup, bool unified) {
    std::optional<double> quota, period;
    if (unified) {
        std::istringstream words(first_line(cgroup / "cpu.max").value_or(""));  // "150000 100000", "max 100000"
        std::string of_quota, of_period;
        words >> of_quota >> of_period;
        quota = number(of_quota);
        period = number(of_period);
    } else {
        quota = read_number(cgroup / "cpu.cfs_quota_us");
        period = read_number(cgroup / "cpu.cfs_period_us");
    }
    if (!quota || !period) return std::nullopt;
    return *quota / *period;
}

template <class Read>
void add_limits(std::vector<Limit>& limits, const fs::path& proc, const std::string& controller, const Read& read) {
    // Containers with namespaces of their own see their cgroups under the same paths.
    std::error_code none;
    const std::string name_space = fs::read_symlink(proc / "ns" / "cgroup", none).string();
    for (const Hierarchy& hierarchy : hierarchies(proc, controller))
        for_each_cgroup(hierarchy, [&](const fs::path& folder, const std::string& cgroup) {
            if (const std::optional<double> amount = read(folder, hierarchy.unified))
                limits.push_back({*amount, fmt::format("{} {} {}", name_space, hierarchy.device, cgroup), cgroup});
        });
}

}  // namespace

std::string host_name() {
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

std::string machine_id() {
    return first_line("/proc/sys/kernel/random/boot_id").value_or(host_name());
}

std::vector<Limit> memory_limits(const fs::path& proc) {
    struct sysinfo machine_info {};
    ::sysinfo(&machine_info);
    const double machine = (static_cast<double>(machine_info.totalram) + static_cast<double>(machine_info.totalswap)) *
                           machine_info.mem_unit;
    std::vector<Limit> limits{{machine, "machine", ""}};
    add_limits(limits, proc, "memory", memory_of);
    // Version 1 says "unlimited" with a number.
    std::erase_if(limits, [&](const Limit& limit) { return limit.amount > machine; });
    return limits;
}

double available_memory() {
    std::ifstream stream("/proc/meminfo");
    std::string name, unit;
    double kibibytes = 0;
    while (stream >> name >> kibibytes) {
        if (name == "MemAvailable:") return std::min(kibibytes * 1024, smallest_amount(memory_limits()));
        std::getline(stream, unit);
    }
    return 0;
}

double address_space_left() {
    std::array<double, 6> pages{};  // in all, resident, shared, text, (none), data
    std::ifstream stream("/proc/self/statm");
    for (double& count : pages)
        stream >> count;
    double left = std::numeric_limits<double>::infinity();
    for (const auto& [resource, taken] : {std::pair(RLIMIT_AS, pages[0]), std::pair(RLIMIT_DATA, pages[5])}) {
        rlimit limit{};
        if (::getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
            left = std::min(left,
                            static_cast<double>(limit.rlim_cur) - taken * static_cast<double>(::sysconf(_SC_PAGESIZE)));
    }
    return left;
}

std::vector<Limit> core_limits(const fs::path& proc) {
    std::vector<Limit> limits;
    add_limits(limits, proc, "cpu", cores_of);
    return limits;
}

double smallest_amount(const std::vector<Limit>& limits) {
    double smallest = std::numeric_limits<double>::infinity();
    for (const Limit& limit : limits)
        smallest = std::min(smallest, limit.amount);
    return smallest;
}

}  // namespace fairgptq
