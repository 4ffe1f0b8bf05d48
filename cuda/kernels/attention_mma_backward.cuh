// The backward pass by tensor cores: one pass by tiles of queries for dQ, one by tiles of keys for dK and dV. Both make P
// again from LSE, and neither needs an atomic: every sum has one order.
#pragma once
#include "attention_mma.cuh"

namespace attention {

// LSE in bits, so that P = 2^(s - it); infinite for a row that saw nothing, whose P is 0.
DEVICE float in_bits(float lse) { return lse == -INFINITY_OF(float) ? INFINITY_OF(float) : lse * LOG2_E; }

// Whether a problem's scores are products and a scale, and whether nothing happens to its probabilities.
DEVICE bool is_plain(const Params& p) {
  return !p.cap_mode && !p.bias.data && !p.slopes && !p.dropout && p.scale > -1e30 && p.scale < 1e30;
}

// From q.k and dP to what dropout leaves of P, but for its factor, and dS as it meets Q and K. A thread's pairs are
// row0 + row(n), key0 + key(n); masked ones give 0.
template <class T, int NT, class Row, class Key>
DEVICE void work_on_gradients(float (&x)[NT][4], float (&d_p)[NT][4], float* slots, const Params& p, const Sequence& s,
                              int b, int h, Row row, Key key) {
  const int N = 4 * NT;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    slots[n * MMA_THREADS] = x[n / 4][n % 4];
    slots[(N + n) * MMA_THREADS] = d_p[n / 4][n % 4];
  }
#pragma unroll 1
  for (int n = 0; n < N; ++n) {
    const int i = row(n), j = key(n);
    float *slot = slots + n * MMA_THREADS, *gradient = slots + (N + n) * MMA_THREADS, weight = 0, d_s = 0;
    if (sees(p, s, b, h, i, j)) {
      const float lse = *query_row<float>(p.lse, s, h, i), d = *query_row<float>(p.d, s, h, i);
      const float z = p.dropout ? (float)(kept(p, b, h, i, j / 4) >> j % 4 & 1) : 1;
      float slope;
      const float y = score<T>(p, s, b, h, i, j, *slot, &slope);
      const float e = lse == -INFINITY_OF(float) ? 0 : exp2_of((y - lse) * LOG2_E);
      weight = z * e;
      d_s = slope * (e * (z * (float)p.keep * *gradient - d));
    }
    *slot = weight;
    *gradient = d_s;
  }
#pragma unroll
  for (int n = 0; n < N; ++n) {
    x[n / 4][n % 4] = slots[n * MMA_THREADS];
    d_p[n / 4][n % 4] = slots[(N + n) * MMA_THREADS];
  }
}

// As `apart` of the forward pass, for a product of weights and a tile: `seen(t, half)` says whether the thread's row
// meets row t of the tile, and with what weight up to a positive factor; a negative one is none. With `SPOIL` what is not
// finite makes a NaN: the score it took part in was not finite either.
template <class T, int D, int N, int OUT, bool SPOIL, class Seen>
DEVICE void set_apart(float (&out)[OUT / 8][4], T* tile, int first, Seen seen) {
  if (!any_odd<T, N * D>(tile)) return;
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int t = 0; t < N; ++t) {
    const float z[2] = {seen(t, 0), seen(t, 1)};
#pragma unroll
    for (int n = 0; n < OUT / 4; ++n) {
      const T x = chunk<T, D>(tile, t, first / 8 + n / 2)[lane % 4 * 2 + n % 2];
      if (finite(x.bits, T())) continue;
      const float value = SPOIL ? __int_as_float(0x7fffffff) : load(&x);
      if (z[0] >= 0) out[n / 2][n % 2] += z[0] * value;
      if (z[1] >= 0) out[n / 2][2 + n % 2] += z[1] * value;
    }
  }
  clear_odd<T, N * D>(tile);
}

// Tiles of the backward kernels for head dimensions up to D.
template <int D> struct BackwardShape {
  static const int OWN = 64;                                  // rows of Q, or of K and V, that a block owns: 16 a warp
  static const int KEYS = D <= 96 ? 64 : D <= 128 ? 32 : 16;  // keys that pass by in the pass for dQ
  static const int ROWS = D <= 64 ? 64 : D <= 128 ? 32 : 16;  // query rows that pass by in the pass for dK and dV
  static const int OUT = D <= 128 ? D : 128;                  // columns of dK and dV a block
  static const int STAGES = D <= 128 ? 2 : 1;                 // of what passes by: one on its way while one is worked on
};

