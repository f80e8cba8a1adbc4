// SPDX-License-Identifier: Apache-2.0
// A C++ program without Python runs scripted decoder blocks with compression inside, as
// write_decoder_cases.py saved them, and compares with what eager PyTorch computed there.
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/script.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

using torch::jit::Module;

std::vector<char> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// What eager PyTorch was given and computed.
struct Expected {
  explicit Expected(const std::string& path) {
    const auto dict = torch::jit::pickle_load(bytes_of(path)).toGenericDict();
    for (const c10::IValue& x : dict.at("hidden").toListRef()) hidden.push_back(x.toTensor());
    for (const c10::IValue& x : dict.at("positions").toListRef()) positions.push_back(x.toTensor());
    plain = dict.at("plain").toTensor();
    compressed = dict.at("compressed").toTensor();
    bound = dict.at("bound").toDouble();
  }

  std::vector<at::Tensor> hidden, positions;  // of each step
  at::Tensor plain, compressed;               // outputs of all steps, along the length
  double bound;                               // of the relative error between the two
};

at::Tensor run(Module& module, const Expected& expected) {
  std::vector<at::Tensor> outputs;
  for (size_t i = 0; i < expected.hidden.size(); ++i) {
    outputs.push_back(module.forward({expected.hidden[i], expected.positions[i]}).toTensor());
  }
  return at::cat(outputs, 1);
}

// What the cache of the module counts under a name.
double counted(const Module& module, const char* name) {
  const auto cache = module.attr("cache");
  torch::jit::Function& method = cache.toObject()->type()->getMethod("stats");
  return method({cache}).toGenericDict().at(name).toDouble();
}

class Decoder : public ::testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() {
    ASSERT_NE(dlopen(QVLMEM_LIBRARY_FILE, RTLD_NOW | RTLD_LOCAL), nullptr) << dlerror();
    at::set_num_threads(1);  // as there: sums may depend on it
  }
  void SetUp() override {
    const std::string path = std::string(DECODER_CASES_FOLDER) + "/" + GetParam();
    expected_ = std::make_unique<Expected>(path + ".expected");
    module_ = torch::jit::load(path + ".pt");
    module_.eval();
  }

  const c10::InferenceMode no_gradients_;
  std::unique_ptr<Expected> expected_;
  Module module_;
};

TEST_P(Decoder, AgreesWithEagerBitForBit) {
  ASSERT_EQ(dlsym(RTLD_DEFAULT, "Py_IsInitialized"), nullptr);
  const at::Tensor y = run(module_, *expected_);
  ASSERT_EQ(y.scalar_type(), expected_->plain.scalar_type());
  EXPECT_TRUE(at::equal(y, expected_->compressed));
  // Without loss that is what the plain blocks compute.
  const bool is_exact = std::string(GetParam()).find("exact") != std::string::npos;
  EXPECT_EQ(at::equal(y, expected_->plain), is_exact);
}

TEST_P(Decoder, StaysWithinTheErrorOfNoiseOfItsSize) {
  const at::Tensor y = run(module_, *expected_).to(at::kDouble);
  const at::Tensor plain = expected_->plain.to(at::kDouble);
  const double error = ((y - plain).norm() / plain.norm()).item<double>();
  EXPECT_LE(error, expected_->bound);
}

TEST_P(Decoder, KeepsTheStepsInItsCache) {
  const double steps = static_cast<double>(expected_->hidden.size());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(counted(module_, "cpu_bytes"), 0);
    EXPECT_TRUE(at::equal(run(module_, *expected_), expected_->compressed));
    EXPECT_GT(counted(module_, "cpu_bytes"), 0);
    // Keys and values of two blocks: stored once a step, read by it and every later one.
    EXPECT_EQ(counted(module_, "compression_attempts"), (i + 1) * 4 * steps);
    EXPECT_EQ(counted(module_, "hits"), (i + 1) * 4 * steps * (steps + 1) / 2);
    module_.run_method("restart");
  }
}

TEST_P(Decoder, FrozenAndSavedAgainGivesTheSame) {
  run(module_, *expected_);
  module_.run_method("restart");  // a frozen module has the same cache
  const std::vector<std::string> kept{"restart", "cache"};
  Module frozen = torch::jit::freeze(module_, kept);
  EXPECT_TRUE(at::equal(run(frozen, *expected_), expected_->compressed));
  EXPECT_GT(counted(frozen, "cpu_bytes"), 0);
  std::stringstream stream;
  frozen.save(stream);
  Module loaded = torch::jit::load(stream);
  EXPECT_EQ(counted(loaded, "cpu_bytes"), 0);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::equal(run(loaded, *expected_), expected_->compressed));
    loaded.run_method("restart");
  }
  Module optimised = torch::jit::optimize_for_inference(frozen, {"restart"});
  optimised.run_method("restart");
  const at::Tensor y = run(optimised, *expected_);
  EXPECT_TRUE(at::allclose(y, expected_->compressed, 1e-4, 1e-4));
}

INSTANTIATE_TEST_SUITE_P(Cases, Decoder,
                         ::testing::Values("odd_float32_exact_long", "odd_float32_exact_short",
                                           "odd_float32_percent_long", "odd_float32_percent_short",
                                           "odd_bfloat16_exact_long", "odd_bfloat16_exact_short",
                                           "odd_bfloat16_percent_long",
                                           "odd_bfloat16_percent_short", "real_float32_exact_long",
                                           "real_float32_exact_short", "real_float32_percent_long",
                                           "real_float32_percent_short", "real_bfloat16_exact_long",
                                           "real_bfloat16_exact_short",
                                           "real_bfloat16_percent_long",
                                           "real_bfloat16_percent_short"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
