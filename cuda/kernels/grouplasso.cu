//! options --fmad=false
//! registers grouplasso_product 128
//! registers grouplasso_keep 128
//! registers 64
// Group lasso. Proximal operators, norms and the choice of the greatest scores have the bits that the crate
// tilewright-grouplasso defines: sums run in the order of the arrays, and nothing is contracted.
#include "compaction.cuh"
#include "prelude.cuh"

// Groups, resolved. Group g has the places starts[g] .. starts[g + 1] (place g, if null) and so the rows members[place] (row
// `place`, if null); each row has `outputs` numbers.
struct Groups {
  const u64* starts;
  const u64* members;
  u64 groups;
  u64 outputs;
};

// A group's block, row after row.
struct Block {
  double* w;
  const u64* members;
  u64 first, rows, outputs;
};

DEVICE Block block_of(const Groups& groups, double* w, u64 g) {
  const u64 first = groups.starts ? groups.starts[g] : g;
  const u64 last = groups.starts ? groups.starts[g + 1] : g + 1;
  return {w, groups.members, first, last - first, groups.outputs};
}

DEVICE double* row_of(const Block& block, u64 j) {
  const u64 place = block.first + j;
  return block.w + (block.members ? block.members[place] : place) * block.outputs;
}

// A norm in the making: the sum of squares, and the greatest magnitude for when that overflows or vanishes.
struct Norm {
  double squares, largest;
};

DEVICE void norm_add(Norm& norm, double x) {
  norm.squares = __dadd_rn(norm.squares, __dmul_rn(x, x));
  const double size = fabs(x);
  if (size > norm.largest) norm.largest = size;
}

DEVICE bool is_nan(double x) { return x != x; }

DEVICE double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }

// Whether the square root of the sum of squares is all there is to it, or else what the norm is without another pass.
DEVICE bool norm_is_plain(const Norm& norm, double* answer) {
  if (norm.squares >= 1e-280 && norm.squares < 1e280) {
    *answer = __dsqrt_rn(norm.squares);
    return true;
  }
  if (is_nan(norm.squares)) {
    *answer = norm.squares;
    return true;
  }
  *answer = norm.largest;
  return norm.largest == 0.0 || norm.largest == infinity();
}

// The greatest power of two that is not above a positive finite number, but between 2^-1000 and 2^1000.
DEVICE double unit_of(double largest) {
  i64 exponent = (__double_as_longlong(largest) >> 52) - 1023;
  exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
  return __longlong_as_double((exponent + 1023) << 52);
}

// S(x, t); t is 0 where nothing is to be shrunk.
DEVICE double soft(double x, double t) {
  if (fabs(x) <= t) return 0.0;
  return __dsub_rn(x, copysign(t, x));
}

// The block's norm; its entries are shrunk by `t` first if `sparse`.
DEVICE double norm_of(const Block& block, bool sparse, double t) {
  Norm norm = {0.0, 0.0};
  for (u64 j = 0; j < block.rows; j++) {
    double* row = row_of(block, j);
    for (u64 k = 0; k < block.outputs; k++) {
      if (sparse) row[k] = soft(row[k], t);
      norm_add(norm, row[k]);
    }
  }
  double answer;
  if (norm_is_plain(norm, &answer)) return answer;
  const double unit = unit_of(norm.largest);
  double squares = 0.0;
  for (u64 j = 0; j < block.rows; j++) {
    const double* row = row_of(block, j);
    for (u64 k = 0; k < block.outputs; k++) {
      const double x = __ddiv_rn(row[k], unit);
      squares = __dadd_rn(squares, __dmul_rn(x, x));
    }
  }
  return __dmul_rn(unit, __dsqrt_rn(squares));
}

// The proximal operator of every group, in place, a group a thread: the order of a sum is part of its definition. `terms`
// has three numbers a group: those of the magnitudes, of the norm, of half its square.
KERNEL grouplasso_prox(const Groups groups, const double* terms, double step, double* w) {
  for (u64 g = FIRST; g < groups.groups; g += STRIDE) {
    const Block block = block_of(groups, w, g);
    const double l1 = terms[3 * g], l2 = terms[3 * g + 1], ridge = terms[3 * g + 2];
    const double size = norm_of(block, l1 > 0.0, __dmul_rn(step, l1)), threshold = __dmul_rn(step, l2);
    const bool zero = size <= threshold;
    const double factor =
        __ddiv_rn(__ddiv_rn(__dsub_rn(size, threshold), size), __dadd_rn(1.0, __dmul_rn(step, ridge)));
    for (u64 j = 0; j < block.rows; j++) {
      double* row = row_of(block, j);
      for (u64 k = 0; k < block.outputs; k++) row[k] = zero ? 0.0 : __dmul_rn(row[k], factor);
    }
  }
}

