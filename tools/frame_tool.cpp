// SPDX-License-Identifier: Apache-2.0
// tools/frame: what is in a frame, and a new checksum for one that was edited.
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/frame/codec_id.h"
#include "kernels/frame/frame.h"

namespace {

using namespace qvlmem;

constexpr const char* kUsage =
    R"(usage: tools/frame show FILE [--json]
       tools/frame reseal FILE... [-o OUT]

Looks into a frame: the bytes of torch.ops.qvlmem.pack, written to a file.

  show      prints the codec, the dtype and the shape of the original, the measured errors, and the
            parts; of a damaged frame also what is wrong with it
    --json  as one JSON object
  reseal    gives frames that were edited the checksum that their bytes now have, so that a reader
            looks behind it; changes nothing else
    -o OUT  writes to OUT and leaves the one FILE as it is
  --help    this text

Exit codes: 0 done, 1 the file is missing, unreadable or no intact frame, 2 wrong usage.
)";

using Bytes = std::vector<uint8_t>;

Bytes read_file(const std::string& path) {
  if (std::filesystem::is_directory(path)) throw std::runtime_error(path + " is a folder");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  Bytes bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw std::runtime_error("cannot read " + path);
  return bytes;
}

// Into a file beside it first: what was there stays whole where the disk is full.
void write_file(const std::string& path, const Bytes& bytes) {
  const std::string unfinished = path + ".part";
  std::ofstream file(unfinished, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + unfinished);
  std::filesystem::rename(unfinished, path);
}

// A JSON string. Bytes that are not ASCII pass as they are: paths are UTF-8.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += std::string("\\") + c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x", c);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string list(const int64_t* values, int count) {
  std::string out = "[";
  for (int i = 0; i < count; ++i) out += (i > 0 ? ", " : "") + std::to_string(values[i]);
  return out + "]";
}

// JSON has neither NaN nor infinity, which a damaged frame may hold.
std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  std::snprintf(text, sizeof(text), "%.17g", value);
  return text;
}

std::string error_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g", value);
  return value == -1.0 ? "not measured" : text;
}

std::string codec_text(uint8_t codec) {
  const char* name = codec_name(static_cast<CodecId>(codec));
  return name != nullptr ? name : "unknown";
}

struct Looked {
  int64_t bytes;
  FrameStatus status;
  bool readable;        // the header holds together, whatever the checksum says
  bool has_fixed_part;  // magic and fixed header are there, so that header's numbers mean something
  uint64_t expected_checksum = 0;
  FrameHeader header;
};

Looked look(const Bytes& frame) {
  Looked looked{};
  looked.bytes = static_cast<int64_t>(frame.size());
  looked.status = parse_frame(frame.data(), looked.bytes, &looked.header);
  const FrameStatus unchecked = parse_frame(frame.data(), looked.bytes, &looked.header, false);
  looked.readable = unchecked == FrameStatus::kOk;
  looked.has_fixed_part =
      unchecked != FrameStatus::kBadMagic && unchecked != FrameStatus::kTooShort;
  if (looked.has_fixed_part) {
    looked.expected_checksum = frame_checksum(frame.data(), looked.bytes);
  }
  return looked;
}

int64_t original_bytes(const FrameHeader& header) {
  int64_t bytes = dtype_bytes(header.dtype);
  for (int d = 0; d < header.dims; ++d) bytes *= header.shape[d];
  return bytes;
}

void show_text(const std::string& path, const Looked& looked) {
  const FrameHeader& header = looked.header;
  std::printf("%s: %s, %" PRId64 " bytes\n", path.c_str(), frame_status_text(looked.status),
              looked.bytes);
  if (!looked.has_fixed_part) return;
  std::printf("format version  %d\n", header.version);
  std::printf("codec           %s (%d)\n", codec_text(header.codec).c_str(), header.codec);
  std::printf("size in header  %" PRId64 "\n", header.frame_bytes);
  std::printf("checksum        %016" PRIx64 ", of its bytes %016" PRIx64 "\n", header.checksum,
              looked.expected_checksum);
  if (!looked.readable) return;
  std::printf("original        %s %s, %" PRId64 " bytes\n", dtype_name(header.dtype),
              list(header.shape, header.dims).c_str(), original_bytes(header));
  std::printf("errors          relative %s, worst row %s, largest element %s\n",
              error_text(header.error[0]).c_str(), error_text(header.error[1]).c_str(),
              error_text(header.error[2]).c_str());
  std::printf("params          %s\n", list(header.param, header.params).c_str());
  for (int p = 0; p < header.parts; ++p) {
    const FramePart& part = header.part[p];
    std::printf("part %d          %s %s, %" PRId64 " bytes at %" PRId64 "\n", p,
                dtype_name(part.dtype), list(part.shape, part.dims).c_str(), part.bytes,
                part.offset);
  }
}

