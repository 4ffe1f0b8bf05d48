// Attention on f16 and bf16 by tensor cores: mma.sync m16n8k16 with operands brought by ldmatrix from tiles that
// cp.async fills, as FlashAttention-2 has it. For head dimensions that are multiples of 8, up to 256; a dimension between
// those of the kernels is filled up with zeros.
//
// Four warps share a tile of query rows, 16 MT rows each. P stays in registers, where the accumulator of the first
// product is the operand of the second. Scores are worked on where they are only in tiles that need it: they pass
// through shared memory, a slot a thread, so that the loop over them can be short.
#pragma once
#include "attention.cuh"

namespace attention {

const int MMA_THREADS = 128;
const float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
// Four 8x8 matrices of 16-bit numbers; lane l gives the address of row l % 8 of matrix l / 8.
DEVICE void ldmatrix(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
DEVICE void ldmatrix_transposed(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// d += a b for a 16x16 and b 16x8.
DEVICE void mma(float (&d)[4], const u32 (&a)[4], const u32* b, Half) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma(float (&d)[4], const u32 (&a)[4], const u32* b, Bfloat) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Two numbers rounded to storage, the first in the low half.
DEVICE u32 pack(float low, float high, Half) {
  u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
DEVICE u32 pack(float low, float high, Bfloat) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 16 bytes to shared memory, or as many zeros; they are there after a wait and a barrier.
DEVICE void copy_async(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all but the latest `N` groups.
template <int N> DEVICE void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Where chunk c (8 numbers) of row r of a tile is: chunks are exchanged so that neither 8 rows of one chunk nor the
// chunks of one row meet in a bank.
template <class T, int D> DEVICE T* chunk(T* tile, int r, int c) {
  return tile + r * D + (c ^ (D % 64 == 0 ? r & 7 : r >> 1 & 3)) * 8;
}

// Starts the copy of `ROWS` rows; what is beyond the tensor's columns or the sequence's rows is 0. A thread has one column
// of chunks.
template <class T, int D, int ROWS>
DEVICE void copy_queries(T* tile, const Tensor& t, const Sequence& s, int h, int row, int dim) {
  const int CHUNKS = D / 8, STEP = MMA_THREADS / CHUNKS, c = threadIdx.x % CHUNKS, first = threadIdx.x / CHUNKS;
  if (MMA_THREADS % CHUNKS && first >= STEP) return;
  const T* from = query_row<T>(t, s, h, row + first) + c * 8;
#pragma unroll 4
  for (int r = first; r < ROWS; r += STEP) {
    const bool there = row + r < s.q_len && c * 8 < dim;
    copy_async(chunk<T, D>(tile, r, c), there ? from : t.data, there);
    from += STEP * t.row;
  }
}
template <class T, int D, int ROWS>
DEVICE void copy_keys(T* tile, const Params& p, const Tensor& t, const Sequence& s, int hk, int key, int dim) {
  const int CHUNKS = D / 8, STEP = MMA_THREADS / CHUNKS, c = threadIdx.x % CHUNKS, first = threadIdx.x / CHUNKS;
  if (MMA_THREADS % CHUNKS && first >= STEP) return;
  if (p.page_size) {
#pragma unroll 1
    for (int r = first; r < ROWS; r += STEP) {
      const bool there = key + r < s.kv_len && c * 8 < dim;
      copy_async(chunk<T, D>(tile, r, c), there ? key_row<T>(p, t, s, hk, key + r) + c * 8 : t.data, there);
    }
    return;
  }
  const T* from = row_of<T>(t, s.k_slot, hk, s.k_row + key + first) + c * 8;
#pragma unroll 4
  for (int r = first; r < ROWS; r += STEP) {
    const bool there = key + r < s.kv_len && c * 8 < dim;
    copy_async(chunk<T, D>(tile, r, c), there ? from : t.data, there);
    from += STEP * t.row;
  }
}

// Whether the block mask lets any pair of a rectangle through. All threads of the block ask together.
DEVICE bool any_block(const Params& p, const Sequence& s, int b, int h, Range rows, Range keys) {
  const Blocks& m = p.blocks;
  if (!m.data) return true;
  const int r0 = rows.start / m.block_q, r1 = (min(rows.end, s.q_len) - 1) / m.block_q + 1;
  const int c0 = keys.start / m.block_k, c1 = (min(keys.end, s.kv_len) - 1) / m.block_k + 1;
  bool any = false;
  for (int n = threadIdx.x; n < (r1 - r0) * (c1 - c0); n += MMA_THREADS) {
    const int r = r0 + n / (c1 - c0), c = c0 + n % (c1 - c0);
    any |= m.data[b * m.b + h * m.h + r * m.i + c] != 0;
  }
  return __syncthreads_or(any);
}

// Whether every pair of a rectangle is visible; false also where that would be long to find out.
DEVICE bool all_visible(const Params& p, const Sequence& s, Range rows, Range keys) {
  return !p.blocks.data && rows.end <= s.q_len && keys.end <= s.kv_len && keys.start - (rows.end - 1) >= s.least &&
         keys.end - 1 - rows.start <= s.greatest;
}

// A number that is neither NaN nor infinite, by its bits.
DEVICE bool finite(u32 bits, Half) { return (bits & 0x7c00) != 0x7c00; }
DEVICE bool finite(u32 bits, Bfloat) { return (bits & 0x7f80) != 0x7f80; }

// Whether any of the N numbers of a tile is NaN or infinite. All threads of the block ask together.
template <class T, int N> DEVICE bool any_odd(const T* tile) {
  struct alignas(16) Words {
    u32 x[4];
  };
  bool odd = false;
#pragma unroll 4
  for (int n = threadIdx.x; n < N / 8; n += MMA_THREADS) {
    const Words words = ((const Words*)tile)[n];
#pragma unroll
    for (int w = 0; w < 4; ++w) odd |= !finite(words.x[w], T()) || !finite(words.x[w] >> 16, T());
  }
  return __syncthreads_or(odd);
}

// Makes the NaNs and infinities of a tile 0.
template <class T, int N> DEVICE void clear_odd(T* tile) {
  __syncthreads();
#pragma unroll 1
  for (int n = threadIdx.x; n < N; n += MMA_THREADS) {
    if (!finite(tile[n].bits, T())) tile[n].bits = 0;
  }
  __syncthreads();
}

// The plan of a kernel for head dimensions up to D.
template <int D> struct Shape {
  static const int MT = D <= 128 ? 2 : 1;      // tiles of 16 query rows a warp
  static const int ROWS = 64 * MT;             // query rows a block
  static const int KEYS = D <= 64 ? 64 : 32;   // keys a tile
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
template <class T, int D, int KEYS, int MT>
DEVICE void apart(float (&o)[MT][D / 8][4], T* tile, const Params& p, const Sequence& s, int b, int h, int row, int key) {
  if (!any_odd<T, KEYS * D>(tile)) return;
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int j = 0; j < KEYS; ++j) {
    // The weight of this key in each of the thread's rows, up to a positive factor; -1 where it isn't seen.
    float z[MT][2];
#pragma unroll
    for (int r = 0; r < 2 * MT; ++r) {
      const int i = row + r / 2 * 16 + r % 2 * 8 + lane / 4;
      const u32 keep = p.dropout ? kept(p, b, h, i, (key + j) / 4) >> (key + j) % 4 & 1 : 1;
      z[r / 2][r % 2] = sees(p, s, b, h, i, key + j) ? (float)keep : -1;
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
  clear_odd<T, KEYS * D>(tile);
}

// Masks the scores of 16 rows and, if the problem asks for more than a scale, makes scores of products. Returns one bit
// for each score that dropout drops.
template <class T, int SLOTS>
DEVICE u32 work_on(float (&x)[SLOTS / 4][4], float* slots, const Params& p, const Sequence& s, int b, int h, int row,
                   int key, bool general) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < SLOTS; ++n) slots[n * MMA_THREADS] = x[n / 4][n % 4];
  u32 dropped = 0;
#pragma unroll 1
  for (int pair = 0; pair < SLOTS / 2; ++pair) {
    const int i = row + lane / 4 + pair % 2 * 8, j = key + pair / 2 * 8 + lane % 4 * 2;
    const u32 keep = p.dropout ? kept(p, b, h, i, j / 4) >> j % 4 : 3;
    dropped |= (~keep & 3) << (pair * 2);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float* slot = slots + (pair * 2 + e) * MMA_THREADS;
      float slope;
      if (!sees(p, s, b, h, i, j + e)) {
        *slot = -INFINITY_OF(float);
      } else if (general) {
        *slot = score<T>(p, s, b, h, i, j + e, *slot, &slope);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < SLOTS; ++n) x[n / 4][n % 4] = slots[n * MMA_THREADS];
  return dropped;
}

// FlashAttention-2, algorithm 1.
template <class T, int D> DEVICE void mma_forward(const Params& p) {
  typedef Shape<D> S;
  extern __shared__ __align__(128) u8 dynamic[];
  T* q_tile = (T*)dynamic;
  T* k_tile = q_tile + S::ROWS * D;
  T* v_tile = k_tile + S::KEYS * D;
  float* slots = (float*)(v_tile + S::KEYS * D) + threadIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 block = blockIdx.x;
  const int split = block % p.splits;
  block /= p.splits;
  // The longest rows of a causal problem first.
  const int tile = p.tiles - 1 - block % p.tiles;
  block /= p.tiles;
  const int h = block % p.q_heads, b = block / p.q_heads, hk = h / p.group;
  const Sequence& s = p.sequences[b];  // a reference: registers are scarce
  const Range rows = {tile * S::ROWS, min((tile + 1) * S::ROWS, s.q_len)};
  if (rows.start >= s.q_len) return;
  const int own = rows.start + warp * 16 * S::MT;
  // Plain scores stay products: scale and log2 e are one factor, and m counts in products.
  const bool general = p.cap_mode || p.bias.data || p.slopes || p.sink || !(p.scale > 1e-30);
  const float unit = general ? 1 : (float)p.scale, factor = unit * LOG2_E;
  Range keys = key_range(s, rows);
  if (p.splits > 1) keys = {max(keys.start, split * p.split_len), min(keys.end, (split + 1) * p.split_len)};
  const bool first = split == 0;

  Online<D> online;
  const float sink = p.sink && first ? ((const float*)p.sink)[h] : -INFINITY_OF(float);
#pragma unroll
  for (int mt = 0; mt < S::MT; ++mt) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      online.m[mt][half] = sink;
      online.l[mt][half] = sink != -INFINITY_OF(float) && lane % 4 == 0 ? exp_of(0 * sink) : 0;
    }
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) online.o[mt][n][e] = 0;
    }
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
  while (key < keys.end) {
    copy_keys<T, D, S::KEYS>(v_tile, p, p.v, s, hk, key, p.value_dim);
    commit_copies();
    const int after = next(key + S::KEYS);
    const bool full = all_visible(p, s, rows, {key, key + S::KEYS});
    wait_for_copies<1>();
    __syncthreads();
    float x[S::MT][S::NT][4];
#pragma unroll
    for (int mt = 0; mt < S::MT; ++mt) {
#pragma unroll
      for (int n = 0; n < S::NT; ++n) x[mt][n][0] = x[mt][n][1] = x[mt][n][2] = x[mt][n][3] = 0;
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      u32 a[S::MT][4];
#pragma unroll
      for (int mt = 0; mt < S::MT; ++mt) {
        ldmatrix(a[mt], chunk<T, D>(q_tile, (warp * S::MT + mt) * 16 + lane % 16, k * 2 + lane / 16));
      }
#pragma unroll
      for (int n = 0; n < S::NT; n += 2) {
        u32 bits[4];
        ldmatrix(bits, chunk<T, D>(k_tile, n * 8 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
        for (int mt = 0; mt < S::MT; ++mt) {
          mma(x[mt][n], a[mt], bits, T());
          mma(x[mt][n + 1], a[mt], bits + 2, T());
        }
      }
    }
    __syncthreads();
    if (after < keys.end) copy_keys<T, D, S::KEYS>(k_tile, p, p.k, s, hk, after, p.dim);
    commit_copies();

    u32 dropped[S::MT];
#pragma unroll
    for (int mt = 0; mt < S::MT; ++mt) {
      dropped[mt] = 0;
      if (general || p.dropout || !full) {
        dropped[mt] = work_on<T, S::SLOTS>(x[mt], slots, p, s, b, h, own + mt * 16, key, general);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = online.m[mt][half];
#pragma unroll
        for (int n = 0; n < S::NT; ++n) top = max_of(top, max_of(x[mt][n][half * 2], x[mt][n][half * 2 + 1]));
        top = max_of(top, __shfl_xor_sync(~0u, top, 1));
        top = max_of(top, __shfl_xor_sync(~0u, top, 2));
        // Without a finite score so far there is nothing to subtract, and 2^-infinity = 0.
        const float shift = top == -INFINITY_OF(float) ? 0 : top * factor;
        const float shrink = exp2_of(online.m[mt][half] * factor - shift);
        online.m[mt][half] = top;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < S::NT; ++n) {
#pragma unroll
          for (int e = half * 2; e < half * 2 + 2; ++e) {
            x[mt][n][e] = exp2_of(fmaf(x[mt][n][e], factor, -shift));
            sum += x[mt][n][e];
          }
        }
        online.l[mt][half] = shrink * online.l[mt][half] + sum;
#pragma unroll
        for (int n = 0; n < D / 8; ++n) {
          online.o[mt][n][half * 2] *= shrink;
          online.o[mt][n][half * 2 + 1] *= shrink;
        }
      }
      if (p.dropout) {
#pragma unroll
        for (int n = 0; n < S::SLOTS; ++n) {
          if (dropped[mt] >> n & 1) x[mt][n / 4][n % 4] = 0;
        }
      }
    }
    wait_for_copies<1>();
    __syncthreads();
    if (!full) apart<T, D, S::KEYS>(online.o, v_tile, p, s, b, h, own, key);
#pragma unroll
    for (int k = 0; k < S::KEYS / 16; ++k) {
      u32 a[S::MT][4];
#pragma unroll
      for (int mt = 0; mt < S::MT; ++mt) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          a[mt][n] = pack(x[mt][k * 2 + n / 2][n % 2 * 2], x[mt][k * 2 + n / 2][n % 2 * 2 + 1], T());
        }
      }
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        u32 bits[4];
        ldmatrix_transposed(bits, chunk<T, D>(v_tile, k * 16 + lane % 16, n + lane / 16));
#pragma unroll
        for (int mt = 0; mt < S::MT; ++mt) {
          mma(online.o[mt][n], a[mt], bits, T());
          mma(online.o[mt][n + 1], a[mt], bits + 2, T());
        }
      }
    }
    __syncthreads();
    key = after;
  }
  wait_for_copies<0>();

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
      const int i = own + mt * 16 + half * 8 + lane / 4;
      if (i >= s.q_len) continue;
      const float lse = nothing ? -INFINITY_OF(float) : m * unit + logf(l);
      const bool part = p.splits > 1;
      if (lane % 4 == 0) *query_row<float>(part ? p.part_lse : p.lse, s, part ? split * p.q_heads + h : h, i) = lse;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        const int c = n * 8 + lane % 4 * 2;
        const float low = online.o[mt][n][half * 2] * inverse, high = online.o[mt][n][half * 2 + 1] * inverse;
        if (c >= p.value_dim) break;
        if (part) {
          float* o = query_row<float>(p.part_o, s, split * p.q_heads + h, i) + c;
          o[0] = low;
          o[1] = high;
        } else {
          *(u32*)(query_row<T>(p.o, s, h, i) + c) = pack(low, high, T());
        }
      }
    }
  }
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

#define ATTENTION_MERGE(NAME, T)                                                                                       \
  extern "C" __global__ void __launch_bounds__(attention::MMA_THREADS)                                                 \
      attention_merge_##NAME(const __grid_constant__ attention::Params p) {                                            \
    attention::merge<T>(p);                                                                                            \
  }

#define ATTENTION_MMA(NAME, T, D)                                                                                      \
  extern "C" __global__ void __launch_bounds__(attention::MMA_THREADS, 2)                                              \
      attention_mma_forward_##D##_##NAME(const __grid_constant__ attention::Params p) {                                \
    attention::mma_forward<T, D>(p);                                                                                   \
  }
