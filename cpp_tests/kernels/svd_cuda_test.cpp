// SPDX-License-Identifier: Apache-2.0
// svd's own CUDA kernels against the CPU's: bits where there is one right answer, else to the
// rounding of sums.
#include "kernels/svd/svd_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/svd/svd_math.h"

namespace qvlmem {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

class SvdCudaTest : public CudaTest {};

std::vector<float> normal_values(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

SvdScan scan_on_device(const std::vector<uint8_t>& x, DType dtype, int64_t n, size_t shift = 0) {
  DeviceBytes values(x.data(), n * dtype_bytes(dtype), shift * dtype_bytes(dtype));
  DeviceBytes workspace(svd_scan_workspace_bytes(n)), scan(sizeof(SvdScan));
  EXPECT_EQ(svd_scan_cuda(values.data(), dtype, n, scan.as<SvdScan>(), workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return scan.read<SvdScan>()[0];
}

TEST_F(SvdCudaTest, ScansAsTheCpuDoes) {
  for (const DType dtype : kDTypes) {
    for (const int64_t n : {0, 1, 7, 16, 255, 4304, 16384, 100003}) {
      const auto x = as_dtype(normal_values(n, 7), dtype);
      const SvdScan expected = svd_scan_cpu(x.data(), dtype, n);
      const SvdScan got = scan_on_device(x, dtype, n);
      EXPECT_NEAR(got.sum_squares, expected.sum_squares, 1e-13 * expected.sum_squares) << n;
      EXPECT_EQ(got.magnitude_bits, expected.magnitude_bits) << n;
      const SvdScan shifted = scan_on_device(x, dtype, n, 1);
      EXPECT_EQ(shifted.sum_squares, got.sum_squares);
      EXPECT_EQ(shifted.magnitude_bits, got.magnitude_bits);
    }
  }
}

// More than the blocks take at once.
TEST_F(SvdCudaTest, ScansManyElements) {
  const int64_t n = (int64_t{1} << 22) + 3;
  std::vector<float> values(n, 0.5f);
  values[n - 1] = -3.0f;
  const SvdScan got = scan_on_device(as_dtype(values, DType::kBFloat16), DType::kBFloat16, n);
  EXPECT_EQ(got.sum_squares, 0.25 * static_cast<double>(n - 1) + 9);
  EXPECT_EQ(got.magnitude_bits, float_to_bits(3.0f));
}

TEST_F(SvdCudaTest, AnyPlaceOfOneNonFiniteValueIsSeen) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : kDTypes) {
    for (const float bad : {kInf, -kInf, kNan, -kNan}) {
      for (const int64_t at : {0, 1, 8, 1023, 16384, 19999}) {
        std::vector<float> values = normal_values(20000, 1);
        values[at] = bad;
        EXPECT_FALSE(svd_scan_is_finite(scan_on_device(as_dtype(values, dtype), dtype, 20000)));
      }
    }
  }
}

TEST_F(SvdCudaTest, ExtremesNeitherOverflowNorVanish) {
  const std::vector<uint8_t> huge = as_dtype(std::vector<float>(33, kFloat32Max), DType::kFloat32);
  const std::vector<uint8_t> tiny = as_dtype(std::vector<float>(33, 0x1p-149f), DType::kFloat32);
  const double max = kFloat32Max;
  EXPECT_DOUBLE_EQ(scan_on_device(huge, DType::kFloat32, 33).sum_squares, 33 * max * max);
  const SvdScan scan = scan_on_device(tiny, DType::kFloat32, 33);
  EXPECT_DOUBLE_EQ(scan.sum_squares, 33 * 0x1p-298);
  EXPECT_EQ(scan.magnitude_bits, 1u);
}

TEST_F(SvdCudaTest, GivesTheSignsOfTheCpu) {
  for (const int64_t n : {0, 1, 4, 31, 127, 130, 5003}) {
    std::vector<float> expected(n);
    svd_random_signs(uint64_t{1} << 40, 7, 0, n, expected.data());
    DeviceBytes signs(n * sizeof(float));
    EXPECT_EQ(svd_random_signs_cuda(uint64_t{1} << 40, 7, n, signs.as<float>(), nullptr),
              cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(signs.read<float>(), expected) << n;
  }
}

// 2^32 + 1 blocks are no launch of one.
TEST_F(SvdCudaTest, RefusesMoreElementsThanAGridHas) {
  DeviceBytes signs(4096);
  EXPECT_EQ(
      svd_random_signs_cuda(1, 7, ((int64_t{1} << 32) + 1) * 1024, signs.as<float>(), nullptr),
      cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

// u v with u and v columns of one row, through the kernels around the product.
class Factors {
 public:
  Factors(const std::vector<float>& u, const std::vector<float>& v, DType dtype)
      : dtype_(dtype),
        rank_(static_cast<int64_t>(u.size())),
        u_(as_dtype(u, dtype)),
        v_(as_dtype(v, dtype)),
        u_scan_(sizeof(SvdScan)),
        v_scan_(sizeof(SvdScan)) {
    scan(u_, &u_scan_);
    scan(v_, &v_scan_);
  }

  SvdFactorScans scans() { return {u_scan_.as<SvdScan>(), v_scan_.as<SvdScan>(), rank_}; }

  std::vector<float> scaled(bool is_u) {
    const std::vector<uint8_t>& bytes = is_u ? u_ : v_;
    DeviceBytes from(bytes.data(), rank_ * dtype_bytes(dtype_), dtype_bytes(dtype_));
    DeviceBytes to(rank_ * sizeof(float));
    EXPECT_EQ(
        svd_scale_factor_cuda(scans(), is_u, from.data(), dtype_, rank_, to.as<float>(), nullptr),
        cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return to.read<float>();
  }

  std::vector<uint8_t> finish(const std::vector<float>& product, DType dtype, bool in_place) {
    const size_t bytes = product.size() * dtype_bytes(dtype);
    DeviceBytes from(product.data(), product.size() * sizeof(float)), to(bytes);
    void* const y = in_place ? from.data() : to.data();
    EXPECT_EQ(svd_finish_product_cuda(scans(), from.as<float>(),
                                      static_cast<int64_t>(product.size()), y, dtype, nullptr),
              cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return in_place ? from.read<uint8_t>() : to.read<uint8_t>();
  }

  // The product of all, as `dtype`.
  float multiply(DType dtype) {
    const std::vector<float> u = scaled(true), v = scaled(false);
    float sum = 0;
    for (size_t k = 0; k < u.size(); ++k) {
      sum += u[k] * v[k];
      EXPECT_TRUE(std::isfinite(sum)) << "a partial sum overflows";
    }
    const std::vector<uint8_t> y = finish({sum}, dtype, false);
    if (dtype == DType::kFloat32) {
      EXPECT_EQ(finish({sum}, dtype, true), y);
    }
    return value_at(y, dtype, 0);
  }

 private:
  void scan(const std::vector<uint8_t>& x, DeviceBytes* scan) {
    DeviceBytes values(x.data(), rank_ * dtype_bytes(dtype_));
    DeviceBytes workspace(svd_scan_workspace_bytes(rank_));
    EXPECT_EQ(
        svd_scan_cuda(values.data(), dtype_, rank_, scan->as<SvdScan>(), workspace.data(), nullptr),
        cudaSuccess);
  }

  DType dtype_;
  int64_t rank_;
  std::vector<uint8_t> u_, v_;
  DeviceBytes u_scan_, v_scan_;
};

TEST_F(SvdCudaTest, LeavesFactorsThatFitAsTheyAre) {
  for (const DType dtype : kDTypes) {
    const std::vector<float> u = normal_values(1003, 1), v = normal_values(1003, 2);
    Factors factors(u, v, dtype);
    const auto bytes = as_dtype(u, dtype);
    const std::vector<float> scaled = factors.scaled(true);
    for (size_t k = 0; k < u.size(); ++k) ASSERT_EQ(scaled[k], value_at(bytes, dtype, k));
    const std::vector<float> product = {1.5f, -70000.0f, 0x1p-149f, -0.0f, 3e38f};
    for (const DType out : kDTypes) {
      const auto y = factors.finish(product, out, false);
      const float limit = out == DType::kFloat16 ? kFloat16Max : kFloat32Max;
      const auto expected = as_dtype(
          {1.5f, std::fmax(-70000.0f, -limit), 0x1p-149f, -0.0f, std::fmin(3e38f, limit)}, out);
      for (size_t k = 0; k < product.size(); ++k) {
        EXPECT_EQ(value_at(y, out, k), value_at(expected, out, k));
        EXPECT_EQ(std::signbit(value_at(y, out, k)), std::signbit(value_at(expected, out, k)));
      }
    }
  }
}

TEST_F(SvdCudaTest, FiniteFactorsGiveFiniteProducts) {
  const float max = kFloat32Max;
  EXPECT_EQ(Factors({max, max}, {1, 1}, DType::kFloat32).multiply(DType::kFloat32), max);
  EXPECT_EQ(Factors({max, max}, {-max, -max}, DType::kFloat32).multiply(DType::kFloat32), -max);
  EXPECT_EQ(Factors({max, max}, {max, 0}, DType::kFloat32).multiply(DType::kFloat16), kFloat16Max);
  EXPECT_EQ(Factors({3e38f, 3e38f}, {-1, -1}, DType::kBFloat16).multiply(DType::kBFloat16),
            -kBFloat16Max);
  // Sums whose parts overflow where they do not.
  EXPECT_EQ(Factors({3e38f, 3e38f, -3e38f, -3e38f}, {1, 1, 1, 1}, DType::kFloat32)
                .multiply(DType::kFloat32),
            0.0f);
  EXPECT_EQ(Factors({max, max, -max}, {1, 1, 1}, DType::kFloat32).multiply(DType::kFloat32), max);
  EXPECT_EQ(
      Factors({0x1p120f, -0x1p100f}, {0x1p8f, 0x1p27f}, DType::kFloat32).multiply(DType::kFloat32),
      0x1p127f);
}

TEST_F(SvdCudaTest, FactorsThatAreNotFiniteKeepWhatComesOfThem) {
  Factors factors({INFINITY, 1}, {1, 1}, DType::kFloat32);
  EXPECT_EQ(factors.scaled(true)[0], INFINITY);
  for (const DType out : kDTypes) {
    const auto y = factors.finish({INFINITY, NAN, 1e6f}, out, false);
    EXPECT_EQ(value_at(y, out, 0), INFINITY);
    EXPECT_TRUE(std::isnan(value_at(y, out, 1)));
    EXPECT_EQ(std::isinf(value_at(y, out, 2)), out == DType::kFloat16);
  }
}

}  // namespace
}  // namespace qvlmem
