// SPDX-License-Identifier: Apache-2.0
// Uses the installed library through its public headers alone. Exit code 0: all of it held.
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <qvlmem/qvlmem.h>

#include <cstdio>
#include <string>

namespace {

int failures = 0;

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "not true: %s\n", what);
  ++failures;
}

}  // namespace

int main() {
  check(std::string(QVLMEM_VERSION) == EXPECTED_VERSION, "header and package have one version");

  const at::Tensor x = at::randn({5, 72});
  qvlmem::configure("max_error:0.02");
  qvlmem::CompressOptions options;
  options.max_error = 0.02;
  options.bound = qvlmem::Bound::kRow;
  const qvlmem::CompressedTensorPtr c = qvlmem::compress(x, "auto", options);
  check(c->worst_row_error() <= 0.02, "auto holds its bound");
  check(c->nbytes() < c->original_nbytes(), "auto makes it smaller");

  const qvlmem::CompressedTensorPtr back = qvlmem::unpack(qvlmem::pack(c));
  check(back->method() == c->method(), "a frame keeps the method");
  check(at::equal(qvlmem::decompress(back), qvlmem::decompress(c)), "a frame keeps the values");

  const auto [q, scale, zero_point] = qvlmem::quantize(x, 4, false, 32);
  const at::Tensor y = qvlmem::dequantize(q, scale, zero_point, x.sizes(), 4, 32, at::kBFloat16);
  check(y.scalar_type() == at::kBFloat16 && y.sizes() == x.sizes(),
        "dequantize gives what it says");
  check(at::allclose(y.to(at::kFloat), x, 0.1, 0.3), "4 bits are near the original");

  const auto [half, half_scale] = qvlmem::to_fp16(x);
  const at::Tensor from_half = qvlmem::from_fp16(half, half_scale);
  check(at::allclose(from_half, x, 0x1p-10, 0.0), "half precision keeps 11 bits");

  const at::Tensor encoded = qvlmem::lossless_encode(x, 2);
  const at::Tensor decoded = qvlmem::lossless_decode(encoded, x.sizes(), x.scalar_type());
  check(at::equal(decoded, x), "lossless keeps every bit");

  const auto [indices, values] = qvlmem::sparsify(x, 0.0, false);
  check(at::equal(qvlmem::densify(indices, values, x.sizes()), x), "what is not zero is kept");

  check(qvlmem::profile(x).at("numel") == 360.0, "the profile counts the elements");
  check(qvlmem::memory_stats().contains("tensors_compressed"), "the statistics have their names");

  try {
    qvlmem::compress(x, "zip");
    check(false, "an unknown method is refused");
  } catch (const c10::ValueError& error) {
    check(std::string(error.what()).find("zip") != std::string::npos, "the error names the method");
  }
  return failures == 0 ? 0 : 1;
}
