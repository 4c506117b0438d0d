//! 3x3 convolutions and their gradients on channel-last slices.
//!
//! Three ways, chosen by [`Way::of`]: Winograd for images with enough pixels and channels; a matrix product
//! of gathered 3x3 neighborhoods ("columns") for few input channels, tiny images and stride 2; a product
//! with all nine taps at once that is then summed ("taps") for few output channels. The input gradient is
//! the convolution with the turned weights, so it takes the same ways.

use crate::gemm::{Left, Right, Start, matmul, multiply, pack_panel, packed_len, panel_width};
use crate::simd::{self, Shared, filled, for_each, with_scratch};
use crate::winograd::{self, Addend, Shape, Weights};

/// Channels below this are too few for a vector of them.
const FEW: usize = 8;
/// Bytes of gathered neighborhoods that a task holds.
const COLUMN_BYTES: usize = 512 << 10;
/// Bytes of gathered neighborhoods that all threads share in a weight gradient.
const SHARED_COLUMN_BYTES: usize = 8 << 20;

/// How a stride-1 convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Winograd,
    Columns,
    Taps,
}

impl Way {
    /// The way with the fewest products, counting whole vectors of channels.
    pub(crate) fn of(shape: &Shape) -> Self {
        let tile_products = 36 * shape.tiles();
        let direct_products = 9 * shape.pixels();
        if shape.outputs < FEW && shape.outputs < shape.inputs {
            Way::Taps
        } else if shape.inputs < FEW || tile_products >= direct_products {
            Way::Columns
        } else {
            Way::Winograd
        }
    }
}

/// y = x * w + bias + residual, stride 1, padding 1.
pub(crate) fn convolve(shape: &Shape, x: &[f32], weight: &[f32], addend: Addend) -> Vec<f32> {
    match Way::of(shape) {
        Way::Winograd => {
            let weights = Weights {
                values: weight,
                turned: false,
            };
            winograd::convolve(shape, x, weights, addend)
        }
        Way::Columns => convolve_columns(&Window::stride1(shape), x, weight, addend),
        Way::Taps => convolve_taps(shape, x, weight, addend),
    }
}

/// dx of [`convolve`]: the convolution of dy with the weights turned by half a turn.
pub(crate) fn input_gradient(shape: &Shape, weight: &[f32], dy: &[f32]) -> Vec<f32> {
    let Shape {
        inputs, outputs, ..
    } = *shape;
    let shape = Shape {
        inputs: outputs,
        outputs: inputs,
        ..*shape
    };
    let zeros = vec![0.0; inputs];
    let addend = Addend {
        bias: &zeros,
        per_image: false,
        residual: None,
    };
    if Way::of(&shape) == Way::Winograd {
        let weights = Weights {
            values: weight,
            turned: true,
        };
        return winograd::convolve(&shape, dy, weights, addend);
    }
    convolve(&shape, dy, &turn_weights(weight, inputs, outputs), addend)
}

/// dw of [`convolve`], `[3, 3, inputs, outputs]`.
pub(crate) fn weight_gradient(shape: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    match Way::of(shape) {
        Way::Winograd => winograd::weight_gradient(shape, x, dy),
        Way::Columns => weight_gradient_columns(&Window::stride1(shape), x, dy),
        Way::Taps => {
            // The neighborhoods of dy are the smaller ones: the gradient with x and dy in each other's
            // place, turned back.
            let Shape {
                inputs, outputs, ..
            } = *shape;
            let swapped = Shape {
                inputs: outputs,
                outputs: inputs,
                ..*shape
            };
            let turned = weight_gradient_columns(&Window::stride1(&swapped), dy, x);
            turn_weights(&turned, outputs, inputs)
        }
    }
}