// The norm of every row.
KERNEL grouplasso_scores(double* w, u64 rows, u64 outputs, double* scores) {
  for (u64 i = FIRST; i < rows; i += STRIDE) scores[i] = norm_of({w, 0, i, 1, outputs}, false, 0.0);
}

// ---- The greatest scores.

// A search among 64-bit keys.
struct Search {
  u64 prefix;  // digits found so far; the key itself at the end
  u64 left;    // rank among those that begin so; at the end, how many that equal the key are kept
};

// An integer that grows with the score; −0 is 0.
DEVICE u64 rank_of(double score) {
  const u64 bits = (u64)__double_as_longlong(__dadd_rn(score, 0.0));
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}

KERNEL grouplasso_digits(const double* scores, u64 n, const Search* search, u32* histogram, u32 shift, u32 bits) {
  __shared__ u32 counts[DIGITS];
  clear_counts(counts);
  const u64 prefix = search->prefix;
  const u32 digit = (1u << bits) - 1u, above = shift + bits;
  for (u64 i = FIRST; i < n; i += STRIDE) {
    const u64 rank = rank_of(scores[i]);
    if (above == 64 || rank >> above == prefix) atomicAdd(counts + ((u32)(rank >> shift) & digit), 1u);
  }
  add_counts(counts, histogram);
}

KERNEL grouplasso_pick(Search* search, u32* histogram, u32 bits) {
  const u64 prefix = search->prefix;
  const Digit digit = pick_digit<2>(histogram, search->left);
  if (digit.mine) {
    search->prefix = prefix << bits | digit.value;
    search->left = digit.left;
  }
}

// The indices of those kept, ascending.
KERNEL grouplasso_keep(const double* scores, u64 n, const Search* search, u64* kept, u64 capacity, u32* tiles,
                       u64* states) {
  __shared__ u32 shared_tile;
  __shared__ Pair warps[WARPS], block;
  const u64 cut = search->prefix, most = search->left;
  const u32 tile = next_tile(tiles, &shared_tile);
  const u64 base = (u64)tile * TILE + warp() * (32u * ROWS) + lane();
  const u32 earlier = (1u << lane()) - 1u;
  u64 ranks[ROWS];
  Pair own = {0, 0};
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    const u64 i = base + r * 32u;
    // No number has rank 0: that would be a NaN.
    ranks[r] = i < n ? rank_of(scores[i]) : 0;
    own.over += __popc(__ballot_sync(ALL, ranks[r] > cut));
    own.ties += __popc(__ballot_sync(ALL, ranks[r] == cut));
  }
  Pair before = before_warp(states, tile, own, warps, &block);
#pragma unroll
  for (u32 r = 0; r < ROWS; r++) {
    const u32 over = __ballot_sync(ALL, ranks[r] > cut), ties = __ballot_sync(ALL, ranks[r] == cut);
    const u64 o = before.over + __popc(over & earlier), t = before.ties + __popc(ties & earlier);
    const u64 at = o + min_u64(t, most);
    if ((ranks[r] > cut || (ranks[r] == cut && t < most)) && at < capacity) kept[at] = base + r * 32u;
    before.over += __popc(over);
    before.ties += __popc(ties);
  }
}

// ---- The solver's arithmetic, in f64 on columns of f32 or f64.

// Columns of X, one after the other, `samples` numbers each: (x − mean) / scale stands for x.
struct Columns {
  const void* x;
  const double* mean;
  const double* scale;
  const u64* features;  // the column of each row of W; null if it is the row itself
  u64 samples, rows, outputs;
  u32 wide;  // whether they are f64
  u32 transposed;
};

#define SIDE 64u
#define DEPTH 16u

DEVICE double entry(const Columns& c, u64 sample, u64 row) {
  const u64 feature = c.features ? c.features[row] : row, at = feature * c.samples + sample;
  const double x = c.wide ? ((const double*)c.x)[at] : (double)((const float*)c.x)[at];
  return __ddiv_rn(__dsub_rn(x, c.mean[feature]), c.scale[feature]);
}

