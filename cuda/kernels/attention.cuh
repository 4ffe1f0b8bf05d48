// What every attention kernel knows: the problem as the host describes it, where rows are stored, which pairs are
// visible, and what happens to a score on its way to the softmax. The conventions are those of the specification.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE static __device__ __forceinline__
// Bit patterns rather than macros of a header there is none of.
#define INFINITY_OF(A) ((A)__int_as_float(0x7f800000))

namespace attention {

// A tensor [slot, head, row, column] with adjacent columns; strides in elements. LSE and its like have no columns.
struct Tensor {
  void* data;
  i64 slot, head, row;
};

// Bias and its gradient: [batch, head, query, key], stride 0 along a shared axis.
struct Bias {
  void* data;
  i64 b, h, i, j;
};

// A mask of blocks, one byte each: [batch, head, query block, key block], stride 0 along a shared axis.
struct Blocks {
  const u8* data;
  i64 b, h, i;
  int block_q, block_k;
};

// One sequence: where its rows lie, and its band of visible pairs, least <= j - i <= greatest.
struct Sequence {
  i64 q_row, k_row;
  int q_slot, k_slot, q_len, kv_len, offset, least, greatest;
  int pages;  // where its page numbers begin in the table
};

// Stored key rows that one block owns in the pass for dK and dV, and which uses they have.
struct KeyTask {
  i64 row;
  int slot, rows, first_use, end_use;
};

// Keys first .. first + keys of sequence b lie on a task's rows.
struct KeyUse {
  int b, first, keys, unused;
};

struct Params {
  Tensor q, k, v, o, d_o, d_q, d_k, d_v, lse, d_lse, d;
  Bias bias, d_bias;
  Blocks blocks;
  const void* sink;
  void* d_sink;
  const void* slopes;
  const Sequence* sequences;
  const int* table;
  const KeyTask* tasks;
  const KeyUse* uses;
  double scale, cap, keep;
  u64 threshold;
  u32 seed[2];
  int batch, q_heads, group, dim, value_dim, page_size;
  int cap_mode;           // 0: none, 1: bends, 2: beyond the accumulator's range, bends nothing
  int dropout;            // whether there is any
  int tiles, columns;     // of the grid: tiles of rows a sequence, blocks of columns
  int bias_shape[4];      // of dBias
  int splits, split_len;  // of the keys, in decoding
  Tensor part_o, part_lse;
};

// ---- Elements: what tensors store, and what sums are kept in ----

struct Half {
  u16 bits;
};
struct Bfloat {
  u16 bits;
};
template <class T> struct Accumulator { typedef float Type; };
template <> struct Accumulator<double> { typedef double Type; };

DEVICE float load(const float* x) { return *x; }
DEVICE double load(const double* x) { return *x; }
DEVICE float load(const Half* x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x->bits));
  return y;
}
DEVICE float load(const Bfloat* x) { return __uint_as_float((u32)x->bits << 16); }
DEVICE void store(float* y, float x) { *y = x; }
DEVICE void store(double* y, double x) { *y = x; }
DEVICE void store(Half* y, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y->bits) : "f"(x)); }
DEVICE void store(Bfloat* y, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y->bits) : "f"(x)); }

DEVICE float exp_of(float x) { return expf(x); }
DEVICE double exp_of(double x) { return exp(x); }
DEVICE float log_of(float x) { return logf(x); }
DEVICE double log_of(double x) { return log(x); }
DEVICE float tanh_of(float x) { return tanhf(x); }
DEVICE double tanh_of(double x) { return tanh(x); }
// The larger number; of a number and a NaN the number.
DEVICE float max_of(float x, float y) { return fmaxf(x, y); }
DEVICE double max_of(double x, double y) { return fmax(x, y); }

