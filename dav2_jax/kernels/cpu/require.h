// What handlers rely on, checked: a violation, or memory that is not there, becomes the error that XLA reports.
#pragma once

#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

using Shape = std::vector<int64_t>;
constexpr int64_t kAny = -1;  // any size of an axis

// The result of a handler whose work is `run()`.
template <typename Run>
xla::ffi::Error guarded(const char* handler, const Run& run) {
  using xla::ffi::Error, xla::ffi::ErrorCode;
  try {
    run();
    return Error::Success();
  } catch (const std::invalid_argument& error) {
    return Error::InvalidArgument(std::string(handler) + ": " + error.what());
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kResourceExhausted, std::string(handler) + ": not enough memory for its scratch");
  }
}

inline void require(bool holds, const std::string& what) {
  if (!holds) throw std::invalid_argument(what);
}

inline std::string text(const Shape& shape) {
  std::string sizes;
  for (int64_t size : shape) sizes += (sizes.empty() ? "" : ", ") + (size == kAny ? "*" : std::to_string(size));
  return "[" + sizes + "]";
}

template <typename Buffer>
Shape shape_of(const Buffer& buffer) {
  return {buffer.dimensions().begin(), buffer.dimensions().end()};
}

// The shape of `buffer`, which has to be `wanted`.
template <typename Buffer>
Shape require_shape(const char* name, const Buffer& buffer, const Shape& wanted) {
  const Shape shape = shape_of(buffer);
  bool same = shape.size() == wanted.size();
  for (size_t axis = 0; same && axis < shape.size(); axis++) same = wanted[axis] == kAny || wanted[axis] == shape[axis];
  if (!same) throw std::invalid_argument(std::string(name) + " must be " + text(wanted) + ", not " + text(shape));
  return shape;
}

// The shape of `buffer`, [..., last] of any rank from 1.
template <typename Buffer>
Shape require_last(const char* name, const Buffer& buffer, int64_t last) {
  const Shape shape = shape_of(buffer);
  if (shape.empty() || shape.back() != last)
    throw std::invalid_argument(std::string(name) + " must be [..., " + std::to_string(last) + "], not " + text(shape));
  return shape;
}

inline Shape with_last(Shape shape, int64_t last) {
  shape.back() = last;
  return shape;
}

template <typename Buffer>
void require_scratch(const Buffer& scratch, size_t floats) {
  if (scratch.element_count() < floats)
    throw std::invalid_argument("scratch must have at least " + std::to_string(floats) + " floats, not " +
                                std::to_string(scratch.element_count()));
}