/// Sums of the rows of `dy`, `[rows, channels]`, in `groups` equal groups: `[groups, channels]`.
pub(crate) fn bias_gradient(dy: &[f32], groups: usize, channels: usize) -> Vec<f32> {
    const ROWS: usize = 256;
    let rows = dy.len() / (groups * channels).max(1);
    let parts = rows.div_ceil(ROWS).max(1);
    let mut sums = vec![0.0f32; groups * parts * channels];
    let shared = Shared::new(sums.as_mut_ptr());
    for_each(dy.len() > 16 * 1024, groups * parts, |task| {
        let (group, part) = (task / parts, task % parts);
        let count = ROWS.min(rows - part * ROWS);
        let from = &dy[(group * rows + part * ROWS) * channels..][..count * channels];
        // SAFETY: each task has its own row of sums.
        unsafe { add_rows(from.as_ptr(), count, channels, shared.at(task * channels)) };
    });
    let mut totals = Vec::with_capacity(groups * channels);
    for sums in sums.chunks_exact((parts * channels).max(1)) {
        // Many parts of 256 rows: in f64, so that the sum is as exact as theirs.
        let mut total = vec![0.0f64; channels];
        for sums in sums.chunks_exact(channels) {
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += *sum as f64;
            }
        }
        totals.extend(total.iter().map(|total| *total as f32));
    }
    totals
}

simd::vectorized! {
    /// to[channels] += the sum of `rows` rows.
    unsafe fn add_rows(simd; from: *const f32, rows: usize, channels: usize, to: *mut f32) {
        // Four vectors of a row at a time: whole cache lines in the order of memory, and independent sums.
        let lanes = S::F32_LANES;
        let mut c = 0;
        while c + 4 * lanes <= channels {
            let mut sums = [simd.splat_f32s(0.0); 4];
            for r in 0..rows {
                let from = from.add(r * channels + c);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = simd.add_f32s(*sum, simd::load(simd, from.add(i * lanes), lanes));
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                let to = to.add(c + i * lanes);
                simd::store(simd, to, lanes, simd.add_f32s(simd::load(simd, to, lanes), *sum));
            }
            c += 4 * lanes;
        }
        while c < channels {
            let count = (channels - c).min(lanes);
            let mut sum = simd::load(simd, to.add(c), count);
            for r in 0..rows {
                sum = simd.add_f32s(sum, simd::load(simd, from.add(r * channels + c), count));
            }
            simd::store(simd, to.add(c), count, sum);
            c += lanes;
        }
    }
}

/// [3, 3, m, n] -> [3, 3, n, m], each 3x3 filter turned by half a turn.
fn turn_weights(weight: &[f32], m: usize, n: usize) -> Vec<f32> {
    const SIDE: usize = 16;
    let strips = m.div_ceil(SIDE);
    let work = |to: *mut f32| {
        let to = Shared::new(to);
        // SAFETY: each task writes its own rows' elements.
        for_each(m * n >= 4096, 9 * strips, |task| unsafe {
            let (tap, strip) = (task / strips, task % strips);
            let from = &weight[tap * m * n..(tap + 1) * m * n];
            let to = to.at((8 - tap) * m * n);
            let rows = strip * SIDE..m.min((strip + 1) * SIDE);
            for j0 in (0..n).step_by(SIDE) {
                for j in j0..n.min(j0 + SIDE) {
                    for i in rows.clone() {
                        *to.add(j * m + i) = from[i * n + j];
                    }
                }
            }
        });
    };
    // SAFETY: every tap and element is written.
    unsafe { filled(9 * m * n, work) }
}

/// The neighborhoods that a 3x3 convolution reads, with any stride and padding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Height and width of the result.
    pub down: usize,
    pub across: usize,
    pub stride: usize,
    /// Zeros above and to the left of the image.
    pub before: usize,
}

impl Window {
    fn stride1(shape: &Shape) -> Self {
        let Shape {
            batch,
            height,
            width,
            inputs,
            outputs,
        } = *shape;
        Self {
            batch,
            height,
            width,
            inputs,
            outputs,
            down: height,
            across: width,
            stride: 1,
            before: 1,
        }
    }

    fn rows(&self) -> usize {
        self.batch * self.down * self.across
    }