// dQ = scale dS K.
template <class T, int D> DEVICE void mma_query_gradients(const Params& p) {
  typedef BackwardShape<D> S;
  const int NT = S::KEYS / 8;
  extern __shared__ __align__(128) u8 dynamic[];
  T* q_tile = (T*)dynamic;
  T* g_tile = q_tile + S::OWN * D;  // dO
  T* stages = g_tile + S::OWN * D;  // K and V of each
  float* slots = (float*)(stages + S::STAGES * 2 * S::KEYS * D) + threadIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 block = blockIdx.x;
  const int tile = p.tiles - 1 - block % p.tiles;
  block /= p.tiles;
  const int h = block % p.q_heads, b = block / p.q_heads, hk = h / p.group;
  const Sequence& s = p.sequences[b];  // a reference: registers are scarce
  const Range rows = {tile * S::OWN, min((tile + 1) * S::OWN, s.q_len)};
  if (rows.start >= s.q_len) return;
  const int own = rows.start + warp * 16 + lane / 4;
  const bool plain = is_plain(p);
  const float factor = (float)p.scale * LOG2_E;
  float lse[2], d[2], out[1][D / 8][4];
  clear(out[0]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool there = own + half * 8 < s.q_len;
    lse[half] = there ? in_bits(*query_row<float>(p.lse, s, h, own + half * 8)) : 0;
    d[half] = there ? *query_row<float>(p.d, s, h, own + half * 8) : 0;
  }
  copy_queries<T, D, S::OWN>(q_tile, p.q, s, h, rows.start, p.dim);
  copy_queries<T, D, S::OWN>(g_tile, p.d_o, s, h, rows.start, p.value_dim);
  const Range keys = key_range(s, rows);
  const auto next = [&](int key) {
    while (key < keys.end && !any_block(p, s, b, h, rows, {key, key + S::KEYS})) key += S::KEYS;
    return key;
  };
  const auto copy = [&](int key, int stage) {
    T* tile = stages + stage * 2 * S::KEYS * D;
    if (key < keys.end) {
      copy_keys<T, D, S::KEYS>(tile, p, p.k, s, hk, key, p.dim);
      copy_keys<T, D, S::KEYS>(tile + S::KEYS * D, p, p.v, s, hk, key, p.value_dim);
    }
    commit_copies();
  };
  const u32 q_rows = left_operand<T, D>(q_tile + warp * 16 * D), g_rows = left_operand<T, D>(g_tile + warp * 16 * D);
  int stage = 0, key = next(keys.start / S::KEYS * S::KEYS);
  copy(key, 0);
  while (key < keys.end) {
    const int after = next(key + S::KEYS);
    if (S::STAGES > 1) copy(after, 1 - stage);
    wait_for_copies<S::STAGES - 1>();
    __syncthreads();
    T *k_tile = stages + stage * 2 * S::KEYS * D, *v_tile = k_tile + S::KEYS * D;
    float x[1][NT][4], d_p[1][NT][4];
    clear(x[0]);
    clear(d_p[0]);
    multiply<T, D>(x, q_rows, right_operand<T, D>(k_tile));
    multiply<T, D>(d_p, g_rows, right_operand<T, D>(v_tile));
    if (plain && all_visible(p, s, rows, {key, key + S::KEYS})) {
#pragma unroll
      for (int n = 0; n < 4 * NT; ++n) {
        const float e = exp2_of(fmaf(x[0][n / 4][n % 4], factor, -lse[n % 4 / 2]));
        d_p[0][n / 4][n % 4] = e * (d_p[0][n / 4][n % 4] - d[n % 4 / 2]);
      }
    } else {
      const auto row_of_slot = [&](int n) { return own + n % 4 / 2 * 8; };
      const auto key_of_slot = [&](int n) { return key + n / 4 * 8 + lane % 4 * 2 + n % 2; };
      work_on_gradients<T>(x[0], d_p[0], slots, p, s, b, h, row_of_slot, key_of_slot);
      const auto seen = [&](int t, int half) { return sees(p, s, b, h, own + half * 8, key + t) ? 1.f : -1.f; };
      set_apart<T, D, S::KEYS, D, true>(out[0], k_tile, 0, seen);
    }
    u32 d_s[1][NT / 2][4];
    pack_operands<T>(d_s[0], d_p[0]);
    accumulate<T, D, 1, NT / 2, D>(out, d_s, right_rows<T, D>(k_tile));
    __syncthreads();
    if (S::STAGES > 1) stage = 1 - stage;
    else copy(after, 0);
    key = after;
  }
  commit_copies();
  wait_for_copies<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (own + half * 8 >= s.q_len) continue;
    T* d_q = query_row<T>(p.d_q, s, h, own + half * 8) + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      if (n * 8 >= p.dim) break;
      *(u32*)(d_q + n * 8) = pack((float)p.scale * out[0][n][half * 2], (float)p.scale * out[0][n][half * 2 + 1], T());
    }
  }
}

