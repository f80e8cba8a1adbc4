// SPDX-License-Identifier: Apache-2.0
// The library's objects in a C++ program without Python: in saved and frozen modules, and what bad
// input gives there.
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

c10::ClassTypePtr class_type(const std::string& name) {
  return torch::getCustomClass("__torch__.torch.classes.qvlmem." + name);
}

// A method by its name, with its schema's defaults for what is not given.
c10::IValue call(const c10::IValue& object, const std::string& method, c10::Stack arguments = {}) {
  arguments.insert(arguments.begin(), object);
  return object.toObject()->type()->getMethod(method)(std::move(arguments));
}

c10::IValue make(const std::string& name, c10::Stack arguments = {}) {
  const c10::IValue object =
      c10::ivalue::Object::create(c10::StrongTypePtr(nullptr, class_type(name)), 1);
  call(object, "__init__", std::move(arguments));
  return object;
}

c10::IValue call_op(const std::string& op, c10::Stack stack) {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(("qvlmem::" + op).c_str(), "");
  handle.schema().checkAndNormalizeInputs(stack, {});
  handle.callBoxed(stack);
  return stack.at(0);
}

double counted(const c10::IValue& object, const char* method, const char* name) {
  return call(object, method).toGenericDict().at(name).toDouble();
}

class ScriptObjects : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_NE(dlopen(QVLMEM_LIBRARY_FILE, RTLD_NOW | RTLD_LOCAL), nullptr) << dlerror();
    ASSERT_EQ(dlsym(RTLD_DEFAULT, "Py_IsInitialized"), nullptr);
  }

  // One that uses a manager, a cache and a pool.
  torch::jit::Module make_module() {
    torch::jit::Module module("Keeper");
    const c10::IValue manager = make("CompressionManager", {"method:int8"});
    module.register_attribute("manager", class_type("CompressionManager"), manager);
    module.register_attribute("cache", class_type("HierarchicalCache"),
                              make("HierarchicalCache", {manager, "cpu_budget:64KiB"}));
    module.register_attribute("pool", class_type("MemoryPool"),
                              make("MemoryPool", {"kv_cache", "cpu_budget:64KiB"}));
    module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    self.cache.put("x", x)
    self.cache.put("x", x)
    self.pool.empty([10], 6)
    self.manager.compress_tensor(x)
    return self.cache.get("x")

def clear(self):
    self.cache.clear()
)");
    module.eval();
    return module;
  }

  const at::Tensor x_ = at::randn({24, 72});
};

torch::jit::Module saved_and_loaded(const torch::jit::Module& module) {
  std::stringstream stream;
  module.save(stream);
  return torch::jit::load(stream);
}

TEST_F(ScriptObjects, LoadEmptyWithTheirConfiguration) {
  auto module = make_module();
  const at::Tensor want = module.forward({x_}).toTensor();
  const std::vector<std::string> kept{"manager", "cache", "pool", "clear"};
  const auto frozen = torch::jit::freeze(module, kept);
  for (const auto& original : {module, frozen}) {
    auto loaded = saved_and_loaded(original);
    const c10::IValue manager = loaded.attr("manager"), cache = loaded.attr("cache");
    EXPECT_EQ(call(cache, "keys").toListRef().size(), 0u);
    EXPECT_EQ(counted(cache, "stats", "hits"), 0);
    EXPECT_EQ(counted(manager, "get_compression_stats", "compression_attempts"), 0);
    EXPECT_EQ(counted(loaded.attr("pool"), "stats", "reserved_bytes"), 0);
    EXPECT_EQ(call(manager, "config").toGenericDict().at("method").toStringRef(), "int8");
    EXPECT_THROW(call(cache, "put", {"y", at::randn({1 << 18})}), c10::OutOfMemoryError);
    EXPECT_THROW(call(loaded.attr("pool"), "empty", {std::vector<int64_t>{1 << 16}, at::kFloat}),
                 c10::OutOfMemoryError);
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(at::equal(loaded.forward({x_}).toTensor(), want));
      EXPECT_EQ(counted(cache, "stats", "hits"), i + 1);
      EXPECT_EQ(counted(cache, "stats", "compression_attempts"), 1 + 2 * (i + 1));
      EXPECT_EQ(counted(manager, "get_compression_stats", "compression_attempts"), i + 1);
    }
    loaded.run_method("clear");
    EXPECT_EQ(call(cache, "keys").toListRef().size(), 0u);
  }
}

TEST_F(ScriptObjects, AFrozenModuleSharesThem) {
  auto module = make_module();
  auto frozen = torch::jit::freeze(module);
  for (int i = 0; i < 3; ++i) frozen.forward({x_});
  EXPECT_FALSE(frozen.hasattr("cache"));
  EXPECT_EQ(counted(module.attr("cache"), "stats", "hits"), 3);
  EXPECT_EQ(counted(module.attr("manager"), "get_compression_stats", "compression_attempts"), 9);
}

