// SPDX-License-Identifier: Apache-2.0
// A C++ program without Python that knows qvlmem as a file to load: it defines TorchScript modules
// from source text, runs, freezes, saves and loads them, and compares with the operators called
// one by one.
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/frontend/sugared_value.h>
#include <torch/script.h>

#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr const char* kClassName = "__torch__.torch.classes.qvlmem.CompressedTensor";

// What the names in the source text mean: the operators as qvlmem.OP, the class as its short name.
class OperatorNames : public torch::jit::Resolver {
 public:
  std::shared_ptr<torch::jit::SugaredValue> resolveValue(const std::string& name,
                                                         torch::jit::GraphFunction&,
                                                         const torch::jit::SourceRange&) override {
    if (name == "qvlmem") return std::make_shared<torch::jit::BuiltinModule>("qvlmem");
    if (name == "torch") return std::make_shared<torch::jit::BuiltinModule>("aten");
    return nullptr;
  }
  c10::TypePtr resolveType(const std::string& name, const torch::jit::SourceRange&) override {
    return name == "CompressedTensor" ? torch::getCustomClass(kClassName) : nullptr;
  }
};

torch::jit::Module define(const std::string& source) {
  torch::jit::Module module("Program");
  module.define(source, std::make_shared<OperatorNames>());
  return module;
}

// The operator itself, with its schema's defaults for what is not given.
c10::Stack call(const std::string& op, c10::Stack stack) {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(("qvlmem::" + op).c_str(), "");
  handle.schema().checkAndNormalizeInputs(stack, {});
  handle.callBoxed(stack);
  return stack;
}

at::Tensor call_for_tensor(const std::string& op, c10::Stack stack) {
  return call(op, std::move(stack)).at(0).toTensor();
}

torch::jit::Module saved_and_loaded(const torch::jit::Module& module) {
  std::stringstream stream;
  module.save(stream);
  return torch::jit::load(stream);
}

class ScriptHost : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_NE(dlopen(QVLMEM_LIBRARY_FILE, RTLD_NOW | RTLD_LOCAL), nullptr) << dlerror();
    ASSERT_NE(dlopen(QVLMEM_LIBRARY_FILE, RTLD_NOW | RTLD_LOCAL), nullptr) << dlerror();
  }
  void SetUp() override {
    at::manual_seed(0);
    x_ = at::randn({24, 72});
  }

  at::Tensor x_;
};

TEST_F(ScriptHost, RunsWithoutPython) {
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "Py_IsInitialized"), nullptr);
}

TEST_F(ScriptHost, SecondCopyRegistersNothing) {
  const auto copy = std::filesystem::temp_directory_path() /
                    ("script_host_" + std::to_string(::getpid()) + "_libqvlmem.so");
  std::filesystem::copy_file(QVLMEM_LIBRARY_FILE, copy);
  const auto frame = call_for_tensor("pack", call("compress", {x_, "int8"}));
  ::testing::internal::CaptureStderr();
  dlopen(copy.c_str(), RTLD_NOW | RTLD_LOCAL);
  const std::string said = ::testing::internal::GetCapturedStderr();
  std::filesystem::remove(copy);
  EXPECT_NE(said.find("qvlmem"), std::string::npos) << said;
  EXPECT_TRUE(at::equal(call_for_tensor("pack", call("compress", {x_, "int8"})), frame));
}

TEST_F(ScriptHost, SourceTextRunsTheCodecs) {
  auto module = define(R"(
def quantized(self, x: Tensor, bits: int) -> Tensor:
    q, scale, zero_point = qvlmem.quantize(x, bits, False, group_size=32)
    return qvlmem.dequantize(q, scale, zero_point, x.size(), bits, group_size=32)

def halved(self, x: Tensor) -> Tensor:
    half, scale = qvlmem.to_fp16(x)
    return qvlmem.from_fp16(half, scale)

def factored(self, x: Tensor) -> Tensor:
    u, v = qvlmem.svd(x, rank=5)
    return qvlmem.svd_reconstruct(u, v, x.size())

def sparsified(self, x: Tensor) -> Tensor:
    indices, values = qvlmem.sparsify(x, 0.75)
    return qvlmem.densify(indices, values, x.size())

def streamed(self, x: Tensor, level: int) -> Tensor:
    return qvlmem.lossless_decode(qvlmem.lossless_encode(x, level), x.size(), x.dtype)
)");
  const auto run = [&](const char* name, std::vector<c10::IValue> arguments) {
    return module.get_method(name)(std::move(arguments)).toTensor();
  };
  const std::vector<int64_t> shape{24, 72};
  for (const int64_t bits : {8, 4}) {
    auto parts = call("quantize", {x_, bits, false, 32});
    parts.insert(parts.end(), {shape, bits, 32});
    EXPECT_TRUE(at::equal(run("quantized", {x_, bits}), call_for_tensor("dequantize", parts)));
  }
  EXPECT_TRUE(at::equal(run("halved", {x_}), call_for_tensor("from_fp16", call("to_fp16", {x_}))));
  auto factors = call("svd", {x_, true, 0.5, 0.99, 5});
  factors.emplace_back(shape);
  EXPECT_TRUE(at::equal(run("factored", {x_}), call_for_tensor("svd_reconstruct", factors)));
  auto coo = call("sparsify", {x_, 0.75});
  coo.emplace_back(shape);
  const at::Tensor sparsified = run("sparsified", {x_});
  EXPECT_TRUE(at::equal(sparsified, call_for_tensor("densify", coo)));
  EXPECT_EQ(at::count_nonzero(sparsified).item<int64_t>(), 24 * 72 / 4);
  for (const int64_t level : {1, 2}) EXPECT_TRUE(at::equal(run("streamed", {x_, level}), x_));
}

