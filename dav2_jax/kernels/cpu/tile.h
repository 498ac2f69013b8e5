// One tile of a matrix product in the vector registers: everything else is arranging memory for it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX__)
#include <immintrin.h>  // GCC makes two instructions of a maximum otherwise
#endif

// The largest tile whose sums stay in registers: 16 of AVX2, 32 of AVX-512, 32 of NEON.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 14, kVectors = 2;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 6, kVectors = 2;
#else
constexpr int kLanes = 4, kRows = 6, kVectors = 4;
#endif
constexpr int kColumns = kLanes * kVectors;

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntVector __attribute__((vector_size(4 * kLanes)));
typedef float Unaligned __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<Unaligned*>(to) = x; }
// Where one of the two is not a number, the result is y.
inline Vector larger(Vector x, Vector y) {
#if defined(__AVX512F__)
  return (Vector)_mm512_maskz_max_ps(0xFFFF, (__m512)x, (__m512)y);  // GCC 12 warns of its own _mm512_max_ps
#elif defined(__AVX__)
  return (Vector)_mm256_max_ps((__m256)x, (__m256)y);
#else
  return x > y ? x : y;
#endif
}
inline Vector splat(float x) { return x - Vector{}; }
inline float total_of(Vector x) {
  float total = 0;
  for (int l = 0; l < kLanes; l++) total += x[l];
  return total;
}

inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// The product of sizes; SIZE_MAX, which no memory has, where it overflows.
template <typename... Sizes>
size_t saturating_product(Sizes... sizes) {
  size_t total = 1;
  ((total = __builtin_mul_overflow(total, static_cast<size_t>(sizes), &total) ? SIZE_MAX : total), ...);
  return total;
}

// sum[R, kColumns] (+)= x @ panel[depth, kColumns], where element (r, k) of x lies at r * across + k * along, and rows
// of the panel are `step` apart. What is there is added last: sums of parts round less.
template <int R>
inline __attribute__((always_inline)) void multiply_tile(const float* x, size_t across, size_t along,
                                                         const float* panel, size_t step, float* sum, size_t sum_stride,
                                                         size_t depth, bool add) {
  Vector total[R][kVectors] = {};
#pragma GCC unroll 2
  for (size_t k = 0; k < depth; k++) {
    Vector row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) row[v] = load(panel + k * step + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) total[r][v] += x[r * across + k * along] * row[v];
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) {
      float* to = sum + r * sum_stride + v * kLanes;
      store(to, add ? load(to) + total[r][v] : total[r][v]);
    }
}

// sum[R, kColumns] (+)= x[R, depth] @ panel[depth, kColumns]
template <int R>
void multiply_rows(const float* x, size_t x_stride, const float* panel, float* sum, size_t sum_stride, size_t depth,
                   bool add) {
  multiply_tile<R>(x, x_stride, 1, panel, kColumns, sum, sum_stride, depth, add);
}

using MultiplyRows = decltype(&multiply_rows<1>);

template <size_t... R>
constexpr auto table_of(std::index_sequence<R...>) {
  struct Table {
    MultiplyRows of[sizeof...(R)];
  };
  return Table{{&multiply_rows<R + 1>...}};
}

// multiply_rows<rows>, for 1 <= rows <= kRows
inline MultiplyRows multiply_some(size_t rows) {
  static constexpr auto table = table_of(std::make_index_sequence<kRows>());
  return table.of[rows - 1];
}

// Columns of w[depth, columns] in panels [ceil(columns / kColumns)][depth][kColumns], with zeros at the end.
inline void pack(const float* w, size_t stride, size_t depth, size_t columns, float* panels) {
  for (size_t j = 0; j < columns; j += kColumns) {
    const size_t some = std::min<size_t>(kColumns, columns - j);
    for (size_t k = 0; k < depth; k++, panels += kColumns) {
      if (some == kColumns) {
        std::memcpy(panels, w + k * stride + j, sizeof(float) * kColumns);
      } else {
        std::memcpy(panels, w + k * stride + j, sizeof(float) * some);
        std::memset(panels + some, 0, sizeof(float) * (kColumns - some));
      }
    }
  }
}

// As many rows as a product takes at once: about 150 kB of them that stay in the second-level cache.
constexpr size_t kChunk = 96 / kRows * kRows;
// The depth of one pass: a panel of 24 kB stays in the first-level cache while all rows of a chunk meet it.
constexpr size_t kDepth = 6144 / kColumns;

// The size of each part when n is cut into the fewest parts of at most `largest`, all about the same.
inline size_t even_part(size_t n, size_t largest) {
  const size_t parts = (n + largest - 1) / largest;
  return (n + parts - 1) / parts;
}

// sum[rows, columns] (+)= x[rows, depth] @ panels, whose column count is rounded up, as is the length of a row of sum.
// Panels are `stride` deep in memory; the product takes `depth` of it.
inline void multiply(const float* x, size_t x_stride, size_t rows, const float* panels, size_t stride, size_t depth,
                     size_t columns, float* sum, size_t sum_stride, bool add) {
  for (size_t j = 0; j < columns; j += kColumns)
    for (size_t i = 0; i < rows; i += kRows)
      multiply_some(std::min<size_t>(kRows, rows - i))(x + i * x_stride, x_stride, panels + j * stride,
                                                       sum + i * sum_stride + j, sum_stride, depth, add);
}

// The same in passes of at most kDepth, for any depth and number of rows; it ends each chunk of rows by
// finish(first row, rows).
template <typename Finish>
void multiply_deep(const float* x, size_t x_stride, size_t rows, const float* panels, size_t depth, size_t columns,
                   float* sum, size_t sum_stride, bool add, const Finish& finish) {
  const size_t part = even_part(depth, kDepth);
  for (size_t i = 0; i < rows; i += kChunk) {
    const size_t some = std::min(kChunk, rows - i);
    for (size_t k = 0; k < depth; k += part)
      multiply(x + i * x_stride + k, x_stride, some, panels + k * kColumns, depth, std::min(part, depth - k), columns,
               sum + i * sum_stride, sum_stride, add || k > 0);
    finish(i, some);
  }
}