// Runs body, which must throw Error, and looks for the words in what it says.
template <class Error, class Body>
void expect_error(const std::vector<std::string>& words, const Body& body) {
  try {
    body();
    ADD_FAILURE() << "no error that says " << words.at(0);
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const std::string& word : words) {
      EXPECT_NE(text.find(word), std::string::npos) << word << " is not in: " << text;
    }
  }
}

TEST_F(ScriptObjects, BadInputIsAnErrorThatSaysWhatIsAccepted) {
  const c10::IValue manager = make("CompressionManager"), pool = make("MemoryPool", {"weights"});
  const c10::IValue cache = make("HierarchicalCache", {manager});
  expect_error<c10::ValueError>(
      {"qvlmem::compress: expected method to be one of auto, none,", "got 'zip'"}, [&] {
        call_op("compress", {x_, "zip"});
      });
  expect_error<c10::ValueError>({"qvlmem::compress: expected method", "got 'zip'"}, [&] {
    call(manager, "compress_tensor", {x_, "zip"});
  });
  expect_error<c10::ValueError>(
      {"qvlmem::CompressionManager: config: unknown key 'colour' (value 'red'); accepted: "},
      [&] { make("CompressionManager", {"colour:red"}); });
  expect_error<c10::ValueError>({"qvlmem::configure: conf: bad value 'rows' for key 'bound'",
                                 "accepted: one of tensor, row, element"},
                                [&] { call_op("configure", {"bound:rows"}); });
  expect_error<c10::ValueError>(
      {"qvlmem::MemoryPool: expected kind to be one of weights, activations, kv_cache,",
       "got 'disk'"},
      [&] { make("MemoryPool", {"disk"}); });
  expect_error<c10::IndexError>(
      {"qvlmem::HierarchicalCache.get: expected a key that is stored, got 'missing'"},
      [&] { call(cache, "get", {"missing"}); });
  expect_error<c10::TypeError>({"qvlmem::quantize: expected x to be a tensor, got None"},
                               [&] { call_op("quantize", {at::Tensor()}); });
  expect_error<c10::TypeError>({"qvlmem::compress: expected x to be a tensor, got None"}, [&] {
    call(cache, "put", {"key", at::Tensor()});
  });
}

TEST_F(ScriptObjects, WrongTypesAreNamedWithTheirArgument) {
  const c10::IValue manager = make("CompressionManager"), pool = make("MemoryPool", {"weights"});
  for (const auto& [wrong, name] : std::vector<std::pair<c10::IValue, std::string>>{
           {pool, "MemoryPool"}, {3, "int"}, {c10::IValue(), "NoneType"}}) {
    for (const char* op : {"decompress", "pack"}) {
      expect_error<c10::Error>(
          {std::string("qvlmem::") + op, "argument 'c'", "CompressedTensor", name},
          [&, value = wrong] { call_op(op, {value}); });
    }
    expect_error<c10::Error>({"decompress_tensor", "argument 'c'", "CompressedTensor", name},
                             [&, value = wrong] { call(manager, "decompress_tensor", {value}); });
    expect_error<c10::Error>({"__init__", "argument 'manager'", "CompressionManager", name},
                             [&, value = wrong] { make("HierarchicalCache", {value}); });
  }
  // Past the schema's check, straight into the kernel.
  const auto decompress = c10::Dispatcher::singleton().findSchemaOrThrow("qvlmem::decompress", "");
  for (const c10::IValue& wrong : {pool, c10::IValue(3), c10::IValue()}) {
    c10::Stack stack{wrong};
    expect_error<c10::TypeError>({"qvlmem::decompress: expected c to be a CompressedTensor, got "},
                                 [&] { decompress.callBoxed(stack); });
  }
}

TEST_F(ScriptObjects, AScriptKeepsTheWords) {
  auto module = make_module();
  module.define(R"(
def missing(self) -> Tensor:
    return self.cache.get("missing")

def unknown(self, x: Tensor) -> int:
    return self.manager.compress_tensor(x, "zip").nbytes()
)");
  // PyTorch's own type of error, which differs between releases; also when the executor has
  // compiled again.
  for (int i = 0; i < 3; ++i) {
    expect_error<std::exception>(
        {"qvlmem::HierarchicalCache.get: expected a key that is stored, got 'missing'"},
        [&] { module.run_method("missing"); });
    expect_error<std::exception>({"qvlmem::compress: expected method", "got 'zip'"},
                                 [&] { module.run_method("unknown", x_); });
  }
}

}  // namespace
