// SPDX-License-Identifier: Apache-2.0
#include "ops/memory/config.h"

#include <unistd.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <vector>

#include "ops/base/parallel.h"

namespace qvlmem {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

enum class Kind { kWord, kBytes, kNumber, kCount, kPath, kMethod };

struct Key {
  const char* name;
  Kind kind;
  const char* initial;
  std::vector<const char*> words;  // accepted, for kWord
};

const std::vector<Key>& keys() {
  static const std::vector<Key> all = {
      {"cpu_budget", Kind::kBytes, "unlimited", {}},
      {"cuda_budget", Kind::kBytes, "unlimited", {}},
      {"spill_limit", Kind::kBytes, "unlimited", {}},
      {"spill_dir", Kind::kPath, "", {}},
      {"persist", Kind::kWord, "false", {"false", "true"}},
      {"max_error", Kind::kNumber, "0.01", {}},
      {"bound", Kind::kWord, "tensor", {"tensor", "row", "element"}},
      {"method", Kind::kMethod, "auto", {}},
      {"prefer", Kind::kWord, "size", {"size", "balanced", "speed"}},
      {"policy", Kind::kWord, "cost", {"cost", "lru", "gdsf", "s3fifo"}},
      {"io", Kind::kWord, "uring", {"uring", "threads"}},
      {"threads", Kind::kCount, "0", {}},
  };
  return all;
}

// True where the whole of `text` is a finite decimal number, whatever the locale.
bool parse_number(const std::string& text, double* number) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, *number, std::chars_format::general);
  return result.ec == std::errc() && result.ptr == end && std::isfinite(*number);
}

