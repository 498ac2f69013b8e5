"""A bilinear resize and the convolution after it, of a TPU in bfloat16, as one Pallas kernel.

The head ends in wide maps of few channels: 518 x 518 x 32. Channels last, as XLA's convolutions have them, fill 32 of
128 lanes, so that every such map takes four times its size, and each is written and read several times. Here columns
lie along the lanes, and the enlarged map never leaves the chip: it is made in strips, each convolved at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
ROWS = 16  # the granularity of bfloat16 in the second dimension from the end: here, of channels
STRIPS = (32, 24, 16, 8)  # rows of the result that are made in one step: the first that fits
MEMORY = 12 * 2**20  # bytes for it, of the 16 MB that every TPU core has
CHUNK = 256  # rows at least of a matmul that resizes


class Plan(NamedTuple):
    """How a map is enlarged."""

    size: tuple[int, int]  # of the result
    strip: int  # rows of the result in a step
    window: int  # rows of the source that a step sees
    first: np.ndarray  # of these, for each step
    top: np.ndarray  # and `weights`: `_two_rows`
    weights: np.ndarray
    matrix: np.ndarray  # `_matrix`


def plan(x: jax.Array, rows, columns, outputs: int) -> Plan | None:
    """The plan for a map x [B, h, w, C], or None where `resize_conv` cannot do it: other types, very wide maps.

    rows, columns: `ops.linear_taps` from h to H and from w to W; outputs: O.
    """
    _, h, w, channels = x.shape
    height, width = len(rows.index), len(columns.index)
    if x.dtype != jnp.bfloat16 or channels % ROWS or outputs % ROWS or h < 2:
        return None
    lanes = (width // LANES + 1) * LANES  # at least one column of zeros, which is the padding at both ends
    for strip in STRIPS:
        steps = -(-height // strip)
        top, weights = _two_rows(rows, h, before=1, after=steps * strip - height + 1)
        needed = [(top[step * strip], top[step * strip + strip + 1] + 2) for step in range(steps)]
        window = int(max(end - start for start, end in needed))
        source = (window * channels * (w // LANES + 1) * LANES + w * lanes) * 2
        maps = (window * 4 + (strip + 2) * 2) * channels * lanes
        if 2 * source + maps + 2 * strip * outputs * lanes * 2 <= MEMORY:  # twice: the next step is loaded meanwhile
            first = np.minimum([start for start, _ in needed], h - window).astype(np.int32)
            return Plan((height, width), strip, window, first, top, weights, _matrix(columns, w, lanes))
    return None


def resize_conv(x, kernel, bias, *last, plan: Plan, interpret: bool = False):
    """x [B, h, w, C] bfloat16 -> resized, convolved [B, H, W, O] bfloat16.

    kernel, bias: of a 3 x 3 convolution, padded with zeros; [3, 3, C, O] and [O].
    last:         kernel [1, 1, O, 1] and bias [1] of a second one, after a ReLU; the result is then [B, H, W] float32.
    interpret:    run on any machine, slowly, to check the numbers.
    """
    batch, _, w, channels = x.shape
    (height, width), strip, window, *tables, matrix = plan
    outputs, lanes, steps = kernel.shape[3], matrix.shape[1], len(plan.first)
    arguments = [
        x.transpose(0, 1, 3, 2),  # [B, h, C, w]
        jnp.asarray(matrix, x.dtype),
        kernel.astype(x.dtype).transpose(1, 3, 0, 2).reshape(3 * outputs, 3 * channels),  # columns O, rows C
        *(value.astype(jnp.float32).reshape(-1, 1) for value in (bias, *last)),
    ]
    source = pl.BlockSpec(tuple(map(pl.Element, (1, window, channels, w))), lambda b, s, first, *_: (b, first[s], 0, 0))
    whole = [pl.BlockSpec(value.shape, lambda b, s, *_: (0, 0)) for value in arguments[1:]]
    if last:
        result = jax.ShapeDtypeStruct((batch, height, width), jnp.float32)
        block = pl.BlockSpec((None, strip, width), lambda b, s, *_: (b, s, 0))
    else:
        result = jax.ShapeDtypeStruct((batch, height, outputs, width), x.dtype)
        block = pl.BlockSpec((None, strip, outputs, width), lambda b, s, *_: (b, s, 0, 0))
    resizing, convolving = steps * window * w, height * 9 * outputs
    out = pl.pallas_call(
        _resize_conv,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(batch, steps),
            in_specs=[source, *whole],
            out_specs=block,
            scratch_shapes=[
                pltpu.VMEM((window, channels, lanes), jnp.float32),
                pltpu.VMEM((strip + 2, channels, lanes), x.dtype),
            ],
        ),
        out_shape=result,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        cost_estimate=pl.CostEstimate(
            flops=2 * batch * channels * width * (resizing + convolving),
            transcendentals=0,
            bytes_accessed=2 * batch * steps * window * channels * w + result.size * result.dtype.itemsize,
        ),
        interpret=interpret,
        name="resize_conv",
    )(*tables, *arguments)
    return out if last else out.transpose(0, 1, 3, 2)


def _two_rows(taps, size: int, *, before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """For every row of the result, the first of two neighboring rows of the source and both weights.

    The rows before and after the result get weights of 0: they are the zeros that pad the convolution.
    """
    top = np.minimum(taps.index[:, 0], size - 2)
    second = np.where(taps.index[:, 0] > top, 1, taps.weight[:, 1])  # at the very end both taps are the last row
    weights = np.stack([1 - second, second]).astype(np.float32)
    return np.pad(top, (before, after), mode="edge").astype(np.int32), np.pad(weights, ((0, 0), (before, after)))


def _matrix(taps, size: int, lanes: int) -> np.ndarray:
    """The resize of the columns as a matrix [size, lanes], zero beyond the result."""
    matrix = np.zeros((size, lanes), np.float32)
    place = np.arange(len(taps.index))
    for tap in range(2):
        np.add.at(matrix, (taps.index[:, tap], place), taps.weight[:, tap])
    return matrix


def _resize_conv(first_ref, top_ref, weights_ref, x_ref, matrix_ref, kernel_ref, bias_ref, *refs):
    """One strip: x [1, rows, C, w] -> [strip, O, W] or, with the last convolution, [strip, W]."""
    *last, out_ref, wide_ref, map_ref = refs
    rows, channels, lanes = wide_ref.shape
    outputs, width = bias_ref.shape[0], out_ref.shape[-1]
    strip = out_ref.shape[0]
    start, first = pl.program_id(1) * strip, first_ref[pl.program_id(1)]

    step = max(1, CHUNK // channels)
    for row in range(0, rows, step):  # along the columns, by a matmul
        some = x_ref[0, row : min(row + step, rows)]
        wide = jnp.dot(some.reshape(-1, some.shape[-1]), matrix_ref[...], preferred_element_type=jnp.float32)
        wide_ref[row : min(row + step, rows)] = wide.reshape(-1, channels, lanes)

    @pl.loop(0, strip + 2)
    def _(row):  # along the rows, with one more at either side
        top = top_ref[start + row] - first
        mixed = wide_ref[top] * weights_ref[0, start + row] + wide_ref[top + 1] * weights_ref[1, start + row]
        map_ref[row] = mixed.astype(map_ref.dtype)

    @pl.loop(0, strip)
    def _(row):
        three = map_ref[pl.ds(row, 3)].reshape(3 * channels, lanes)
        y = jnp.dot(kernel_ref[...], three, preferred_element_type=jnp.float32)  # [3 O, lanes]: left, center, right
        left, center, right = (y[part * outputs : (part + 1) * outputs] for part in range(3))
        y = pltpu.roll(left, 1, 1) + center + pltpu.roll(right, lanes - 1, 1) + bias_ref[...]  # zeros roll in
        if last:
            kernel, bias = last
            y = (jnp.maximum(y, 0) * kernel[...]).sum(0, keepdims=True) + bias[...]
            out_ref[pl.ds(row, 1)] = y[:, :width]
        else:
            out_ref[row] = y[:, :width].astype(out_ref.dtype)
