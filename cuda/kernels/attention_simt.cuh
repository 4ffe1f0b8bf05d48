// Attention by plain multiply-adds, for every element type, head dimension and feature of the specification.
//
// A block of four warps meets tiles of 16 query rows and 32 keys. A warp owns four of the rows and each lane one key
// while scores are made; while weights are applied, each lane owns a column. Dimensions pass in chunks of 32, so no
// head dimension is too large. Every sum has one order: results don't depend on the schedule.
#pragma once
#include "attention.cuh"

namespace attention {

const int ROWS = 16, KEYS = 32, CHUNK = 32, THREADS = 128, WARPS = 4, OWN = ROWS / WARPS;

template <class A> struct alignas(16) Four {
  A x[4];
};

// Chunks of a tile in shared memory.
template <class A> struct alignas(16) Stage {
  A q[CHUNK][ROWS + 4];  // transposed: a warp reads its four rows at once
  A k[KEYS][CHUNK + 1];
};

// Where a tile lies: rows of head h and keys of sequence b.
struct Place {
  int b, h, row, key;
};

DEVICE int lane_id() { return threadIdx.x % 32; }
DEVICE int warp_id() { return threadIdx.x / 32; }
// The query row of the tile that is this warp's r-th.
DEVICE int own_row(const Place& at, int r) { return at.row + warp_id() * OWN + r; }

// Loads a chunk of query rows, transposed; rows beyond the sequence are 0.
template <class T, class A>
DEVICE void stage_queries(Stage<A>& stage, const Tensor& t, const Sequence& s, const Place& at, int c0, int dim) {
  const int c = c0 + lane_id();
#pragma unroll 2
  for (int r = warp_id(); r < ROWS; r += WARPS) {
    const int i = at.row + r;
    stage.q[lane_id()][r] = i < s.q_len && c < dim ? (A)load(query_row<T>(t, s, at.h, i) + c) : 0;
  }
}
// Loads a chunk of query rows as they are.
template <class T, class A>
DEVICE void stage_query_rows(Stage<A>& stage, const Tensor& t, const Sequence& s, const Place& at, int c0, int dim) {
  const int c = c0 + lane_id();
#pragma unroll 2
  for (int r = warp_id(); r < ROWS; r += WARPS) {
    const int i = at.row + r;
    stage.k[r][lane_id()] = i < s.q_len && c < dim ? (A)load(query_row<T>(t, s, at.h, i) + c) : 0;
  }
}
// Loads a chunk of key rows; those beyond the sequence are 0.
template <class T, class A>
DEVICE void stage_keys(Stage<A>& stage, const Params& p, const Tensor& t, const Sequence& s, const Place& at, int c0,
                       int dim) {
  const int c = c0 + lane_id(), hk = at.h / p.group;
#pragma unroll 4
  for (int n = warp_id(); n < KEYS; n += WARPS) {
    const int j = at.key + n;
    stage.k[n][lane_id()] = j < s.kv_len && c < dim ? (A)load(key_row<T>(p, t, s, hk, j) + c) : 0;
  }
}

// Inner products of this warp's query rows with this lane's key.
template <class T, class A>
DEVICE void products(A out[OWN], Stage<A>& stage, const Params& p, const Tensor& rows, const Tensor& keys,
                     const Sequence& s, const Place& at, int dim) {
#pragma unroll
  for (int r = 0; r < OWN; ++r) out[r] = 0;
  for (int c0 = 0; c0 < dim; c0 += CHUNK) {
    __syncthreads();
    stage_queries<T>(stage, rows, s, at, c0, dim);
    stage_keys<T>(stage, p, keys, s, at, c0, dim);
    __syncthreads();
    const int columns = min(CHUNK, dim - c0);
    for (int c = 0; c < columns; ++c) {
      const A k = stage.k[lane_id()][c];
      const Four<A> q = *(const Four<A>*)&stage.q[c][warp_id() * OWN];
#pragma unroll
      for (int r = 0; r < OWN; ++r) out[r] += q.x[r] * k;
    }
  }
}

// One bit a key for each of this warp's rows; whether any row of the block sees any key.
DEVICE bool visible(u32 mask[OWN], const Params& p, const Sequence& s, const Place& at) {
  u32 any = 0;
#pragma unroll
  for (int r = 0; r < OWN; ++r) {
    mask[r] = __ballot_sync(~0u, sees(p, s, at.b, at.h, own_row(at, r), at.key + lane_id()));
    any |= mask[r];
  }
  // Without a block mask the range of keys leaves no tile that nobody sees.
  return p.blocks.data ? __syncthreads_or(any != 0) : true;
}

// The factor of dropout for each of this warp's rows and this lane's key: four rows of four keys share four calls.
template <class A> DEVICE void dropout_factors(A z[OWN], const Params& p, const Place& at) {
  const int lane = lane_id();
  if (!p.dropout) {
#pragma unroll
    for (int r = 0; r < OWN; ++r) z[r] = 1;
    return;
  }
  // Keys of a page may begin anywhere: then the calls that the tile needs are one more than its quads.
  const int shift = at.key % 4, quad = at.key / 4;
  const u32 bits = kept(p, at.b, at.h, own_row(at, lane % 4), quad + lane / 4);
  const u32 last = shift ? kept(p, at.b, at.h, own_row(at, lane % 4), quad + 8) : 0;
  const int bit = (lane + shift) % 4, from = (lane + shift) / 4 * 4;
#pragma unroll
  for (int r = 0; r < OWN; ++r) {
    const u32 inside = __shfl_sync(~0u, bits, from + r), beyond = __shfl_sync(~0u, last, r);
    z[r] = (from < 32 ? inside : beyond) >> bit & 1 ? (A)p.keep : (A)0;
  }
}

// What is 0 where a pair is masked must not meet what the masked row holds: 0 times NaN is NaN.
template <class A> DEVICE A select(u32 mask, int bit, A x) { return mask >> bit & 1 ? x : (A)0; }

// out[row][column] = shrink[row] out[row][column] + sum over keys of w[key][row] x[key][column], for columns
// first .. first + width of the key-side tensor.
template <class T, class A, int WIDTH>
DEVICE void apply(A (&out)[ROWS][WIDTH], const A shrink[OWN], const A (&w)[KEYS][ROWS], const u32 mask[OWN],
                  Stage<A>& stage, const Params& p, const Tensor& keys, const Sequence& s, const Place& at, int first,
                  int dim) {
  u32 full = ~0u;
#pragma unroll
  for (int r = 0; r < OWN; ++r) full &= mask[r];
  for (int c0 = 0; c0 < WIDTH && first + c0 < dim; c0 += CHUNK) {
    __syncthreads();
    stage_keys<T>(stage, p, keys, s, at, first + c0, dim);
    __syncthreads();
    A sum[OWN];
#pragma unroll
    for (int r = 0; r < OWN; ++r) sum[r] = shrink[r] * out[warp_id() * OWN + r][c0 + lane_id()];
#pragma unroll 4
    for (int n = 0; n < KEYS; ++n) {
      const A x = stage.k[n][lane_id()];
      const Four<A> weights = *(const Four<A>*)&w[n][warp_id() * OWN];
#pragma unroll
      for (int r = 0; r < OWN; ++r) sum[r] += weights.x[r] * (full == ~0u ? x : select(mask[r], n, x));
    }
#pragma unroll
    for (int r = 0; r < OWN; ++r) out[warp_id() * OWN + r][c0 + lane_id()] = sum[r];
  }
}

// Writes factor[row] out[row][column] for the block's columns.
template <class T, class A, int WIDTH>
DEVICE void store_rows(const Tensor& t, const A (&out)[ROWS][WIDTH], const A factor[OWN], const Sequence& s,
                       const Place& at, int first, int dim) {
#pragma unroll
  for (int r = 0; r < OWN; ++r) {
    const int i = own_row(at, r);
    if (i >= s.q_len) continue;
    for (int c = lane_id(); c < WIDTH && first + c < dim; c += 32) {
      store(query_row<T>(t, s, at.h, i) + first + c, factor[r] * out[warp_id() * OWN + r][c]);
    }
  }
}

// What a block of the grid [batch][head][tile][column block] works on.
DEVICE Place place(const Params& p, int* column) {
  u32 n = blockIdx.x;
  *column = n % p.columns;
  n /= p.columns;
  const int tile = n % p.tiles;
  n /= p.tiles;
  return {(int)(n / p.q_heads), (int)(n % p.q_heads), tile * ROWS, 0};
}

// Columns of O or dQ in one block.
template <class A> struct Width { static const int FORWARD = 256, KEYSIDE = 128; };
template <> struct Width<double> { static const int FORWARD = 128, KEYSIDE = 32; };

// FlashAttention-2, algorithm 1.
template <class T> DEVICE void forward(const Params& p) {
  typedef typename Accumulator<T>::Type A;
  const int WIDTH = Width<A>::FORWARD;
  __shared__ Stage<A> stage;
  __shared__ alignas(16) A w[KEYS][ROWS];
  __shared__ A out[ROWS][WIDTH];
  int column;
  Place at = place(p, &column);
  const Sequence s = p.sequences[at.b];
  if (at.row >= s.q_len) return;
  // A sink is a key of score `sink` and value 0, seen before all others. exp(0 sink) rather than 1: an infinite sink
  // spoils its rows, as the definition has it.
  A m[OWN], l[OWN];
  const A sink = p.sink ? ((const A*)p.sink)[at.h] : -INFINITY_OF(A);
#pragma unroll
  for (int r = 0; r < OWN; ++r) {
    m[r] = sink;
    l[r] = lane_id() == 0 && sink != -INFINITY_OF(A) ? exp_of(0 * sink) : 0;
    for (int c = lane_id(); c < WIDTH; c += 32) out[warp_id() * OWN + r][c] = 0;
  }
  const Range keys = key_range(s, {at.row, min(at.row + ROWS, s.q_len)});
  for (at.key = keys.start / KEYS * KEYS; at.key < keys.end; at.key += KEYS) {
    u32 mask[OWN];
    if (!visible(mask, p, s, at)) continue;
    A x[OWN], z[OWN], shrink[OWN], slope;
    products<T>(x, stage, p, p.q, p.k, s, at, p.dim);
    dropout_factors(z, p, at);
    Four<A> weights;
#pragma unroll
    for (int r = 0; r < OWN; ++r) {
      const bool seen = mask[r] >> lane_id() & 1;
      x[r] = seen ? score<T>(p, s, at.b, at.h, own_row(at, r), at.key + lane_id(), x[r], &slope) : -INFINITY_OF(A);
      const A top = max_of(m[r], warp_max(x[r]));
      shrink[r] = weight(m[r], top);
      m[r] = top;
      const A e = weight(x[r], top);
      l[r] = shrink[r] * l[r] + e;
      weights.x[r] = z[r] * e;
    }
    *(Four<A>*)&w[lane_id()][warp_id() * OWN] = weights;
    apply<T>(out, shrink, w, mask, stage, p, p.v, s, at, column * WIDTH, p.value_dim);
  }
  A factor[OWN];
#pragma unroll
  for (int r = 0; r < OWN; ++r) {
    l[r] = warp_sum(l[r]);
    const bool nothing = m[r] == -INFINITY_OF(A) && l[r] == 0;
    factor[r] = nothing ? 0 : 1 / l[r];
    const int i = own_row(at, r);
    if (column == 0 && lane_id() == 0 && i < s.q_len) {
      *query_row<A>(p.lse, s, at.h, i) = nothing ? -INFINITY_OF(A) : m[r] + log_of(l[r]);
    }
  }
  store_rows<T>(p.o, out, factor, s, at, column * WIDTH, p.value_dim);
}

// D = rowsum(dO O) - dLSE. One warp a row.
template <class T> DEVICE void row_dots(const Params& p) {
  typedef typename Accumulator<T>::Type A;
  int column;
  const Place at = place(p, &column);
  const Sequence s = p.sequences[at.b];
#pragma unroll 1
  for (int r = 0; r < OWN; ++r) {
    const int i = own_row(at, r);
    if (i >= s.q_len) break;
    const T *o = query_row<T>(p.o, s, at.h, i), *d_o = query_row<T>(p.d_o, s, at.h, i);
    A dot = 0;
    for (int c = lane_id(); c < p.value_dim; c += 32) dot += (A)load(d_o + c) * (A)load(o + c);
    dot = warp_sum(dot);
    if (dot != dot) {
      // The dO of a row that sees no key is not to be observed.
      bool any = false;
      for (int j = lane_id(); j < s.kv_len; j += 32) any |= sees(p, s, at.b, at.h, i, j);
      if (!__any_sync(~0u, any)) dot = 0;
    }
    if (lane_id() == 0) {
      const A d_lse = p.d_lse.data ? *query_row<A>(p.d_lse, s, at.h, i) : 0;
      *query_row<A>(p.d, s, at.h, i) = dot - d_lse;
    }
  }
}

// Lines 11, 13, 14 of algorithm 2 for this warp's rows and this lane's key: the dropped-out P, dS with respect to the
// score as the softmax sees it, and the slope of the softcap.
template <class T, class A>
DEVICE void meet(A zp[OWN], A d_s[OWN], A slope[OWN], Stage<A>& stage, const u32 mask[OWN], const Params& p,
                 const Sequence& s, const Place& at) {
  A x[OWN], d_p[OWN], z[OWN];
  products<T>(x, stage, p, p.q, p.k, s, at, p.dim);
  products<T>(d_p, stage, p, p.d_o, p.v, s, at, p.value_dim);
  dropout_factors(z, p, at);
#pragma unroll
  for (int r = 0; r < OWN; ++r) {
    const int i = own_row(at, r);
    zp[r] = d_s[r] = 0;
    slope[r] = 1;
    if (!(mask[r] >> lane_id() & 1)) continue;
    const A lse = *query_row<A>(p.lse, s, at.h, i), d = *query_row<A>(p.d, s, at.h, i);
    const A y = score<T>(p, s, at.b, at.h, i, at.key + lane_id(), x[r], &slope[r]);
    const A e = lse == -INFINITY_OF(A) ? (A)0 : exp_of(y - lse);
    zp[r] = z[r] * e;
    d_s[r] = e * (z[r] * d_p[r] - d);
  }
}

// dQ = scale dS K.
template <class T> DEVICE void query_gradients(const Params& p) {
  typedef typename Accumulator<T>::Type A;
  const int WIDTH = Width<A>::FORWARD;
  __shared__ Stage<A> stage;
  __shared__ alignas(16) A w[KEYS][ROWS];
  __shared__ A out[ROWS][WIDTH];
  int column;
  Place at = place(p, &column);
  const Sequence s = p.sequences[at.b];
  if (at.row >= s.q_len) return;
  A one[OWN], factor[OWN];
#pragma unroll
  for (int r = 0; r < OWN; ++r) {
    one[r] = 1;
    factor[r] = (A)p.scale;
    for (int c = lane_id(); c < WIDTH; c += 32) out[warp_id() * OWN + r][c] = 0;
  }
  const Range keys = key_range(s, {at.row, min(at.row + ROWS, s.q_len)});
  for (at.key = keys.start / KEYS * KEYS; at.key < keys.end; at.key += KEYS) {
    u32 mask[OWN];
    if (!visible(mask, p, s, at)) continue;
    A zp[OWN], d_s[OWN], slope[OWN];
    meet<T>(zp, d_s, slope, stage, mask, p, s, at);
    Four<A> weights;
#pragma unroll
    for (int r = 0; r < OWN; ++r) weights.x[r] = slope[r] * d_s[r];
    *(Four<A>*)&w[lane_id()][warp_id() * OWN] = weights;
    apply<T>(out, one, w, mask, stage, p, p.k, s, at, column * WIDTH, p.dim);
  }
  store_rows<T>(p.d_q, out, factor, s, at, column * WIDTH, p.dim);
}

// out[key][column] += sum over rows of w[row][key] x[row][column] for the query-side tensor; a warp owns eight keys.
template <class T, class A, int WIDTH>
DEVICE void apply_transposed(A (&out)[KEYS][WIDTH], const A (&w)[ROWS][KEYS], const u32 (&mask)[ROWS], Stage<A>& stage,
                             const Tensor& rows, const Sequence& s, const Place& at, int first, int dim) {
  const int EACH = KEYS / WARPS, key = warp_id() * EACH;
  for (int c0 = 0; c0 < WIDTH && first + c0 < dim; c0 += CHUNK) {
    __syncthreads();
    stage_query_rows<T>(stage, rows, s, at, first + c0, dim);
    __syncthreads();
    A sum[EACH];
#pragma unroll
    for (int n = 0; n < EACH; ++n) sum[n] = out[key + n][c0 + lane_id()];
#pragma unroll 2
    for (int r = 0; r < ROWS; ++r) {
      const A x = stage.k[r][lane_id()];
      const u32 seen = mask[r] >> key;
      const Four<A> low = *(const Four<A>*)&w[r][key], high = *(const Four<A>*)&w[r][key + 4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        sum[n] += low.x[n] * select(seen, n, x);
        sum[n + 4] += high.x[n] * select(seen, n + 4, x);
      }
    }
#pragma unroll
    for (int n = 0; n < EACH; ++n) out[key + n][c0 + lane_id()] = sum[n];
  }
}

// Writes factor out[row][column] to the rows a task owns, all of them, used or not.
template <class T, class A, int WIDTH>
DEVICE void store_keys(const Tensor& t, const A (&out)[KEYS][WIDTH], A factor, const KeyTask& task, int hk, int first,
                       int dim) {
  for (int n = warp_id(); n < task.rows; n += WARPS) {
    for (int c = lane_id(); c < WIDTH && first + c < dim; c += 32) {
      store(row_of<T>(t, task.slot, hk, task.row + n) + first + c, factor * out[n][c]);
    }
  }
}

// dV = sum of (Z P)^T dO and dK = scale sum of dS^T Q for stored rows: over every sequence that uses them, every query
// head of the group and every query tile, in this order.
template <class T> DEVICE void key_gradients(const Params& p) {
  typedef typename Accumulator<T>::Type A;
  const int WIDTH = Width<A>::KEYSIDE;
  __shared__ Stage<A> stage;
  __shared__ alignas(16) A w_v[ROWS][KEYS], w_k[ROWS][KEYS];
  __shared__ u32 masks[ROWS];
  __shared__ A out_v[KEYS][WIDTH], out_k[KEYS][WIDTH];
  const int kv_heads = p.q_heads / p.group, column = blockIdx.x % p.columns * WIDTH;
  const int hk = blockIdx.x / p.columns % kv_heads;
  const KeyTask task = p.tasks[blockIdx.x / p.columns / kv_heads];
  for (int n = warp_id(); n < KEYS; n += WARPS) {
    for (int c = lane_id(); c < WIDTH; c += 32) out_v[n][c] = out_k[n][c] = 0;
  }
  for (int use = task.first_use; use < task.end_use; ++use) {
    const KeyUse keys = p.uses[use];
    const Sequence s = p.sequences[keys.b];
    // Keys of the sequence that lie beyond the task's rows are computed with, but another block's to store.
    const Range rows = query_range(s, {keys.first, keys.first + keys.keys});
    for (int g = 0; g < p.group; ++g) {
      Place at = {keys.b, hk * p.group + g, rows.start / ROWS * ROWS, keys.first};
      for (; at.row < rows.end; at.row += ROWS) {
        u32 mask[OWN];
        if (!visible(mask, p, s, at)) continue;
        A zp[OWN], d_s[OWN], slope[OWN];
        meet<T>(zp, d_s, slope, stage, mask, p, s, at);
#pragma unroll
        for (int r = 0; r < OWN; ++r) {
          const int row = warp_id() * OWN + r;
          w_v[row][lane_id()] = zp[r];
          w_k[row][lane_id()] = slope[r] * d_s[r];
          if (lane_id() == 0) masks[row] = mask[r];
        }
        apply_transposed<T>(out_v, w_v, masks, stage, p.d_o, s, at, column, p.value_dim);
        apply_transposed<T>(out_k, w_k, masks, stage, p.q, s, at, column, p.dim);
      }
    }
  }
  __syncthreads();
  store_keys<T>(p.d_v, out_v, (A)1, task, hk, column, p.value_dim);
  store_keys<T>(p.d_k, out_k, (A)p.scale, task, hk, column, p.dim);
}

// dBias = sum of dS over the sequences, heads, rows and keys that share an element, in this order. A block owns a tile
// of 16 x 32 elements of dBias.
template <class T> DEVICE void bias_gradient(const Params& p) {
  typedef typename Accumulator<T>::Type A;
  __shared__ Stage<A> stage;
  __shared__ A sums[ROWS][KEYS];
  const int* shape = p.bias_shape;
  const int columns = (shape[3] + KEYS - 1) / KEYS, row_tiles = (shape[2] + ROWS - 1) / ROWS;
  u32 n = blockIdx.x;
  const int key = n % columns * KEYS, row = n / columns % row_tiles * ROWS;
  n = n / columns / row_tiles;
  const int own_h = n % shape[1], own_b = n / shape[1];
  A sum[OWN] = {};
  for (int b = shape[0] == 1 ? 0 : own_b; b < (shape[0] == 1 ? p.batch : own_b + 1); ++b) {
    const Sequence s = p.sequences[b];
    for (int h = shape[1] == 1 ? 0 : own_h; h < (shape[1] == 1 ? p.q_heads : own_h + 1); ++h) {
      Place at = {b, h, shape[2] == 1 ? 0 : row, 0};
      const int row_end = shape[2] == 1 ? s.q_len : min(row + 1, s.q_len);
      for (; at.row < row_end; at.row += ROWS) {
        Range keys = key_range(s, {at.row, min(at.row + ROWS, s.q_len)});
        keys.start = keys.start / KEYS * KEYS;
        if (shape[3] != 1) keys = {max(key, keys.start), min(key + KEYS, keys.end)};
        for (at.key = keys.start; at.key < keys.end; at.key += KEYS) {
          u32 mask[OWN];
          if (!visible(mask, p, s, at)) continue;
          A zp[OWN], d_s[OWN], slope[OWN];
          meet<T>(zp, d_s, slope, stage, mask, p, s, at);
#pragma unroll
          for (int r = 0; r < OWN; ++r) sum[r] += d_s[r];
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < OWN; ++r) {
    if (shape[3] == 1) sum[r] = warp_sum(sum[r]);
    sums[warp_id() * OWN + r][lane_id()] = sum[r];
  }
  __syncthreads();
  if (shape[3] == 1 && lane_id() != 0) return;
  for (int r = warp_id(); r < (shape[2] == 1 ? 1 : ROWS); r += WARPS) {
    A total = sums[r][lane_id()];
    if (shape[2] == 1) {
      for (int other = 1; other < ROWS; ++other) total += sums[other][lane_id()];
    }
    if (row + r < shape[2] && key + lane_id() < shape[3]) {
      T* d_bias = (T*)p.d_bias.data + own_b * p.d_bias.b + own_h * p.d_bias.h;
      store(d_bias + (row + r) * p.d_bias.i + (key + lane_id()) * p.d_bias.j, total);
    }
  }
}

// dSink = -sum of exp(sink - LSE) D over sequences and rows. One block a head.
template <class T> DEVICE void sink_gradient(const Params& p) {
  typedef typename Accumulator<T>::Type A;
  __shared__ A sums[WARPS];
  const int h = blockIdx.x;
  const A sink = ((const A*)p.sink)[h];
  A sum = 0;
  for (int b = 0; b < p.batch; ++b) {
    const Sequence s = p.sequences[b];
    for (int i = threadIdx.x; i < s.q_len; i += THREADS) {
      const A lse = *query_row<A>(p.lse, s, h, i);
      if (lse != -INFINITY_OF(A)) sum -= exp_of(sink - lse) * *query_row<A>(p.d, s, h, i);
    }
  }
  sum = warp_sum(sum);
  if (lane_id() == 0) sums[warp_id()] = sum;
  __syncthreads();
  if (threadIdx.x == 0) ((A*)p.d_sink)[h] = sums[0] + sums[1] + sums[2] + sums[3];
}

}  // namespace attention

// The kernels of one element type.
#define ATTENTION_SIMT(NAME, T)                                                                                        \
  extern "C" __global__ void __launch_bounds__(attention::THREADS, 3)                                                  \
      attention_simt_forward_##NAME(const __grid_constant__ attention::Params p) {                                     \
    attention::forward<T>(p);                                                                                          \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(attention::THREADS, 3)                                                  \
      attention_simt_row_dots_##NAME(const __grid_constant__ attention::Params p) {                                    \
    attention::row_dots<T>(p);                                                                                         \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(attention::THREADS, 3)                                                  \
      attention_simt_query_gradients_##NAME(const __grid_constant__ attention::Params p) {                             \
    attention::query_gradients<T>(p);                                                                                  \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(attention::THREADS, 3)                                                  \
      attention_simt_key_gradients_##NAME(const __grid_constant__ attention::Params p) {                               \
    attention::key_gradients<T>(p);                                                                                    \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(attention::THREADS, 3)                                                  \
      attention_simt_bias_gradient_##NAME(const __grid_constant__ attention::Params p) {                               \
    attention::bias_gradient<T>(p);                                                                                    \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(attention::THREADS, 3)                                                  \
      attention_simt_sink_gradient_##NAME(const __grid_constant__ attention::Params p) {                               \
    attention::sink_gradient<T>(p);                                                                                    \
  }
