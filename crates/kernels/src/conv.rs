//! 3x3 convolutions and their gradients on channel-last slices.
//!
//! Three ways, chosen by [`Way::of`]: Winograd for images with enough pixels and channels; a matrix product
//! of gathered 3x3 neighborhoods ("columns") for few input channels, tiny images and stride 2; a product
//! with all nine taps at once that is then summed ("taps") for few output channels. The input gradient is
//! the convolution with the turned weights, so it takes the same ways.

use crate::gemm::{Left, Product, Right, Start, matmul, pack, packed_len};
use crate::simd::{self, Shared, Simd, Vectorized, filled, for_each, load, store, with_scratch};
use crate::winograd::{self, Addend, Shape, Weights};

/// Channels below this are too few for a vector of them.
const FEW: usize = 8;
/// Bytes of gathered neighborhoods that a task holds.
const COLUMN_BYTES: usize = 512 << 10;
/// Bytes of gathered neighborhoods that all threads share in a weight gradient.
const SHARED_COLUMN_BYTES: usize = 8 << 20;

/// Where a stride-2 convolution reads zeros outside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Padding {
    /// One pixel on every side.
    Symmetric,
    /// None at the top and left, one at the bottom and right: diffusers' `downsample_padding` 0.
    BottomRight,
}

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
    let shared = Shared::new(&mut sums);
    for_each(dy.len() > 16 * 1024, groups * parts, |task| {
        let (group, part) = (task / parts, task % parts);
        let count = ROWS.min(rows - part * ROWS);
        let from = &dy[(group * rows + part * ROWS) * channels..][..count * channels];
        // SAFETY: each task has its own row of sums.
        unsafe {
            simd::run(AddRows {
                from: from.as_ptr(),
                rows: count,
                channels,
                to: shared.at(task * channels),
            });
        }
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

/// to[channels] += the sum of the rows of `from`, `[rows, channels]`; `to` is writable.
struct AddRows {
    from: *const f32,
    rows: usize,
    channels: usize,
    to: *mut f32,
}

impl Vectorized for AddRows {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            from,
            rows,
            channels,
            to,
        } = self;
        // Four vectors of a row at a time: whole cache lines in the order of memory, and independent sums.
        let lanes = S::F32_LANES;
        let mut c = 0;
        while c + 4 * lanes <= channels {
            let mut sums = [simd.splat_f32s(0.0); 4];
            // SAFETY: four whole vectors of channels are left, of each row and of the sums.
            unsafe {
                for r in 0..rows {
                    let from = from.add(r * channels + c);
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.add_f32s(*sum, load(simd, from.add(i * lanes), lanes));
                    }
                }
                for (i, sum) in sums.iter().enumerate() {
                    let to = to.add(c + i * lanes);
                    store(simd, to, lanes, simd.add_f32s(load(simd, to, lanes), *sum));
                }
            }
            c += 4 * lanes;
        }
        while c < channels {
            let count = (channels - c).min(lanes);
            // SAFETY: `count` channels are left, of each row and of the sums.
            unsafe {
                let mut sum = load(simd, to.add(c), count);
                for r in 0..rows {
                    sum = simd.add_f32s(sum, load(simd, from.add(r * channels + c), count));
                }
                store(simd, to.add(c), count, sum);
            }
            c += lanes;
        }
    }
}

