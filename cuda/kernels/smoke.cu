//! registers 32
// One small kernel: proof that launches, arguments and copies work.
#include "prelude.cuh"

struct Line {
  float slope, offset;
};

KERNEL smoke_line(float* y, const float* x, const Line line, u32 n) {
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    y[i] = __fadd_rn(__fmul_rn(line.slope, x[i]), line.offset);
}
