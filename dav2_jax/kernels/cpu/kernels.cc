// What XLA and Python call: shapes are checked and read from the buffers, pointers handed on.
#include "attention.h"
#include "conv_gradient.h"
#include "linear.h"
#include "norm.h"
#include "require.h"
#include "winograd.h"

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Indices = ffi::Buffer<ffi::S32>;
using Result = ffi::ResultBuffer<ffi::F32>;

// Floats that a kernel's last result, its scratch, must have at least: Python asks before it calls the kernel.
extern "C" {
size_t dav2_attention_scratch(size_t n, size_t heads, size_t channels) { return attention_scratch(n, heads, channels); }
size_t dav2_conv_scratch(size_t in, size_t out, size_t stride) { return conv_scratch(in, out, stride); }
size_t dav2_conv_kernel_gradient_scratch(size_t rows, size_t in, size_t out) {
  return kernel_gradient_scratch(rows, in, out);
}
}

static auto binding() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }

// x [..., I], kernel [I, O], bias [O] -> [..., O]; with `gamma` [O], residual [..., O] + gamma * that
static void checked_linear(ffi::ThreadPool& pool, const Array& x, const Array& kernel, const Array& bias, After after,
                           const Array* residual, const Array* gamma, Array& y) {
  const Shape weights = require_shape("kernel", kernel, {kAny, kAny});
  const int64_t depth = weights[0], columns = weights[1];
  const Shape to = with_last(require_last("x", x, depth), columns);
  require_shape("bias", bias, {columns});
  if (residual) require_shape("residual", *residual, to);
  if (gamma) require_shape("gamma", *gamma, {columns});
  require_shape("the result", y, to);
  if (y.element_count() == 0) return;
  require(depth > 0, "x must have channels");
  linear(
      pool, x.typed_data(), kernel.typed_data(), y.typed_data(), y.element_count() / columns, depth, columns,
      {bias.typed_data(), after, gamma ? gamma->typed_data() : nullptr, residual ? residual->typed_data() : nullptr});
}

