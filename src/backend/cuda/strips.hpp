// Products with triangles and symmetric matrices, cut into strips that leave out what is 0 or known. Strip widths are
// parameters for the tests' sake.
#pragma once

#include <cstdint>

#include "backend/cuda/memory.hpp"
#include "backend/cuda/products.hpp"
#include "backend/cuda/scratch.hpp"
#include "backend/peers.hpp"

namespace fairgptq::cuda {

struct StripSizes {
    std::int64_t strip = inverted_strip;
    std::int64_t leaf = inverted_leaf;              // inverted already
    std::int64_t largest_batched = inverted_batch;  // up to here, all pairs of a level are one batch of products
};

/// The lower triangle of XᵀX, in strips of columns that reach from the diagonal to the last row: large products for the
/// tensor cores, and little above the diagonal.
void lower_gram(Products& products, TensorView inputs, MatrixView<float> out, StripSizes sizes = {});

/// out = x · upperᵀ
void multiply_upper_transposed(Products& products, MatrixView<const float> x, MatrixView<const float> upper,
                               MatrixView<float> out, StripSizes sizes = {});

/// out += x · upper
void add_multiply_upper(Products& products, MatrixView<const float> x, MatrixView<const float> upper,
                        MatrixView<float> out, StripSizes sizes = {});

/// out with Σ_j out_j·x_j = x·M·xᵀ for each row x: by symmetry Σ_J (2·x_{<J}·M[<J, J] + x_J·M[J, J])·x_J over strips J
/// of columns, half the products.
void half_symmetric_product(Products& products, MatrixView<const float> x, MatrixView<const float> symmetric,
                            MatrixView<float> out, StripSizes sizes = {});

/// Inverts an upper triangular matrix whose leaves on the diagonal are inverted already, bottom up:
/// [U1 U12; 0 U2]⁻¹ = [U1⁻¹ −U1⁻¹·U12·U2⁻¹; 0 U2⁻¹].
/// @param scratch scratch.matrix<float>(rows, cols): memory for one product
/// @param peers   ranks that share the strips of large halves
void invert_pairs(Products& products, Scratch& scratch, MatrixView<float> matrix, Peers& peers, StripSizes sizes = {});

}  // namespace fairgptq::cuda
