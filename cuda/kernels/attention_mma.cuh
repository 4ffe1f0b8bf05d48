// Attention on f16 and bf16 by tensor cores: mma.sync m16n8k16 with operands brought by ldmatrix from tiles that
// cp.async fills, as FlashAttention-2 has it. For head dimensions that are multiples of 8, up to 256; a dimension between
// those of the kernels is filled up with zeros.
//
// Four warps share a tile of query rows, 16 MT rows each. P stays in registers, where the accumulator of the first
// product is the operand of the second. Scores are worked on where they are only in tiles that need it: they pass
// through shared memory, a slot a thread, so that the loop over them can be short.
#pragma once
#include "tensor_cores.cuh"

namespace attention {

// Threads that work on a tile together: those of a block, or of a warp.
struct Block {
  static const int THREADS = MMA_THREADS;
  DEVICE int index() { return threadIdx.x; }
  DEVICE bool any(bool x) { return __syncthreads_or(x); }
  DEVICE void sync() { __syncthreads(); }
};
struct Warp {
  static const int THREADS = 32;
  DEVICE int index() { return threadIdx.x % 32; }
  DEVICE bool any(bool x) { return __any_sync(~0u, x); }
  DEVICE void sync() { __syncwarp(); }
};

// A query row: its head and its number in the sequence.
struct Row {
  int h, i;
};

// Starts the copy of `ROWS` rows; what is beyond the tensor's columns or the sequence's rows is 0. A thread has one column
// of chunks.
template <class T, int D, int ROWS>
DEVICE void copy_queries(T* tile, const Tensor& t, const Sequence& s, int h, int row, int dim) {
  const int CHUNKS = D / 8, STEP = MMA_THREADS / CHUNKS, thread = anew(threadIdx.x), c = thread % CHUNKS, first = thread / CHUNKS;
  if (MMA_THREADS % CHUNKS && first >= STEP) return;
  const T* from = query_row<T>(t, s, h, row + first) + c * 8;
  // Where there is nothing the address is not looked at.
  const int end = c * 8 < dim ? s.q_len - row : 0;
#pragma unroll
  for (int r = first; r < ROWS; r += STEP) {
    const bool there = r < end;
    copy_async(chunk<T, D>(tile, r, c), from, there);
    from += STEP * t.row;
  }
}
template <class T, int D, int ROWS, class Team = Block>
DEVICE void copy_keys(T* tile, const Params& p, const Tensor& t, const Sequence& s, int hk, int key, int dim) {
  const int CHUNKS = D / 8, STEP = Team::THREADS / CHUNKS, thread = anew(Team::index()), c = thread % CHUNKS, first = thread / CHUNKS;
  if (Team::THREADS % CHUNKS && first >= STEP) return;
  if (p.page_size) {
#pragma unroll 1
    for (int r = first; r < ROWS; r += STEP) {
      const bool there = key + r < s.kv_len && c * 8 < dim;
      copy_async(chunk<T, D>(tile, r, c), there ? key_row<T>(p, t, s, hk, key + r) + c * 8 : t.data, there);
    }
    return;
  }
  const T* from = row_of<T>(t, s.k_slot, hk, s.k_row + key + first) + c * 8;
  const int end = c * 8 < dim ? s.kv_len - key : 0;
#pragma unroll
  for (int r = first; r < ROWS; r += STEP) {
    const bool there = r < end;
    copy_async(chunk<T, D>(tile, r, c), from, there);
    from += STEP * t.row;
  }
}

// Whether the block mask lets any pair of a rectangle through. All threads of the team ask together.
template <class Team = Block> DEVICE bool any_block(const Params& p, const Sequence& s, int b, int h, Range rows, Range keys) {
  const Blocks& m = p.blocks;
  if (!m.data) return true;
  const int r0 = rows.start / m.block_q, r1 = (min(rows.end, s.q_len) - 1) / m.block_q + 1;
  const int c0 = keys.start / m.block_k, c1 = (min(keys.end, s.kv_len) - 1) / m.block_k + 1;
  bool any = false;
  for (int n = Team::index(); n < (r1 - r0) * (c1 - c0); n += Team::THREADS) {
    const int r = r0 + n / (c1 - c0), c = c0 + n % (c1 - c0);
    any |= m.data[b * m.b + h * m.h + r * m.i + c] != 0;
  }
  return Team::any(any);
}

// Whether every pair of a rectangle is visible; false also where that would be long to find out.
DEVICE bool all_visible(const Params& p, const Sequence& s, Range rows, Range keys) {
  return !p.blocks.data && rows.end <= s.q_len && keys.end <= s.kv_len && keys.start - (rows.end - 1) >= s.least &&
         keys.end - 1 - rows.start <= s.greatest;
}

// A number that is neither NaN nor infinite, by its bits.
DEVICE bool finite(u32 bits, Half) { return (bits & 0x7c00) != 0x7c00; }
DEVICE bool finite(u32 bits, Bfloat) { return (bits & 0x7f80) != 0x7f80; }

// Whether any of the N numbers of a tile is NaN or infinite. All threads of the team ask together.
template <class T, int N, class Team = Block> DEVICE bool any_odd(const T* tile) {
  struct alignas(16) Words {
    u32 x[4];
  };
  bool odd = false;
#pragma unroll 4
  for (int n = Team::index(); n < N / 8; n += Team::THREADS) {
    const Words words = ((const Words*)tile)[n];
#pragma unroll
    for (int w = 0; w < 4; ++w) odd |= !finite(words.x[w], T()) || !finite(words.x[w] >> 16, T());
  }
  return Team::any(odd);
}

// Makes the NaNs and infinities of a tile 0.
template <class T, int N, class Team = Block> DEVICE void clear_odd(T* tile) {
  Team::sync();
#pragma unroll 1
  for (int n = Team::index(); n < N; n += Team::THREADS) {
    if (!finite(tile[n].bits, T())) tile[n].bits = 0;
  }
  Team::sync();
}

// The plan of a kernel for head dimensions up to D.
template <int D> struct Shape {
  static const int MT = D <= 128 ? 2 : 1;      // tiles of 16 query rows a warp
  static const int ROWS = 64 * MT;             // query rows a block
  static const int KEYS = D <= 128 ? 64 : 32;  // keys a tile
  static const int NT = KEYS / 8;              // tiles of 8 keys
  static const int SLOTS = 4 * NT;             // scores of 16 rows that a thread holds
  // Bytes: Q, K, V, and a slot for each of a thread's scores.
  static const int SHARED = 2 * D * (ROWS + 2 * KEYS) + 4 * SLOTS * MMA_THREADS;
};

// The running statistics and output of a warp's rows.
template <int D> struct Online {
  float m[Shape<D>::MT][2], l[Shape<D>::MT][2], o[Shape<D>::MT][D / 8][4];
};

// Adds what infinities and NaNs of V give to rows that see them, and takes them out of the tile: a weight of 0 would
// make NaNs of them in rows that don't. The weight of a key that is seen is taken to be positive.
// `row_of_tile` gives the row that is the n-th of the warp's.
template <class T, int D, int KEYS, class Team, int MT, class RowOfTile>
DEVICE void apart(float (&o)[MT][D / 8][4], T* tile, const Params& p, const Sequence& s, int b, int key,
                  RowOfTile row_of_tile) {
  if (!any_odd<T, KEYS * D, Team>(tile)) return;
  const int lane = anew(threadIdx.x) % 32;
#pragma unroll 1
  for (int j = 0; j < KEYS; ++j) {
    // The weight of this key in each of the thread's rows, up to a positive factor; -1 where it isn't seen.
    float z[MT][2];
#pragma unroll
    for (int r = 0; r < 2 * MT; ++r) {
      const Row at = row_of_tile(r / 2 * 16 + r % 2 * 8 + lane / 4);
      const u32 keep = p.dropout ? kept(p, b, at.h, at.i, (key + j) / 4) >> (key + j) % 4 & 1 : 1;
      z[r / 2][r % 2] = sees(p, s, b, at.h, at.i, key + j) ? (float)keep : -1;
    }
#pragma unroll
    for (int n = 0; n < D / 4; ++n) {
      const T x = chunk<T, D>(tile, j, n / 2)[lane % 4 * 2 + n % 2];
      if (finite(x.bits, T())) continue;
#pragma unroll
      for (int r = 0; r < 2 * MT; ++r) {
        if (z[r / 2][r % 2] >= 0) o[r / 2][n / 2][r % 2 * 2 + n % 2] += z[r / 2][r % 2] * load(&x);
      }
    }
  }
  clear_odd<T, KEYS * D, Team>(tile);
}

// Masks the scores of 16 rows and, if the problem asks for more than a scale, makes scores of products. Returns one bit
// for each score that dropout drops.
template <class T, int SLOTS, class RowOfTile>
DEVICE u32 work_on(float (&x)[SLOTS / 4][4], float* slots, const Params& p, const Sequence& s, int b, int key,
                   bool general, RowOfTile row_of_tile) {
  const int thread = anew(threadIdx.x), lane = thread % 32;
  slots += thread;
#pragma unroll
  for (int n = 0; n < SLOTS; ++n) slots[n * MMA_THREADS] = x[n / 4][n % 4];
  u32 dropped = 0;
#pragma unroll 1
  for (int pair = 0; pair < SLOTS / 2; ++pair) {
    const Row at = row_of_tile(lane / 4 + pair % 2 * 8);
    const int j = key + pair / 2 * 8 + lane % 4 * 2;
    const u32 keep = p.dropout ? kept(p, b, at.h, at.i, j / 4) >> j % 4 : 3;
    dropped |= (~keep & 3) << (pair * 2);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float* slot = slots + (pair * 2 + e) * MMA_THREADS;
      float slope;
      if (!sees(p, s, b, at.h, at.i, j + e)) {
        *slot = -INFINITY_OF(float);
      } else if (general) {
        *slot = score<T>(p, s, b, at.h, at.i, j + e, *slot, &slope);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < SLOTS; ++n) x[n / 4][n % 4] = slots[n * MMA_THREADS];
  return dropped;
}

// Masks the scores of 16 rows where only the band of visible pairs and the sequence's end do.
template <int NT, class RowOfTile>
DEVICE void hide(float (&x)[NT][4], const Sequence& s, int key, RowOfTile row_of_tile) {
  const int lane = anew(threadIdx.x) % 32, column = key + lane % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = row_of_tile(lane / 4 + half * 8).i;
    const int first = i + s.least - column, last = min(s.kv_len - 1, i + s.greatest) - column;
#pragma unroll
    for (int n = 0; n < 2 * NT; ++n) {
      const int j = n / 2 * 8 + n % 2;
      if (j < first || j > last) x[n / 2][half * 2 + n % 2] = -INFINITY_OF(float);
    }
  }
}

// Whether scores are more than products and a positive scale. Else scale and log2 e are one factor, and maxima count in
// products.
DEVICE bool is_general(const Params& p) { return p.cap_mode || p.bias.data || p.slopes || p.sink || !(p.scale > 1e-30); }

// From 16 rows of scores to weights 2^(factor (x - m)), and what that makes of the statistics and the output so far: the
// online softmax.
template <int NT, int COLUMNS>
DEVICE void online_softmax(float (&x)[NT][4], float (&m)[2], float (&l)[2], float (&o)[COLUMNS][4], float factor) {
  float shrink[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // Two chains each of maxima and sums: a longer one would wait for itself.
    float top = m[half], other = top;
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      top = max_of(top, x[n][half * 2]);
      other = max_of(other, x[n][half * 2 + 1]);
    }
    top = max_of(top, other);
    top = max_of(top, __shfl_xor_sync(~0u, top, 1));
    top = max_of(top, __shfl_xor_sync(~0u, top, 2));
    // Without a finite score so far there is nothing to subtract, and 2^-infinity = 0.
    const float shift = top == -INFINITY_OF(float) ? 0 : top * factor;
    shrink[half] = exp2_of(m[half] * factor - shift);
    m[half] = top;
    float sum[2] = {0, 0};
#pragma unroll
    for (int n = 0; n < NT; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& y = x[n][half * 2 + e];
        y = exp2_of(fmaf(y, factor, -shift));
        sum[e] += y;
      }
    }
    l[half] = shrink[half] * l[half] + (sum[0] + sum[1]);
  }
  // Most tiles move no maximum: then there is nothing to do to the output.
  if (__any_sync(~0u, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[n][e] *= shrink[e / 2];
    }
  }
}

