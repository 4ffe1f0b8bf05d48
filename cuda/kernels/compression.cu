//! options --fmad=false
//! registers 104
// Gradient compression. What is computed, and why in this order, is defined by the crate tilewright-compression; names are
// those of its modules `key`, `select`, `memory` and `hash`. Every sum and product is rounded by itself: nothing may be
// contracted (see the options above).
#include "compaction.cuh"
#include "prelude.cuh"

// Magnitudes: 31 bits that grow with |x|; all NaNs alike.
#define INFINITE 0x7f800000u
#define NAN_BITS 0x7fc00000u
#define GREATEST_FINITE 0x7f7fffffu
#define LEAST 1u

DEVICE u32 mix(u32 index, u32 seed) {
  u32 h = index + seed * 0x9e3779b9u;
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  return h ^ (h >> 16);
}

// What kernels tell each other about a step. The order is that of `Control` in the host's module.
struct Control {
  u32 cut;        // magnitudes above this one are candidates
  u32 ties;       // and so are the first so many that equal it
  u32 searching;  // what a search by digits is for, if one is going on
  u32 prefix;     // digits found so far
  u64 left;       // rank of what is searched for among those that begin with the prefix
  u64 words;      // length of the message
  u32 first_bad;  // least index of a number that is not finite
  u32 refining;   // whether no threshold of the last batch was low enough
  u32 threshold;  // where the next batch begins
  u32 floor;      // magnitudes from this one on are staged
  u32 staged;     // how many there were, whether or not there was room for them
  u32 whole;      // whether what is staged does not do, so that all values have to be looked at
  u32 come;       // blocks of a launch that are done
  u32 pad;
};

DEVICE u32 magnitude(float x) {
  const u32 bits = __float_as_uint(x) & 0x7fffffffu;
  return bits > INFINITE ? NAN_BITS : bits;
}

DEVICE u64 key_of(u32 index, float x) {
  return (u64)magnitude(x) << 33 | (u64)~index << 1 | (u64)(__float_as_uint(x) >> 31);
}

DEVICE u64 word_of(u32 index, float x) { return (u64)index << 32 | (u64)__float_as_uint(x); }

DEVICE float half_to_float(u16 h) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
  return x;
}

DEVICE u16 float_to_half(float x) {
  u16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}

// The value as the receiver sees it. `format`: 0 f32, 1 bf16, 2 f16.
DEVICE float on_the_wire(u32 format, float x) {
  const u32 bits = __float_as_uint(x), size = bits & 0x7fffffffu, sign = bits & 0x80000000u;
  if (size > INFINITE) return __uint_as_float(NAN_BITS);
  if (format == 0 || size == INFINITE) return x;
  if (format == 1) {
    const u32 rounded = (size + 0x7fffu + (size >> 16 & 1u)) & 0xffff0000u;
    return __uint_as_float(sign | (rounded >= INFINITE ? 0x7f7f0000u : rounded));
  }
  const float rounded = half_to_float(float_to_half(x));
  return magnitude(rounded) >= INFINITE ? __uint_as_float(sign | 0x477fe000u) : rounded;
}

// What stays where `x` was sent as `sent`.
DEVICE float left_over(float x, float sent) { return magnitude(x) < INFINITE ? __fsub_rn(x, sent) : 0.0f; }

// How a gradient enters the memory.
struct Feedback {
  u32 kind;  // 0 none, 1 residual, 2 momentum, 3 Nesterov
  u32 masking;
  float factor;
  float scale;
};

DEVICE void accumulate(const Feedback& f, float& u, float& v, float g) {
  if (f.kind == 0) {
    v = g;
  } else if (f.kind == 1) {
    v = __fadd_rn(v, g);
  } else if (f.kind == 2) {
    u = __fadd_rn(__fmul_rn(f.factor, u), g);
    v = __fadd_rn(v, u);
  } else {
    u = __fmul_rn(f.factor, __fadd_rn(u, g));
    v = __fadd_rn(__fadd_rn(v, u), g);
  }
}

