// Adam of one weight.

#pragma once

#include "saetta.cuh"

/// Root and quotient are off by 2 units of rounding at most, of the step and not of the weight.
__device__ __forceinline__ void adam(const Numbers& o, float& w, float& m, float& v, float gradient) {
  const float g = o.factor * gradient;
  m = o.beta1 * m + o.rest1 * g;
  v = o.beta2 * v + o.rest2 * g * g;
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(v));
  w -= __fdividef(o.rate * m, root * o.root + o.eps);
}

/// One element of a bias.
__device__ __forceinline__ void updateBias(const Numbers& o, float* w, float* m, float* v, float* ema, float gradient) {
  adam(o, *w, *m, *v, gradient);
  if (o.averages != 0) *ema += o.emaRest * (*w - *ema);
}
