// Small kernels, each right as it stands and wrong with -DFAULT. All take (out, in, n); blocks have 128 threads.
//
// faults_good.ptx and faults_bad.ptx are NVRTC 12.4's output for compute_80, without and with -DFAULT.
typedef unsigned int u32;
#define KERNEL extern "C" __global__ void __launch_bounds__(128)
#define FULL 0xffffffffu
#define T threadIdx.x
#ifdef FAULT
#define RIGHT(x)
#define WRONG(x) x
#else
#define RIGHT(x) x
#define WRONG(x)
#endif

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void copy4(u32* to, const u32* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wait_group() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// out = in, each block's part reversed.
KERNEL missing_barrier(u32* out, const u32* in, int n) {
  __shared__ u32 tile[128];
  const int base = blockIdx.x * 128;
  tile[T] = in[base + T];
  RIGHT(__syncthreads());
  out[base + T] = tile[127 - T];
}

// out = sum of the neighbour's elements of all tiles.
KERNEL write_after_read(u32* out, const u32* in, int n) {
  __shared__ u32 tile[128];
  u32 sum = 0;
  for (int i = 0; i < n; i += 128) {
    tile[T] = in[i + T];
    __syncthreads();
    sum += tile[(T + 33) & 127];
    RIGHT(__syncthreads());
  }
  out[blockIdx.x * 128 + T] = sum;
}

// The same through two buffers filled ahead.
KERNEL wrong_wait_group(u32* out, const u32* in, int n) {
  __shared__ u32 tile[2][128];
  u32 sum = 0;
  copy4(&tile[0][T], in + T);
  commit();
  for (int i = 0, s = 0; i < n; i += 128, s ^= 1) {
    if (i + 128 < n) copy4(&tile[s ^ 1][T], in + i + 128 + T);
    commit();
    RIGHT(wait_group<1>());
    WRONG(wait_group<2>());
    __syncthreads();
    sum += tile[s][(T + 33) & 127];
    __syncthreads();
  }
  out[blockIdx.x * 128 + T] = sum;
}

// The same, with no wait at all.
KERNEL missing_wait(u32* out, const u32* in, int n) {
  __shared__ u32 tile[128];
  copy4(&tile[T], in + blockIdx.x * 128 + T);
  commit();
  RIGHT(wait_group<0>());
  __syncthreads();
  out[blockIdx.x * 128 + T] = tile[127 - T];
}

// out = sum of a tile of which only the first 100 elements exist.
KERNEL stale_tail(u32* out, const u32* in, int n) {
  __shared__ u32 tile[128];
  if (T < 100) tile[T] = in[T];
  RIGHT(else tile[T] = 0;)
  __syncthreads();
  u32 sum = 0;
  for (int i = 0; i < 128; i++) sum += tile[i];
  out[blockIdx.x * 128 + T] = sum;
}

// out = sum of the warp's elements.
KERNEL half_warp_reduction(u32* out, const u32* in, int n) {
  u32 sum = in[blockIdx.x * 128 + T];
  for (int step = RIGHT(16) WRONG(8); step; step >>= 1) sum += __shfl_xor_sync(FULL, sum, step);
  out[blockIdx.x * 128 + T] = sum;
}

// out = sum of the 16 elements from the lane's own on, in the lower half.
KERNEL inactive_lane(u32* out, const u32* in, int n) {
  u32 x = in[blockIdx.x * 128 + T], y = 0;
  RIGHT(y = __shfl_down_sync(FULL, x, 16));
  if ((T & 31) < 16) {
    WRONG(y = __shfl_down_sync(FULL, x, 16));
    x += y;
  }
  out[blockIdx.x * 128 + T] = x;
}

// out = in, four at a time.
KERNEL misaligned_vector(u32* out, const u32* in, int n) {
  if (T < 31) {
    const int at = blockIdx.x * 128 + 4 * T RIGHT(+0) WRONG(+1);
    uint4 v = *(const uint4*)(in + at);
    out[at] = v.x; out[at + 1] = v.y; out[at + 2] = v.z; out[at + 3] = v.w;
  }
}

// out = in for all n.
KERNEL out_of_bounds(u32* out, const u32* in, int n) {
  for (int i = blockIdx.x * 128 + T; RIGHT(i < n) WRONG(i <= n); i += gridDim.x * 128) out[i] = in[i];
}

// One past a shared array's end, into a neighbour's alignment gap.
KERNEL shared_out_of_bounds(u32* out, const u32* in, int n) {
  extern __shared__ u32 scratch[];
  scratch[T RIGHT(+0) WRONG(+1)] = in[blockIdx.x * 128 + T];
  __syncthreads();
  out[blockIdx.x * 128 + T] = scratch[T RIGHT(+0) WRONG(+1)];
}

// Histogram of the low two bits.
KERNEL uninitialized_scratch(u32* out, const u32* in, int n) {
  __shared__ u32 counts[4];
  RIGHT(if (T < 4) counts[T] = 0);
  __syncthreads();
  atomicAdd(&counts[in[blockIdx.x * 128 + T] & 3], 1u);
  __syncthreads();
  if (T < 4) out[blockIdx.x * 128 + T] = counts[T];
}

// Sum of everything.
KERNEL lost_atomic(u32* out, const u32* in, int n) {
  if (T == 0) {
    RIGHT(atomicAdd(out, in[blockIdx.x]));
    WRONG(out[0] += in[blockIdx.x]);
  }
}

// A barrier for part of each warp.
KERNEL divergent_barrier(u32* out, const u32* in, int n) {
  __shared__ u32 tile[128];
  tile[T] = in[blockIdx.x * 128 + T];
  RIGHT(__syncthreads());
  if (T % 32 < 20) {
    WRONG(__syncthreads());
    out[blockIdx.x * 128 + T] = tile[T ^ 1];
  } else {
    out[blockIdx.x * 128 + T] = tile[T];
  }
}

// Lanes of a warp exchange through shared memory.
KERNEL missing_syncwarp(u32* out, const u32* in, int n) {
  __shared__ u32 tile[128];
  tile[T] = in[blockIdx.x * 128 + T];
  RIGHT(__syncwarp());
  out[blockIdx.x * 128 + T] = tile[T ^ 1];
}

// Waits for a flag that thread 0 sets.
KERNEL deadlock(u32* out, const u32* in, int n) {
  __shared__ volatile u32 flag;
  if (T == 0) flag = 0;
  __syncthreads();
  RIGHT(if (T == 0) flag = 1);
  while (flag == 0) {}
  out[blockIdx.x * 128 + T] = 1;
}

// The block that comes last sums what the others left: out[0] counts, out[1 + block] are the parts, out[100] the sum.
KERNEL missing_fence(u32* out, const u32* in, int n) {
  if (T == 0) {
    out[1 + blockIdx.x] = in[blockIdx.x];
    RIGHT(__threadfence());
    if (atomicAdd(out, 1u) == gridDim.x - 1) {
      RIGHT(__threadfence());
      u32 sum = 0;
      for (u32 i = 0; i < gridDim.x; i++) sum += out[1 + i];
      out[100] = sum;
    }
  }
}

// All blocks wait for each other. Needs a cooperative launch.
KERNEL grid_barrier(u32* out, const u32* in, int n) {
  out[1 + blockIdx.x * 128 + T] = in[blockIdx.x * 128 + T];
  RIGHT(__syncthreads());
  if (T == 0) {
    __threadfence();
    atomicAdd(out, 1u);
    u32 seen;
    do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(out) : "memory"); while (seen < gridDim.x);
  }
  __syncthreads();
  u32 x = out[1 + ((blockIdx.x + 1) % gridDim.x) * 128 + T];
  __syncthreads();
  if (T == 0) atomicAdd(&out[1000], x);
}

// Sums an array that lives in local memory.
KERNEL local_array(u32* out, const u32* in, int n) {
  u32 a[8];
  for (int i = 0; i < 8 WRONG(-1); i++) a[i] = in[(T + i) & 127];
  u32 sum = 0;
  for (int i = 0; i < 8; i++) sum += a[(i * n + T) & 7];
  out[blockIdx.x * 128 + T] = sum;
}