// The place `i` after the gradient came in; what there is no use for is null.
DEVICE float update(const Feedback& f, const float* gradient, float* momentum, float* velocity, u64 i) {
  const float g = __fmul_rn(f.scale, gradient[i]);
  float u = f.kind >= 2 ? momentum[i] : 0.0f, v = f.kind >= 1 ? velocity[i] : 0.0f;
  accumulate(f, u, v, g);
  if (f.kind >= 2) momentum[i] = u;
  if (f.kind >= 1) velocity[i] = v;
  return v;
}

// Values to choose from: the updated velocity, or the gradient times its scale.
struct Values {
  const float* at;
  u64 count;
  float scale;
  u32 pad;
};

DEVICE float value_at(const Values& values, u64 j) {
  return __fmul_rn(values.scale, values.at[j]);
}

// What was staged: words of all values at or above the floor, tile by tile, each tile's in order of index and next to one
// another. Tiles come in no order; the segment of a tile is where its words begin, and in the lower half how many they are.
struct Pool {
  u64* words;
  u64* segments;
  u64 capacity, tiles;
  u64 share;  // tiles whose words a warp puts in order, 32 at most
};

// Whether all values have to be looked at, because what was staged does not do.
DEVICE bool whole(const Control* control, const Pool& pool) {
  return control->whole || control->staged > pool.capacity;
}

DEVICE u32 magnitude_of(u64 word) { return magnitude(__uint_as_float((u32)word)); }

// Hands `f` all numbers that `load` has; some that are 0 may come on top. Four are on their way at once.
template <class Load, class F>
DEVICE void each_of(u64 count, Load load, F f) {
  for (u64 j = FIRST; j < count; j += 4 * STRIDE) {
    u32 m[4];
#pragma unroll
    for (u32 q = 0; q < 4; q++) m[q] = j + q * STRIDE < count ? load(j + q * STRIDE) : 0;
#pragma unroll
    for (u32 q = 0; q < 4; q++) f(m[q]);
  }
}

// Hands `f` the magnitudes of what was staged, or of all values.
template <class F>
DEVICE void each_magnitude(const Values& values, const Pool& pool, const Control* control, bool all, F f) {
  if (all)
    each_of(values.count, [&](u64 j) { return magnitude(value_at(values, j)); }, f);
  else
    each_of(control->staged, [&](u64 j) { return magnitude_of(pool.words[j]); }, f);
}

// Equations 4 and 5 of Lin et al. 2018.
KERNEL compression_update(const Feedback feedback, const float* gradient, float* momentum, float* velocity, u64 n) {
  for (u64 i = FIRST; i < n; i += STRIDE) update(feedback, gradient, momentum, velocity, i);
}

KERNEL compression_first_bad(const float* gradient, u64 n, Control* control) {
  u32 first = 0xffffffffu;
  for (u64 i = FIRST; i < n; i += STRIDE)
    if (magnitude(gradient[i]) >= INFINITE) first = min_u32(first, (u32)i);
  if (first != 0xffffffffu) atomicMin(&control->first_bad, first);
}

// ---- Searches by digits, from the first. Each launch counts one digit; its last block finds the one that is searched for.

// What a search is for.
#define FOR_CUT 1u
#define FOR_FLOOR 2u
#define FOR_THRESHOLD 3u

struct Search {
  u64 rank;  // 0 if the search has begun before
  u32 goal;
  u32 shift, bits;
  u32 last;  // whether the search ends with this digit: what is below it is taken to be 0
};

// What was searched for is found.
DEVICE void found_it(Control* control, u32 goal, u32 found, u32 ties) {
  control->searching = 0;
  if (goal == FOR_FLOOR) {
    control->floor = min_u32(found, INFINITE);
    return;
  }
  control->cut = found;
  // A sampled threshold has all that equal it.
  control->ties = goal == FOR_CUT ? ties : 0xffffffffu;
  if (goal == FOR_CUT) return;
  control->threshold = found;
  control->refining = 1;
  if (found < control->floor) control->whole = 1;
}