    fn inner(&self) -> usize {
        9 * self.inputs
    }

    /// The pixel that tap `tap` of result pixel `row` reads, as an offset in pixels.
    #[inline(always)]
    fn source(&self, row: usize, tap: usize) -> Option<usize> {
        let (line, x) = (row / self.across, row % self.across);
        let (image, y) = (line / self.down, line % self.down);
        let y = (y * self.stride + tap / 3).wrapping_sub(self.before);
        let x = (x * self.stride + tap % 3).wrapping_sub(self.before);
        (y < self.height && x < self.width).then(|| (image * self.height + y) * self.width + x)
    }

    /// Writes the neighborhoods of result pixels `first..first + count` to `columns[count, 9 * inputs]`.
    ///
    /// # Safety
    ///
    /// `columns` is writable for that many floats.
    unsafe fn gather(&self, x: &[f32], first: usize, count: usize, columns: *mut f32) {
        let line = 3 * self.inputs;
        let mut to = columns;
        for r in first..first + count {
            let (row, x0) = (r / self.across, r % self.across * self.stride);
            let (image, y0) = (row / self.down, row % self.down * self.stride);
            // The taps of one line are neighbors in memory; some may hang over the left or right edge.
            let left = self.before.saturating_sub(x0) * self.inputs;
            let end = (self.width + self.before - x0).min(3) * self.inputs;
            for tap_line in 0..3 {
                let y = (y0 + tap_line).wrapping_sub(self.before);
                unsafe {
                    if y < self.height {
                        let start =
                            ((image * self.height + y) * self.width + x0) * self.inputs + left;
                        let from = &x[start - self.before * self.inputs..][..end - left];
                        fill(to, left, 0.0);
                        copy(from, to.add(left));
                        fill(to.add(end), line - end, 0.0);
                    } else {
                        fill(to, line, 0.0);
                    }
                    to = to.add(line);
                }
            }
        }
    }
}

/// A copy of what is mostly a few floats: a loop, not a call.
#[inline(always)]
unsafe fn copy(from: &[f32], to: *mut f32) {
    unsafe {
        if from.len() > 64 {
            std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len());
        } else {
            for (i, value) in from.iter().enumerate() {
                *to.add(i) = *value;
            }
        }
    }
}

#[inline(always)]
unsafe fn fill(to: *mut f32, count: usize, value: f32) {
    for i in 0..count {
        unsafe { *to.add(i) = value };
    }
}

/// y = columns(x) w + bias + residual.
pub(crate) fn convolve_columns(
    window: &Window,
    x: &[f32],
    weight: &[f32],
    addend: Addend,
) -> Vec<f32> {
    let (rows, inner, outputs) = (window.rows(), window.inner(), window.outputs);
    let block = (COLUMN_BYTES / (4 * inner)).clamp(24, 384);
    let per_image = window.down * window.across;
    let width = panel_width();
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        with_scratch(packed_len(inner, outputs), |panels| {
            let panels = Shared::new(panels);
            let b = Right {
                pointer: weight.as_ptr(),
                row: outputs,
                column: 1,
            };
            // SAFETY: each task packs its own panel, and then writes its own rows.
            for_each(
                inner * outputs > 16 * 1024,
                outputs.div_ceil(width),
                |p| unsafe {
                    pack_panel(inner, outputs, p * width, b, panels.at(p * inner * width));
                },
            );
            for_each(
                rows * inner * outputs > 64 * 1024,
                rows.div_ceil(block),
                |task| unsafe {
                    let first = task * block;
                    let count = block.min(rows - first);
                    for row in first..first + count {
                        let image = if addend.per_image { row / per_image } else { 0 };
                        let bias = &addend.bias[image * outputs..(image + 1) * outputs];
                        let to = y.at(row * outputs);
                        match addend.residual {
                            None => std::ptr::copy_nonoverlapping(bias.as_ptr(), to, outputs),
                            Some(residual) => {
                                for (c, (bias, residual)) in
                                    bias.iter().zip(&residual[row * outputs..]).enumerate()
                                {
                                    *to.add(c) = bias + residual;
                                }
                            }
                        }
                    }
                    with_scratch(count * inner, |columns| {
                        window.gather(x, first, count, columns);
                        let a = Left {
                            pointer: columns,
                            row: inner,
                            column: 1,
                        };
                        let (panels, y) = (panels.at(0), y.at(first * outputs));
                        multiply(
                            count,
                            outputs,
                            inner,
                            a,
                            panels,
                            inner * width,
                            y,
                            outputs,
                            Start::Result,
                        );
                    });
                },
            );
        });
    };
    // SAFETY: the tasks cover every row.
    unsafe { filled(rows * outputs, work) }
}

