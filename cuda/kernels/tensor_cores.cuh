// Tensor cores by mma.sync m16n8k16, and the tiles of shared memory that its operands come from by ldmatrix.
#pragma once
#include "attention.cuh"

namespace attention {

const int MMA_THREADS = 128;
const float LOG2_E = 1.44269504f;

DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
// The same number, of which the compiler doesn't know that it is: what is made of it is made again where it is used,
// rather than kept in registers that are scarce.
DEVICE int anew(int x) {
  int y;
  asm volatile("mov.b32 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
// Four 8x8 matrices of 16-bit numbers; lane l gives the address of row l % 8 of matrix l / 8.
DEVICE void ldmatrix(u32 (&r)[4], u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
DEVICE void ldmatrix_transposed(u32 (&r)[4], u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
// d += a b for a 16x16 and b 16x8.
DEVICE void mma(float (&d)[4], const u32 (&a)[4], const u32* b, Half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma(float (&d)[4], const u32 (&a)[4], const u32* b, Bfloat) {
  asm(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <int N> DEVICE void clear(float (&x)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) x[n][0] = x[n][1] = x[n][2] = x[n][3] = 0;
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
// The same for 4 bytes.
DEVICE void copy_number_async(void* to, const void* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 4 : 0)
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

// The address of chunk c + `chunks` of a row whose chunk c a lane has the address of; `chunks` is even, c 0 or 1. Exchanged
// are only chunks within groups that rows are whole numbers of.
template <int D> DEVICE u32 along(u32 at, int chunks) {
  const int GROUP = D % 64 == 0 ? 7 : 3;
  return (at ^ (chunks & GROUP) * 16) + (chunks & ~GROUP) * 16;
}

// A tile of 16 rows as the left operand of a product, of which 16 columns are read at once: the address for this lane.
template <class T, int D> DEVICE u32 left_operand(T* tile) {
  const int lane = threadIdx.x % 32;
  return shared_address(chunk<T, D>(tile, lane % 16, lane / 16));
}
// The same of 16 rows that are columns of the right operand; and of 16 rows that are its rows, from a chunk on.
template <class T, int D> DEVICE u32 right_operand(T* tile) {
  const int lane = threadIdx.x % 32;
  return shared_address(chunk<T, D>(tile, lane / 16 * 8 + lane % 8, lane / 8 % 2));
}
template <class T, int D> DEVICE u32 right_rows(T* tile, int first = 0) {
  const int lane = threadIdx.x % 32;
  return shared_address(chunk<T, D>(tile, lane % 16, first + lane / 16));
}

// x += A B^T for 16 MT rows of A and 8 NT rows of B. What the next products need is fetched before those of this step.
template <class T, int D, int MT, int NT> DEVICE void multiply(float (&x)[MT][NT][4], u32 a_rows, u32 b_rows) {
  u32 a[2][MT][4], b[2][4];
#pragma unroll
  for (int mt = 0; mt < MT; ++mt) ldmatrix(a[0][mt], a_rows + mt * 32 * D);
  ldmatrix(b[0], b_rows);
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
#pragma unroll
    for (int n = 0; n < NT; n += 2) {
      u32(&here)[4] = b[(k * NT + n) / 2 % 2], (&next)[4] = b[((k * NT + n) / 2 + 1) % 2];
      if (n + 2 < NT) {
        ldmatrix(next, along<D>(b_rows, 2 * k) + (n + 2) * 16 * D);
      } else if (k + 1 < D / 16) {
        ldmatrix(next, along<D>(b_rows, 2 * k + 2));
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) ldmatrix(a[(k + 1) % 2][mt], along<D>(a_rows, 2 * k + 2) + mt * 32 * D);
      }
#pragma unroll
      for (int mt = 0; mt < MT; ++mt) {
        mma(x[mt][n], a[k % 2][mt], here, T());
        mma(x[mt][n + 1], a[k % 2][mt], here + 2, T());
      }
    }
  }
}

// What a product left in its accumulators, rounded to storage, as the left operand of the next.
template <class T, int NT> DEVICE void pack_operands(u32 (&w)[NT / 2][4], const float (&x)[NT][4]) {
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    w[n / 2][n % 2 * 2] = pack(x[n][0], x[n][1], T());
    w[n / 2][n % 2 * 2 + 1] = pack(x[n][2], x[n][3], T());
  }
}

// out += W B for 16 MT rows of W and `OUT` columns of 16 KT rows of B, fetched ahead as above.
template <class T, int D, int MT, int KT, int OUT>
DEVICE void accumulate(float (&out)[MT][OUT / 8][4], const u32 (&w)[MT][KT][4], u32 b_rows) {
  u32 b[2][4];
  ldmatrix_transposed(b[0], b_rows);
#pragma unroll
  for (int k = 0; k < KT; ++k) {
#pragma unroll
    for (int n = 0; n < OUT / 8; n += 2) {
      u32(&here)[4] = b[(k * OUT / 8 + n) / 2 % 2], (&next)[4] = b[((k * OUT / 8 + n) / 2 + 1) % 2];
      if (n + 2 < OUT / 8) {
        ldmatrix_transposed(next, along<D>(b_rows, n + 2) + k * 32 * D);
      } else if (k + 1 < KT) {
        ldmatrix_transposed(next, b_rows + (k + 1) * 32 * D);
      }
#pragma unroll
      for (int mt = 0; mt < MT; ++mt) {
        mma(out[mt][n], w[mt][k], here, T());
        mma(out[mt][n + 1], w[mt][k], here + 2, T());
      }
    }
  }
}

}  // namespace attention