// A digit was counted by this block. In the last one, for which this is true, the search goes on.
DEVICE bool digit_counted(const Search& s, const u32* counts, u32* histogram, Control* control, u32 prefix) {
  add_counts(counts, histogram);
  if (!last_block(&control->come)) return false;
  const u32 goal = s.rank ? s.goal : control->searching;
  const Digit digit = pick_digit<DIGITS / THREADS>(histogram, s.rank ? s.rank : control->left);
  // Everybody has read the control block before anybody writes it.
  __syncthreads();
  if (digit.missing) {
    // Fewer than that are not zero: all of them. This can only show at the first digit.
    if (threadIdx.x == 0) found_it(control, goal, LEAST, 0xffffffffu);
  } else if (digit.mine) {
    const u32 found = prefix << s.bits | digit.value;
    control->prefix = found;
    control->left = digit.left;
    control->searching = goal;
    if (s.last) found_it(control, goal, found << s.shift > LEAST ? found << s.shift : LEAST, (u32)digit.left);
  }
  return true;
}

// Counts the digit of those magnitudes whose digits above are the prefix. With a pool: among what was staged, if the one
// that is searched for is certain to be there.
KERNEL compression_count(const Search s, const Values values, const Pool pool, Control* control, u32* histogram) {
  __shared__ u32 counts[DIGITS];
  if (!s.rank && !control->searching) return;
  clear_counts(counts);
  const bool few = pool.words && control->floor > LEAST && control->staged < s.rank;
  const u32 prefix = s.rank ? 0 : control->prefix, digit = (1u << s.bits) - 1u;
  each_magnitude(values, pool, control, few || !pool.words || whole(control, pool), [&](u32 m) {
    if (m >= LEAST && (u64)m >> (s.shift + s.bits) == prefix) atomicAdd(counts + (m >> s.shift & digit), 1u);
  });
  if (digit_counted(s, counts, histogram, control, prefix) && few && threadIdx.x == 0) control->whole = 1;
}

// Magnitudes, as numbers, of values that the gradient has not entered yet, for a guess at the floor, and a count of their
// first digit. One place in each `stride`, at random.
KERNEL compression_guess(const Search s, const Feedback f, const float* gradient, const float* momentum,
                         const float* velocity, u64 stride, u64 count, float* sample, Control* control, u32* histogram) {
  __shared__ u32 counts[DIGITS];
  clear_counts(counts);
  for (u64 j = FIRST; j < count; j += STRIDE) {
    const u64 i = j * stride + (((u64)mix((u32)j, 0) * stride) >> 32);
    const float g = __fmul_rn(f.scale, gradient[i]);
    float u = f.kind >= 2 ? momentum[i] : 0.0f, v = f.kind >= 1 ? velocity[i] : 0.0f;
    accumulate(f, u, v, g);
    const u32 m = magnitude(v);
    sample[j] = __uint_as_float(m);
    if (m >= LEAST) atomicAdd(counts + (m >> s.shift), 1u);
  }
  digit_counted(s, counts, histogram, control, 0);
}

// A fixed threshold, or none at all.
KERNEL compression_cut(Control* control, u32 cut, u32 ties) {
  control->cut = cut;
  control->ties = ties;
  control->floor = min_u32(cut, INFINITE);
}

DEVICE u32 lowered(u32 threshold, float lower) {
  if (threshold > GREATEST_FINITE) return GREATEST_FINITE;
  const u32 m = magnitude(__fmul_rn(__uint_as_float(threshold), lower));
  return m > LEAST ? m : LEAST;
}

// Thresholds that are counted in one launch.
#define BATCH 32u

struct Refinement {
  float lower, upper;
  u64 k;
  u32 most;    // thresholds of this batch
  u32 final;   // whether no batch comes after this one
  u32 trying;  // whether this is a try with what was staged, not with all values
  u32 pad;
};

