// What every file of kernels begins with. Nothing of NVIDIA's headers: the compiler alone is enough.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#define KERNEL extern "C" __global__ void
#define DEVICE static __device__ __forceinline__

// All lanes of a warp.
#define ALL 0xffffffffu

DEVICE u32 lane() { return threadIdx.x & 31u; }
DEVICE u32 warp() { return threadIdx.x >> 5; }

DEVICE u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u64 min_u64(u64 a, u64 b) { return a < b ? a : b; }
DEVICE u64 max_u64(u64 a, u64 b) { return a > b ? a : b; }

// The sum of the lanes before this one.
DEVICE u32 warp_sum_before(u32 x) {
  u32 sum = x;
#pragma unroll
  for (u32 d = 1; d < 32; d <<= 1) {
    const u32 other = __shfl_up_sync(ALL, sum, d);
    if (lane() >= d) sum += other;
  }
  return sum - x;
}

// The sum of all lanes, in every lane.
DEVICE u32 warp_sum(u32 x) {
#pragma unroll
  for (u32 d = 16; d; d >>= 1) x += __shfl_xor_sync(ALL, x, d);
  return x;
}