TEST_F(ScriptHost, ControlFlowKeepsTheSmallestResult) {
  auto module = define(R"(
def forward(self, x: Tensor, methods: List[str], max_error: float) -> Tuple[Tensor, str, int]:
    best = qvlmem.compress(x, "none")
    for method in methods:
        if method == "bounded" and max_error == 0.0:
            continue  # refuses it: no step is fine enough
        c = qvlmem.compress(x, method, max_error=max_error)
        if c.nbytes() < best.nbytes() and c.relative_error() <= max_error:
            best = c
    frame = qvlmem.pack(best)
    return qvlmem.decompress(qvlmem.unpack(frame)), best.method(), best.nbytes()
)");
  const c10::List<std::string> methods({"fp16", "int8", "int4", "lossless", "bounded"});
  for (const double max_error : {1e-6, 1e-3, 0.02, 0.2}) {
    const auto result = module.forward({x_, methods, max_error}).toTuple();
    const at::Tensor y = result->elements()[0].toTensor();
    const double error = ((x_ - y).norm() / x_.norm()).item<double>();
    EXPECT_LE(error, max_error * (1 + 1e-5)) << result->elements()[1].toStringRef();
    const auto chosen = call("compress", {x_, result->elements()[1].toStringRef(), max_error});
    EXPECT_TRUE(at::equal(y, call_for_tensor("decompress", chosen)));
    EXPECT_LE(result->elements()[2].toInt(), x_.numel() * 4);
  }
}

TEST_F(ScriptHost, SavedModuleHoldsACompressedTensor) {
  for (const char* method :
       {"none", "int8", "int4", "fp16", "bounded", "svd", "sparse", "lossless"}) {
    SCOPED_TRACE(method);
    torch::jit::Module module("Layer");
    const auto weight = call("compress", {x_, method});
    module.register_attribute("weight", torch::getCustomClass(kClassName), weight.at(0));
    module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    return torch.relu(torch.matmul(qvlmem.decompress(self.weight), x))

def held(self) -> int:
    return self.weight.nbytes()
)",
                  std::make_shared<OperatorNames>());
    module.eval();
    const at::Tensor input = at::randn({72, 3});
    const at::Tensor want = at::relu(at::matmul(call_for_tensor("decompress", weight), input));
    EXPECT_TRUE(at::equal(module.forward({input}).toTensor(), want));
    auto loaded = saved_and_loaded(module);
    EXPECT_TRUE(at::equal(loaded.forward({input}).toTensor(), want));
    EXPECT_EQ(loaded.run_method("held").toInt(), module.run_method("held").toInt());
    auto frozen = torch::jit::freeze(loaded, std::vector<std::string>{"held"});
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(frozen.forward({input}).toTensor(), want));
    EXPECT_TRUE(at::equal(saved_and_loaded(frozen).forward({input}).toTensor(), want));
  }
}

TEST_F(ScriptHost, ErrorsAreExceptionsWithTheOperatorsWords) {
  auto module = define(R"(
def forward(self, x: Tensor, method: str) -> int:
    return qvlmem.compress(x, method).nbytes()
)");
  for (int i = 0; i < 2; ++i) {
    try {
      module.forward({x_, "zip"});
      FAIL() << "a method that does not exist was accepted";
    } catch (const std::exception& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("qvlmem::compress: expected method"), std::string::npos) << text;
    }
    EXPECT_EQ(module.forward({x_, "none"}).toInt(), x_.numel() * 4);
  }
}

TEST_F(ScriptHost, OneModuleServesManyThreads) {
  auto module = define(R"(
def forward(self, x: Tensor) -> Tensor:
    c = qvlmem.compress(x, "int8", group_size=16)
    return qvlmem.decompress(qvlmem.unpack(qvlmem.pack(c)))
)");
  const at::Tensor want = module.forward({x_}).toTensor();
  std::vector<int> same(4, 0);
  std::vector<std::thread> threads;
  for (int& count : same) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) count += at::equal(module.forward({x_}).toTensor(), want);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, std::vector<int>(4, 20));
}

}  // namespace
