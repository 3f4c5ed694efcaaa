// A GPU's memory and matrix products, for tests of what is made of them; skipped, visibly, where no GPU is.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "backend/cuda/check.hpp"
#include "backend/cuda/products.hpp"

namespace fairgptq::testing {

class WithCudaProducts : public ::testing::Test {
  protected:
    void SetUp() override {
        if (cuda::device_count() == 0) GTEST_SKIP() << "this machine has no GPU";
        memory = std::make_unique<cuda::Memory>(0);
        products = std::make_unique<cuda::Products>(*memory);
    }
    std::unique_ptr<cuda::Memory> memory;
    std::unique_ptr<cuda::Products> products;
};

}  // namespace fairgptq::testing
