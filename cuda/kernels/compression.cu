//! options --fmad=false
//! registers 80
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

// What kernels tell each other about a step. The order is that of `Control` in the host's module.
struct Control {
  u32 cut;        // magnitudes above this one are candidates
  u32 ties;       // and so are the first so many that equal it
  u32 searching;  // whether a search by digits is going on
  u32 prefix;     // digits found so far
  u64 left;       // rank of what is searched for among those that begin with the prefix
  u64 words;      // length of the message
  u32 first_bad;  // least index of a number that is not finite
  u32 refining;   // whether no threshold of the last batch was low enough
  u32 thresholds; // how many of `Batch` there are
  u32 threshold;  // where the next batch begins
};

// Thresholds in the order they are tried.
#define BATCH 32u
struct Batch {
  u32 threshold[BATCH];
  u32 tally[BATCH];
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
  u64 start, stride, count;
  float scale;
  u32 pad;
};

DEVICE float value_at(const Values& values, u64 j) {
  return __fmul_rn(values.scale, values.at[values.start + j * values.stride]);
}

// Shift of the first digit of a magnitude.
#define TOP_SHIFT 20u

// Equations 4 and 5 of Lin et al. 2018, and a count of the first digits if there is a histogram.
KERNEL compression_update(const Feedback feedback, const float* gradient, float* momentum, float* velocity, u64 n,
                          u32* histogram) {
  __shared__ u32 counts[DIGITS];
  if (histogram) clear_counts(counts);
  for (u64 i = FIRST; i < n; i += STRIDE) {
    const u32 m = magnitude(update(feedback, gradient, momentum, velocity, i));
    if (histogram && m >= LEAST) atomicAdd(counts + (m >> TOP_SHIFT), 1u);
  }
  if (histogram) add_counts(counts, histogram);
}

KERNEL compression_first_bad(const float* gradient, u64 n, Control* control) {
  u32 first = 0xffffffffu;
  for (u64 i = FIRST; i < n; i += STRIDE)
    if (magnitude(gradient[i]) >= INFINITE) first = min_u32(first, (u32)i);
  if (first != 0xffffffffu) atomicMin(&control->first_bad, first);
}

// Magnitudes of a strided sample, as numbers.
KERNEL compression_gather(const Values values, float* sample) {
  for (u64 j = FIRST; j < values.count; j += STRIDE) sample[j] = __uint_as_float(magnitude(value_at(values, j)));
}

// Begins the search for the `rank`-th greatest.
KERNEL compression_search(Control* control, u64 rank) {
  control->searching = 1;
  control->prefix = 0;
  control->left = rank;
}

// Counts the digit at `shift` of those magnitudes whose digits above are the prefix.
KERNEL compression_count(const Values values, const Control* control, u32* histogram, u32 shift, u32 bits) {
  __shared__ u32 counts[DIGITS];
  if (!control->searching) return;
  clear_counts(counts);
  const u32 prefix = control->prefix, digit = (1u << bits) - 1u;
  for (u64 j = FIRST; j < values.count; j += STRIDE) {
    const u32 m = magnitude(value_at(values, j));
    if (m >= LEAST && (u64)m >> (shift + bits) == prefix) atomicAdd(counts + (m >> shift & digit), 1u);
  }
  add_counts(counts, histogram);
}

// One block of 1024 threads. Finds the digit of the one searched for, and empties the histogram.
KERNEL compression_pick(Control* control, u32* histogram, u32 bits, u32 last) {
  if (!control->searching) return;
  const u32 prefix = control->prefix;
  const Digit digit = pick_digit(histogram, control->left);
  if (digit.missing) {
    // Fewer than that are not zero: all of them. This can only show at the first digit.
    if (threadIdx.x == 0) {
      control->cut = LEAST;
      control->ties = 0xffffffffu;
      control->searching = 0;
    }
  } else if (digit.mine) {
    const u32 found = prefix << bits | digit.value;
    control->prefix = found;
    control->left = digit.left;
    if (last) {
      control->cut = found;
      control->ties = (u32)digit.left;
      control->searching = 0;
    }
  }
}

// A fixed threshold, or none at all.
KERNEL compression_cut(Control* control, u32 cut, u32 ties) {
  control->cut = cut;
  control->ties = ties;
}

// A sampled threshold was found: all at or above it.
KERNEL compression_all_ties(Control* control) {
  control->ties = 0xffffffffu;
  control->threshold = control->cut;
  control->refining = 1;
}

DEVICE u32 lowered(u32 threshold, float lower) {
  if (threshold > GREATEST_FINITE) return GREATEST_FINITE;
  const u32 m = magnitude(__fmul_rn(__uint_as_float(threshold), lower));
  return m > LEAST ? m : LEAST;
}

// One thread. The thresholds that are tried next: each is known before anything is counted. `most` are allowed.
KERNEL compression_thresholds(Control* control, Batch* batch, float lower, u32 most) {
  if (!control->refining) return;
  u32 t = control->threshold, count = 0;
  for (u32 j = 0; j < BATCH; j++) batch->tally[j] = 0;
  while (count < most) {
    batch->threshold[count++] = t;
    const u32 next = lowered(t, lower);
    if (t == LEAST || next == t) break;
    t = next;
  }
  control->thresholds = count;
}