void show_json(const std::string& path, const Looked& looked) {
  const FrameHeader& header = looked.header;
  std::printf("{\"file\": %s, \"bytes\": %" PRId64 ", \"ok\": %s, \"status\": %s",
              quoted(path).c_str(), looked.bytes,
              looked.status == FrameStatus::kOk ? "true" : "false",
              quoted(frame_status_text(looked.status)).c_str());
  if (looked.has_fixed_part) {
    std::printf(", \"version\": %d, \"codec\": %d, \"method\": %s, \"frame_bytes\": %" PRId64,
                header.version, header.codec, quoted(codec_text(header.codec)).c_str(),
                header.frame_bytes);
    std::printf(", \"checksum\": \"%016" PRIx64 "\", \"expected_checksum\": \"%016" PRIx64 "\"",
                header.checksum, looked.expected_checksum);
  }
  if (looked.readable) {
    std::printf(", \"dtype\": \"%s\", \"shape\": %s, \"original_bytes\": %" PRId64,
                dtype_name(header.dtype), list(header.shape, header.dims).c_str(),
                original_bytes(header));
    std::printf(", \"relative_error\": %s, \"worst_row_error\": %s, \"max_element_error\": %s",
                number(header.error[0]).c_str(), number(header.error[1]).c_str(),
                number(header.error[2]).c_str());
    std::printf(", \"params\": %s, \"parts\": [", list(header.param, header.params).c_str());
    for (int p = 0; p < header.parts; ++p) {
      const FramePart& part = header.part[p];
      std::printf("%s{\"dtype\": \"%s\", \"shape\": %s, \"bytes\": %" PRId64
                  ", \"offset\": %" PRId64 "}",
                  p > 0 ? ", " : "", dtype_name(part.dtype), list(part.shape, part.dims).c_str(),
                  part.bytes, part.offset);
    }
    std::printf("]");
  }
  std::printf("}\n");
}

int show(const std::string& path, bool json) {
  const Looked looked = look(read_file(path));
  (json ? show_json : show_text)(path, looked);
  return looked.status == FrameStatus::kOk ? 0 : 1;
}

void reseal(const std::string& path, const std::string& out) {
  Bytes frame = read_file(path);
  if (!look(frame).has_fixed_part) {
    throw std::runtime_error(path + ": " + frame_status_text(look(frame).status));
  }
  seal_frame(frame.data(), static_cast<int64_t>(frame.size()));
  write_file(out, frame);
  const FrameStatus status = look(frame).status;
  if (status != FrameStatus::kOk) {
    std::fprintf(stderr, "frame: %s: resealed, but still %s\n", out.c_str(),
                 frame_status_text(status));
  }
}

int wrong_usage(const std::string& why) {
  std::fprintf(stderr, "frame: error: %s\n%s", why.c_str(), kUsage);
  return 2;
}

int run(const std::vector<std::string>& arguments) {
  std::string command, out;
  std::vector<std::string> paths;
  bool json = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      std::fputs(kUsage, stdout);
      return 0;
    }
    if (argument == "--json" && command == "show") {
      json = true;
    } else if (argument == "-o" && command == "reseal") {
      if (++i == arguments.size()) return wrong_usage("-o: expected a path");
      out = arguments[i];
    } else if (argument.size() > 1 && argument[0] == '-') {
      return wrong_usage("unknown option '" + argument + "'");
    } else if (command.empty()) {
      command = argument;
    } else {
      paths.push_back(argument);
    }
  }
  if (command != "show" && command != "reseal") {
    return wrong_usage(command.empty() ? "no command" : "unknown command '" + command + "'");
  }
  const bool one_only = command == "show" || !out.empty();
  if (paths.empty() || (one_only && paths.size() > 1)) {
    return wrong_usage(command + ": expected " + (one_only ? "one file" : "files") + ", got " +
                       std::to_string(paths.size()));
  }
  if (command == "show") return show(paths[0], json);
  for (const std::string& path : paths) reseal(path, out.empty() ? path : out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "frame: error: %s\n", error.what());
    return 1;
  }
}