// DGC's rule: the first threshold that does not let too few pass, unless the batch ends before; then the exact top k if it
// lets too many pass. A try that comes to no end, or below the floor, is as if it had not been.
DEVICE void decide(const Refinement& r, const u32* thresholds, u32 count, const u32* tally, Control* control) {
  const double few = __dmul_rn((double)r.lower, (double)r.k), many = __dmul_rn((double)r.upper, (double)r.k);
  u64 passing = 0;
  for (u32 j = 0; j < count; j++) {
    const u32 t = thresholds[j];
    if (r.trying && t < control->floor) break;
    passing += tally[j];
    const bool end = j + 1 == count;
    const bool stuck = t == LEAST || lowered(t, r.lower) == t;
    if ((double)passing < few && !end) continue;
    if ((double)passing < few && !stuck && !r.final) {
      if (r.trying) break;
      // The next batch goes on from the last threshold, which is counted again.
      control->threshold = t;
      return;
    }
    control->refining = 0;
    control->cut = t;
    if ((double)passing > many) {
      control->searching = FOR_CUT;
      control->prefix = 0;
      control->left = r.k;
    }
    return;
  }
  control->whole = 1;
}

// Thresholds to try are known before anything is counted: tallies, for each value, the first that it passes. The last
// block decides. `sums` has a number for each threshold, all 0 before and after.
KERNEL compression_refine(const Refinement r, const Values values, const Pool pool, Control* control, u32* sums) {
  __shared__ u32 threshold[BATCH], tally[BATCH], count;
  if (!control->refining || whole(control, pool) == (r.trying != 0)) return;
  if (threadIdx.x < BATCH) tally[threadIdx.x] = 0;
  if (threadIdx.x == 0) {
    u32 t = control->threshold, n = 0;
    while (n < r.most) {
      threshold[n++] = t;
      const u32 next = lowered(t, r.lower);
      if (t == LEAST || next == t) break;
      t = next;
    }
    count = n;
  }
  __syncthreads();
  const u32 least = threshold[count - 1];
  each_magnitude(values, pool, control, !r.trying, [&](u32 m) {
    if (m < least) return;
    u32 first = 0;
    while (m < threshold[first]) first++;
    atomicAdd(tally + first, 1u);
  });
  __syncthreads();
  if (threadIdx.x < count && tally[threadIdx.x]) atomicAdd(sums + threadIdx.x, tally[threadIdx.x]);
  if (!last_block(&control->come)) return;
  if (threadIdx.x < BATCH) {
    tally[threadIdx.x] = sums[threadIdx.x];
    sums[threadIdx.x] = 0;
  }
  __syncthreads();
  if (threadIdx.x == 0) decide(r, threshold, count, tally, control);
}

DEVICE u32 slot_of(u32 index, u32 seed, u32 slots) { return (u32)(((u64)mix(index, seed) * (u64)slots) >> 32); }

struct Permutation {
  u32 len, mask, shift, pad;
  u32 factor[8], summand[8];
};

// Marks the first k indices of a keyed permutation.
KERNEL compression_permute(const Permutation p, u32 k, u32* bitmap) {
  for (u64 j = FIRST; j < k; j += STRIDE) {
    u32 x = (u32)j & p.mask;
    do {
#pragma unroll
      for (u32 r = 0; r < 8; r++) {
        x = (x * p.factor[r] + p.summand[r]) & p.mask;
        x ^= x >> p.shift;
      }
    } while (x >= p.len);
    atomicOr(bitmap + (x >> 5), 1u << (x & 31u));
  }
}

// The last argument of a compaction is a counter of tiles, and from the third word on what tiles publish; all zero.
struct Emit {
  Feedback feedback;
  const float* values;  // after the gradient came in, times `feedback.scale`
  float* momentum;
  float* velocity;
  u64* words;
  u64* table;  // if there is one, candidates go there
  u64 n, capacity;
  u32 format, slots, seed, racing;
};

// A candidate is sent: it leaves the memory.
DEVICE void settle(const Feedback& f, float* momentum, float* velocity, u64 i, float x, float sent) {
  if (f.kind >= 1) velocity[i] = left_over(x, sent);
  if (f.kind >= 2 && f.masking) momentum[i] = 0.0f;
}