// Sets the weights to 0 that dropout drops.
template <int NT> DEVICE void drop(float (&x)[NT][4], u32 dropped) {
#pragma unroll
  for (int n = 0; n < 4 * NT; ++n) {
    if (dropped >> n & 1) x[n / 4][n % 4] = 0;
  }
}

// From products of 16 rows to weights as the left operand of the next product, and what they make of statistics and output.
template <class T, int NT, int COLUMNS, class RowOfTile>
DEVICE void weigh(u32 (&weights)[NT / 2][4], float (&x)[NT][4], float (&m)[2], float (&l)[2], float (&o)[COLUMNS][4],
                  float* slots, const Params& p, const Sequence& s, int b, int key, bool full, bool general, float factor,
                  RowOfTile row_of_tile) {
  u32 dropped = 0;
  if (!full && !general && !p.dropout && !p.blocks.data) {
    hide(x, s, key, row_of_tile);
  } else if (general || p.dropout || !full) {
    dropped = work_on<T, 4 * NT>(x, slots, p, s, b, key, general, row_of_tile);
  }
  online_softmax(x, m, l, o, factor);
  if (p.dropout) drop(x, dropped);
  pack_operands<T>(weights, x);
}

// FlashAttention-2, algorithm 1.
template <class T, int D> DEVICE void mma_forward(const Params& p) {
  typedef Shape<D> S;
  extern __shared__ __align__(128) u8 dynamic[];
  T* q_tile = (T*)dynamic;
  T* k_tile = q_tile + S::ROWS * D;
  T* v_tile = k_tile + S::KEYS * D;
  float* slots = (float*)(v_tile + S::KEYS * D);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 block = blockIdx.x;
  // The longest rows of a causal problem first.
  const int tile = p.tiles - 1 - block % p.tiles;
  block /= p.tiles;
  const int h = block % p.q_heads, b = block / p.q_heads, hk = h / p.group;
  const Sequence& s = p.sequences[b];  // a reference: registers are scarce
  const Range rows = {tile * S::ROWS, min((tile + 1) * S::ROWS, s.q_len)};
  if (rows.start >= s.q_len) return;
  const int own = rows.start + warp * 16 * S::MT;
  const bool general = is_general(p);
  const float unit = general ? 1 : (float)p.scale, factor = unit * LOG2_E;
  const Range keys = key_range(s, rows);

  Online<D> online;
  const float sink = p.sink ? ((const float*)p.sink)[h] : -INFINITY_OF(float);
#pragma unroll
  for (int mt = 0; mt < S::MT; ++mt) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      online.m[mt][half] = sink;
      online.l[mt][half] = sink != -INFINITY_OF(float) && lane % 4 == 0 ? exp_of(0 * sink) : 0;
    }
    clear(online.o[mt]);
  }
  const auto next = [&](int key) {
    while (key < keys.end && !any_block(p, s, b, h, rows, {key, key + S::KEYS})) key += S::KEYS;
    return key;
  };
  int key = next(keys.start / S::KEYS * S::KEYS);
  if (key < keys.end) {
    copy_queries<T, D, S::ROWS>(q_tile, p.q, s, h, rows.start, p.dim);
    copy_keys<T, D, S::KEYS>(k_tile, p, p.k, s, hk, key, p.dim);
  }
  commit_copies();
  const u32 q_rows = left_operand<T, D>(q_tile + warp * S::MT * 16 * D);
  const u32 k_rows = right_operand<T, D>(k_tile), v_rows = right_rows<T, D>(v_tile);
  while (key < keys.end) {
    copy_keys<T, D, S::KEYS>(v_tile, p, p.v, s, hk, key, p.value_dim);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    float x[S::MT][S::NT][4];
#pragma unroll
    for (int mt = 0; mt < S::MT; ++mt) clear(x[mt]);
    multiply<T, D>(x, q_rows, k_rows);
    __syncthreads();
    const int after = next(key + S::KEYS);
    const bool full = all_visible(p, s, rows, {key, key + S::KEYS});
    if (after < keys.end) copy_keys<T, D, S::KEYS>(k_tile, p, p.k, s, hk, after, p.dim);
    commit_copies();

    u32 weights[S::MT][S::KEYS / 16][4];
#pragma unroll
    for (int mt = 0; mt < S::MT; ++mt) {
      const auto row_of_tile = [&](int n) { return Row{h, own + mt * 16 + n}; };
      weigh<T>(weights[mt], x[mt], online.m[mt], online.l[mt], online.o[mt], slots, p, s, b, key, full, general, factor,
               row_of_tile);
    }
    wait_for_copies<1>();
    __syncthreads();
    if (!full) {
      const auto row_of_tile = [&](int n) { return Row{h, own + n}; };
      apart<T, D, S::KEYS, Block>(online.o, v_tile, p, s, b, key, row_of_tile);
    }
    accumulate<T, D, S::MT, S::KEYS / 16, D>(online.o, weights, v_rows);
    __syncthreads();
    key = after;
  }
  wait_for_copies<0>();

  const int place = anew(threadIdx.x) % 32;
