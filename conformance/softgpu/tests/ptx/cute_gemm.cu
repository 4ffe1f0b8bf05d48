// C = A Bᵀ for A of M by K and B of N by K, f16, rows first, summed in f32: tiles, layouts, swizzles and fragments are
// CuTe's, none of them ours. M and N are multiples of 64, K of 32. CuTe is part of CUTLASS (BSD-3-Clause, see
// cute_gemm.license); this file needs its headers, cute_gemm.ptx nothing.
#include <cute/tensor.hpp>

using namespace cute;
using Half = cutlass::half_t;

extern "C" __global__ void __launch_bounds__(128)
cute_gemm(const Half* a, const Half* b, float* c, int m, int n, int k) {
  const Tensor ga = make_tensor(make_gmem_ptr(a), make_shape(m, k), make_stride(k, Int<1>{}));
  const Tensor gb = make_tensor(make_gmem_ptr(b), make_shape(n, k), make_stride(k, Int<1>{}));
  Tensor gc = make_tensor(make_gmem_ptr(c), make_shape(m, n), make_stride(n, Int<1>{}));
  const Tensor a_tiles = local_tile(ga, make_shape(Int<64>{}, Int<32>{}), make_coord(blockIdx.x, _));
  const Tensor b_tiles = local_tile(gb, make_shape(Int<64>{}, Int<32>{}), make_coord(blockIdx.y, _));
  Tensor c_tile = local_tile(gc, make_shape(Int<64>{}, Int<64>{}), make_coord(blockIdx.x, blockIdx.y));

  // Two stages of 64 by 32, swizzled so that neither copies nor ldmatrix meet in a bank.
  const auto atom = composition(Swizzle<2, 3, 3>{}, Layout<Shape<_8, _32>, Stride<_32, _1>>{});
  const auto layout = tile_to_shape(atom, make_shape(Int<64>{}, Int<32>{}, Int<2>{}));
  __shared__ alignas(128) Half a_shared[cosize_v<decltype(layout)>], b_shared[cosize_v<decltype(layout)>];
  Tensor sa = make_tensor(make_smem_ptr(a_shared), layout), sb = make_tensor(make_smem_ptr(b_shared), layout);

  const auto copier = make_tiled_copy(Copy_Atom<SM80_CP_ASYNC_CACHEGLOBAL<uint128_t>, Half>{},
                                      Layout<Shape<_32, _4>, Stride<_4, _1>>{}, Layout<Shape<_1, _8>>{});
  const auto mine = copier.get_slice(threadIdx.x);
  const Tensor a_from = mine.partition_S(a_tiles), b_from = mine.partition_S(b_tiles);
  Tensor a_to = mine.partition_D(sa), b_to = mine.partition_D(sb);

  TiledMMA<MMA_Atom<SM80_16x8x16_F32F16F16F32_TN>, Layout<Shape<_2, _2, _1>>, Tile<_32, _32, _16>> mma;
  const auto thread = mma.get_slice(threadIdx.x);
  Tensor fa = thread.partition_fragment_A(sa(_, _, 0));
  Tensor fb = thread.partition_fragment_B(sb(_, _, 0));
  Tensor sum = thread.partition_fragment_C(c_tile);
  clear(sum);
  const auto a_loader = make_tiled_copy_A(Copy_Atom<SM75_U32x4_LDSM_N, Half>{}, mma);
  const auto b_loader = make_tiled_copy_B(Copy_Atom<SM75_U32x4_LDSM_N, Half>{}, mma);
  const Tensor a_rows = a_loader.get_slice(threadIdx.x).partition_S(sa);
  const Tensor b_rows = b_loader.get_slice(threadIdx.x).partition_S(sb);
  Tensor a_view = a_loader.get_slice(threadIdx.x).retile_D(fa);
  Tensor b_view = b_loader.get_slice(threadIdx.x).retile_D(fb);

  const int tiles = k / 32;
  copy(copier, a_from(_, _, _, 0), a_to(_, _, _, 0));
  copy(copier, b_from(_, _, _, 0), b_to(_, _, _, 0));
  cp_async_fence();
  for (int t = 0; t < tiles; ++t) {
    if (t + 1 < tiles) {
      copy(copier, a_from(_, _, _, t + 1), a_to(_, _, _, (t + 1) % 2));
      copy(copier, b_from(_, _, _, t + 1), b_to(_, _, _, (t + 1) % 2));
    }
    cp_async_fence();
    cp_async_wait<1>();
    __syncthreads();
    copy(a_loader, a_rows(_, _, _, t % 2), a_view);
    copy(b_loader, b_rows(_, _, _, t % 2), b_view);
    gemm(mma, fa, fb, sum);
    __syncthreads();
  }
  Tensor c_mine = thread.partition_C(c_tile);
  copy(sum, c_mine);
}
