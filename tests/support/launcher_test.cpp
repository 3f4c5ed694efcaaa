#include "support/launcher.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

namespace fairgptq {
namespace {

class LauncherTest : public ::testing::Test {
  protected:
    // Each case is a process of its own under ctest; run together they must not see each other's variables.
    void SetUp() override {
        for (const char* name :
             {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "PALS_LOCAL_RANKID",
              "PMI_LOCAL_RANK", "PMIX_LOCAL_RANK", "FLUX_TASK_LOCAL_ID", "SLURM_LOCALID", "OMPI_COMM_WORLD_SIZE",
              "MV2_COMM_WORLD_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS"})
            ::unsetenv(name);
    }
};

TEST_F(LauncherTest, EachLaunchersWord) {
    EXPECT_FALSE(launcher_local_rank());
    for (const char* name : {"SLURM_LOCALID", "FLUX_TASK_LOCAL_ID", "PMIX_LOCAL_RANK", "PMI_LOCAL_RANK",
                             "PALS_LOCAL_RANKID", "MV2_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"}) {
        ::setenv(name, "3", 1);
        EXPECT_EQ(launcher_local_rank(), 3) << name;
        ::unsetenv(name);
    }
}

TEST_F(LauncherTest, MpirunInsideASlurmJobKnowsBetterThanSlurm) {
    ::setenv("SLURM_LOCALID", "0", 1);
    ::setenv("OMPI_COMM_WORLD_LOCAL_RANK", "5", 1);
    EXPECT_EQ(launcher_local_rank(), 5);
    ::unsetenv("OMPI_COMM_WORLD_LOCAL_RANK");
    ::setenv("MPI_LOCALRANKID", "2", 1);
    EXPECT_EQ(launcher_local_rank(), 2);
}

TEST_F(LauncherTest, RanksAreAnMpiLaunchersAndNotSlurms) {
    ::setenv("SLURM_NTASKS", "8", 1);
    EXPECT_EQ(launcher_ranks(), 1);
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"}) {
        ::setenv(name, "4", 1);
        EXPECT_EQ(launcher_ranks(), 4) << name;
        ::unsetenv(name);
    }
}

TEST_F(LauncherTest, WhatIsNoNumberIsPassedOver) {
    ::setenv("MPI_LOCALRANKID", "first", 1);
    ::setenv("SLURM_LOCALID", "-1", 1);
    EXPECT_FALSE(launcher_local_rank());
    ::setenv("SLURM_LOCALID", "1", 1);
    EXPECT_EQ(launcher_local_rank(), 1);
}

}  // namespace
}  // namespace fairgptq