DEVICE void offer(const Emit& e, u32 index, float x) {
  u64* place = e.table + slot_of(index, e.seed, e.slots);
  const u64 key = key_of(index, x);
  if (e.racing) {
    store_relaxed(place, key);
  } else if (load_relaxed(place) < key) {
    // Most who lose can see it without an atomic update.
    atomicMax(place, key);
  }
}

// A strided sample of values after the gradient came in: their magnitudes, as numbers. `count` may be 0.
struct Sample {
  float* at;
  u32 start, stride, count, pad;
};

// The gradient enters the memory, and what is at or above the floor is staged, or of that only what is marked if there is
// a bitmap; so is the sample. A tile's words go to the next free places,
// whatever the order of tiles, so that no tile waits for another. A thread has VECTORS times four numbers of a tile.
template <u32 KIND, u32 VECTORS>
DEVICE void stage(Feedback f, const float* gradient, float* momentum, float* velocity, u64 n, const u32* bitmap,
                  const Sample& sample, const Pool& pool, Control* control) {
  // What the threads have, each its own; and how many words each warp has before each of its rows.
  __shared__ float4 numbers[VECTORS][THREADS];
  __shared__ u32 before_row[WARPS][VECTORS], sums[WARPS], start;
  f.kind = KIND;
  const float floor = __uint_as_float(control->floor);
  const u64 first = (u64)blockIdx.x * (THREADS * 4u * VECTORS) + warp() * (128u * VECTORS) + 4u * lane();
  float4 x[VECTORS];
  const bool aligned = (((u64)gradient | (u64)momentum | (u64)velocity) & 15u) == 0;
  if (aligned && (u64)(blockIdx.x + 1) * (THREADS * 4u * VECTORS) <= n) {
    float4 u[VECTORS], v[VECTORS];
#pragma unroll
    for (u32 r = 0; r < VECTORS; r++) x[r] = *(const float4*)(gradient + first + 128u * r);
    if (KIND >= 1) {
#pragma unroll
      for (u32 r = 0; r < VECTORS; r++) v[r] = *(const float4*)(velocity + first + 128u * r);
    }
    if (KIND >= 2) {
#pragma unroll
      for (u32 r = 0; r < VECTORS; r++) u[r] = *(const float4*)(momentum + first + 128u * r);
    }
#pragma unroll
    for (u32 r = 0; r < VECTORS; r++) {
      accumulate(f, u[r].x, v[r].x, __fmul_rn(f.scale, x[r].x));
      accumulate(f, u[r].y, v[r].y, __fmul_rn(f.scale, x[r].y));
      accumulate(f, u[r].z, v[r].z, __fmul_rn(f.scale, x[r].z));
      accumulate(f, u[r].w, v[r].w, __fmul_rn(f.scale, x[r].w));
      if (KIND >= 1) *(float4*)(velocity + first + 128u * r) = v[r];
      if (KIND >= 2) *(float4*)(momentum + first + 128u * r) = u[r];
      x[r] = v[r];
    }
  } else {
#pragma unroll
    for (u32 r = 0; r < VECTORS; r++) {
      float one[4];
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        const u64 i = first + 128u * r + c;
        one[c] = i < n ? update(f, gradient, momentum, velocity, i) : 0.0f;
      }
      x[r] = {one[0], one[1], one[2], one[3]};
    }
  }
  // Four bits for each vector. The floor is not above infinity, and a NaN is not below it.
  u32 mask = 0;
