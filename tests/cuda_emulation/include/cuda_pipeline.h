// Copies into on-chip memory that run beside their thread: here they happen as late as they may, when it waits for
// them.
#pragma once

#include <cstddef>

/// @param zeros of the bytes, at their end, that are not read but zero
void __pipeline_memcpy_async(void* on_chip, const void* from, std::size_t bytes, std::size_t zeros = 0);
void __pipeline_commit();
/// @param prior committed batches that may still be under way
void __pipeline_wait_prior(std::size_t prior);