bool is_digits(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// REQUIRES: accepts has passed.
double number_of(const std::string& text) {
  double number = 0.0;
  TORCH_INTERNAL_ASSERT(parse_number(text, &number));
  return number;
}

struct Size {
  double number = 0.0;
  bool is_fraction = false;
};

// "4096", "64KiB", "1.5GiB": bytes. "0.8": a fraction (a number with a point and no unit).
bool parse_size(const std::string& text, Size* size) {
  constexpr std::pair<const char*, double> units[] = {
      {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  for (const auto& [suffix, factor] : units) {
    if (text.size() > 3 && text.compare(text.size() - 3, 3, suffix) == 0) {
      if (!parse_number(text.substr(0, text.size() - 3), &size->number)) return false;
      size->number *= factor;
      return size->number >= 0.0 && size->number < 0x1p62;
    }
  }
  if (!parse_number(text, &size->number) || size->number < 0.0) return false;
  size->is_fraction = !is_digits(text);
  return size->is_fraction ? size->number <= 1.0 : size->number < 0x1p62;
}

std::string accepted_by(const Key& key) {
  switch (key.kind) {
    case Kind::kBytes:
      return "bytes (such as 4096, 512MiB or 1.5GiB), a fraction from 0.0 to 1.0, or unlimited";
    case Kind::kNumber:
      return "a number that is at least 0";
    case Kind::kCount:
      return "a whole number from 0 (PyTorch's own number) to 1024";
    case Kind::kMethod:
      return "one of " + codec_names();
    case Kind::kPath:
      return "a path";
    case Kind::kWord:
      break;
  }
  std::string words = "one of ";
  for (size_t i = 0; i < key.words.size(); ++i)
    words += (i == 0 ? "" : ", ") + std::string(key.words[i]);
  return words;
}

bool accepts(const Key& key, const std::string& value) {
  double number;
  Size size;
  switch (key.kind) {
    case Kind::kBytes:
      return value == "unlimited" || parse_size(value, &size);
    case Kind::kNumber:
      return parse_number(value, &number) && number >= 0.0;
    case Kind::kCount:
      return is_digits(value) && parse_number(value, &number) && number <= 1024.0;
    case Kind::kMethod:
      return value == "auto" || find_codec(value) != nullptr;
    case Kind::kPath:
      return true;
    case Kind::kWord:
      break;
  }
  for (const char* word : key.words) {
    if (value == word) return true;
  }
  return false;
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

std::string key_names() {
  std::string names;
  for (const Key& key : keys()) names += (names.empty() ? "" : ", ") + std::string(key.name);
  return names;
}

const Key* find_key(const std::string& name) {
  for (const Key& key : keys()) {
    if (name == key.name) return &key;
  }
  return nullptr;
}

struct ProcessConfig {
  std::mutex mutex;
  bool has_read_environment = false;
  Config config;

  // REQUIRES: the mutex is held. A bad variable is an error each time, until it is mended.
  void read_environment() {
    if (has_read_environment) return;
    const char* text = std::getenv("QVLMEM_ALLOC_CONF");
    if (text != nullptr) {
      config = config.overlaid(text, "configure: the variable QVLMEM_ALLOC_CONF");
    }
    has_read_environment = true;
    ops::set_process_thread_limit(config.threads());
  }
};

ProcessConfig& process() {
  static auto* state = new ProcessConfig;  // outlives whatever asks for it at exit
  return *state;
}

}  // namespace

Config::Config() {
  for (const Key& key : keys()) values_[key.name] = key.initial;
}

Config Config::overlaid(const std::string& text, const std::string& origin) const {
  Config result = *this;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string item = trimmed(text.substr(begin, comma - begin));
    begin = comma + 1;
    if (item.empty()) continue;
    const size_t colon = item.find(':');
    const std::string name = trimmed(item.substr(0, colon));
    const std::string value = colon == std::string::npos ? "" : trimmed(item.substr(colon + 1));
    const Key* key = find_key(name);
    TORCH_CHECK_VALUE(key != nullptr, "qvlmem::", origin, ": unknown key '", name, "' (value '",
                      value, "'); accepted: ", key_names());
    TORCH_CHECK_VALUE(colon != std::string::npos, "qvlmem::", origin, ": key '", name,
                      "' has no value (key:value); accepted: ", accepted_by(*key));
    TORCH_CHECK_VALUE(accepts(*key, value), "qvlmem::", origin, ": bad value '", value,
                      "' for key '", name, "'; accepted: ", accepted_by(*key));
    result.values_[name] = value;
  }
  return result;
}

double Config::max_error() const { return number_of(value("max_error")); }

Bound Config::bound() const { return parse_bound("configure", value("bound")); }

Prefer Config::prefer() const {
  const std::string& text = value("prefer");
  return text == "size" ? Prefer::kSize : text == "balanced" ? Prefer::kBalanced : Prefer::kSpeed;
}

int64_t Config::threads() const { return static_cast<int64_t>(number_of(value("threads"))); }

std::string Config::text() const {
  std::string text;
  for (const auto& [key, value] : values_) {
    if (!value.empty()) text += (text.empty() ? "" : ",") + key + ":" + value;
  }
  return text;
}

int64_t Config::bytes(const std::string& key, int64_t whole) const {
  const std::string& text = value(key);
  if (text == "unlimited") return kUnlimited;
  Size size;
  TORCH_INTERNAL_ASSERT(parse_size(text, &size));
  return static_cast<int64_t>(size.is_fraction ? size.number * static_cast<double>(whole)
                                               : size.number);
}

Config process_config() {
  ProcessConfig& state = process();
  const std::lock_guard<std::mutex> lock(state.mutex);
  state.read_environment();
  return state.config;
}

Prefer process_prefer() {
  ProcessConfig& state = process();
  const std::lock_guard<std::mutex> lock(state.mutex);
  state.read_environment();
  return state.config.prefer();
}

void configure(const std::string& text) {
  ProcessConfig& state = process();
  const std::lock_guard<std::mutex> lock(state.mutex);
  state.read_environment();
  state.config = state.config.overlaid(text, "configure: conf");
  ops::set_process_thread_limit(state.config.threads());
}

int64_t physical_memory_bytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

}  // namespace qvlmem
