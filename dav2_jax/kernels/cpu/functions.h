// Elementary functions of vectors, exact to float32 rounding.
#pragma once

#include "tile.h"

// 2 ** x for x <= 0; 0 below -126.
inline Vector exp2(Vector x) {
  x = larger(splat(-126.0f), x);
  const Vector magic = splat(0x1.8p23f);  // adding it rounds to whole numbers, which then lie in the lowest bits
  const Vector shifted = x + magic;
  const Vector f = x - (shifted - magic);  // [-0.5, 0.5]
  Vector p = splat(1.535335898e-04f);
  p = p * f + splat(1.339887617e-03f);
  p = p * f + splat(9.618437384e-03f);
  p = p * f + splat(5.550332466e-02f);
  p = p * f + splat(2.402264791e-01f);
  p = p * f + splat(6.931472029e-01f);
  p = p * f + splat(1.0f);
  return reinterpret_cast<Vector>(reinterpret_cast<IntVector>(p) + (reinterpret_cast<IntVector>(shifted) << 23));
}

inline Vector clamp(Vector x, float limit) { return -larger(splat(-limit), -larger(splat(-limit), x)); }

// The exact GELU, x / 2 * (1 + erf(x / sqrt(2))); erf(z) as z * P(z^2) / Q(z^2), within 2.8e-07. At 4.1 the fraction is
// above 1, so erf is 1 exactly from there on, and GELU is 0 far below 0.
inline Vector gelu(Vector x) {
  const Vector z = clamp(x * 0.70710678f, 4.1f);
  const Vector t = z * z;
  Vector p = splat(2.050094281e-06f);
  p = p * t + splat(2.848836884e-04f);
  p = p * t + splat(3.765629372e-03f);
  p = p * t + splat(5.274876207e-02f);
  p = p * t + splat(1.904066503e-01f);
  p = p * t + splat(1.128379107e+00f);
  Vector q = splat(3.809183909e-05f);
  q = q * t + splat(1.162539818e-03f);
  q = q * t + splat(1.496924087e-02f);
  q = q * t + splat(1.141092032e-01f);
  q = q * t + splat(5.020762086e-01f);
  q = q * t + splat(1.0f);
  return 0.5f * x * (1.0f + clamp(z * p / q, 1.0f));
}