#pragma unroll
  for (u32 r = 0; r < VECTORS; r++) {
    numbers[r][threadIdx.x] = x[r];
    mask |= fabsf(x[r].x) < floor ? 0 : 1u << 4 * r;
    mask |= fabsf(x[r].y) < floor ? 0 : 2u << 4 * r;
    mask |= fabsf(x[r].z) < floor ? 0 : 4u << 4 * r;
    mask |= fabsf(x[r].w) < floor ? 0 : 8u << 4 * r;
  }
  if (bitmap) {
#pragma unroll
    for (u32 r = 0; r < VECTORS; r++) {
      const u64 i = first + 128u * r;
      const u32 marked = i < n ? bitmap[i >> 5] >> (i & 31u) & 15u : 0;
      mask &= ~(15u << 4 * r) | marked << 4 * r;
    }
  }
  // Counts of four rows side by side, those of even number and those of odd, eight bits each: a row has 128 numbers.
  u32 own = mask - (mask >> 1 & 0x55555555u);
  own = (own & 0x33333333u) + (own >> 2 & 0x33333333u);
  const u32 even = own & 0x0f0f0f0fu, odd = own >> 4 & 0x0f0f0f0fu;
  const u32 before_even = warp_sum_before(even), before_odd = warp_sum_before(odd);
  if (lane() == 31) {
    u32 sum = 0;
#pragma unroll
    for (u32 r = 0; r < VECTORS; r++) {
      before_row[warp()][r] = sum;
      sum += ((r & 1u) ? before_odd + odd : before_even + even) >> 8 * (r / 2) & 255u;
    }
    sums[warp()] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    u32 total = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
      const u32 here = sums[w];
      sums[w] = total;
      total += here;
    }
    start = total ? atomicAdd(&control->staged, total) : 0;
    pool.segments[blockIdx.x] = (u64)start << 32 | total;
  }
  if (sample.count) {
    // The warp's own numbers are at these places, and up to the next warp's.
    const u32 from = (u32)(first - 4u * lane()), before = from > sample.start ? from - sample.start : 0;
    for (u64 j = before / sample.stride + (before % sample.stride != 0) + lane(); j < sample.count; j += 32) {
      const u64 within = sample.start + j * sample.stride - from;
      if (within >= 128u * VECTORS) break;
      const float* row = (const float*)&numbers[within / 128u][threadIdx.x - lane()];
      sample.at[j] = __uint_as_float(magnitude(row[within % 128u]));
    }
  }
  __syncthreads();
  const u32 at = start + sums[warp()];
  for (u32 rest = mask; rest; rest &= rest - 1u) {
    const u32 bit = (rest & (0u - rest)) - 1u, j = __popc(bit), r = j / 4u;
    const u32 earlier = __byte_perm(before_even, before_odd, r / 2u + 4u * (r & 1u)) & 255u;
    const u32 place = at + before_row[warp()][r] + earlier + __popc(mask & bit & 15u << 4u * r);
    const float x = ((const float*)&numbers[r][threadIdx.x])[j & 3u];
    if (place < (u32)pool.capacity) pool.words[place] = word_of((u32)(first + 128u * r + (j & 3u)), x);
  }
}

#define STAGE(kind, vectors)                                                                                            \
  KERNEL __launch_bounds__(256, 4) compression_stage_##kind(const Feedback f, const float* gradient, float* momentum,   \
                                                            float* velocity, u64 n, const u32* bitmap,                  \
                                                            const Sample sample, const Pool pool, Control* control) {   \
    stage<kind, vectors>(f, gradient, momentum, velocity, n, bitmap, sample, pool, control);                            \
  }
STAGE(0, 8)
STAGE(1, 4)
STAGE(2, 4)
STAGE(3, 4)

// Lanes whose value is a candidate for certain, and those whose value equals the cut.
struct Votes {
  u32 over, ties;
};

DEVICE Votes vote(u32 m, u32 cut) { return {__ballot_sync(ALL, m > cut), __ballot_sync(ALL, m == cut)}; }

