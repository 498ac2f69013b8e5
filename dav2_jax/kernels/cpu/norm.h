// Layer norm over the last axis, in two passes over a row that stays in the first-level cache.
#pragma once

#include <cmath>

#include "parallel.h"
#include "tile.h"

// x[rows, width] -> y[rows, width]; width a multiple of kLanes
inline void layer_norm(xla::ffi::ThreadPool& pool, const float* x, const float* scale, const float* bias, float* y,
                       size_t rows, size_t width, float eps) {
  constexpr size_t kBand = 64;
  parallel(pool, (rows + kBand - 1) / kBand, [&](size_t task) {
    for (size_t i = task * kBand; i < std::min(rows, (task + 1) * kBand); i++) {
      const float* from = x + i * width;
      float* to = y + i * width;
      Vector sum{}, squares{};
      for (size_t j = 0; j < width; j += kLanes) sum += load(from + j);
      const float mean = total_of(sum) / width;
      for (size_t j = 0; j < width; j += kLanes) {
        const Vector z = load(from + j) - mean;
        squares += z * z;
      }
      const float factor = 1 / std::sqrt(total_of(squares) / width + eps);
      for (size_t j = 0; j < width; j += kLanes)
        store(to + j, (load(from + j) - mean) * factor * load(scale + j) + load(bias + j));
    }
  });
}
