// SPDX-License-Identifier: Apache-2.0
// The configuration string: "key:value,key:value", from QVLMEM_ALLOC_CONF, qvlmem::configure and
// the config argument of every class. Each later one overlays the one before.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "ops/codec/codec.h"

namespace qvlmem {

// The keys and their values as text; every key is present. What they mean is read by the functions
// below.
class Config {
 public:
  // All defaults.
  Config();

  // This configuration with `text` laid over it. ValueError names the key, the value and what is
  // accepted; `origin` says where the text came from: op or class, and argument. The configuration
  // itself does not change.
  Config overlaid(const std::string& text, const std::string& origin) const;

  const std::string& value(const std::string& key) const { return values_.at(key); }
  const std::map<std::string, std::string>& values() const { return values_; }

  // As a configuration string: laid over any other, it gives this one.
  std::string text() const;

  double max_error() const;
  Bound bound() const;
  Prefer prefer() const;
  int64_t threads() const;
  // The bytes of a budget or limit; `whole` is what a fraction is taken of. INT64_MAX where
  // unlimited.
  int64_t bytes(const std::string& key, int64_t whole) const;

 private:
  std::map<std::string, std::string> values_;
};

// The configuration of the process: QVLMEM_ALLOC_CONF when first asked for, then what
// qvlmem::configure added.
Config process_config();
// Its key `prefer`, without a copy of all: every call of the operator compress asks.
Prefer process_prefer();

// Physical memory of this machine in bytes: what a fraction in cpu_budget is taken of.
int64_t physical_memory_bytes();

}  // namespace qvlmem