// Tallies, for each value, the first threshold that it passes.
KERNEL compression_tally(const Values values, const Control* control, Batch* batch) {
  __shared__ u32 threshold[BATCH], tally[BATCH];
  if (!control->refining) return;
  const u32 count = control->thresholds;
  if (threadIdx.x < BATCH) {
    threshold[threadIdx.x] = threadIdx.x < count ? batch->threshold[threadIdx.x] : 0xffffffffu;
    tally[threadIdx.x] = 0;
  }
  __syncthreads();
  const u32 least = threshold[count - 1];
  for (u64 j = FIRST; j < values.count; j += STRIDE) {
    const u32 m = magnitude(value_at(values, j));
    if (m < least) continue;
    u32 first = 0;
    while (m < threshold[first]) first++;
    atomicAdd(tally + first, 1u);
  }
  __syncthreads();
  if (threadIdx.x < count && tally[threadIdx.x]) atomicAdd(batch->tally + threadIdx.x, tally[threadIdx.x]);
}

// One thread. DGC's rule: the first threshold that does not let too few pass, unless the batch ends before; then the
// exact top k if it lets too many pass. `final` says that no batch comes after this one.
KERNEL compression_decide(Control* control, const Batch* batch, float lower, float upper, u64 k, u32 final) {
  if (!control->refining) return;
  const double few = __dmul_rn((double)lower, (double)k), many = __dmul_rn((double)upper, (double)k);
  const u32 count = control->thresholds;
  u64 passing = 0;
  for (u32 j = 0; j < count; j++) {
    const u32 t = batch->threshold[j];
    passing += batch->tally[j];
    const bool end = j + 1 == count;
    const bool stuck = t == LEAST || lowered(t, lower) == t;
    if ((double)passing < few && !end) continue;
    if ((double)passing < few && !stuck && !final) {
      // The next batch goes on from the last threshold, which is counted again.
      control->threshold = t;
      return;
    }
    control->refining = 0;
    control->cut = t;
    if ((double)passing > many) {
      control->searching = 1;
      control->prefix = 0;
      control->left = k;
    }
    return;
  }
}

DEVICE u32 mix(u32 index, u32 seed) {
  u32 h = index + seed * 0x9e3779b9u;
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  return h ^ (h >> 16);
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

struct Emit {
  Feedback feedback;
  const float* gradient;  // or the values that have been updated before, times `feedback.scale`
  float* momentum;
  float* velocity;
  const u32* bitmap;  // if there is one, only what is marked
  u64* words;
  u64* table;  // if there is one, candidates go there
  u64 n, capacity;
  u32 fused;  // whether the gradient has yet to enter the memory
  u32 format, slots, seed, racing, pad;
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

// Candidates to words, in order of index, or to the table.
KERNEL compression_emit(const Emit e, Control* control, u32* tiles, u64* states) {
  __shared__ u32 shared_tile;
  __shared__ Pair warps[WARPS], block;
  const u32 cut = control->cut, most = control->ties;
  const u32 tile = next_tile(tiles, &shared_tile);
  const u64 base = (u64)tile * TILE + warp() * (32u * ROWS) + lane();
  const u32 earlier = (1u << lane()) - 1u;
  float x[ROWS];
  Pair own = {0, 0};
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    const u64 i = base + r * 32u;
    x[r] = 0.0f;
    if (i < e.n) {
      x[r] = e.fused ? update(e.feedback, e.gradient, e.momentum, e.velocity, i)
                     : __fmul_rn(e.feedback.scale, e.gradient[i]);
      if (e.bitmap && !(e.bitmap[i >> 5] >> (i & 31u) & 1u)) x[r] = 0.0f;
    }
    own.over += __popc(__ballot_sync(ALL, magnitude(x[r]) > cut));
    own.ties += __popc(__ballot_sync(ALL, magnitude(x[r]) == cut));
  }
  Pair before = before_warp(states, tile, own, warps, &block);
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    const u64 i = base + r * 32u;
    const u32 m = magnitude(x[r]), over = __ballot_sync(ALL, m > cut), ties = __ballot_sync(ALL, m == cut);
    const u64 o = before.over + __popc(over & earlier), t = before.ties + __popc(ties & earlier);
    if (m > cut || (m == cut && t < most)) {
      const u64 at = o + min_u64(t, most);
      if (e.table) {
        offer(e, (u32)i, x[r]);
      } else if (at < e.capacity) {
        const float sent = on_the_wire(e.format, x[r]);
        e.words[at] = word_of((u32)i, sent);
        settle(e.feedback, e.momentum, e.velocity, i, x[r], sent);
      }
    }
    before.over += __popc(over);
    before.ties += __popc(ties);
  }
  // The last warp of the last tile knows everything.
  if (!e.table && (u64)(tile + 1) * TILE >= e.n && warp() == WARPS - 1 && lane() == 0)
    control->words = before.over + min_u64(before.ties, most);
}

// The table's keys to words, in order of slots; the table is empty afterwards.
KERNEL compression_slots(const Emit e, Control* control, u32* tiles, u64* states) {
  __shared__ u32 shared_tile;
  __shared__ Pair warps[WARPS], block;
  const u32 tile = next_tile(tiles, &shared_tile);
  const u64 base = (u64)tile * TILE + warp() * (32u * ROWS) + lane();
  const u32 earlier = (1u << lane()) - 1u;
  u64 keys[ROWS];
  Pair own = {0, 0};
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    const u64 i = base + r * 32u;
    keys[r] = i < e.slots ? e.table[i] : 0;
    if (keys[r]) e.table[i] = 0;
    own.over += __popc(__ballot_sync(ALL, keys[r] != 0));
  }
  Pair before = before_warp(states, tile, own, warps, &block);
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