template <class A> DEVICE A warp_max(A x) {
#pragma unroll
  for (int lanes = 16; lanes; lanes >>= 1) x = max_of(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}
template <class A> DEVICE A warp_sum(A x) {
#pragma unroll
  for (int lanes = 16; lanes; lanes >>= 1) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

// ---- Where rows are stored ----

template <class T> DEVICE T* row_of(const Tensor& t, i64 slot, i64 head, i64 row) {
  return (T*)t.data + slot * t.slot + head * t.head + row * t.row;
}
template <class T> DEVICE T* query_row(const Tensor& t, const Sequence& s, int h, int i) {
  return row_of<T>(t, s.q_slot, h, s.q_row + i);
}
template <class T> DEVICE T* key_row(const Params& p, const Tensor& t, const Sequence& s, int h, int j) {
  if (!p.page_size) return row_of<T>(t, s.k_slot, h, s.k_row + j);
  const int page = j / p.page_size;
  return row_of<T>(t, p.table[s.pages + page], h, j - page * p.page_size);
}

// ---- Visibility ----

DEVICE bool sees(const Params& p, const Sequence& s, int b, int h, int i, int j) {
  if (i >= s.q_len || j >= s.kv_len || j - i < s.least || j - i > s.greatest) return false;
  if (!p.blocks.data) return true;
  const Blocks& m = p.blocks;
  return m.data[b * m.b + h * m.h + i / m.block_q * m.i + j / m.block_k];
}

struct Range {
  int start, end;
};
// The hull of the keys that rows of `rows` see, and of the rows that see keys of `keys`; the block mask is not looked at.
DEVICE Range key_range(const Sequence& s, Range rows) {
  return {max(0, rows.start + s.least), min(s.kv_len, rows.end + s.greatest)};
}
DEVICE Range query_range(const Sequence& s, Range keys) {
  return {max(0, keys.start - s.greatest), min(s.q_len, keys.end - s.least)};
}

// ---- Scores ----

// Philox4x32 with ten rounds.
DEVICE void philox(u32 counter[4], u32 k0, u32 k1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u32 high0 = __umulhi(0xD2511F53u, counter[0]), low0 = 0xD2511F53u * counter[0];
    const u32 high1 = __umulhi(0xCD9E8D57u, counter[2]), low1 = 0xCD9E8D57u * counter[2];
    counter[0] = high1 ^ counter[1] ^ k0;
    counter[1] = low1;
    counter[2] = high0 ^ counter[3] ^ k1;
    counter[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}
// Which of the keys 4 quad .. 4 quad + 4 row i keeps, one bit each.
DEVICE u32 kept(const Params& p, int b, int h, int i, int quad) {
  u32 words[4] = {(u32)quad, (u32)i, (u32)h, (u32)b};
  philox(words, p.seed[0], p.seed[1]);
  u32 bits = 0;
#pragma unroll
  for (int n = 0; n < 4; ++n) bits |= (u32)(words[n] >= p.threshold) << n;
  return bits;
}

// From q.k to the score, and the derivative of what the softcap did; only of a visible pair.
template <class T, class A>
DEVICE A score(const Params& p, const Sequence& s, int b, int h, int i, int j, A product, A* slope) {
  A x = (A)p.scale * product;
  *slope = 1;
  if (p.cap_mode == 1) {
    const A cap = (A)p.cap;
    const A t = x != 0 ? tanh_of(x / cap) : 0;  // a cap that vanishes in the accumulator leaves 0 as it is
    x = cap * t;
    *slope = 1 - t * t;
  }
  if (p.bias.data) x += load((const T*)p.bias.data + b * p.bias.b + h * p.bias.h + i * p.bias.i + j * p.bias.j);
  if (p.slopes) x -= ((const A*)p.slopes)[h] * (A)abs(i + s.offset - j);
  return x;
}

// exp(x - top) for a weight that is 0 where x is -infinity, even below a top of -infinity.
template <class A> DEVICE A weight(A x, A top) {
  return x == -INFINITY_OF(A) ? (A)0 : exp_of(x - top);
}

}  // namespace attention
