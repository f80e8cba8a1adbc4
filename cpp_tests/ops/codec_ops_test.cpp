// SPDX-License-Identifier: Apache-2.0
// What holds for every row of the codec table.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/codec/codec.h"
#include "ops/error_ops.h"

namespace qvlmem {
namespace {

std::vector<at::Tensor> examples() {
  at::manual_seed(3);
  return {at::randn({37, 129}),
          at::randn({2, 5, 72}).to(at::kHalf),
          at::randn({4304}).to(at::kBFloat16),
          at::zeros({3, 7}),
          at::randn({}),
          at::empty({0, 5}),
          at::randn({9, 64}).t()};
}

TEST(CodecTest, NamesAndNumbersAreUnique) {
  for (const Codec* codec : codec_table()) {
    EXPECT_EQ(find_codec(codec->id), codec);
    EXPECT_STREQ(codec_name(codec->id), codec->name);
    EXPECT_EQ(find_codec(std::string(codec->name)), codec);
  }
  EXPECT_EQ(find_codec(std::string("zip")), nullptr);
}

TEST(CodecTest, EachKeepsShapeDtypeAndItsMeasuredErrorThroughAFrame) {
  for (const Codec* codec : codec_table()) {
    for (const at::Tensor& x : examples()) {
      SCOPED_TRACE(codec->name);
      const CompressedTensorPtr c = compress(x, codec->name, {});
      const at::Tensor y = c->decompress();
      EXPECT_EQ(c->method(), codec->name);
      EXPECT_EQ(y.sizes(), x.sizes());
      EXPECT_EQ(y.dtype(), x.dtype());
      EXPECT_TRUE(y.is_contiguous());
      const ErrorMeasure measured = ops::measure_error_cpu(x, y);
      EXPECT_NEAR(c->relative_error(), measured.relative, 1e-6);
      EXPECT_TRUE(!codec->exact || at::equal(x, y));
      const CompressedTensorPtr back = unpack(pack(c), std::nullopt);
      EXPECT_TRUE(at::equal(back->decompress(), y));
      EXPECT_EQ(back->relative_error(), c->relative_error());
      EXPECT_EQ(back->nbytes(), c->nbytes());
    }
  }
}

// Whatever pieces a codec and the measure have, and wherever the rows of both end.
TEST(CodecTest, ErrorsMeasuredPieceByPieceAreThoseOfTheWhole) {
  at::manual_seed(6);
  const int before = at::get_num_threads();
  const std::vector<std::vector<int64_t>> shapes = {{},         {0, 3},     {500, 1},   {131, 301},
                                                    {9, 40001}, {3, 70001}, {1, 200003}};
  for (const auto& shape : shapes) {
    const at::Tensor x = at::randn(shape) * at::randn(shape);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      for (const int64_t group_size : {0, -1, 3, 128, 33333}) {
        for (const Bound bound : {Bound::kTensor, Bound::kRow}) {
          CompressOptions options;
          options.group_size = group_size;
          options.bound = bound;
          options.symmetric = group_size == 3;
          for (const Codec* codec : codec_table()) {
            if (codec->measure_cpu == nullptr || !codec->takes(dtype)) continue;
            SCOPED_TRACE(codec->name);
            const at::Tensor values = x.to(dtype);
            at::set_num_threads(group_size == 0 ? 1 : 3);
            const CompressedTensorPtr c = compress(values, codec->name, options);
            const ErrorMeasure measured = ops::measure_error_cpu(values, c->decompress());
            EXPECT_EQ(c->error().relative, measured.relative);
            EXPECT_EQ(c->error().worst_row, measured.worst_row);
            EXPECT_EQ(c->error().element, measured.element);
          }
        }
      }
    }
  }
  at::set_num_threads(before);
}

TEST(CodecTest, FramesDecompressTogetherAsEachDoesAlone) {
  std::vector<at::Tensor> frames, expected;
  for (const Codec* codec : codec_table()) {
    for (const at::Tensor& x : examples()) {
      const CompressedTensorPtr c = compress(x, codec->name, {});
      frames.push_back(pack(c));
      expected.push_back(c->decompress());
    }
  }
  // One byte off: parts are then nowhere aligned.
  frames.push_back(at::cat({at::zeros({1}, at::kByte), frames[0]}).slice(0, 1));
  expected.push_back(expected[0]);
  const std::vector<at::Tensor> decoded = decompress_frames(frames);
  ASSERT_EQ(decoded.size(), expected.size());
  for (size_t i = 0; i < decoded.size(); ++i) {
    EXPECT_EQ(decoded[i].dtype(), expected[i].dtype());
    EXPECT_TRUE(at::equal(decoded[i], expected[i])) << i;
  }
  frames[3] = frames[3].slice(0, 0, frames[3].numel() - 1);
  EXPECT_THROW(decompress_frames(frames), c10::ValueError);
}

TEST(CodecTest, WhatIsHeldDoesNotChangeWithTheTensor) {
  for (const Codec* codec : codec_table()) {
    const at::Tensor x = at::randn({8, 64});
    const CompressedTensorPtr c = compress(x, codec->name, {});
    const at::Tensor before = c->decompress();
    x.zero_();
    const at::Tensor after = c->decompress();
    EXPECT_TRUE(at::equal(before, after)) << codec->name;
    after.zero_();
    EXPECT_TRUE(at::equal(before, c->decompress())) << codec->name;
  }
}

TEST(CodecTest, APayloadOfAnotherShapeIsRefused) {
  for (const Codec* codec : codec_table()) {
    SCOPED_TRACE(codec->name);
    const CompressedTensorPtr c = compress(at::randn({8, 64}), codec->name, {});
    TensorInfo info = c->info();
    info.shape = {8, 65};
    EXPECT_THROW(codec->check(c->payload(), info), c10::ValueError);
    Payload payload = c->payload();
    payload.parts.pop_back();
    EXPECT_THROW(codec->check(payload, c->info()), c10::ValueError);
    payload = c->payload();
    payload.params.push_back(1);
    EXPECT_THROW(codec->check(payload, c->info()), c10::ValueError);
  }
}

TEST(SelectTest, AutoMeetsEveryBoundAndIsNeverLargerThanANamedMethodThatMeetsIt) {
  at::manual_seed(4);
  at::Tensor outliers = at::randn({64, 96});
  outliers[5].mul_(1000);
  outliers[7].zero_();
  for (const at::Tensor& x : {outliers, at::randn({50}), at::zeros({4, 4}), at::randn({})}) {
    for (const Bound bound : {Bound::kTensor, Bound::kRow, Bound::kElement}) {
      for (const double max_error : {0.0, 1e-6, 1e-3, 0.01, 0.2}) {
        CompressOptions options;
        options.bound = bound;
        options.max_error = max_error;
        const CompressedTensorPtr c = compress(x, "auto", options);
        const auto measured = ops::measure_error_cpu(x, c->decompress());
        EXPECT_LE(error_within(bound, {measured.relative, measured.worst_row, measured.element}),
                  max_error);
        EXPECT_TRUE(max_error > 0.0 || at::equal(c->decompress(), x));
        if (max_error == 0.0) continue;
        for (const Codec* codec : codec_table()) {
          const CompressedTensorPtr named = compress(x, codec->name, options);
          if (error_within(bound, named->error()) <= max_error) {
            EXPECT_LE(c->nbytes(), named->nbytes()) << codec->name;
          }
        }
      }
    }
  }
}

TEST(SelectTest, AutoKeepsWhatIsNotFiniteBitForBit) {
  at::Tensor x = at::randn({4, 32});
  x[1][3] = std::numeric_limits<float>::quiet_NaN();
  x[2][0] = -std::numeric_limits<float>::infinity();
  const at::Tensor y = compress(x, "auto", {})->decompress();
  EXPECT_TRUE(at::equal(x.view(at::kInt), y.view(at::kInt)));
}

}  // namespace
}  // namespace qvlmem
