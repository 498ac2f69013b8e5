// 3 x 3 convolutions of maps with channels last, padded by one pixel, as nine matrix products over rows of pixels.
#pragma once

#include "functions.h"
#include "parallel.h"
#include "tile.h"

// An optional bilinear resize before the convolution: row i is the sum over k = 0, 1 of weight[i, k] * row index[i, k].
struct Taps {
  const int32_t* index;  // [size, 2]
  const float* weight;   // [size, 2]
};

struct Conv {
  size_t height, width, in;           // of the map that is read
  size_t out_height, out_width, out;  // of the result
  size_t stride = 1;
  bool relu_before = false;
  const float* bias = nullptr;      // [out]
  const float* residual = nullptr;  // [batch, out_height, out_width, out], added
  const Taps* rows = nullptr;  // both or none; then stride is 1, and out_height, out_width the size that is resized to
  const Taps* columns = nullptr;
  const float* last = nullptr;  // [out + 1]: after a ReLU, weights and bias of a 1 x 1 convolution to one channel
};

// Row `y` of the padded map that the kernel slides over, [width + 2, in]; zeros outside of the map.
inline void padded_row(const Conv& c, const float* image, ptrdiff_t y, float* row) {
  const size_t width = c.rows ? c.out_width : c.width, height = c.rows ? c.out_height : c.height;
  if (y < 0 || y >= static_cast<ptrdiff_t>(height)) {
    std::memset(row, 0, sizeof(float) * (width + 2) * c.in);
    return;
  }
  std::memset(row, 0, sizeof(float) * c.in);
  std::memset(row + (width + 1) * c.in, 0, sizeof(float) * c.in);
  row += c.in;
  const size_t line = c.width * c.in;
  if (!c.rows) {
    const float* from = image + y * line;
    if (!c.relu_before) {
      std::memcpy(row, from, sizeof(float) * line);
    } else {
      for (size_t i = 0; i < line; i++) row[i] = 0 > from[i] ? 0 : from[i];
    }
    return;
  }
  const float* above = image + c.rows->index[2 * y] * line;
  const float* below = image + c.rows->index[2 * y + 1] * line;
  const float a = c.rows->weight[2 * y], b = c.rows->weight[2 * y + 1];
  float* mixed = thread_scratch<1>(line);
  for (size_t i = 0; i < line; i++) mixed[i] = above[i] * a + below[i] * b;
  for (size_t x = 0; x < width; x++, row += c.in) {
    const float* left = mixed + c.columns->index[2 * x] * c.in;
    const float* right = mixed + c.columns->index[2 * x + 1] * c.in;
    const float l = c.columns->weight[2 * x], r = c.columns->weight[2 * x + 1];
    for (size_t i = 0; i < c.in; i++) row[i] = left[i] * l + right[i] * r;
  }
}

// Bands of rows, of which a task does one: each reads two rows of its neighbors once more.
inline size_t rows_of_band(const Conv& c, size_t threads) {
  const size_t bands = std::min(c.out_height, 8 * threads);
  return round_up((c.out_height + bands - 1) / bands, 2);
}

// Bias, ReLU, residual and the last layer, for sums [out_width, stride] of row `i` of an image.
inline void finish_row(const Conv& c, const float* sum, size_t stride, size_t image, size_t i, float* y) {
  const size_t place = (image * c.out_height + i) * c.out_width;
  for (size_t x = place; x < place + c.out_width; x++, sum += stride) {
    if (c.last) {
      Vector some{};
      size_t j = 0;
      for (; j + kLanes <= c.out; j += kLanes)
        some += larger(Vector{}, load(sum + j) + load(c.bias + j)) * load(c.last + j);
      float z = c.last[c.out] + total_of(some);
      for (; j < c.out; j++) z += std::max(0.0f, sum[j] + c.bias[j]) * c.last[j];
      y[x] = z;
    } else if (c.residual) {
      for (size_t j = 0; j < c.out; j++) y[x * c.out + j] = sum[j] + c.bias[j] + c.residual[x * c.out + j];
    } else {
      for (size_t j = 0; j < c.out; j++) y[x * c.out + j] = sum[j] + c.bias[j];
    }
  }
}

// y[batch, out_height, out_width, out], or [batch, out_height, out_width] with `last`; kernel [3, 3, in, out]; packed:
// [9 * in, columns].
inline void convolve(xla::ffi::ThreadPool& pool, const Conv& c, size_t batch, const float* x, const float* kernel,
                     float* packed, float* y) {
  const size_t columns = round_up(c.out, kColumns), deep = 3 * c.in;
  const size_t padded = ((c.rows ? c.out_width : c.width) + 2) * c.in;
  // The kernel: for each of its rows, panels of 3 * in.
  parallel(pool, 3 * columns / kColumns, [&](size_t task) {
    const size_t row = task / (columns / kColumns), j = task % (columns / kColumns) * kColumns;
    pack(kernel + row * deep * c.out + j, c.out, deep, std::min<size_t>(kColumns, c.out - j),
         packed + row * deep * columns + j * deep);
  });
  const size_t band = rows_of_band(c, std::max<int64_t>(1, pool.num_threads())),
               bands = (c.out_height + band - 1) / band;

  parallel(pool, batch * bands, [&](size_t task) {
    const size_t image = task / bands, first = task % bands * band, end = std::min(c.out_height, first + band);
    const float* from = x + image * c.height * c.width * c.in;
    float* ring = thread_scratch<0>(saturating_product(3, padded));
    float* sum = thread_scratch<2>(saturating_product(c.out_width, columns));
    ptrdiff_t ready = static_cast<ptrdiff_t>(first * c.stride) - 2;  // the last row in the ring
    for (size_t i = first; i < end; i++) {
      const ptrdiff_t top = static_cast<ptrdiff_t>(i * c.stride) - 1;
      for (ptrdiff_t r = std::max(ready + 1, top); r <= top + 2; r++)
        padded_row(c, from, r, ring + (r + 3) % 3 * padded);
      ready = top + 2;
      for (int k = 0; k < 3; k++)  // three pixels lie one after the other: a row of the kernel is one product
        multiply_deep(ring + (top + k + 3) % 3 * padded, c.stride * c.in, c.out_width, packed + k * deep * columns,
                      deep, columns, sum, columns, k > 0, [](size_t, size_t) {});
      finish_row(c, sum, columns, image, i, y);
    }
  });
}