/// [3, 3, m, n] -> [3, 3, n, m], each 3x3 filter turned by half a turn.
fn turn_weights(weight: &[f32], m: usize, n: usize) -> Vec<f32> {
    const SIDE: usize = 16;
    let strips = m.div_ceil(SIDE);
    let work = |to: Shared| {
        for_each(m * n >= 4096, 9 * strips, |task| {
            let (tap, strip) = (task / strips, task % strips);
            let from = &weight[tap * m * n..(tap + 1) * m * n];
            // SAFETY: there are nine taps of as many weights.
            let to = unsafe { to.at((8 - tap) * m * n) };
            let rows = strip * SIDE..m.min((strip + 1) * SIDE);
            for j0 in (0..n).step_by(SIDE) {
                for j in j0..n.min(j0 + SIDE) {
                    for i in rows.clone() {
                        // SAFETY: each task writes its own rows' elements.
                        unsafe { *to.add(j * m + i) = from[i * n + j] };
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
    /// Of a stride-1 convolution.
    pub(crate) fn stride1(shape: &Shape) -> Self {
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

    /// Of a stride-2 convolution of `[batch, height, width, inputs]`.
    pub(crate) fn stride2(x: [usize; 4], outputs: usize, padding: Padding) -> Self {
        let [batch, height, width, inputs] = x;
        let (before, both) = match padding {
            Padding::Symmetric => (1, 2),
            Padding::BottomRight => (0, 1),
        };
        let size = |n: usize| (n + both - 3) / 2 + 1;
        Self {
            batch,
            height,
            width,
            inputs,
            outputs,
            down: size(height),
            across: size(width),
            stride: 2,
            before,
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
    /// `columns` is writable for `count * 9 * inputs` floats.
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
                // SAFETY: `to` is the row's place for the taps of this line, of `line` floats.
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
///
/// # Safety
///
/// `to` is writable for as many.
#[inline(always)]
unsafe fn copy(from: &[f32], to: *mut f32) {
    // SAFETY: the caller's.
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

/// # Safety
///
/// `to` is writable for `count` floats.
#[inline(always)]
unsafe fn fill(to: *mut f32, count: usize, value: f32) {
    for i in 0..count {
        // SAFETY: the caller's.
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
    let per_image = window.down * window.across;
    assert_eq!(weight.len(), inner * outputs, "weights");
    addend.check(window.batch, per_image, outputs);
    let block = (COLUMN_BYTES / (4 * inner)).clamp(24, 384);
    let work = |y: Shared| {
        with_scratch(packed_len(inner, outputs), |panels| {
            let b = Right::plain(weight.as_ptr(), outputs);
            // SAFETY: the weights have that size, and the scratch memory has room for them.
            let panels = unsafe { pack(inner * outputs > 16 * 1024, inner, outputs, b, panels) };
            let parallel = rows * inner * outputs > 64 * 1024;
            for_each(parallel, rows.div_ceil(block), |task| {
                let first = task * block;
                let count = block.min(rows - first);
                for row in first..first + count {
                    let image = if addend.per_image { row / per_image } else { 0 };
                    let bias = &addend.bias[image * outputs..(image + 1) * outputs];
                    // SAFETY: each task writes its own rows.
                    unsafe {
                        let to = y.at(row * outputs);
                        match addend.residual {
                            None => std::ptr::copy_nonoverlapping(bias.as_ptr(), to, outputs),
                            Some(residual) => {
                                let residual = &residual[row * outputs..];
                                for (c, (bias, residual)) in bias.iter().zip(residual).enumerate() {
                                    *to.add(c) = bias + residual;
                                }
                            }
                        }
                    }
                }
                with_scratch(count * inner, |columns| {
                    // SAFETY: the scratch memory has room for the neighborhoods; each task has its own rows, which hold
                    // the addend.
                    unsafe {
                        window.gather(x, first, count, columns.start());
                        simd::run(Product {
                            rows: count,
                            columns: outputs,
                            inner,
                            a: Left::plain(columns.start(), inner),
                            b: panels,
                            c: y.at(first * outputs),
                            c_row: outputs,
                            start: Start::Result,
                        });
                    }
                });
            });
        });
    };
    // SAFETY: the tasks cover every row.
    unsafe { filled(rows * outputs, work) }
}

/// dw = columns(x)^T dy.
pub(crate) fn weight_gradient_columns(window: &Window, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (rows, inner, outputs) = (window.rows(), window.inner(), window.outputs);
    assert_eq!(dy.len(), rows * outputs, "the result's gradient");
    let chunk = (SHARED_COLUMN_BYTES / (4 * inner)).clamp(64, 4096);
    let mut dw = vec![0.0f32; inner * outputs];
    with_scratch(chunk.min(rows) * inner, |columns| {
        for first in (0..rows).step_by(chunk) {
            const PIXELS: usize = 32;
            let count = chunk.min(rows - first);
            let parallel = count * inner > 16 * 1024;
            for_each(parallel, count.div_ceil(PIXELS), |s| {
                let from = s * PIXELS;
                let n = PIXELS.min(count - from);
                // SAFETY: each task gathers its own pixels.
                unsafe { window.gather(x, first + from, n, columns.at(from * inner)) };
            });
            let product = Product {
                rows: inner,
                columns: outputs,
                inner: count,
                a: Left::turned(columns.start(), inner),
                b: Right::plain(dy[first * outputs..].as_ptr(), outputs),
                c: dw.as_mut_ptr(),
                c_row: outputs,
                start: Start::Result,
            };
            // SAFETY: `count` neighborhoods are gathered, and as many rows of `dy` follow.
            unsafe { matmul(true, product) };
        }
    });
    dw
}

/// dx of a strided convolution: dy w^T, summed where neighborhoods overlap.
pub(crate) fn input_gradient_columns(window: &Window, weight: &[f32], dy: &[f32]) -> Vec<f32> {
    let (inner, outputs, channels) = (window.inner(), window.outputs, window.inputs);
    assert_eq!(weight.len(), inner * outputs, "weights");
    let image = window.height * window.width * channels;
    let per_image = window.down * window.across;
    let block = (COLUMN_BYTES / (4 * inner)).clamp(24, 384).min(per_image);
    let work = |dx: Shared| {
        with_scratch(packed_len(outputs, inner), |panels| {
            let b = Right::turned(weight.as_ptr(), outputs);
            // SAFETY: the weights have that size, and the scratch memory has room for them.
            let panels = unsafe { pack(inner * outputs > 16 * 1024, outputs, inner, b, panels) };
            let parallel = window.rows() * inner * outputs > 64 * 1024;
            for_each(parallel, window.batch, |i| {
                // SAFETY: each task writes its own image, and zeros are valid floats.
                let dx = unsafe {
                    let dx = dx.at(i * image);
                    dx.write_bytes(0, image);
                    dx
                };
                with_scratch(block * inner, |columns| {
                    for at in (0..per_image).step_by(block) {
                        let first = i * per_image + at;
                        let count = block.min(per_image - at);
                        let dy = &dy[first * outputs..][..count * outputs];
                        let product = Product {
                            rows: count,
                            columns: inner,
                            inner: outputs,
                            a: Left::plain(dy.as_ptr(), outputs),
                            b: panels,
                            c: columns.start(),
                            c_row: inner,
                            start: Start::Zero,
                        };
                        // SAFETY: the scratch memory has room for `count` rows.
                        unsafe { simd::run(product) };
                        for r in 0..count {
                            for tap in 0..9 {
                                let Some(pixel) = window.source(first + r, tap) else {
                                    continue;
                                };
                                // SAFETY: the product has a row `r`, and the pixel is one of this image's.
                                unsafe {
                                    simd::run(AddRows {
                                        from: columns.start().add((r * 9 + tap) * channels),
                                        rows: 1,
                                        channels,
                                        to: dx.add(pixel * channels - i * image),
                                    });
                                }
                            }
                        }
                    }
                });
            });
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
    assert_eq!(x.len(), shape.pixels() * inputs, "pixels");
    addend.check(batch, height * width, outputs);
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
    let work = |y: Shared| {
        with_scratch(packed_len(inputs, columns), |panels| {
            let b = Right::plain(flat.as_ptr(), columns);
            // SAFETY: the weights have that size, and the scratch memory has room for them.
            let panels = unsafe { pack(false, inputs, columns, b, panels) };
            let parallel = shape.pixels() * inputs * columns > 64 * 1024;
            for_each(parallel, batch * strips, |task| {
                let (image, strip) = (task / strips, task % strips);
                let (top, end) = (strip * lines, height.min((strip + 1) * lines));
                // One line more above and below, where there is one.
                let (from, to) = (top.saturating_sub(1), height.min(end + 1));
                let pixels = (to - from) * width;
                with_scratch(pixels * columns, |z| {
                    let x = &x[(image * height + from) * width * inputs..][..pixels * inputs];
                    // SAFETY: the scratch memory has room for all products, which are then only read.
                    let z = unsafe {
                        simd::run(Product {
                            rows: pixels,
                            columns,
                            inner: inputs,
                            a: Left::plain(x.as_ptr(), inputs),
                            b: panels,
                            c: z.start(),
                            c_row: columns,
                            start: Start::Zero,
                        });
                        std::slice::from_raw_parts(z.start(), pixels * columns)
                    };
                    for py in top..end {
                        for px in 0..width {
                            let pixel = (image * height + py) * width + px;
                            for o in 0..outputs {
                                let row = if addend.per_image { image } else { 0 };
                                let mut sum = addend.bias[row * outputs + o];
                                for tap in 0..9 {
                                    let sy = (py + tap / 3).wrapping_sub(1);
                                    let sx = (px + tap % 3).wrapping_sub(1);
                                    if sy < height && sx < width {
                                        let at = (sy - from) * width + sx;
                                        sum += z[at * columns + tap * outputs + o];
                                    }
                                }
                                if let Some(residual) = addend.residual {
                                    sum += residual[pixel * outputs + o];
                                }
                                // SAFETY: each task writes its own lines.
                                unsafe { *y.at(pixel * outputs + o) = sum };
                            }
                        }
                    }
                });
            });
        });
    };
    // SAFETY: the tasks cover every line of every image.
    unsafe { filled(shape.pixels() * outputs, work) }
}
