// SPDX-License-Identifier: Apache-2.0
// What happens when libqvlmem.so is loaded: the tables are registered, or, where that cannot be, an
// error is left for whoever loads it. Nothing may be thrown here: it would end the process.
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "ops/memory/config.h"
#include "registration/tables.h"

namespace qvlmem::registration {
namespace {

// Where a Python is in this process, the error is raised from the call that loads the library (as
// the cause of a SystemError: a loader has no way to return an error). Elsewhere it is printed.
// Python is found by name at run time, since C++ programs use the library without one.
void report_error(const std::string& message) {
  const auto is_initialized = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "Py_IsInitialized"));
  if (is_initialized == nullptr || is_initialized() == 0) {
    std::fprintf(stderr, "%s\n", message.c_str());
    return;
  }
  const auto ensure = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "PyGILState_Ensure"));
  const auto release = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "PyGILState_Release"));
  const auto set_string =
      reinterpret_cast<void (*)(void*, const char*)>(dlsym(RTLD_DEFAULT, "PyErr_SetString"));
  const auto type = static_cast<void**>(dlsym(RTLD_DEFAULT, "PyExc_ImportError"));
  if (ensure == nullptr || release == nullptr || set_string == nullptr || type == nullptr) return;
  const int state = ensure();
  set_string(*type, message.c_str());
  release(state);
}

std::string path_of_this_library() {
  Dl_info info;
  return dladdr(reinterpret_cast<void*>(&report_error), &info) != 0 ? info.dli_fname : "?";
}

// QVLMEM_ALLOC_CONF holds from the start. A bad one is an error of the first call that asks for it.
void read_environment() {
  try {
    process_config();
  } catch (const c10::Error&) {
  }
}

class Registration {
 public:
  Registration() noexcept {
    try {
      if (c10::Dispatcher::singleton().findSchema({"qvlmem::quantize", ""})) {
        report_error("qvlmem: another copy of the library is loaded already; " +
                     path_of_this_library() + " registers nothing");
        return;
      }
      using torch::Library;
      Library& definitions = add(Library::DEF, std::nullopt);
      register_classes(definitions);
      register_schemas(definitions);
      register_composite(add(Library::IMPL, c10::DispatchKey::CompositeExplicitAutograd));
      register_cpu(add(Library::IMPL, c10::DispatchKey::CPU));
#ifdef QVLMEM_WITH_CUDA
      register_cuda(add(Library::IMPL, c10::DispatchKey::CUDA));
#endif
      register_meta(add(Library::IMPL, c10::DispatchKey::Meta));
      register_autograd(add(Library::IMPL, c10::DispatchKey::Autograd));
      read_environment();
    } catch (const std::exception& error) {
      libraries_.clear();
      report_error(std::string("qvlmem: the library could not be registered: ") + error.what());
    }
  }

 private:
  torch::Library& add(torch::Library::Kind kind, std::optional<c10::DispatchKey> key) {
    libraries_.push_back(std::make_unique<torch::Library>(kind, "qvlmem", key, __FILE__, __LINE__));
    return *libraries_.back();
  }

  // Registered for as long as the library stays loaded.
  std::vector<std::unique_ptr<torch::Library>> libraries_;
};

const Registration registration;

}  // namespace
}  // namespace qvlmem::registration
