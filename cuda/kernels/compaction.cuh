// What selections are made of: counts of digits, the search by digits, and a compaction that keeps the order.
#pragma once
#include "prelude.cuh"

// Loops over the whole grid.
#define FIRST ((u64)blockIdx.x * blockDim.x + threadIdx.x)
#define STRIDE ((u64)gridDim.x * blockDim.x)

// Values of a digit.
#define DIGITS 2048u

DEVICE void clear_counts(u32* counts) {
  for (u32 d = threadIdx.x; d < DIGITS; d += blockDim.x) counts[d] = 0;
  __syncthreads();
}

DEVICE void add_counts(const u32* counts, u32* histogram) {
  __syncthreads();
  for (u32 d = threadIdx.x; d < DIGITS; d += blockDim.x)
    if (counts[d]) atomicAdd(histogram + d, counts[d]);
}

// What a search by digits finds in a histogram.
struct Digit {
  bool missing;  // there are fewer than are searched for: for all threads
  bool mine;     // this thread, and no other, has what follows
  u32 value;
  u64 left;  // the rank among those that have this digit, too
};

// A block of 2048 / PER threads. Finds the digit of the `left`-th greatest, and empties the histogram.
template <u32 PER>
DEVICE Digit pick_digit(u32* histogram, u64 left) {
  __shared__ u64 sums[32];
  __shared__ u64 total;
  // Thread t has PER digits from this one down: greatest first.
  const u32 high = DIGITS - 1u - PER * threadIdx.x;
  u32 counts[PER];
  u64 own = 0;
#pragma unroll
  for (u32 d = 0; d < PER; d++) {
    counts[d] = histogram[high - d];
    histogram[high - d] = 0;
    own += counts[d];
  }
  u64 sum = own;
#pragma unroll
  for (u32 d = 1; d < 32; d <<= 1) {
    const u64 other = __shfl_up_sync(ALL, sum, d);
    if (lane() >= d) sum += other;
  }
  if (lane() == 31) sums[warp()] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    u64 before = 0;
    for (u32 w = 0; w < DIGITS / PER / 32; w++) {
      const u64 here = sums[w];
      sums[w] = before;
      before += here;
    }
    total = before;
  }
  __syncthreads();
  const u64 through = sums[warp()] + sum, before = through - own;
  u64 rest = left - before;
  u32 place = 0;
#pragma unroll
  for (u32 d = 0; d + 1 < PER; d++) {
    if (place == d && rest > counts[d]) {
      rest -= counts[d];
      place++;
    }
  }
  return {total < left, before < left && left <= through, high - place, rest};
}

// Whether this block is the last of the grid to come here. Then it sees what the others did before, and the counter of
// those that have come is 0 again.
DEVICE bool last_block(u32* come) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(come, 1u) + 1u == gridDim.x;
    __threadfence();
    if (last) *come = 0;
  }
  __syncthreads();
  return last;
}

// ---- Compaction in one pass.
//
// Tiles are taken in order from a counter, so a tile only ever waits for tiles that have begun (Merrill and Garland 2016,
// "Single-pass parallel prefix scan with decoupled look-back"). A tile publishes the numbers of what it has, then the
// numbers of all up to its end. Each number is one word together with its state, so nothing else has to be ordered.

#define THREADS 256u
#define WARPS 8u
#define ROWS 16u
#define TILE (THREADS * ROWS)
#define OWN (1ull << 62)
#define THROUGH (2ull << 62)
#define NUMBER ((1ull << 62) - 1)

DEVICE u64 load_relaxed(const u64* at) {
  u64 x;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(x) : "l"(at) : "memory");
  return x;
}

DEVICE void store_relaxed(u64* at, u64 x) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(x) : "memory");
}

// Two numbers side by side.
struct Pair {
  u64 over, ties;
};

DEVICE Pair warp_total(Pair x) {
#pragma unroll
  for (u32 d = 16; d; d >>= 1) {
    x.over += __shfl_xor_sync(ALL, x.over, d);
    x.ties += __shfl_xor_sync(ALL, x.ties, d);
  }
  return x;
}

// One warp. What all tiles before this one have; this one has `own`.
DEVICE Pair look_back(u64* states, u32 tile, Pair own) {
  if (tile > 0 && lane() == 0) {
    store_relaxed(states + 2 * (u64)tile, OWN | own.over);
    store_relaxed(states + 2 * (u64)tile + 1, OWN | own.ties);
  }
  Pair before = {0, 0};
  for (i64 window = (i64)tile - 1; window >= 0; window -= 32) {
    const i64 at = window - (i64)lane();
    u64 over = THROUGH, ties = THROUGH;
    if (at >= 0) {
      do {
        over = load_relaxed(states + 2 * at);
        ties = load_relaxed(states + 2 * at + 1);
      } while (over >> 62 == 0 || over >> 62 != ties >> 62);
    }
    __syncwarp();
    const u32 through = __ballot_sync(ALL, over >> 62 == 2);
    // Lanes up to the nearest that has the sum of everything before it, too.
    const u32 wanted = through ? through ^ (through - 1) : ALL;
    Pair part = {0, 0};
    if (wanted >> lane() & 1u) part = {over & NUMBER, ties & NUMBER};
    part = warp_total(part);
    before.over += part.over;
    before.ties += part.ties;
    if (through) break;
  }
  if (lane() == 0) {
    store_relaxed(states + 2 * (u64)tile, THROUGH | (before.over + own.over));
    store_relaxed(states + 2 * (u64)tile + 1, THROUGH | (before.ties + own.ties));
  }
  return before;
}

// The next tile; all threads of the block get it.
DEVICE u32 next_tile(u32* counter, u32* shared) {
  if (threadIdx.x == 0) *shared = atomicAdd(counter, 1u);
  __syncthreads();
  return *shared;
}

// What all of the block's warps before this one have, and, through `look_back`, all tiles before. `own` is the warp's.
DEVICE Pair before_warp(u64* states, u32 tile, Pair own, Pair* warps, Pair* block) {
  if (lane() == 0) warps[warp()] = own;
  __syncthreads();
  if (warp() == 0) {
    Pair all = {0, 0};
    for (u32 w = 0; w < WARPS; w++) {
      all.over += warps[w].over;
      all.ties += warps[w].ties;
    }
    const Pair before = look_back(states, tile, all);
    if (lane() == 0) *block = before;
  }
  __syncthreads();
  Pair before = *block;
  for (u32 w = 0; w < warp(); w++) {
    before.over += warps[w].over;
    before.ties += warps[w].ties;
  }
  return before;
}
