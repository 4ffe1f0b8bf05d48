// Few query rows against many keys (decoding) on f16 and bf16 by tensor cores: as fast as K and V can be read.
//
// Rows of all query heads that share a key head lie in one tile of 16, so that each key is read once for the whole group.
// Each warp has keys of its own, which it copies, multiplies and sums by itself; the warps' results are merged at the end, by
// the rule that also merges splits of the keys over blocks.
#pragma once
#include "attention_mma.cuh"

namespace attention {

// The plan of a kernel for head dimensions up to D.
template <int D> struct DecodeShape {
  static const int WARPS = D <= 128 ? 4 : 2;
  static const int KEYS = 16;  // of a warp in one step
  static const int STAGES = 2;
  static const int STAGE = 2 * KEYS * D;  // numbers: K and V
  // Bytes: Q, each warp's stages, and a slot for each of a thread's scores.
  static const int SHARED = 2 * (16 * D + WARPS * STAGES * STAGE) + KEYS / 2 * 4 * MMA_THREADS;
};

// Where a block's results go: its 16 rows of O before they are divided, and what they are divided by, warp after warp.
template <int D> struct Parts {
  float o[16][D], m[16], l[16];
};

// Merges what the warps have: O = sum of e^(m_w - m) O_w / sum of e^(m_w - m) l_w.
template <class T, int D, class RowOfTile>
DEVICE void merge_warps(const Parts<D>* parts, const Params& p, const Sequence& s, float factor, float unit, int split,
                        RowOfTile row_of_tile) {
  const int WARPS = DecodeShape<D>::WARPS, PAIRS = D / 2;
#pragma unroll 1
  for (int n = threadIdx.x; n < 16 * PAIRS; n += 32 * WARPS) {
    const int r = n / PAIRS, c = n % PAIRS * 2;
    const Row at = row_of_tile(r);
    if (at.i >= s.q_len || c >= p.value_dim) continue;
    float m = -INFINITY_OF(float), l = 0, o[2] = {0, 0};
#pragma unroll
    for (int w = 0; w < WARPS; ++w) m = max_of(m, parts[w].m[r]);
    const float shift = m == -INFINITY_OF(float) ? 0 : m * factor;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      const float e = exp2_of(parts[w].m[r] * factor - shift);
      l += e * parts[w].l[r];
      o[0] += e * parts[w].o[r][c];
      o[1] += e * parts[w].o[r][c + 1];
    }
    const bool nothing = m == -INFINITY_OF(float) && l == 0, part = p.splits > 1;
    const float inverse = nothing ? 0 : (float)p.keep / l;
    const int head = part ? split * p.q_heads + at.h : at.h;
    if (c == 0) {
      *query_row<float>(part ? p.part_lse : p.lse, s, head, at.i) = nothing ? -INFINITY_OF(float) : m * unit + logf(l);
    }
    if (part) {
      float* to = query_row<float>(p.part_o, s, head, at.i) + c;
      to[0] = o[0] * inverse;
      to[1] = o[1] * inverse;
    } else {
      *(u32*)(query_row<T>(p.o, s, head, at.i) + c) = pack(o[0] * inverse, o[1] * inverse, T());
    }
  }
}