// X W (samples by outputs, from rows by outputs), or Xᵀ R (rows by outputs, from samples by outputs). Blocks of 16 by 16
// threads make a square of 64 by 64, each thread 4 by 4 of it; the sum over the inner dimension is in its order.
KERNEL grouplasso_product(const Columns c, const double* right, double* product) {
  __shared__ double a[DEPTH][SIDE + 1], b[DEPTH][SIDE + 1];
  const u64 height = c.transposed ? c.rows : c.samples, depth = c.transposed ? c.samples : c.rows;
  const u64 top = (u64)blockIdx.x * SIDE, from = (u64)blockIdx.y * SIDE;
  const u32 x = threadIdx.x & 15u, y = threadIdx.x >> 4;
  double sum[4][4] = {};
  for (u64 inner = 0; inner < depth; inner += DEPTH) {
    bool some = false;
    for (u32 e = threadIdx.x; e < DEPTH * SIDE; e += 256u) {
      const u32 d = e / SIDE, k = e % SIDE;
      const bool inside = inner + d < depth && from + k < c.outputs;
      const double value = inside ? right[(inner + d) * c.outputs + from + k] : 0.0;
      b[d][k] = value;
      some |= value != 0.0;
    }
    // Most rows of W are zero: then there is nothing to add, and nothing of X to read.
    if (!__syncthreads_or(some)) continue;
    for (u32 e = threadIdx.x; e < DEPTH * SIDE; e += 256u) {
      // Neighbouring threads read neighbouring samples.
      const u32 d = c.transposed ? e % DEPTH : e / SIDE, k = c.transposed ? e / DEPTH : e % SIDE;
      const bool inside = inner + d < depth && top + k < height;
      double value = 0.0;
      if (inside) value = c.transposed ? entry(c, inner + d, top + k) : entry(c, top + k, inner + d);
      a[d][k] = value;
    }
    __syncthreads();
    for (u32 d = 0; d < DEPTH; d++) {
#pragma unroll
      for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) sum[i][j] = fma(a[d][y + 16u * i], b[d][x + 16u * j], sum[i][j]);
    }
    __syncthreads();
  }
  for (u32 i = 0; i < 4; i++)
    for (u32 j = 0; j < 4; j++) {
      const u64 row = top + y + 16u * i, column = from + x + 16u * j;
      if (row < height && column < c.outputs) product[row * c.outputs + column] = sum[i][j];
    }
}

// to = a + factor · b
KERNEL grouplasso_axpy(double* to, const double* a, const double* b, double factor, u64 n) {
  for (u64 i = FIRST; i < n; i += STRIDE) to[i] = fma(factor, b[i], a[i]);
}

// Partial sums of a block: ⟨u, p − v⟩, ‖p − v‖² and ⟨v − p, p − w⟩, for downhill u, the step's result p, its origin v and the
// iterate before it, w.
KERNEL grouplasso_dots(const double* u, const double* p, const double* v, const double* w, u64 n, double* sums) {
  __shared__ double parts[3][256];
  double along = 0.0, squares = 0.0, turn = 0.0;
  for (u64 i = FIRST; i < n; i += STRIDE) {
    const double moved = p[i] - v[i];
    along = fma(u[i], moved, along);
    squares = fma(moved, moved, squares);
    turn = fma(-moved, p[i] - w[i], turn);
  }
  parts[0][threadIdx.x] = along;
  parts[1][threadIdx.x] = squares;
  parts[2][threadIdx.x] = turn;
  for (u32 half = 128; half; half >>= 1) {
    __syncthreads();
    if (threadIdx.x < half)
      for (u32 s = 0; s < 3; s++) parts[s][threadIdx.x] += parts[s][threadIdx.x + half];
  }
  __syncthreads();
  if (threadIdx.x < 3) sums[3 * blockIdx.x + threadIdx.x] = parts[threadIdx.x][0];
}

// v = p + factor · (p − w), then w = p.
KERNEL grouplasso_extrapolate(double* v, double* w, const double* p, double factor, u64 n) {
  for (u64 i = FIRST; i < n; i += STRIDE) {
    v[i] = fma(factor, p[i] - w[i], p[i]);
    w[i] = p[i];
  }
}
