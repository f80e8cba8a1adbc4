// SPDX-License-Identifier: Apache-2.0
// Encoding of units whose sizes depend on the data, one after the other into one place.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "ops/base/parallel.h"
#include "ops/base/turns.h"

namespace qvlmem::ops {

// Encodes units [0, count) to where they stay in `out`, on as many threads as have `grain` units
// each.
//   encode(unit, in_place, to) -> size   of at most slot_bytes bytes
//   begin(unit) -> offset                where it goes; called when the units before it have ended
//   end(unit, offset)                    where it ends, right after
//   copy(from, size, to, next)           of what was encoded beside; next: the unit that the thread
//                                        encodes after it, `count` for none
// One thread encodes in place. Several encode each unit beside, wait for their turn to be told a
// place, and copy it there.
template <class Encode, class Begin, class End, class Copy>
void encode_in_order(int64_t count, int64_t grain, int64_t slot_bytes, uint8_t* out,
                     const Encode& encode, const Begin& begin, const End& end, const Copy& copy) {
  int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  if (thread_limit() > 0) threads = std::min(threads, thread_limit());
  threads = std::min(threads, count / grain);
  if (threads <= 1) {
    for (int64_t unit = 0; unit < count; ++unit) {
      const int64_t offset = begin(unit);
      end(unit, offset + encode(unit, true, out + offset));
    }
    order_streaming_stores();
    return;
  }
  Turns turns(count);
  parallel_units(threads, 1, [&](int64_t, int64_t) {
    const std::unique_ptr<uint8_t[]> slot(new uint8_t[slot_bytes]);
    for (int64_t unit = turns.take(); unit < count;) {
      const int64_t size = encode(unit, false, slot.get());
      const int64_t next = std::min(turns.take(), count);
      turns.wait(unit);
      const int64_t offset = begin(unit);
      end(unit, offset + size);
      turns.pass(unit);
      copy(slot.get(), size, out + offset, next);
      unit = next;
    }
  });
}

}  // namespace qvlmem::ops
