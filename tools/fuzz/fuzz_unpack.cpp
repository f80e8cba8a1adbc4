// SPDX-License-Identifier: Apache-2.0
// Any bytes, resealed, through unpack, decompress and pack. Frames that a codec made are the seeds;
// a mutator that knows the layout changes their fields, for random changes of the bytes seldom get
// past parse_frame to the codecs' own checks.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/frame/frame.h"
#include "ops/codec/codec.h"
#include "tools/fuzz/fuzz_check.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace qvlmem;
using Random = std::minstd_rand;

constexpr int64_t kLargestDecoded = 16 << 20;  // bytes
constexpr int64_t kSizeOffset = 16;            // of the frame's size in its header

int64_t below(Random& random, int64_t end) { return static_cast<int64_t>(random() % end); }

// What the codec makes of a small tensor.
at::Tensor seed_frame(Random& random) {
  const auto& table = codec_table();
  const Codec& codec = *table[below(random, table.size())];
  constexpr at::ScalarType kDTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};
  // The last is enough for bounded to code it by entropy.
  const std::vector<int64_t> shapes[] = {{}, {0}, {1}, {37}, {3, 5}, {4, 72}, {2, 3, 8}, {70, 33}};
  at::Tensor x = at::randn(shapes[below(random, 8)]).to(kDTypes[below(random, 3)]);
  if (below(random, 2) == 0) x = at::relu(x);  // half of it zeros
  CompressOptions options;
  options.symmetric = below(random, 2) == 0;
  options.group_size = below(random, 4) - 1;
  return pack(compress_with(codec, x, options));
}

int64_t mutated(int64_t old, Random& random) {
  constexpr int64_t kSpecial[] = {-1, 0, 1, 31, 33, 128, int64_t{1} << 31, int64_t{1} << 62};
  const uint64_t value = static_cast<uint64_t>(old);  // may wrap
  switch (below(random, 4)) {
    case 0:
      return kSpecial[below(random, 8)];
    case 1:
      return static_cast<int64_t>(value + below(random, 5) - 2);
    case 2:
      return static_cast<int64_t>(value ^ (uint64_t{1} << below(random, 64)));
    default:
      return static_cast<int64_t>(value * 2);
  }
}

DType mutated_dtype(Random& random) { return static_cast<DType>(below(random, kDTypeCount)); }

void mutate_shape(int* dims, int64_t* shape, Random& random) {
  switch (below(random, 6)) {
    case 0:
      if (*dims > 0) --*dims;
      break;
    case 1:
      if (*dims < kFrameMaxDims) shape[(*dims)++] = 1;
      break;
    default:
      if (*dims > 0) {
        int64_t& size = shape[below(random, *dims)];
        size = mutated(size, random);
      }
  }
}

void mutate_header(FrameHeader* header, Random& random) {
  const int64_t part = header->parts > 0 ? below(random, header->parts) : 0;
  switch (below(random, 8)) {
    case 0:
      header->codec = static_cast<uint8_t>(below(random, 9));
      break;
    case 1:
      header->dtype = mutated_dtype(random);
      break;
    case 2:
      mutate_shape(&header->dims, header->shape, random);
      break;
    case 3:
      if (header->params > 0) {
        int64_t& param = header->param[below(random, header->params)];
        param = mutated(param, random);
      }
      break;
    case 4:
      header->params = static_cast<int>(below(random, 5));
      break;
    case 5:
      header->parts = static_cast<int>(below(random, 5));
      break;
    case 6:
      header->part[part].dtype = mutated_dtype(random);
      break;
    default:
      mutate_shape(&header->part[part].dims, header->part[part].shape, random);
  }
}

// Lays `header` out anew over the parts' bytes of `frame`, cut or followed by zeros to fit. Empty
// where that would not fit in max_size.
std::vector<uint8_t> rebuilt(const uint8_t* frame, const FrameHeader& old, FrameHeader header,
                             size_t max_size) {
  if (!lay_out_frame(&header) || header.frame_bytes > static_cast<int64_t>(max_size)) return {};
  std::vector<uint8_t> out(header.frame_bytes);
  write_frame_header(header, out.data());
  for (int p = 0; p < header.parts && p < old.parts; ++p) {
    const int64_t bytes = std::min(header.part[p].bytes, old.part[p].bytes);
    std::memcpy(out.data() + header.part[p].offset, frame + old.part[p].offset, bytes);
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  at::set_num_threads(1);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  Random random(seed);
  FrameHeader header;
  const FrameStatus status = parse_frame(data, static_cast<int64_t>(size), &header, false);
  if (status != FrameStatus::kOk || below(random, 64) == 0) {
    const at::Tensor frame = seed_frame(random);
    if (frame.numel() > static_cast<int64_t>(max_size)) return size;
    std::memcpy(data, frame.const_data_ptr(), frame.numel());
    return frame.numel();
  }
  const int64_t choice = below(random, 16);
  if (choice == 0) return LLVMFuzzerMutate(data, size, max_size);
  if (choice < 8 && header.parts > 0) {
    const FramePart& part = header.part[below(random, header.parts)];
    // In place: the part keeps its size, whatever the mutation would make of it.
    if (part.bytes > 0) LLVMFuzzerMutate(data + part.offset, part.bytes, part.bytes);
    return size;
  }
  FrameHeader changed = header;
  for (int64_t i = below(random, 3); i >= 0; --i) mutate_header(&changed, random);
  const std::vector<uint8_t> frame = rebuilt(data, header, changed, max_size);
  if (frame.empty()) return size;
  std::memcpy(data, frame.data(), frame.size());
  return frame.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int64_t bytes = static_cast<int64_t>(size);
  const at::Tensor frame = at::empty({bytes}, at::kByte);
  uint8_t* copy = frame.mutable_data_ptr<uint8_t>();
  if (size > 0) std::memcpy(copy, data, size);
  if (bytes >= kFrameFixedBytes) {
    std::memcpy(copy + kSizeOffset, &bytes, sizeof(bytes));
    seal_frame(copy, bytes);
  }
  // Any other exception, an internal assertion for one, is a finding.
  try {
    const CompressedTensorPtr c = unpack(frame, std::nullopt);
    FUZZ_CHECK(at::equal(pack(c), frame));
    if (c->original_nbytes() > kLargestDecoded) return 0;
    const at::Tensor y = c->decompress();
    FUZZ_CHECK(y.sizes() == c->shape() && y.scalar_type() == c->dtype() && y.is_contiguous());
  } catch (const c10::ValueError&) {
  } catch (const c10::TypeError&) {
  }
  return 0;
}