// x [..., I], kernel [I, O], bias [O] -> [..., O]
static ffi::Error linear_impl(ffi::ThreadPool pool, int32_t after, Array x, Array kernel, Array bias, Result y) {
  return guarded("dav2_linear", [&] {
    require(after == 0 || after == 1, "after must be 0 (nothing) or 1 (GELU), not " + std::to_string(after));
    checked_linear(pool, x, kernel, bias, static_cast<After>(after), nullptr, nullptr, *y);
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_linear, linear_impl,
                              binding().Attr<int32_t>("after").Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>());

// x [..., I], residual [..., O], kernel [I, O], bias [O], gamma [O] -> [..., O]
static ffi::Error linear_residual_impl(ffi::ThreadPool pool, Array x, Array residual, Array kernel, Array bias,
                                       Array gamma, Result y) {
  return guarded("dav2_linear_residual",
                 [&] { checked_linear(pool, x, kernel, bias, After::kNothing, &residual, &gamma, *y); });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_linear_residual, linear_residual_impl,
                              binding().Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>());

// qkv [B, N, 3 D] -> [B, N, D], and scratch for packed keys and values
static ffi::Error attention_impl(ffi::ThreadPool pool, int32_t heads, Array qkv, Result out, Result scratch) {
  return guarded("dav2_attention", [&] {
    const Shape shape = require_shape("qkv", qkv, {kAny, kAny, kAny});
    require(heads > 0 && shape[2] % (3 * int64_t{heads}) == 0,
            "qkv " + text(shape) + " cannot be divided into q, k and v of " + std::to_string(heads) + " heads");
    require_shape("the result", *out, {shape[0], shape[1], shape[2] / 3});
    if (out->element_count() == 0) return;
    const size_t n = shape[1], channels = shape[2] / 3 / heads;
    require_scratch(*scratch, attention_scratch(n, heads, channels));
    attention(pool, qkv.typed_data(), out->typed_data(), scratch->typed_data(), shape[0], n, heads, channels);
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_attention, attention_impl,
                              binding().Attr<int32_t>("heads").Arg<Array>().Ret<Array>().Ret<Array>());

// x [B, H, W, I], residual like the result or [1], kernel [3, 3, I, O], bias [O] -> [B, H', W', O], and scratch for the
// packed kernel
static ffi::Error conv_impl(ffi::ThreadPool pool, int32_t stride, bool relu, Array x, Array residual, Array kernel,
                            Array bias, Result y, Result scratch) {
  return guarded("dav2_conv", [&] {
    require(stride > 0, "stride must be positive, not " + std::to_string(stride));
    const Shape from = require_shape("x", x, {kAny, kAny, kAny, kAny});
    const int64_t out = require_shape("kernel", kernel, {3, 3, from[3], kAny})[3];
    const int64_t out_height = (from[1] + stride - 1) / stride, out_width = (from[2] + stride - 1) / stride;
    const Shape to = require_shape("the result", *y, {from[0], out_height, out_width, out});
    require_shape("bias", bias, {out});
    const bool add = residual.dimensions().size() != 1;
    require_shape("residual", residual, add ? to : Shape{1});
    if (y->element_count() == 0) return;
    require(from[3] > 0, "x must have channels");
    require_scratch(*scratch, conv_scratch(from[3], out, stride));
    Conv c{};
    c.height = from[1], c.width = from[2], c.in = from[3];
    c.out_height = out_height, c.out_width = out_width, c.out = out;
    c.stride = stride;
    c.relu_before = relu;
    c.bias = bias.typed_data();
    c.residual = add ? residual.typed_data() : nullptr;
    conv(pool, c, from[0], x.typed_data(), kernel.typed_data(), scratch->typed_data(), y->typed_data());
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_conv, conv_impl,
                              binding()
                                  .Attr<int32_t>("stride")
                                  .Attr<bool>("relu")
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>());

// The taps of a resize from `size` to as many as there are rows: index and weight [*, 2].
static Taps checked_taps(const char* name, const Indices& index, const Array& weight, int64_t size) {
  const Shape shape = require_shape(name, index, {kAny, 2});
  require_shape(name, weight, shape);
  for (size_t i = 0; i < index.element_count(); i++)
    require(index.typed_data()[i] >= 0 && index.typed_data()[i] < size, std::string(name) + " must be from 0 to " +
                                                                            std::to_string(size - 1) + ", not " +
                                                                            std::to_string(index.typed_data()[i]));
  return {index.typed_data(), weight.typed_data()};
}

// x [B, h, w, I], rows and columns of the resize (index and weight, [H, 2] and [W, 2]), kernel [3, 3, I, O], bias [O],
// last [O + 1] or [1] -> [B, H, W, O], or [B, H, W] where `last` is given; and scratch for the packed kernel
static ffi::Error conv_resized_impl(ffi::ThreadPool pool, Array x, Indices row_index, Array row_weight,
                                    Indices column_index, Array column_weight, Array kernel, Array bias, Array last,
                                    Result y, Result scratch) {
  return guarded("dav2_conv_resized", [&] {
    const Shape from = require_shape("x", x, {kAny, kAny, kAny, kAny});
    const int64_t out = require_shape("kernel", kernel, {3, 3, from[3], kAny})[3];
    const Taps rows = checked_taps("rows", row_index, row_weight, from[1]);
    const Taps columns = checked_taps("columns", column_index, column_weight, from[2]);
    Shape to{from[0], row_index.dimensions()[0], column_index.dimensions()[0]};
    require_shape("bias", bias, {out});
    const bool with_last_layer = y->dimensions().size() == 3;
    require_shape("last", last, {with_last_layer ? out + 1 : 1});
    if (!with_last_layer) to.push_back(out);
    require_shape("the result", *y, to);
    if (y->element_count() == 0) return;
    require(from[3] > 0 && out > 0, "x and the kernel must have channels");
    require_scratch(*scratch, conv_scratch(from[3], out, 1));
    Conv c{};
    c.height = from[1], c.width = from[2], c.in = from[3];
    c.out_height = to[1], c.out_width = to[2], c.out = out;
    c.rows = &rows, c.columns = &columns;
    c.bias = bias.typed_data();
    c.last = with_last_layer ? last.typed_data() : nullptr;
    conv(pool, c, from[0], x.typed_data(), kernel.typed_data(), scratch->typed_data(), y->typed_data());
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_conv_resized, conv_resized_impl,
                              binding()
                                  .Arg<Array>()
                                  .Arg<Indices>()
                                  .Arg<Array>()
                                  .Arg<Indices>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>());

// x [B, H, W, I], g [B, H, W, O] -> [3, 3, I, O], and scratch for partial sums
static ffi::Error conv_kernel_gradient_impl(ffi::ThreadPool pool, Array x, Array g, Result gradient, Result scratch) {
  return guarded("dav2_conv_kernel_gradient", [&] {
    const Shape from = require_shape("x", x, {kAny, kAny, kAny, kAny});
    const Shape to = require_shape("g", g, {from[0], from[1], from[2], kAny});
    require_shape("the result", *gradient, {3, 3, from[3], to[3]});
    if (x.element_count() == 0 || g.element_count() == 0) {
      if (gradient->element_count() > 0) std::memset(gradient->typed_data(), 0, gradient->size_bytes());
      return;
    }
    Conv c{};
    c.height = c.out_height = from[1], c.width = c.out_width = from[2], c.in = from[3], c.out = to[3];
    require_scratch(*scratch, kernel_gradient_scratch(from[0] * c.height, c.in, c.out));
    kernel_gradient(pool, c, from[0], x.typed_data(), g.typed_data(), scratch->typed_data(), gradient->typed_data());
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_conv_kernel_gradient, conv_kernel_gradient_impl,
                              binding().Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>());

// x -> x, the same memory where XLA aliases them: an operation that XLA does not see through.
static ffi::Error optimization_barrier_impl(Array x, Result y) {
  return guarded("dav2_optimization_barrier", [&] {
    require_shape("the result", *y, shape_of(x));
    if (x.element_count() > 0 && x.typed_data() != y->typed_data())
      std::memcpy(y->typed_data(), x.typed_data(), x.size_bytes());
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_optimization_barrier, optimization_barrier_impl,
                              ffi::Ffi::Bind().Arg<Array>().Ret<Array>());

// x [..., D], scale [D], bias [D] -> [..., D]; D a multiple of kLanes
static ffi::Error layer_norm_impl(ffi::ThreadPool pool, float eps, Array x, Array scale, Array bias, Result y) {
  return guarded("dav2_layer_norm", [&] {
    const int64_t width = require_shape("scale", scale, {kAny})[0];
    require_shape("bias", bias, {width});
    require_shape("the result", *y, require_last("x", x, width));
    require(width % kLanes == 0,
            "the width must be a multiple of " + std::to_string(kLanes) + ", not " + std::to_string(width));
    if (y->element_count() == 0) return;
    layer_norm(pool, x.typed_data(), scale.typed_data(), bias.typed_data(), y->typed_data(), x.element_count() / width,
               width, eps);
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_layer_norm, layer_norm_impl,
                              binding().Attr<float>("eps").Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>());