template <class T, int D> DEVICE void mma_decode(const Params& p) {
  typedef DecodeShape<D> S;
  const int NT = S::KEYS / 8, CHUNKS = D / 8;
  extern __shared__ __align__(128) u8 dynamic[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  T* q_tile = (T*)dynamic;
  T* stages = q_tile + 16 * D;
  float* slots = (float*)(stages + S::WARPS * S::STAGES * S::STAGE);
  u32 block = blockIdx.x;
  const int split = block % p.splits;
  block /= p.splits;
  const int first = block % p.tiles * 16;
  block /= p.tiles;
  const int kv_heads = p.q_heads / p.group, hk = block % kv_heads, b = block / kv_heads;
  const Sequence& s = p.sequences[b];
  if (first >= p.group * s.q_len) return;
  // Head after head of the group; beyond the last a row that sees nothing.
  const auto row_of_tile = [&](int n) {
    const int in_group = (first + n) / s.q_len;
    return in_group < p.group ? Row{hk * p.group + in_group, (first + n) % s.q_len} : Row{hk * p.group, s.q_len};
  };
  const int last_head = row_of_tile(min(first + 16, p.group * s.q_len) - 1 - first).h;
  const Range rows = {0, s.q_len};
  Range keys = key_range(s, rows);
  if (p.splits > 1) keys = {max(keys.start, split * p.split_len), min(keys.end, (split + 1) * p.split_len)};

  for (int n = threadIdx.x; n < 16 * CHUNKS; n += 32 * S::WARPS) {
    const int c = n % CHUNKS;
    const Row at = row_of_tile(n / CHUNKS);
    const bool there = at.i < s.q_len && c * 8 < p.dim;
    copy_async(chunk<T, D>(q_tile, n / CHUNKS, c), there ? query_row<T>(p.q, s, at.h, at.i) + c * 8 : p.q.data, there);
  }
  commit_copies();
  const bool general = is_general(p);
  const float unit = general ? 1 : (float)p.scale, factor = unit * LOG2_E;
  float m[2], l[2], o[1][D / 8][4];
  clear(o[0]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool sinks = p.sink && split == 0 && warp == 0;
    m[half] = sinks ? ((const float*)p.sink)[row_of_tile(half * 8 + lane / 4).h] : -INFINITY_OF(float);
    l[half] = m[half] != -INFINITY_OF(float) && lane % 4 == 0 ? exp_of(0 * m[half]) : 0;
  }
  const auto any = [&](int key) {
    if (!p.blocks.data) return true;
    for (int h = row_of_tile(0).h; h <= last_head; ++h) {
      if (any_block<Warp>(p, s, b, h, rows, {key, key + S::KEYS})) return true;
    }
    return false;
  };
  const auto next = [&](int key) {
    while (key < keys.end && !any(key)) key += S::WARPS * S::KEYS;
    return key;
  };
  T* own = stages + warp * S::STAGES * S::STAGE;
  const auto copy = [&](int key, int stage) {
    T* tile = own + stage * S::STAGE;
    if (key < keys.end) {
      copy_keys<T, D, S::KEYS, Warp>(tile, p, p.k, s, hk, key, p.dim);
      copy_keys<T, D, S::KEYS, Warp>(tile + S::KEYS * D, p, p.v, s, hk, key, p.value_dim);
    }
    commit_copies();
  };
  int stage = 0, key = next((keys.start / S::KEYS + warp) * S::KEYS);
  copy(key, 0);
  wait_for_copies<1>();
  __syncthreads();
  const u32 q_rows = left_operand<T, D>(q_tile);
  while (key < keys.end) {
    const int after = next(key + S::WARPS * S::KEYS);
    copy(after, 1 - stage);
    wait_for_copies<1>();
    __syncwarp();
    T *k_tile = own + stage * S::STAGE, *v_tile = k_tile + S::KEYS * D;
    float x[1][NT][4];
    clear(x[0]);
    multiply<T, D>(x, q_rows, right_operand<T, D>(k_tile));
    const bool full = all_visible(p, s, rows, {key, key + S::KEYS});
    u32 weights[1][NT / 2][4];
    weigh<T>(weights[0], x[0], m, l, o[0], slots, p, s, b, key, full, general, factor, row_of_tile);
    if (!full) apart<T, D, S::KEYS, Warp>(o, v_tile, p, s, b, key, row_of_tile);
    accumulate<T, D, 1, NT / 2, D>(o, weights, right_rows<T, D>(v_tile));
    __syncwarp();
    stage = 1 - stage;
    key = after;
  }
  wait_for_copies<0>();
  __syncthreads();
  // The stages are free now.
  Parts<D>* parts = (Parts<D>*)stages;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    l[half] += __shfl_xor_sync(~0u, l[half], 1);
    l[half] += __shfl_xor_sync(~0u, l[half], 2);
    const int r = half * 8 + lane / 4;
    if (lane % 4 == 0) {
      parts[warp].m[r] = m[half];
      parts[warp].l[r] = l[half];
    }
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      parts[warp].o[r][n * 8 + lane % 4 * 2] = o[0][n][half * 2];
      parts[warp].o[r][n * 8 + lane % 4 * 2 + 1] = o[0][n][half * 2 + 1];
    }
  }
  __syncthreads();
  merge_warps<T, D>(parts, p, s, factor, unit, split, row_of_tile);
}

// Merges what splits of the keys gave: O = sum of e^(L_n - L) O_n, L the logarithm of the sum of e^L_n. A warp a row.
template <class T> DEVICE void merge(const Params& p) {
  const int lane = threadIdx.x % 32;
  u32 n = blockIdx.x * (MMA_THREADS / 32) + threadIdx.x / 32;
  const int i = n % p.tiles;
  n /= p.tiles;
  const int h = n % p.q_heads, b = n / p.q_heads;
  if (b >= p.batch) return;
  const Sequence s = p.sequences[b];
  if (i >= s.q_len) return;
  float top = -INFINITY_OF(float), total = 0;
  for (int part = 0; part < p.splits; ++part) {
    top = max_of(top, *query_row<float>(p.part_lse, s, part * p.q_heads + h, i));
  }
  for (int part = 0; part < p.splits; ++part) {
    total += weight(*query_row<float>(p.part_lse, s, part * p.q_heads + h, i), top);
  }
  if (lane == 0) *query_row<float>(p.lse, s, h, i) = total == 0 ? -INFINITY_OF(float) : top + logf(total);
  for (int c = lane; c < p.value_dim; c += 32) {
    float sum = 0;
    for (int part = 0; part < p.splits; ++part) {
      const float e = weight(*query_row<float>(p.part_lse, s, part * p.q_heads + h, i), top);
      sum += e * query_row<float>(p.part_o, s, part * p.q_heads + h, i)[c];
    }
    store(query_row<T>(p.o, s, h, i) + c, total == 0 ? 0 : sum / total);
  }
}

}  // namespace attention

#define ATTENTION_MMA_DECODE(NAME, T, D)                                                                               \
  extern "C" __global__ void __launch_bounds__(32 * attention::DecodeShape<D>::WARPS, D <= 128 ? 3 : 2)                \
      attention_mma_decode_##D##_##NAME(const __grid_constant__ attention::Params p) {                                 \
    attention::mma_decode<T, D>(p);                                                                                    \
  }

#define ATTENTION_MERGE(NAME, T)                                                                                       \
  extern "C" __global__ void __launch_bounds__(attention::MMA_THREADS)                                                 \
      attention_merge_##NAME(const __grid_constant__ attention::Params p) {                                            \
    attention::merge<T>(p);                                                                                            \
  }
