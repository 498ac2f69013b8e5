// 3 x 3 convolutions by Winograd's F(2 x 2, 3 x 3): 16 products of 4 x 4 pixels for 4 results, where the plain way
// takes 36. Sums of few numbers, so it rounds no more than the plain way (Lavin and Gray, 2015, section 4.1).
#pragma once

#include "conv.h"

inline bool winograd_suits(size_t in, size_t out, size_t stride) {
  return stride == 1 && in % kLanes == 0 && in >= 32 && out >= 32;
}

// Floats of scratch for the packed kernel, transformed or not.
inline size_t conv_scratch(size_t in, size_t out, size_t stride) {
  return saturating_product(winograd_suits(in, out, stride) ? 16 : 9, in, round_up(out, kColumns));
}

// Four numbers in a row, `step` apart, by the matrix that comes before the product.
inline void before_product(Vector* d, int step) {
  const Vector a = d[0] - d[2 * step], b = d[step] + d[2 * step];
  const Vector c = d[2 * step] - d[step], e = d[step] - d[3 * step];
  d[0] = a, d[step] = b, d[2 * step] = c, d[3 * step] = e;
}

// As `convolve`; packed: [16, in, columns].
inline void convolve_by_winograd(xla::ffi::ThreadPool& pool, const Conv& c, size_t batch, const float* x,
                                 const float* kernel, float* packed, float* y) {
  constexpr size_t kTiles = 48;  // at a time
  const size_t columns = round_up(c.out, kColumns), across = (c.out_width + 1) / 2;
  const size_t padded = (2 * across + 2) * c.in;

  parallel(pool, columns / kColumns, [&](size_t task) {  // G g G^T, in panels
    const size_t j = task * kColumns, some = std::min<size_t>(kColumns, c.out - j);
    for (size_t i = 0; i < c.in; i++)
      for (size_t v = 0; v < kColumns; v += kLanes) {
        Vector g[9], half[12];
        for (int k = 0; k < 9; k++) {
          g[k] = Vector{};
          const size_t left = v < some ? std::min<size_t>(kLanes, some - v) : 0;
          std::memcpy(&g[k], kernel + (k * c.in + i) * c.out + j + v, sizeof(float) * left);
        }
        for (int k = 0; k < 3; k++) {
          half[k] = g[k];
          half[3 + k] = 0.5f * (g[k] + g[3 + k] + g[6 + k]);
          half[6 + k] = 0.5f * (g[k] - g[3 + k] + g[6 + k]);
          half[9 + k] = g[6 + k];
        }
        float* to = packed + j * c.in + i * kColumns + v;
        const size_t step = c.in * columns;
        for (int k = 0; k < 4; k++, to += 4 * step) {
          const Vector* h = half + 3 * k;
          store(to, h[0]);
          store(to + step, 0.5f * (h[0] + h[1] + h[2]));
          store(to + 2 * step, 0.5f * (h[0] - h[1] + h[2]));
          store(to + 3 * step, h[2]);
        }
      }
  });

  const size_t band = rows_of_band(c, std::max<int64_t>(1, pool.num_threads())),
               bands = (c.out_height + band - 1) / band;
  const size_t tiles = even_part(across, kTiles);
  parallel(pool, batch * bands, [&](size_t task) {
    const size_t image = task / bands, first = task % bands * band, end = std::min(c.out_height, first + band);
    const float* from = x + image * c.height * c.width * c.in;
    float* ring = thread_scratch<0>(saturating_product(4, padded));
    float* sum = thread_scratch<2>(saturating_product(2 * 2, across, columns));
    float* input = thread_scratch<3>(saturating_product(16, tiles, c.in));
    float* product = thread_scratch<4>(saturating_product(16, tiles, columns));
    ptrdiff_t ready = static_cast<ptrdiff_t>(first) - 2;
    for (size_t i = first; i < end; i += 2) {
      const float* row[4];
      for (ptrdiff_t r = static_cast<ptrdiff_t>(i) - 1, k = 0; k < 4; r++, k++) {
        float* here = ring + (r + 4) % 4 * padded;
        if (r > ready) {
          padded_row(c, from, r, here);
          const size_t written = (c.out_width + 2) * c.in;
          std::memset(here + written, 0, sizeof(float) * (padded - written));
          ready = r;
        }
        row[k] = here;
      }
      for (size_t t = 0; t < across; t += tiles) {
        const size_t count = std::min(tiles, across - t);
        for (size_t n = 0; n < count; n++)  // B^T d B
          for (size_t channel = 0; channel < c.in; channel += kLanes) {
            Vector d[16];
            for (int k = 0; k < 4; k++) {
              for (int l = 0; l < 4; l++) d[4 * k + l] = load(row[k] + (2 * (t + n) + l) * c.in + channel);
            }
            for (int l = 0; l < 4; l++) before_product(d + l, 4);
            for (int k = 0; k < 4; k++) before_product(d + 4 * k, 1);
            float* to = input + n * c.in + channel;
            for (int k = 0; k < 16; k++, to += tiles * c.in) store(to, d[k]);
          }
        for (int k = 0; k < 16; k++)
          multiply_deep(input + k * tiles * c.in, c.in, count, packed + k * c.in * columns, c.in, columns,
                        product + k * tiles * columns, columns, false, [](size_t, size_t) {});
        for (size_t n = 0; n < count; n++)  // A^T m A
          for (size_t j = 0; j < columns; j += kLanes) {
            Vector m[16], half[8];
            for (int k = 0; k < 16; k++) m[k] = load(product + (k * tiles + n) * columns + j);
            for (int l = 0; l < 4; l++) {
              half[l] = m[l] + m[4 + l] + m[8 + l];
              half[4 + l] = m[4 + l] - m[8 + l] - m[12 + l];
            }
            for (int k = 0; k < 2; k++) {
              const Vector* h = half + 4 * k;
              float* to = sum + (k * 2 * across + 2 * (t + n)) * columns + j;
              store(to, h[0] + h[1] + h[2]);
              store(to + columns, h[1] - h[2] - h[3]);
            }
          }
      }
      finish_row(c, sum, columns, image, i, y);
      if (i + 1 < end) finish_row(c, sum + 2 * across * columns, columns, image, i + 1, y);
    }
  });
}

inline void conv(xla::ffi::ThreadPool& pool, const Conv& c, size_t batch, const float* x, const float* kernel,
                 float* packed, float* y) {
  (winograd_suits(c.in, c.out, c.stride) ? convolve_by_winograd : convolve)(pool, c, batch, x, kernel, packed, y);
}
