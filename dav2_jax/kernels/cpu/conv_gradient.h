// The gradient of a 3 x 3 convolution of stride 1 by its kernel: for each row of the kernel, products of rows of the
// map by rows of the gradient, summed over all rows of all images.
#pragma once

#include "conv.h"

// sum[R, kColumns] += x[depth, R]^T @ g[depth, kColumns], read as they lie in memory.
template <int R>
void multiply_transposed(const float* x, size_t x_stride, const float* g, size_t g_stride, float* sum,
                         size_t sum_stride, size_t depth) {
  multiply_tile<R>(x, 1, x_stride, g, g_stride, sum, sum_stride, depth, true);
}

// x[batch, height, width, in], g[batch, height, width, out] -> [3, 3, in, out]. `parts` is how many sums are taken
// apart and then added up in order, so the result does not depend on the threads; sums: [parts, 9 * in, columns],
// where columns is `out` rounded up to kColumns.
inline void kernel_gradient(xla::ffi::ThreadPool& pool, const Conv& c, size_t batch, const float* x, const float* g,
                            size_t parts, float* sums, float* gradient) {
  const size_t columns = round_up(c.out, kColumns), deep = 3 * c.in, padded = (c.width + 2) * c.in;
  const size_t rows = batch * c.height, part = (rows + parts - 1) / parts;
  parallel(pool, parts, [&](size_t task) {
    float* sum = sums + task * 3 * deep * columns;
    std::memset(sum, 0, sizeof(float) * 3 * deep * columns);
    float* ring = scratch<0>(3 * padded);
    float* wide = scratch<2>(c.width * columns);  // a row of g with zeros at its end, if it has no whole vectors
    const size_t end = std::min(rows, (task + 1) * part);
    ptrdiff_t ready = -2;  // the last row of the image in the ring
    for (size_t row = task * part; row < end; row++) {
      const size_t image = row / c.height;
      const ptrdiff_t y = row % c.height;
      if (y == 0) ready = -2;
      for (ptrdiff_t r = std::max(ready + 1, y - 1); r <= y + 1; r++)
        padded_row(c, x + image * c.height * c.width * c.in, r, ring + (r + 3) % 3 * padded);
      ready = y + 1;
      const float* from = g + row * c.width * c.out;
      if (columns != c.out) {
        std::memset(wide, 0, sizeof(float) * c.width * columns);
        for (size_t p = 0; p < c.width; p++) std::memcpy(wide + p * columns, from + p * c.out, sizeof(float) * c.out);
        from = wide;
      }
      for (int k = 0; k < 3; k++) {  // three pixels lie one after the other: a row of the kernel is one product
        const float* pixels = ring + (y - 1 + k + 3) % 3 * padded;
        for (size_t j = 0; j < columns; j += kColumns) {
          float* to = sum + k * deep * columns + j;
          size_t i = 0;
          for (; i + kRows <= deep; i += kRows)
            multiply_transposed<kRows>(pixels + i, c.in, from + j, columns, to + i * columns, columns, c.width);
          for (; i < deep; i++)
            multiply_transposed<1>(pixels + i, c.in, from + j, columns, to + i * columns, columns, c.width);
        }
      }
    }
  });
  parallel(pool, 9, [&](size_t task) {
    for (size_t i = task * c.in; i < (task + 1) * c.in; i++)
      for (size_t j = 0; j < c.out; j++) {
        float total = 0;
        for (size_t p = 0; p < parts; p++) total += sums[(p * 3 * deep + i) * columns + j];
        gradient[i * c.out + j] = total;
      }
  });
}