/// dw = columns(x)^T dy.
pub(crate) fn weight_gradient_columns(window: &Window, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (rows, inner, outputs) = (window.rows(), window.inner(), window.outputs);
    let chunk = (SHARED_COLUMN_BYTES / (4 * inner)).clamp(64, 4096);
    let mut dw = vec![0.0f32; inner * outputs];
    with_scratch(chunk.min(rows) * inner, |columns| {
        let columns = Shared::new(columns);
        for first in (0..rows).step_by(chunk) {
            const PIXELS: usize = 32;
            let count = chunk.min(rows - first);
            // SAFETY: each task gathers its own pixels.
            for_each(
                count * inner > 16 * 1024,
                count.div_ceil(PIXELS),
                |s| unsafe {
                    let from = s * PIXELS;
                    let n = PIXELS.min(count - from);
                    window.gather(x, first + from, n, columns.at(from * inner));
                },
            );
            unsafe {
                let a = Left {
                    pointer: columns.at(0),
                    row: 1,
                    column: inner,
                };
                let b = Right {
                    pointer: dy[first * outputs..].as_ptr(),
                    row: outputs,
                    column: 1,
                };
                matmul(
                    true,
                    inner,
                    outputs,
                    count,
                    a,
                    b,
                    dw.as_mut_ptr(),
                    outputs,
                    Start::Result,
                );
            }
        }
    });
    dw
}

/// dx of a strided convolution: dy w^T, summed where neighborhoods overlap.
pub(crate) fn input_gradient_columns(window: &Window, weight: &[f32], dy: &[f32]) -> Vec<f32> {
    let (inner, outputs, channels) = (window.inner(), window.outputs, window.inputs);
    let width = panel_width();
    let image = window.height * window.width * channels;
    let work = |dx: *mut f32| {
        let dx = Shared::new(dx);
        with_scratch(packed_len(outputs, inner), |panels| {
            let panels = Shared::new(panels);
            let b = Right {
                pointer: weight.as_ptr(),
                row: 1,
                column: outputs,
            };
            // SAFETY: each task packs its own panel, and then writes its own image.
            for_each(
                inner * outputs > 16 * 1024,
                inner.div_ceil(width),
                |p| unsafe {
                    pack_panel(
                        outputs,
                        inner,
                        p * width,
                        b.from(0),
                        panels.at(p * outputs * width),
                    );
                },
            );
            for_each(
                window.rows() * inner * outputs > 64 * 1024,
                window.batch,
                |i| unsafe {
                    let dx = dx.at(i * image);
                    dx.write_bytes(0, image);
                    let per_image = window.down * window.across;
                    let block = (COLUMN_BYTES / (4 * inner)).clamp(24, 384).min(per_image);
                    with_scratch(block * inner, |columns| {
                        for at in (0..per_image).step_by(block) {
                            let first = i * per_image + at;
                            let count = block.min(per_image - at);
                            let a = Left {
                                pointer: dy[first * outputs..].as_ptr(),
                                row: outputs,
                                column: 1,
                            };
                            multiply(
                                count,
                                inner,
                                outputs,
                                a,
                                panels.at(0),
                                outputs * width,
                                columns,
                                inner,
                                Start::Zero,
                            );
                            for r in 0..count {
                                for tap in 0..9 {
                                    if let Some(pixel) = window.source(first + r, tap) {
                                        let to = dx.add(pixel * channels - i * image);
                                        add_rows(
                                            columns.add((r * 9 + tap) * channels),
                                            1,
                                            channels,
                                            to,
                                        );
                                    }
                                }
                            }
                        }
                    });
                },
            );
        });
    };
    // SAFETY: the tasks cover every image.
    unsafe { filled(window.batch * image, work) }
}