#pragma unroll
  for (int mt = 0; mt < S::MT; ++mt) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float l = online.l[mt][half];
      const float m = online.m[mt][half];
      l += __shfl_xor_sync(~0u, l, 1);
      l += __shfl_xor_sync(~0u, l, 2);
      const bool nothing = m == -INFINITY_OF(float) && l == 0;
      const float inverse = nothing ? 0 : (float)p.keep / l;
      const int i = own + mt * 16 + half * 8 + place / 4;
      if (i >= s.q_len) continue;
      if (place % 4 == 0) *query_row<float>(p.lse, s, h, i) = nothing ? -INFINITY_OF(float) : m * unit + logf(l);
      T* o = query_row<T>(p.o, s, h, i) + place % 4 * 2;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        if (n * 8 >= p.value_dim) break;
        const float(&x)[4] = online.o[mt][n];
        *(u32*)(o + n * 8) = pack(x[half * 2] * inverse, x[half * 2 + 1] * inverse, T());
      }
    }
  }
}

}  // namespace attention

#define ATTENTION_MMA(NAME, T, D)                                                                                      \
  extern "C" __global__ void __launch_bounds__(attention::MMA_THREADS, 2)                                              \
      attention_mma_forward_##D##_##NAME(const __grid_constant__ attention::Params p) {                                \
    attention::mma_forward<T, D>(p);                                                                                   \
  }
