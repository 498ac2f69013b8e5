// Linear layers: x @ kernel + bias, and what follows while the result is still in the cache.
#pragma once

#include "functions.h"
#include "parallel.h"
#include "tile.h"

enum class After : int32_t { kNothing = 0, kGelu = 1 };

// What is done to finished sums: bias, activation, and residual + gamma * y where these are given.
struct Finish {
  const float* bias = nullptr;
  After after = After::kNothing;
  const float* gamma = nullptr;
  const float* residual = nullptr;  // of the shape of the result

  void rows(float* y, size_t stride, size_t rows, size_t column, size_t columns, size_t first_row) const {
    for (size_t r = 0; r < rows; r++, y += stride) {
      const float* old = residual ? residual + (first_row + r) * stride + column : nullptr;
      size_t j = 0;
      for (; j + kLanes <= columns; j += kLanes) {
        Vector z = load(y + j);
        if (bias) z += load(bias + column + j);
        if (after == After::kGelu) z = gelu(z);
        if (gamma) z *= load(gamma + column + j);
        if (old) z += load(old + j);
        store(y + j, z);
      }
      if (j < columns) {  // the last, less than a vector
        Vector z{}, b{}, g{}, o{};
        const size_t bytes = sizeof(float) * (columns - j);
        std::memcpy(&z, y + j, bytes);
        if (bias) std::memcpy(&b, bias + column + j, bytes);
        if (gamma) std::memcpy(&g, gamma + column + j, bytes);
        if (old) std::memcpy(&o, old + j, bytes);
        z += b;
        if (after == After::kGelu) z = gelu(z);
        if (gamma) z *= g;
        z += o;
        std::memcpy(y + j, &z, bytes);
      }
    }
  }
};

constexpr size_t kBlock = 96;  // columns of the kernel that a task packs, then multiplies all its rows with

// y[rows, columns] = finish(x[rows, depth] @ w[depth, columns])
inline void linear(xla::ffi::ThreadPool& pool, const float* x, const float* w, float* y, size_t rows, size_t depth,
                   size_t columns, const Finish& finish) {
  const size_t blocks = (columns + kBlock - 1) / kBlock;
  const size_t wanted = 4 * std::max<int64_t>(1, pool.num_threads());
  const size_t parts = std::clamp<size_t>(wanted / blocks, 1, rows / 256 + 1);
  const size_t part = round_up((rows + parts - 1) / parts, kRows);

  parallel(pool, blocks * parts, [&](size_t task) {
    const size_t column = task / parts * kBlock, some = std::min(kBlock, columns - column);
    const size_t begin = task % parts * part, end = std::min(rows, begin + part);
    if (begin >= end) return;
    const size_t wide = round_up(some, kColumns);
    float* panels = thread_scratch<0>(saturating_product(depth, wide));
    pack(w + column, columns, depth, some, panels);
    float* out = y + begin * columns + column;
    const bool whole = some == wide;  // else a tile is wider than what is left of the rows of y
    float* sum = whole ? out : thread_scratch<1>(saturating_product(end - begin, wide));
    const size_t stride = whole ? columns : wide;
    multiply_deep(x + begin * depth, depth, end - begin, panels, depth, wide, sum, stride, false,
                  [&](size_t i, size_t count) {
                    if (!whole)
                      for (size_t r = i; r < i + count; r++)
                        std::memcpy(out + r * columns, sum + r * wide, sizeof(float) * some);
                    finish.rows(out + i * columns, columns, count, column, some, begin + i);
                  });
  });
}