// A row of a warp: candidates to their words, or to the table. `before` is what comes before the row, and is moved on.
DEVICE void emit_row(const Emit& e, u32 index, float x, u32 cut, u32 most, Pair& before) {
  const u32 earlier = (1u << lane()) - 1u, m = magnitude(x);
  const Votes votes = vote(m, cut);
  const u64 o = before.over + __popc(votes.over & earlier), t = before.ties + __popc(votes.ties & earlier);
  if (m > cut || (m == cut && t < most)) {
    const u64 at = o + min_u64(t, most);
    if (e.table) {
      offer(e, index, x);
    } else if (at < e.capacity) {
      const float sent = on_the_wire(e.format, x);
      e.words[at] = word_of(index, sent);
      settle(e.feedback, e.momentum, e.velocity, index, x, sent);
    }
  }
  before.over += __popc(votes.over);
  before.ties += __popc(votes.ties);
}

// What the segments of a warp have over the cut, and at it.
DEVICE Pair count_segments(const Pool& pool, u64 segment, u32 cut) {
  Pair own = {0, 0};
  for (u32 s = 0; s < pool.share; s++) {
    const u64 one = __shfl_sync(ALL, segment, s);
    const u64* words = pool.words + (one >> 32);
    for (u32 j = 0; j < (u32)one; j += 128u) {
#pragma unroll
      for (u32 q = 0; q < 128u; q += 32u) {
        const u32 at = j + q + lane();
        const Votes votes = vote(at < (u32)one ? magnitude_of(words[at]) : 0, cut);
        own.over += __popc(votes.over);
        own.ties += __popc(votes.ties);
      }
    }
  }
  return own;
}

// Candidates among what was staged to words, in order of index, or to the table.
KERNEL compression_order(const Emit e, const Pool pool, Control* control, u64* room) {
  __shared__ u32 shared_tile;
  __shared__ Pair warps[WARPS], block;
  if (whole(control, pool)) return;
  const u32 cut = control->cut, most = control->ties;
  const u32 group = next_tile((u32*)room, &shared_tile);
  const u64 tile = ((u64)group * WARPS + warp()) * pool.share + lane();
  const u64 segment = lane() < pool.share && tile < pool.tiles ? pool.segments[tile] : 0;
  Pair before = {0, 0};
  // A table needs no places; but if only some of the ties are candidates, then they are the first.
  if (!e.table || most != 0xffffffffu) {
    // Of what is at or above the floor, all is at or above a cut that is no higher.
    Pair own = {warp_sum((u32)segment), 0};
    if (cut > control->floor || most != 0xffffffffu) own = count_segments(pool, segment, cut);
    before = before_warp(room + 2, group, own, warps, &block);
  }
  for (u32 s = 0; s < pool.share; s++) {
    const u64 one = __shfl_sync(ALL, segment, s);
    const u64* words = pool.words + (one >> 32);
    for (u32 j = 0; j < (u32)one; j += 128u) {
      // All on their way before any is looked at.
      u64 word[4];
#pragma unroll
      for (u32 q = 0; q < 4; q++) {
        const u32 at = j + 32u * q + lane();
        word[q] = at < (u32)one ? words[at] : 0;
      }
#pragma unroll
      for (u32 q = 0; q < 4; q++)
        if (j + 32u * q < (u32)one)
          emit_row(e, (u32)(word[q] >> 32), __uint_as_float((u32)word[q]), cut, most, before);
    }
  }
  // The last warp of the last group knows everything.
  if (!e.table && group + 1 == gridDim.x && warp() == WARPS - 1 && lane() == 0)
    control->words = before.over + min_u64(before.ties, most);
}

// Candidates among all values to words, in order of index, or to the table: if what was staged does not do.
KERNEL compression_emit(const Emit e, const Pool pool, Control* control, u64* room) {
  __shared__ u32 shared_tile;
  __shared__ Pair warps[WARPS], block;
  if (!whole(control, pool)) return;
  const u32 cut = control->cut, most = control->ties;
  for (;;) {
    // Between two writes of anything shared there are barriers here and in `before_warp`.
    const u32 tile = next_tile((u32*)room, &shared_tile);
    if ((u64)tile * TILE >= e.n) return;
    const u64 base = (u64)tile * TILE + warp() * (32u * ROWS) + lane();
    float x[ROWS];
    Pair own = {0, 0};
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
      const u64 i = base + r * 32u;
      x[r] = i < e.n ? __fmul_rn(e.feedback.scale, e.values[i]) : 0.0f;
    }
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
      const Votes votes = vote(magnitude(x[r]), cut);
      own.over += __popc(votes.over);
      own.ties += __popc(votes.ties);
    }
    Pair before = before_warp(room + 2, tile, own, warps, &block);
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) emit_row(e, (u32)(base + r * 32u), x[r], cut, most, before);
    // The last warp of the last tile knows everything.
    if (!e.table && (u64)(tile + 1) * TILE >= e.n && warp() == WARPS - 1 && lane() == 0)
      control->words = before.over + min_u64(before.ties, most);
  }
}