/// y = the sum over taps of (x w)[tap], each shifted to its place, + bias + residual.
fn convolve_taps(shape: &Shape, x: &[f32], weight: &[f32], addend: Addend) -> Vec<f32> {
    let Shape {
        batch,
        height,
        width,
        inputs,
        outputs,
    } = *shape;
    let columns = 9 * outputs;
    // [inputs, tap, outputs]
    let mut flat = vec![0.0f32; inputs * columns];
    for (tap, from) in weight.chunks_exact(inputs * outputs).enumerate() {
        for (i, from) in from.chunks_exact(outputs).enumerate() {
            flat[i * columns + tap * outputs..][..outputs].copy_from_slice(from);
        }
    }
    let lines = (COLUMN_BYTES / (4 * columns * width))
        .clamp(4, 4096)
        .min(height);
    let strips = height.div_ceil(lines);
    let panel_width = panel_width();
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        with_scratch(packed_len(inputs, columns), |panels| {
            let b = Right {
                pointer: flat.as_ptr(),
                row: columns,
                column: 1,
            };
            for p in 0..columns.div_ceil(panel_width) {
                // SAFETY: the panels fit the scratch memory.
                unsafe {
                    pack_panel(
                        inputs,
                        columns,
                        p * panel_width,
                        b,
                        panels.add(p * inputs * panel_width),
                    )
                };
            }
            let panels = Shared::new(panels);
            for_each(
                shape.pixels() * inputs * columns > 64 * 1024,
                batch * strips,
                |task| {
                    let (image, strip) = (task / strips, task % strips);
                    let (top, end) = (strip * lines, height.min((strip + 1) * lines));
                    // One line more above and below, where there is one.
                    let (from, to) = (top.saturating_sub(1), height.min(end + 1));
                    let pixels = (to - from) * width;
                    with_scratch(pixels * columns, |z| {
                        let x = &x[(image * height + from) * width * inputs..];
                        let a = Left {
                            pointer: x.as_ptr(),
                            row: inputs,
                            column: 1,
                        };
                        // SAFETY: `z` holds all products, and each task writes its own lines.
                        let z = unsafe {
                            multiply(
                                pixels,
                                columns,
                                inputs,
                                a,
                                panels.at(0),
                                inputs * panel_width,
                                z,
                                columns,
                                Start::Zero,
                            );
                            std::slice::from_raw_parts(z, pixels * columns)
                        };
                        for py in top..end {
                            for px in 0..width {
                                let pixel = (image * height + py) * width + px;
                                for o in 0..outputs {
                                    let mut sum = addend.bias[if addend.per_image {
                                        image * outputs + o
                                    } else {
                                        o
                                    }];
                                    for tap in 0..9 {
                                        let (sy, sx) = (
                                            (py + tap / 3).wrapping_sub(1),
                                            (px + tap % 3).wrapping_sub(1),
                                        );
                                        if sy < height && sx < width {
                                            sum += z[((sy - from) * width + sx) * columns
                                                + tap * outputs
                                                + o];
                                        }
                                    }
                                    if let Some(residual) = addend.residual {
                                        sum += residual[pixel * outputs + o];
                                    }
                                    unsafe { *y.at(pixel * outputs + o) = sum };
                                }
                            }
                        }
                    });
                },
            );
        });
    };
    // SAFETY: the tasks cover every line of every image.
    unsafe { filled(shape.pixels() * outputs, work) }
}
