// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"

namespace qvlmem {
namespace {

CompressOptions bounded_by(Bound bound, double max_error) {
  CompressOptions options;
  options.bound = bound;
  options.max_error = max_error;
  return options;
}

constexpr Bound kBounds[] = {Bound::kTensor, Bound::kRow, Bound::kElement};

// Values within one unit, rows that share units, a row that is searched in pieces, and one long
// enough to be searched on samples first.
std::vector<at::Tensor> examples() {
  at::manual_seed(5);
  at::Tensor outliers = at::randn({4099, 129});
  outliers.slice(1, 0, 1).mul_(300);
  at::Tensor zeros = at::randn({3, 40000});
  zeros[1].zero_();
  return {at::randn({77}), outliers, zeros, at::randn({2, 300000}).pow(3),
          at::randn({700, 700}).to(at::kBFloat16)};
}

// Each block of 32 has a scale of its own, which widths follow and one table cannot.
at::Tensor uneven() {
  const at::Tensor scale = at::randint(-10, 1, {90, 4, 1}).to(at::kFloat).exp2();
  return (at::randn({90, 4, 32}) * scale).reshape({90, 128});
}

bool equal_parts(const CompressedTensorPtr& a, const CompressedTensorPtr& b) {
  for (size_t i = 0; i < a->parts().size(); ++i) {
    if (!at::equal(a->parts()[i], b->parts()[i])) return false;
  }
  return a->parts().size() == b->parts().size();
}

TEST(BoundedOpsTest, HoldsItsBoundAndComesNearIt) {
  for (const at::Tensor& x : examples()) {
    for (const Bound bound : kBounds) {
      for (const double max_error : {0.3, 0.01, 1e-3}) {
        const auto c = compress(x, "bounded", bounded_by(bound, max_error));
        const double error = error_within(bound, c->error());
        EXPECT_LE(error, max_error);
        // With 16 bits the largest error moves in leaps.
        EXPECT_GE(error, (x.scalar_type() == at::kFloat ? 0.9 : 0.5) * max_error);
      }
    }
  }
}

TEST(BoundedOpsTest, ThreadsDoNotMatter) {
  const int before = at::get_num_threads();
  for (const at::Tensor& x : examples()) {
    for (const Bound bound : kBounds) {
      at::set_num_threads(1);
      const auto one = compress(x, "bounded", bounded_by(bound, 0.01));
      const at::Tensor y = one->decompress();
      at::set_num_threads(2);
      const auto two = compress(x, "bounded", bounded_by(bound, 0.01));
      EXPECT_TRUE(equal_parts(one, two));
      EXPECT_TRUE(at::equal(y, two->decompress()));
    }
  }
  at::set_num_threads(before);
}

TEST(BoundedOpsTest, StridesDoNotMatter) {
  at::manual_seed(6);
  const at::Tensor base = at::randn({6, 40, 72});
  for (const at::Tensor& x : {base.transpose(0, 2), base.slice(1, 3, 30, 2), base.narrow(2, 1, 71),
                              base[0][0].expand({3, 72})}) {
    const auto c = compress(x, "bounded", bounded_by(Bound::kRow, 0.01));
    EXPECT_TRUE(equal_parts(c, compress(x.clone(), "bounded", bounded_by(Bound::kRow, 0.01))));
    EXPECT_EQ(c->decompress().sizes(), x.sizes());
  }
}

TEST(BoundedOpsTest, RefusesAndSaysWhy) {
  const auto message = [](const at::Tensor& x, double max_error) -> std::string {
    try {
      compress(x, "bounded", bounded_by(Bound::kTensor, max_error));
    } catch (const c10::ValueError& e) {
      return e.what_without_backtrace();
    }
    return "";
  };
  for (const int64_t cols : {30, 40000}) {
    at::Tensor x = at::ones({3, cols});
    x[1][7] = std::numeric_limits<float>::quiet_NaN();
    x[2][0] = -std::numeric_limits<float>::infinity();
    const std::string text = message(x, 0.01);
    EXPECT_NE(text.find("qvlmem::compress: expected x to be finite, got 2 values"),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("[1, 7]"), std::string::npos) << text;
  }
  EXPECT_NE(message(at::ones({3}), 0.0).find("max_error to be above 0, got 0"), std::string::npos);
  // No integers of 31 bits reach from the one to the other.
  EXPECT_NE(message(at::tensor({1.0f, 1e-10f}), 1e-13).find("max_error"), std::string::npos);
}

TEST(BoundedOpsTest, AutoLeavesItAsideWhereItMightMissTheBound) {
  at::manual_seed(7);
  for (const at::Tensor& x : {at::randn({5000}), at::randn({9, 40000})}) {
    for (const Bound bound : kBounds) {
      for (const double max_error : {0.0, 1e-13, 1e-10, 1e-9, 1e-8, 1e-7}) {
        const auto c = compress(x, "auto", bounded_by(bound, max_error));
        EXPECT_LE(error_within(bound, c->error()), max_error);
      }
      const CompressOptions fine = bounded_by(bound, 3e-7);
      if (kBoundedCodec.least_bytes(x, fine, x.nbytes()) <
          static_cast<int64_t>(x.nbytes())) {  // then it does hold it
        EXPECT_LE(error_within(bound, compress(x, "bounded", fine)->error()), 3e-7);
      }
    }
  }
}

TEST(BoundedOpsTest, CodesWhereThatPays) {
  at::manual_seed(9);
  const auto form = [](const at::Tensor& x, Bound bound) {
    return compress(x, "bounded", bounded_by(bound, 0.01))->payload().params[0];
  };
  const at::Tensor x = at::randn({300, 129});
  EXPECT_EQ(form(x, Bound::kTensor), 2);
  EXPECT_EQ(form(x, Bound::kRow), 3);
  EXPECT_EQ(form(at::randn({1, 300000}), Bound::kRow), 3);
  EXPECT_EQ(form(at::randn({20, 72}), Bound::kRow), 1) << "too small";
  EXPECT_EQ(form(at::ones({300, 129}), Bound::kTensor), 0) << "nothing to code";
  EXPECT_EQ(form(uneven(), Bound::kTensor), 0);
  // One bit a value, of 8 that the outliers' width takes.
  const at::Tensor rare = at::where(at::rand({300, 128}) < 0.05, at::full({}, 40.0), at::zeros({}));
  const auto c = compress(rare, "bounded", bounded_by(Bound::kTensor, 0.01));
  EXPECT_EQ(c->payload().params[0], 2);
  EXPECT_GT(c->ratio(), 25);
}

TEST(BoundedOpsTest, RowsHaveShortStepsWhereTheseFit) {
  at::manual_seed(10);
  const at::Tensor x = at::randn({50, 64});
  const auto dtype_of = [](const at::Tensor& y, Bound bound) {
    const auto c = compress(y, "bounded", bounded_by(bound, 0.01));
    EXPECT_LE(error_within(bound, c->error()), 0.01);
    return c->parts()[0].scalar_type();
  };
  EXPECT_EQ(dtype_of(x, Bound::kRow), at::kBFloat16);
  EXPECT_EQ(dtype_of(x, Bound::kTensor), at::kFloat);
  EXPECT_EQ(dtype_of(x * 1e-42, Bound::kRow), at::kFloat) << "steps below bfloat16's smallest";
  // One of 24 bits is hit exactly by a step of as many.
  const at::Tensor signs = x.sign() * at::arange(1, 51).unsqueeze(1).mul(1.0000001);
  EXPECT_EQ(compress(signs, "bounded", bounded_by(Bound::kRow, 0.01))->error().worst_row, 0.0);
}

void expect_hostile_parts_refused(const at::Tensor& x, int64_t form) {
  const auto c = compress(x, "bounded", bounded_by(Bound::kRow, 0.01));
  EXPECT_EQ(c->payload().params[0], form);
  const TensorInfo info = c->info();
  const auto refuses = [&](const Payload& payload) {
    EXPECT_ANY_THROW(kBoundedCodec.check(payload, info));
  };
  kBoundedCodec.check(c->payload(), info);
  for (const int64_t param : {0, 1, 2, 3, 4, -1}) {
    if (param == form) continue;
    Payload payload = c->payload();
    payload.params[0] = param;
    refuses(payload);
  }
  for (size_t part = 0; part < 3; ++part) {
    Payload payload = c->payload();
    payload.parts[part] = payload.parts[part].to(at::kDouble);
    refuses(payload);
    payload.parts[part] = c->payload().parts[part].unsqueeze(0);
    refuses(payload);
    if (part == 2) continue;
    payload.parts[part] = c->payload().parts[part].slice(0, 1);
    refuses(payload);
  }
  const auto decode = [&](const Payload& payload) {
    try {
      kBoundedCodec.check(payload, info);
      EXPECT_TRUE(at::isfinite(kBoundedCodec.decode(payload, info)).all().item<bool>());
      return true;
    } catch (const c10::ValueError&) {
      return false;
    }
  };
  Payload payload = c->payload();
  payload.parts[2] = payload.parts[2].slice(0, 1);  // a byte short
  EXPECT_FALSE(decode(payload));
  payload = c->payload();
  payload.parts[0] = payload.parts[0].neg();
  EXPECT_FALSE(decode(payload));
  int refused = 0;
  for (int64_t i = 0; i < 400; ++i) {
    payload = c->payload();
    payload.parts[2] = payload.parts[2].clone();
    uint8_t* bytes = payload.parts[2].mutable_data_ptr<uint8_t>();
    bytes[i * 17 % payload.parts[2].numel()] ^= static_cast<uint8_t>(1 << i % 8);
    refused += !decode(payload);
  }
  EXPECT_GT(refused, 0);
}

TEST(BoundedOpsTest, HostilePartsAreRefusedOrDecodeToSomethingFinite) {
  at::manual_seed(8);
  expect_hostile_parts_refused(uneven(), 1);
  expect_hostile_parts_refused(at::randn({300, 129}), 3);
}

}  // namespace
}  // namespace qvlmem
