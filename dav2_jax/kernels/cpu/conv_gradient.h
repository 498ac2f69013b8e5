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

// How many partial sums are taken of so many rows, then added up in order: up to 64 MB of them. It depends on neither
// threads nor vectors, nor does the result then.
inline size_t kernel_gradient_parts(size_t rows, size_t in, size_t out) {
  const size_t floats = std::max<size_t>(1, saturating_product(9, in, round_up(out, 32)));
  return std::max<size_t>(2, std::min({size_t{32}, rows, (size_t{1} << 24) / floats}));
}

// Floats of scratch for these sums.
inline size_t kernel_gradient_scratch(size_t rows, size_t in, size_t out) {
  return saturating_product(kernel_gradient_parts(rows, in, out), 9, in, round_up(out, kColumns));
}

// x[batch, height, width, in], g[batch, height, width, out] -> [3, 3, in, out]; sums: [parts, 9 * in, columns], where
// columns is `out` rounded up to kColumns.
inline void kernel_gradient(xla::ffi::ThreadPool& pool, const Conv& c, size_t batch, const float* x, const float* g,
                            float* sums, float* gradient) {
  const size_t columns = round_up(c.out, kColumns), deep = 3 * c.in, padded = (c.width + 2) * c.in;
  const size_t rows = batch * c.height, parts = kernel_gradient_parts(rows, c.in, c.out);
  const size_t part = (rows + parts - 1) / parts;
  parallel(pool, parts, [&](size_t task) {
    float* sum = sums + task * 3 * deep * columns;
    std::memset(sum, 0, sizeof(float) * 3 * deep * columns);
    float* ring = thread_scratch<0>(saturating_product(3, padded));
    float* wide = thread_scratch<2>(
        saturating_product(c.width, columns));  // a row of g with zeros at its end, if it has no whole vectors
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
