// Softmax attention that never writes the scores to memory: blocks of queries meet blocks of keys in the cache.
#pragma once

#include <cmath>

#include "functions.h"
#include "parallel.h"
#include "tile.h"

constexpr size_t kQueries = kChunk;
constexpr size_t kKeys = 256;

inline size_t block_of_keys(size_t n) { return round_up(even_part(n, kKeys), kColumns); }

// Packed keys and values of one head: [padded keys] * channels floats each.
inline size_t packed_floats(size_t n, size_t channels) {
  return saturating_product(round_up(n, block_of_keys(n)), channels + round_up(channels, kColumns));
}

// Floats of scratch for one image; 0 where there is nothing to compute.
inline size_t attention_scratch(size_t n, size_t heads, size_t channels) {
  return n == 0 ? 0 : saturating_product(heads, packed_floats(n, channels));
}

// qkv[batch, n, 3 * heads * channels] -> out[batch, n, heads * channels]; packed: attention_scratch floats.
inline void attention(xla::ffi::ThreadPool& pool, const float* qkv, float* out, float* packed, size_t batch, size_t n,
                      size_t heads, size_t channels) {
  const size_t width = heads * channels, stride = 3 * width, wide = round_up(channels, kColumns);
  const size_t block = block_of_keys(n), padded = round_up(n, block), blocks = padded / block;
  const size_t head_floats = packed_floats(n, channels);
  const size_t query_blocks = (n + kQueries - 1) / kQueries;
  const float scale = 1 / std::sqrt(static_cast<float>(channels));
  constexpr float kLog2E = 1.44269504f;  // powers of two are taken in place of those of e

  for (size_t image = 0; image < batch; image++, qkv += n * stride, out += n * width) {
    parallel(pool, heads * blocks, [&](size_t task) {  // keys as columns of panels, values as rows
      const size_t head = task / blocks, first = task % blocks * block;
      const float* k = qkv + width + head * channels;
      const float* v = k + width;
      float* keys = packed + head * head_floats + first * channels;
      float* values = packed + head * head_floats + padded * channels + first * wide;
      const size_t count = first < n ? std::min(block, n - first) : 0;
      for (size_t j = 0; j < block; j++) {
        float* column = keys + j / kColumns * kColumns * channels + j % kColumns;
        for (size_t c = 0; c < channels; c++) column[c * kColumns] = j < count ? k[(first + j) * stride + c] : 0;
      }
      for (size_t c = 0; c < channels; c += kColumns)
        for (size_t j = 0; j < block; j++, values += kColumns) {
          const size_t some = j < count ? std::min<size_t>(kColumns, channels - c) : 0;
          std::memcpy(values, v + (first + j) * stride + c, sizeof(float) * some);
          std::memset(values + some, 0, sizeof(float) * (kColumns - some));
        }
    });

    parallel(pool, heads * query_blocks, [&](size_t task) {
      const size_t head = task / query_blocks, first = task % query_blocks * kQueries;
      const size_t count = std::min(kQueries, n - first);
      float* q = thread_scratch<0>(saturating_product(kQueries, channels + wide + block + 2));
      float* mixed = q + kQueries * channels;
      float* scores = mixed + kQueries * wide;
      float* highest = scores + kQueries * block;
      float* total = highest + kQueries;
      for (size_t i = 0; i < count; i++) {
        const float* from = qkv + (first + i) * stride + head * channels;
        for (size_t c = 0; c < channels; c++) q[i * channels + c] = from[c] * scale;
        highest[i] = -INFINITY;
        total[i] = 0;
      }
      for (size_t b = 0; b < blocks; b++) {
        const size_t some = std::min(block, n - b * block);
        const float* keys = packed + head * head_floats + b * block * channels;
        const float* values = packed + head * head_floats + padded * channels + b * block * wide;
        multiply(q, channels, count, keys, channels, channels, round_up(some, kColumns), scores, block, false);
        for (size_t i = 0; i < count; i++) {
          float* row = scores + i * block;
          for (size_t j = some; j < round_up(some, kLanes); j++) row[j] = -INFINITY;
          Vector top = load(row);
          for (size_t j = kLanes; j < some; j += kLanes) top = larger(top, load(row + j));
          float peak = top[0];
          for (int l = 1; l < kLanes; l++) peak = std::max(peak, top[l]);
          peak = std::max(highest[i], peak * kLog2E);
          Vector sum{};
          for (size_t j = 0; j < some; j += kLanes) {
            const Vector weight = exp2(load(row + j) * kLog2E - peak);
            store(row + j, weight);
            sum += weight;
          }
          for (size_t j = round_up(some, kLanes); j < block; j++) row[j] = 0;
          if (b > 0 && peak > highest[i]) {
            const float fade = std::exp2(highest[i] - peak);
            total[i] *= fade;
            for (size_t c = 0; c < wide; c += kLanes) store(mixed + i * wide + c, load(mixed + i * wide + c) * fade);
          }
          total[i] += total_of(sum);
          highest[i] = peak;
        }
        const size_t deep = round_up(some, kLanes);
        multiply(scores, block, count, values, block, deep, wide, mixed, wide, b > 0);
      }
      for (size_t i = 0; i < count; i++) {
        float* to = out + (first + i) * width + head * channels;
        const float scale_back = 1 / total[i];
        for (size_t c = 0; c < channels; c++) to[c] = mixed[i * wide + c] * scale_back;
      }
    });
  }
}