// The table's keys to words, in order of slots; the table is empty afterwards.
KERNEL compression_slots(const Emit e, Control* control, u64* room) {
  __shared__ u32 shared_tile;
  __shared__ Pair warps[WARPS], block;
  const u32 tile = next_tile((u32*)room, &shared_tile);
  const u64 base = (u64)tile * TILE + warp() * (32u * ROWS) + lane();
  const u32 earlier = (1u << lane()) - 1u;
  u64 keys[ROWS];
  Pair own = {0, 0};
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    const u64 i = base + r * 32u;
    keys[r] = i < e.slots ? e.table[i] : 0;
  }
  // All are on their way before any is looked at.
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    if (keys[r]) e.table[base + r * 32u] = 0;
    own.over += __popc(__ballot_sync(ALL, keys[r] != 0));
  }
  Pair before = before_warp(room + 2, tile, own, warps, &block);
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    const u32 taken = __ballot_sync(ALL, keys[r] != 0);
    const u64 at = before.over + __popc(taken & earlier);
    if (keys[r] && at < e.capacity) {
      const u32 index = ~(u32)(keys[r] >> 1);
      const float x = __uint_as_float((u32)(keys[r] >> 33) | (u32)(keys[r] & 1u) << 31);
      const float sent = on_the_wire(e.format, x);
      e.words[at] = word_of(index, sent);
      settle(e.feedback, e.momentum, e.velocity, index, x, sent);
    }
    before.over += __popc(taken);
  }
  if ((u64)(tile + 1) * TILE >= e.slots && warp() == WARPS - 1 && lane() == 0) control->words = before.over;
}

// ---- Decoding.

// Adds one message: no index occurs twice in it, so no two threads meet. Ranks come one launch after the other.
KERNEL compression_add(const u64* words, const Control* control, u64 count, float* out, u64 len, u32* beyond) {
  const u64 all = control ? control->words : count;
  for (u64 j = FIRST; j < all; j += STRIDE) {
    const u64 word = words[j];
    const u32 index = (u32)(word >> 32);
    if (index < len)
      out[index] = __fadd_rn(out[index], __uint_as_float((u32)word));
    else
      atomicOr(beyond, 1u);
  }
}

KERNEL compression_mean(float* out, u64 len, float ranks) {
  for (u64 i = FIRST; i < len; i += STRIDE) out[i] = __fdiv_rn(out[i], ranks);
}

// Sums of squares of blocks of 2^16 by 16 running sums, added from the first to the last: the order that is defined.
KERNEL compression_squares(const float* gradient, u64 n, double* blocks) {
  __shared__ double sums[8][16];
  const u32 which = threadIdx.x >> 4, column = threadIdx.x & 15u;
  const u64 block = (u64)blockIdx.x * 8u + which, start = block << 16, end = min_u64(n, start + (1u << 16));
  double sum = 0.0;
  for (u64 i = start + column; i < end; i += 16) {
    const double g = (double)gradient[i];
    sum = __dadd_rn(sum, __dmul_rn(g, g));
  }
  sums[which][column] = sum;
  __syncthreads();
  if (column == 0 && start < n) {
    double total = 0.0;
    for (u32 c = 0; c < 16; c++) total = __dadd_rn(total, sums[which][c]);
    blocks[block] = total;
  }
}