// Starts the copy of LSE and D of `ROWS` rows; beyond the sequence they are 0.
template <int ROWS> DEVICE void copy_statistics(float* to, const Params& p, const Sequence& s, int h, int row) {
  const int thread = threadIdx.x, i = row + thread % ROWS;
  if (thread >= 2 * ROWS) return;
  const bool there = i < s.q_len;
  const Tensor& t = thread < ROWS ? p.lse : p.d;
  copy_number_async(to + thread, there ? query_row<float>(t, s, h, i) : (const float*)t.data, there);
}

// Writes factor * out to the columns of a row that the block owns.
template <class T, int OUT>
DEVICE void store_key_row(T* row, float (&out)[OUT / 8][4], int half, float factor, int first, int dim) {
  row += first + threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < OUT / 8; ++n) {
    if (first + n * 8 >= dim) break;
    *(u32*)(row + n * 8) = pack(factor * out[n][half * 2], factor * out[n][half * 2 + 1], T());
  }
}

// dV = sum of (Z P)^T dO and dK = scale sum of dS^T Q for stored rows: over every sequence that uses them, every query
// head of the group and every query tile, in this order. Scores are made transposed, a key a row.
template <class T, int D> DEVICE void mma_key_gradients(const Params& p) {
  typedef BackwardShape<D> S;
  const int NT = S::ROWS / 8;
  extern __shared__ __align__(128) u8 dynamic[];
  T* k_tile = (T*)dynamic;
  T* v_tile = k_tile + S::OWN * D;
  T* stages = v_tile + S::OWN * D;                                         // Q and dO of each
  float* statistics = (float*)(stages + S::STAGES * 2 * S::ROWS * D);      // LSE and D of each
  float* slots = statistics + S::STAGES * 2 * S::ROWS + threadIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int kv_heads = p.q_heads / p.group, first = blockIdx.x % p.columns * S::OUT;
  const int hk = blockIdx.x / p.columns % kv_heads;
  const KeyTask& task = p.tasks[blockIdx.x / p.columns / kv_heads];
  const bool plain = is_plain(p);
  const float factor = (float)p.scale * LOG2_E;
  float d_k[1][S::OUT / 8][4], d_v[1][S::OUT / 8][4];
  clear(d_k[0]);
  clear(d_v[0]);
  const u32 k_rows = left_operand<T, D>(k_tile + warp * 16 * D), v_rows = left_operand<T, D>(v_tile + warp * 16 * D);
  for (int use = task.first_use; use < task.end_use; ++use) {
    const int b = p.uses[use].b, start = p.uses[use].first, own = start + warp * 16 + lane / 4;
    const Sequence& s = p.sequences[b];  // a reference: registers are scarce
    // Keys of the sequence that lie beyond the task's rows are computed with, but another block's to store.
    const Range keys = {start, start + S::OWN}, rows = query_range(s, {start, start + p.uses[use].keys});
    copy_keys<T, D, S::OWN>(k_tile, p, p.k, s, hk, start, p.dim);
    copy_keys<T, D, S::OWN>(v_tile, p, p.v, s, hk, start, p.value_dim);
    // Query heads of the group, and of each its tiles of rows.
    struct Step {
      int h, row;
    };
    const int end = (hk + 1) * p.group, first_row = rows.start / S::ROWS * S::ROWS;
    const auto next = [&](Step step) {
      for (; step.h < end; ++step.h, step.row = first_row) {
        for (; step.row < rows.end; step.row += S::ROWS) {
          if (any_block(p, s, b, step.h, {step.row, step.row + S::ROWS}, keys)) return step;
        }
      }
      return step;
    };
    const auto copy = [&](Step step, int stage) {
      T* tile = stages + stage * 2 * S::ROWS * D;
      if (step.h < end) {
        copy_queries<T, D, S::ROWS>(tile, p.q, s, step.h, step.row, p.dim);
        copy_queries<T, D, S::ROWS>(tile + S::ROWS * D, p.d_o, s, step.h, step.row, p.value_dim);
        copy_statistics<S::ROWS>(statistics + stage * 2 * S::ROWS, p, s, step.h, step.row);
      }
      commit_copies();
    };
    int stage = 0;
    Step step = next({hk * p.group, first_row});
    copy(step, 0);
    while (step.h < end) {
      const Step after = next({step.h, step.row + S::ROWS});
      const int h = step.h, row = step.row;
      if (S::STAGES > 1) copy(after, 1 - stage);
      wait_for_copies<S::STAGES - 1>();
      __syncthreads();
      T *q_tile = stages + stage * 2 * S::ROWS * D, *g_tile = q_tile + S::ROWS * D;
      float x[1][NT][4], d_p[1][NT][4];
      clear(x[0]);
      clear(d_p[0]);
      multiply<T, D>(x, k_rows, right_operand<T, D>(q_tile));
      multiply<T, D>(d_p, v_rows, right_operand<T, D>(g_tile));
      if (plain && all_visible(p, s, {row, row + S::ROWS}, keys)) {
        const float* of_rows = statistics + stage * 2 * S::ROWS + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < 2 * NT; ++n) {
          const float lse = in_bits(of_rows[n / 2 * 8 + n % 2]), d = of_rows[S::ROWS + n / 2 * 8 + n % 2];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float &e = x[0][n / 2][half * 2 + n % 2], &d_s = d_p[0][n / 2][half * 2 + n % 2];
            e = exp2_of(fmaf(e, factor, -lse));
            d_s = e * (d_s - d);
          }
        }
      } else {
        const auto row_of_slot = [&](int n) { return row + n / 4 * 8 + lane % 4 * 2 + n % 2; };
        const auto key_of_slot = [&](int n) { return own + n % 4 / 2 * 8; };
        work_on_gradients<T>(x[0], d_p[0], slots, p, s, b, h, row_of_slot, key_of_slot);
        const auto seen = [&](int t, int half) {
          const int i = row + t, j = own + half * 8;
          if (!sees(p, s, b, h, i, j)) return -1.f;
          return p.dropout ? (float)(kept(p, b, h, i, j / 4) >> j % 4 & 1) : 1.f;
        };
        set_apart<T, D, S::ROWS, S::OUT, false>(d_v[0], g_tile, first, seen);
        set_apart<T, D, S::ROWS, S::OUT, true>(d_k[0], q_tile, first, seen);
      }
      u32 w[1][NT / 2][4];
      pack_operands<T>(w[0], x[0]);
      accumulate<T, D, 1, NT / 2, S::OUT>(d_v, w, right_rows<T, D>(g_tile, first / 8));
      pack_operands<T>(w[0], d_p[0]);
      accumulate<T, D, 1, NT / 2, S::OUT>(d_k, w, right_rows<T, D>(q_tile, first / 8));
      __syncthreads();
      if (S::STAGES > 1) stage = 1 - stage;
      else copy(after, 0);
      step = after;
    }
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int n = warp * 16 + half * 8 + lane / 4;
    if (n >= task.rows) continue;
    const i64 row = task.row + n;
    store_key_row<T, S::OUT>(row_of<T>(p.d_v, task.slot, hk, row), d_v[0], half, (float)p.keep, first, p.value_dim);
    store_key_row<T, S::OUT>(row_of<T>(p.d_k, task.slot, hk, row), d_k[0], half, (float)p.scale, first, p.dim);
  }
}

}  // namespace attention

#define ATTENTION_MMA_BACKWARD(NAME, T, D)                                                                             \
  extern "C" __global__ void __launch_bounds__(attention::MMA_THREADS, 2)                                              \
      attention_mma_query_gradients_##D##_##NAME(const __grid_constant__ attention::Params p) {                        \
    attention::mma_query_gradients<T, D>(p);                                                                           \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(attention::MMA_THREADS, 2)                                              \
      attention_mma_key_gradients_##D##_##NAME(const __grid_constant__ attention::Params p) {                          \
    attention::mma_key_gradients<T, D>(p);                                                                             \
  }
