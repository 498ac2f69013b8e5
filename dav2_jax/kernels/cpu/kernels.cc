// What XLA calls: shapes are read from the buffers, pointers handed on.
#include "attention.h"
#include "conv_gradient.h"
#include "linear.h"
#include "norm.h"
#include "winograd.h"

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Indices = ffi::Buffer<ffi::S32>;
using Result = ffi::ResultBuffer<ffi::F32>;

static auto binding() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }

// x [..., I], kernel [I, O], bias [O] -> [..., O]
static ffi::Error linear_impl(ffi::ThreadPool pool, int32_t after, Array x, Array kernel, Array bias, Result y) {
  const size_t depth = kernel.dimensions()[0], columns = kernel.dimensions()[1];
  linear(pool, x.typed_data(), kernel.typed_data(), y->typed_data(), x.element_count() / depth, depth, columns,
         {bias.typed_data(), static_cast<After>(after)});
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    dav2_linear, linear_impl, binding().Attr<int32_t>("after").Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>());

// x [..., I], residual [..., O], kernel [I, O], bias [O], gamma [O] -> [..., O]
static ffi::Error linear_residual_impl(ffi::ThreadPool pool, Array x, Array residual, Array kernel, Array bias,
                                       Array gamma, Result y) {
  const size_t depth = kernel.dimensions()[0], columns = kernel.dimensions()[1];
  linear(pool, x.typed_data(), kernel.typed_data(), y->typed_data(), x.element_count() / depth, depth, columns,
         {bias.typed_data(), After::kNothing, gamma.typed_data(), residual.typed_data()});
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    dav2_linear_residual, linear_residual_impl,
    binding().Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>());

// qkv [B, N, 3 D] -> [B, N, D], and room for packed keys and values
static ffi::Error attention_impl(ffi::ThreadPool pool, int32_t heads, Array qkv, Result out, Result packed) {
  const auto shape = qkv.dimensions();
  const size_t channels = shape[2] / 3 / heads;
  if (packed->element_count() < heads * packed_floats(shape[1], channels))
    return ffi::Error::InvalidArgument("too little room for keys and values");
  attention(pool, qkv.typed_data(), out->typed_data(), packed->typed_data(), shape[0], shape[1], heads, channels);
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_attention, attention_impl,
                              binding().Attr<int32_t>("heads").Arg<Array>().Ret<Array>().Ret<Array>());

// x [B, H, W, I], residual like the result or [1], kernel [3, 3, I, O], bias [O] -> [B, H', W', O], and room for the
// packed kernel
static ffi::Error conv_impl(ffi::ThreadPool pool, int32_t stride, bool relu, Array x, Array residual, Array kernel,
                            Array bias, Result y, Result packed) {
  const auto from = x.dimensions(), to = y->dimensions();
  Conv c{};
  c.height = from[1], c.width = from[2], c.in = from[3];
  c.tall = to[1], c.wide = to[2], c.out = to[3];
  c.stride = stride;
  c.relu_before = relu;
  c.bias = bias.typed_data();
  c.residual = residual.element_count() == y->element_count() ? residual.typed_data() : nullptr;
  if (packed->element_count() < packed_floats(c)) return ffi::Error::InvalidArgument("too little room for the kernel");
  conv(pool, c, from[0], x.typed_data(), kernel.typed_data(), packed->typed_data(), y->typed_data());
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_conv, conv_impl,
                              binding().Attr<int32_t>("stride").Attr<bool>("relu").Arg<Array>().Arg<Array>()
                                  .Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>());

// x [B, h, w, I], rows and columns of the resize (index and weight, [H, 2] and [W, 2]), kernel [3, 3, I, O], bias [O],
// last [O + 1] or [1] -> [B, H, W, O], or [B, H, W] where `last` is given
static ffi::Error conv_resized_impl(ffi::ThreadPool pool, Array x, Indices row_index, Array row_weight,
                                    Indices column_index, Array column_weight, Array kernel, Array bias, Array last,
                                    Result y, Result packed) {
  const auto from = x.dimensions();
  const Taps rows{row_index.typed_data(), row_weight.typed_data()};
  const Taps columns{column_index.typed_data(), column_weight.typed_data()};
  Conv c{};
  c.height = from[1], c.width = from[2], c.in = from[3];
  c.tall = row_index.dimensions()[0], c.wide = column_index.dimensions()[0], c.out = kernel.dimensions()[3];
  c.rows = &rows, c.columns = &columns;
  c.bias = bias.typed_data();
  c.last = last.element_count() == c.out + 1 ? last.typed_data() : nullptr;
  if (packed->element_count() < packed_floats(c)) return ffi::Error::InvalidArgument("too little room for the kernel");
  conv(pool, c, from[0], x.typed_data(), kernel.typed_data(), packed->typed_data(), y->typed_data());
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_conv_resized, conv_resized_impl,
                              binding().Arg<Array>().Arg<Indices>().Arg<Array>().Arg<Indices>().Arg<Array>()
                                  .Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>());

// x [B, H, W, I], g [B, H, W, O] -> [3, 3, I, O], and room for as many sums as there are parts
static ffi::Error conv_kernel_gradient_impl(ffi::ThreadPool pool, int32_t parts, Array x, Array g, Result gradient,
                                            Result sums) {
  const auto from = x.dimensions();
  Conv c{};
  c.height = c.tall = from[1], c.width = c.wide = from[2], c.in = from[3];
  c.out = g.dimensions()[3];
  if (sums->element_count() < parts * 9 * c.in * round_up(c.out, kColumns))
    return ffi::Error::InvalidArgument("too little room for the sums");
  kernel_gradient(pool, c, from[0], x.typed_data(), g.typed_data(), parts, sums->typed_data(), gradient->typed_data());
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    dav2_conv_kernel_gradient, conv_kernel_gradient_impl,
    binding().Attr<int32_t>("parts").Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>());

// x -> x, the same memory: XLA does not look behind it.
static ffi::Error kept_impl(Array, Result) { return ffi::Error::Success(); }

XLA_FFI_DEFINE_HANDLER_SYMBOL(dav2_kept, kept_impl, ffi::Ffi::Bind().Arg<Array>().Ret<Array>());

// x [..., D], scale [D], bias [D] -> [..., D]
static ffi::Error layer_norm_impl(ffi::ThreadPool pool, float eps, Array x, Array scale, Array bias, Result y) {
  const size_t width = scale.element_count();
  if (width % kLanes) return ffi::Error::InvalidArgument("the width is no multiple of a vector");
  layer_norm(pool, x.typed_data(), scale.typed_data(), bias.typed_data(), y->typed_data(), x.element_count() / width,
             width, eps);
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    dav2_layer_norm, layer_norm_impl, binding().Attr<float>("eps").Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>());
