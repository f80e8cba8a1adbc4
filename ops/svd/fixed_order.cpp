// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/fixed_order.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/base/checked.h"
#include "kernels/base/float_bits.h"
#include "ops/base/check.h"
#include "ops/base/parallel.h"
#include "ops/svd/blas_view.h"

// Fortran BLAS, as PyTorch's CPU library exports it (32-bit sizes).
extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*,
            const float*, const int*, const float*, const int*, const float*, float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*,
            const double*, const int*, const double*, const int*, const double*, double*,
            const int*);
void dsyevd_(const char*, const char*, const int*, double*, const int*, double*, double*,
             const int*, int*, const int*, int*);
// Of MKL, where that is PyTorch's BLAS.
int MKL_Set_Num_Threads_Local(int) __attribute__((weak));
}

namespace qvlmem::ops {
namespace {

constexpr int64_t kTile = kProductTile;  // a tile's flops hide the packing of its operands
constexpr int64_t kGramTile = 64;  // of Gram matrices, which are small: enough tiles for threads
constexpr int64_t kThreadFlops = int64_t{1} << 21;  // some 30 microseconds
constexpr int64_t kScanPiece = int64_t{1} << 16;    // elements that are summed at a time
constexpr int64_t kSignsGrain = int64_t{1} << 15;   // below which waking a thread costs more
constexpr int64_t kGramDepth = 512;  // columns converted to float64 at a time; stays in L2

void gemm(char ta, char tb, int m, int n, int k, double alpha, const float* a, int lda,
          const float* b, int ldb, double beta, float* c, int ldc) {
  const float alpha32 = static_cast<float>(alpha), beta32 = static_cast<float>(beta);
  sgemm_(&ta, &tb, &m, &n, &k, &alpha32, a, &lda, b, &ldb, &beta32, c, &ldc);
}

void gemm(char ta, char tb, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc) {
  dgemm_(&ta, &tb, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
}

// Has the BLAS and LAPACK calls of this thread run on it alone. MKL's default cuts the work, and so
// the sums, for as many threads as there may be, even inside a parallel region.
class OneThread {
 public:
  OneThread() {
    if (MKL_Set_Num_Threads_Local) before_ = MKL_Set_Num_Threads_Local(1);
  }
  ~OneThread() {
    if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = 0;
};

// Runs task(i), of about `flops` each, for i in [0, count), each on one thread; in parallel where
// that is worth waking threads.
template <class F>
void for_each_on_one_thread(int64_t count, int64_t flops, const F& task) {
  const int64_t grain = ceil_div(kThreadFlops, std::max<int64_t>(flops, 1));
  parallel_units(count, grain, [&](int64_t begin, int64_t end) {
    const OneThread one_thread;
    for (int64_t i = begin; i < end; ++i) task(i);
  });
}

template <class T>
void multiply_tiles(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
                    double beta) {
  const BlasView<T> left(a), right(b);
  T* const result = out.mutable_data_ptr<T>();
  const int64_t m = a.size(0), n = b.size(1), k = a.size(1), ldo = out.stride(0);
  const int64_t tile_cols = ceil_div(n, kTile);
  const int64_t flops = 2 * k * std::min(m, kTile) * std::min(n, kTile);
  for_each_on_one_thread(ceil_div(m, kTile) * tile_cols, flops, [&](int64_t tile) {
    const int64_t row = tile / tile_cols * kTile, col = tile % tile_cols * kTile;
    // BLAS counts by columns: it sees out^T = b^T a^T.
    gemm(right.row_major ? 'N' : 'T', left.row_major ? 'N' : 'T',
         static_cast<int>(std::min(kTile, n - col)), static_cast<int>(std::min(kTile, m - row)),
         static_cast<int>(k), alpha, right.at(0, col), static_cast<int>(right.leading),
         left.at(row, 0), static_cast<int>(left.leading), beta, result + row * ldo + col,
         static_cast<int>(std::max(ldo, n)));
  });
}

// Rows [row, row + rows) and columns [col, col + cols) of y as float64 in `into`, rows kGramDepth
// apart. A cache line of each row at a time: what stands by columns is then read in runs too.
template <class T>
void load_rows(const BlasView<T>& y, int64_t row, int64_t rows, int64_t col, int64_t cols,
               double* into) {
  const int64_t row_step = y.row_major ? 1 : y.leading;
  const int64_t run = y.row_major ? cols : 8;
  for (int64_t begin = 0; begin < cols; begin += run) {
    const int64_t end = std::min(begin + run, cols);
    for (int64_t i = 0; i < rows; ++i) {
      const T* const from = y.at(row + i, col);
      double* const to = into + i * kGramDepth;
      for (int64_t j = begin; j < end; ++j) to[j] = static_cast<double>(from[j * row_step]);
    }
  }
}

template <class T>
void gram_tiles(const at::Tensor& y, at::Tensor& out) {
  const BlasView<T> values(y);
  double* const result = out.mutable_data_ptr<double>();
  const int64_t l = y.size(0), k = y.size(1);
  // (row, col) of the tiles on and below the diagonal: work for each thread alike.
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t row = 0; row < l; row += kGramTile) {
    for (int64_t col = 0; col <= row; col += kGramTile) tiles.emplace_back(row, col);
  }
  const int64_t flops = 2 * k * std::min(l, kGramTile) * std::min(l, kGramTile);
  for_each_on_one_thread(static_cast<int64_t>(tiles.size()), flops, [&](int64_t tile) {
    const auto [row, col] = tiles[tile];
    const int64_t rows = std::min(kGramTile, l - row), cols = std::min(kGramTile, l - col);
    std::vector<double> buffer(2 * kGramTile * kGramDepth);
    double* const left = buffer.data();
    double* const right = col == row ? left : left + kGramTile * kGramDepth;
    for (int64_t begin = 0; begin < k; begin += kGramDepth) {
      const int64_t depth = std::min(kGramDepth, k - begin);
      load_rows(values, row, rows, begin, depth, left);
      if (right != left) load_rows(values, col, cols, begin, depth, right);
      gemm('T', 'N', static_cast<int>(cols), static_cast<int>(rows), static_cast<int>(depth), 1.0,
           right, kGramDepth, left, kGramDepth, begin == 0 ? 0.0 : 1.0, result + row * l + col,
           static_cast<int>(l));
    }
  });
}

// Fills the upper triangle of a [n, n] from the lower one, in blocks that stay in L1.
void mirror_lower(double* a, int64_t n) {
  constexpr int64_t kBlock = 32;
  for (int64_t row = 0; row < n; row += kBlock) {
    for (int64_t col = 0; col <= row; col += kBlock) {
      for (int64_t i = row; i < std::min(row + kBlock, n); ++i) {
        for (int64_t j = col; j < std::min(col + kBlock, i); ++j) a[j * n + i] = a[i * n + j];
      }
    }
  }
}

// Eight partial sums, so that additions need not wait for one another.
template <class T>
double sum_squares(const T* x, int64_t n) {
  double sums[8] = {};
  for (int64_t i = 0; i < n; ++i) sums[i % 8] += static_cast<double>(x[i]) * x[i];
  return std::accumulate(sums, sums + 8, 0.0);
}

}  // namespace

void FixedOrder::gemm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
                      double beta) {
  if (out.scalar_type() == at::kDouble) {
    multiply_tiles<double>(out, a, b, alpha, beta);
  } else {
    multiply_tiles<float>(out, a, b, alpha, beta);
  }
}

at::Tensor FixedOrder::gram(const at::Tensor& y) {
  at::Tensor out = at::zeros({y.size(0), y.size(0)}, y.options().dtype(at::kDouble));
  if (y.scalar_type() == at::kDouble) {
    gram_tiles<double>(y, out);
  } else {
    gram_tiles<float>(y, out);
  }
  return out;
}

// LAPACK's lower triangle of columns is the upper one of rows.
Eigen FixedOrder::eigen_descending(at::Tensor symmetric) {
  const int n = static_cast<int>(symmetric.size(0));
  at::Tensor values = at::empty({n}, at::kDouble);
  if (n == 0) return {values, symmetric};
  double* const a = symmetric.mutable_data_ptr<double>();
  mirror_lower(a, n);
  const OneThread one_thread;
  double* const found = values.mutable_data_ptr<double>();
  double work_size = 0;
  int info = 0, int_size = 0;
  const int query = -1;
  dsyevd_("V", "L", &n, a, &n, found, &work_size, &query, &int_size, &query, &info);
  TORCH_CHECK_VALUE(work_size <= std::numeric_limits<int>::max(),
                    "qvlmem::svd: expected at most 32766 directions, which is what LAPACK solves "
                    "for, got ",
                    n);
  const int count = static_cast<int>(work_size);
  const at::Tensor work = at::empty({count}, at::kDouble);
  std::vector<int> ints(int_size);
  dsyevd_("V", "L", &n, a, &n, found, work.mutable_data_ptr<double>(), &count, ints.data(),
          &int_size, &info);
  TORCH_CHECK(info == 0, "qvlmem::svd: an eigenproblem was not solved");
  return {values.flip(0), symmetric};
}

at::Tensor FixedOrder::energy(const at::Tensor& y) {
  std::vector<double> rows(y.size(0));
  for_each_on_one_thread(y.size(0), 16 * y.size(1), [&](int64_t row) {
    rows[row] = y.scalar_type() == at::kDouble
                    ? sum_squares(y.const_data_ptr<double>() + row * y.stride(0), y.size(1))
                    : sum_squares(y.const_data_ptr<float>() + row * y.stride(0), y.size(1));
  });
  return at::scalar_tensor(std::accumulate(rows.begin(), rows.end(), 0.0), at::kDouble);
}

at::Tensor FixedOrder::random_signs(uint64_t seed, uint16_t stream, int64_t rows, int64_t cols) {
  at::Tensor signs = at::empty({rows, cols}, at::kFloat);
  float* const first = signs.mutable_data_ptr<float>();
  parallel_units(rows, ceil_div(kSignsGrain, std::max<int64_t>(cols, 1)),
                 [&](int64_t begin, int64_t end) {
                   svd_random_signs(seed, stream, begin * cols, end * cols, first + begin * cols);
                 });
  return signs;
}

SvdScan svd_scan_in_order(const at::Tensor& x) {
  const DType dtype = kernel_dtype("svd", x.scalar_type());
  const char* const data = static_cast<const char*>(x.const_data_ptr());
  const int64_t numel = x.numel();
  std::vector<SvdScan> pieces(ceil_div(numel, kScanPiece));
  parallel_units(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kScanPiece;
      pieces[i] = svd_scan_cpu(data + first * dtype_bytes(dtype), dtype,
                               std::min(kScanPiece, numel - first));
    }
  });
  SvdScan total;
  for (const SvdScan& piece : pieces) {
    total.sum_squares += piece.sum_squares;
    total.magnitude_bits = std::max(total.magnitude_bits, piece.magnitude_bits);
  }
  return total;
}

at::Tensor FixedOrder::scan(const at::Tensor& x) {
  const SvdScan found = svd_scan_in_order(x);
  at::Tensor values = at::empty({2}, at::kDouble);
  double* const first = values.mutable_data_ptr<double>();
  first[0] = found.sum_squares;
  first[1] = static_cast<double>(bits_to_float(found.magnitude_bits));
  return values;
}

std::vector<double> FixedOrder::read(const std::vector<at::Tensor>& values) {
  std::vector<double> all;
  for (const at::Tensor& each : values) {
    const at::Tensor dense = each.contiguous();
    const double* const first = dense.const_data_ptr<double>();
    all.insert(all.end(), first, first + dense.numel());
  }
  return all;
}

std::unique_ptr<SvdDevice> svd_device_cpu(const at::Tensor&) {
  return std::make_unique<FixedOrder>();
}

}  // namespace qvlmem::ops
