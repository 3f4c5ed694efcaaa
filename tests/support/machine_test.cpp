// What cgroups allow, read from a folder that says what the kernel would say.
#include "support/machine.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "support_files/temporary_folder.hpp"

namespace fairgptq {
namespace {

namespace fs = std::filesystem;

class MachineTest : public ::testing::Test {
  protected:
    void write(const fs::path& file, const std::string& text) const {
        fs::create_directories((folder_.path() / file).parent_path());
        std::ofstream(folder_.path() / file) << text << '\n';
    }
    /// A line of mountinfo for a hierarchy mounted in this folder.
    std::string mount(const std::string& name, const std::string& root, const std::string& type_and_options) const {
        return "30 23 0:27 " + root + ' ' + (folder_.path() / name).string() + " rw,nosuid shared:9 - " +
               type_and_options + '\n';
    }
    /// Amounts and cgroups, without the machine's own.
    static std::vector<std::pair<double, std::string>> of_cgroups(const std::vector<Limit>& limits) {
        std::vector<std::pair<double, std::string>> found;
        for (const Limit& limit : limits)
            if (!limit.cgroup.empty()) found.emplace_back(limit.amount, limit.cgroup);
        return found;
    }
    using Found = std::vector<std::pair<double, std::string>>;
    fs::path proc() const { return folder_.path(); }

  private:
    const testing::TemporaryFolder folder_;
};

TEST_F(MachineTest, EachLevelOfVersion2FromTheOutermost) {
    write("cgroup", "0::/slurm/job_7/step_0");
    write("mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mount("fs", "/", "cgroup2 cgroup2 rw,nsdelegate"));
    write("fs/slurm/memory.max", "max");
    write("fs/slurm/cpu.max", "max 100000");
    write("fs/slurm/job_7/memory.max", "1048576");
    write("fs/slurm/job_7/cpu.max", "250000 100000");
    write("fs/slurm/job_7/step_0/memory.max", "524288");
    write("fs/slurm/job_8/memory.max", "4096");  // another's
    EXPECT_EQ(of_cgroups(memory_limits(proc())), (Found{{1048576, "/slurm/job_7"}, {524288, "/slurm/job_7/step_0"}}));
    EXPECT_EQ(of_cgroups(core_limits(proc())), (Found{{2.5, "/slurm/job_7"}}));
    EXPECT_EQ(smallest_amount(memory_limits(proc())), 524288);
}

TEST_F(MachineTest, Version1BesideVersion2) {
    write("cgroup", "9:cpu,cpuacct:/batch\n4:memory:/slurm/job_1\n0::/");
    write("mountinfo", mount("memory", "/", "cgroup cgroup rw,memory") +
                           mount("cpu", "/", "cgroup cgroup rw,cpu,cpuacct") +
                           mount("cpuset", "/", "cgroup cgroup rw,cpuset") + mount("unified", "/", "cgroup2 none rw"));
    write("memory/memory.limit_in_bytes", "9223372036854771712");  // unlimited
    write("memory/slurm/job_1/memory.limit_in_bytes", "65536");
    write("cpu/cpu.cfs_quota_us", "-1");
    write("cpu/cpu.cfs_period_us", "100000");
    write("cpu/batch/cpu.cfs_quota_us", "50000");
    write("cpu/batch/cpu.cfs_period_us", "100000");
    write("cpuset/cpu.cfs_quota_us", "1");
    EXPECT_EQ(of_cgroups(memory_limits(proc())), (Found{{65536, "/slurm/job_1"}}));
    EXPECT_EQ(of_cgroups(core_limits(proc())), (Found{{0.5, "/batch"}}));
}

TEST_F(MachineTest, AContainerSeesItsCgroupAsTheRoot) {
    write("cgroup", "4:memory:/docker/abc/inner\n2:cpu:/elsewhere\n0::/../../outside");
    write("mountinfo", mount("memory", "/docker/abc", "cgroup cgroup rw,memory") +
                           mount("cpu", "/docker/abc", "cgroup cgroup rw,cpu") +
                           mount("two", "/", "cgroup2 cgroup2 rw"));
    write("memory/memory.limit_in_bytes", "65536");
    write("memory/inner/memory.limit_in_bytes", "32768");
    write("cpu/cpu.cfs_quota_us", "300000");
    write("cpu/cpu.cfs_period_us", "100000");
    write("two/memory.max", "16384");
    // What is not below a mount is not seen.
    EXPECT_EQ(of_cgroups(memory_limits(proc())), (Found{{65536, "/docker/abc"}, {32768, "/docker/abc/inner"}}));
    EXPECT_TRUE(core_limits(proc()).empty());
    const std::string holder = memory_limits(proc())[1].holder;
    write("cgroup", "4:memory:/docker/def\n");  // another container, mounted at the same place
    write("mountinfo", mount("memory", "/docker/def", "cgroup cgroup rw,memory"));
    EXPECT_EQ(of_cgroups(memory_limits(proc())), (Found{{65536, "/docker/def"}}));
    EXPECT_NE(memory_limits(proc())[1].holder, holder);
}

TEST_F(MachineTest, WhatCannotBeReadLimitsNothing) {
    EXPECT_EQ(memory_limits(proc()).size(), 1U);  // the machine's
    EXPECT_TRUE(core_limits(proc()).empty());
    write("cgroup", "0::/a\nno colons\n:");
    write("mountinfo", mount("fs", "/", "cgroup2 cgroup2 rw") + "short\n30 23 0:27 / - cgroup2\n\n");
    write("fs/memory.max", "much");
    write("fs/cpu.max", "100000");
    EXPECT_EQ(memory_limits(proc()).size(), 1U);
    EXPECT_TRUE(core_limits(proc()).empty());
    write("fs/a/cpu.max", "0 100000");
    EXPECT_TRUE(core_limits(proc()).empty());
}

TEST_F(MachineTest, TheMachineItself) {
    const std::vector<Limit> limits = memory_limits();
    ASSERT_FALSE(limits.empty());
    EXPECT_TRUE(limits.front().cgroup.empty());
    EXPECT_GT(limits.front().amount, 1U << 26U);
    EXPECT_LE(smallest_amount(limits), limits.front().amount);
    EXPECT_GT(available_memory(), 0);
    EXPECT_LE(available_memory(), smallest_amount(limits));
    EXPECT_FALSE(machine_id().empty());
    EXPECT_FALSE(host_name().empty());
}

}  // namespace
}  // namespace fairgptq
