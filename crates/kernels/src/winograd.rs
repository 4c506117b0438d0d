//! 3x3 convolution by Winograd's F(4x4, 3x3): 36 products for 16 pixels instead of 144.
//!
//! An image is cut into tiles of 4x4 output pixels. Each tile's 6x6 input, transformed, is multiplied
//! frequency by frequency with the transformed weights, `[36][tiles, inputs] x [36][inputs, outputs]`,
//! and transformed back (Lavin and Gray, arXiv 1509.09308, with the points 0, 1, -1, 2, -2). Tiles that
//! hang over the edge read zeros and write only what exists, so every size works.
//!
//! # Accuracy
//!
//! For normally distributed data and 128 channels of 2 x 16 x 16 pixels, errors against f64 relative to the
//! result's root mean square are 2.4e-6 (root mean square) and 3.6e-5 (largest of 65,536) for results and input
//! gradients, 1.4e-6 and 2.4e-5 for weight gradients; over 16,384 pixels the largest are 7e-5 and 8e-5. The direct
//! sum in f32 stays below 1e-6. The test `winograd_errors_stay_within_their_bounds` holds it.
//!
//! # Infinity and NaN
//!
//! The transforms add and subtract what the direct sum keeps apart. A value that is infinite or no number therefore
//! reaches all 16 pixels of each tile that sees it, and both signs of it meet: where the direct sum is infinite or NaN
//! this one is too, but infinity may have become NaN, pixels beside the ones that must be may be NaN as well, and values
//! above 3e36 may overflow in a transform. Nothing is hidden by that: whatever it reaches ends in a loss or a gradient that
//! is not finite, which ends the step. `convolutions_keep_what_is_no_number` holds the direction.

use crate::gemm::{Left, Panels, Product, Start, packed_len, panel_width};
use crate::simd::{self, Shared, filled, for_each, padded, with_scratch};
use crate::transform::{Tiling, TransformInput, TransformOutput, TransformWeights, TurnBlock};
use crate::transform_gradients::{TransformGradient, TransformWeightGradient};

/// The 6x6 transformed values of a tile.
const FREQUENCIES: usize = 36;
/// Keeps the frequencies of one value from falling into the same cache set.
const STAGGER: usize = 80;
/// Bytes of transformed tiles that one thread works on at a time.
const BLOCK_BYTES: usize = 3 << 20;
/// Bytes of transformed tiles that all threads share.
const SHARED_BYTES: usize = 20 << 20;
/// Inputs whose weights are transformed at a time.
const STRIP: usize = 32;
/// Bytes of a weight gradient's sums up to which groups of tiles keep sums of their own.
const SUM_BYTES: usize = 1 << 20;
/// Groups of tiles that keep sums of their own; a number of the algorithm, so that results do not depend on
/// the number of threads.
const GROUPS: usize = 8;
/// Inputs whose sums one task transforms.
const ROWS_PER_TASK: usize = 16;
/// Tiles that one task of a shared transform takes.
const TILES_PER_TASK: usize = 4;

/// Sizes of a stride-1 3x3 convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    pub outputs: usize,
}

impl Shape {
    pub(crate) fn pixels(&self) -> usize {
        self.batch * self.height * self.width
    }

    pub(crate) fn tiles(&self) -> usize {
        self.batch * self.height.div_ceil(4) * self.width.div_ceil(4)
    }
}

/// What a convolution adds to its sums.
#[derive(Clone, Copy)]
pub(crate) struct Addend<'a> {
    pub bias: &'a [f32],
    /// Whether `bias` has a row per image.
    pub per_image: bool,
    pub residual: Option<&'a [f32]>,
}

impl Addend<'_> {
    /// What the pointers of a convolution to `[batch, pixels, outputs]` rely on.
    pub(crate) fn check(&self, batch: usize, pixels: usize, outputs: usize) {
        let rows = if self.per_image { batch } else { 1 };
        assert_eq!(self.bias.len(), rows * outputs, "bias");
        if let Some(residual) = self.residual {
            assert_eq!(residual.len(), batch * pixels * outputs, "residual");
        }
    }
}

/// The weights of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub values: &'a [f32],
    /// Whether `values` is `[3, 3, outputs, inputs]` with filters to be turned by half a turn: the weights of
    /// the convolution whose input gradient this one is.
    pub turned: bool,
}

/// y = x * w + bias + residual.
pub(crate) fn convolve(shape: &Shape, x: &[f32], weights: Weights, addend: Addend) -> Vec<f32> {
    let Shape {
        inputs, outputs, ..
    } = *shape;
    assert_eq!(x.len(), shape.pixels() * inputs, "pixels");
    assert_eq!(weights.values.len(), 9 * inputs * outputs, "weights");
    addend.check(shape.batch, shape.height * shape.width, outputs);
    let tiles = shape.tiles();
    let (v_row, m_row) = (padded(inputs), padded(outputs));
    let tile_bytes = FREQUENCIES * 4 * (v_row + m_row);
    let threads = rayon::current_num_threads();
    let block = (BLOCK_BYTES / tile_bytes).clamp(24, 192).min(tiles);
    // With blocks for every thread each works alone in its own cache; with few, all share one.
    let blocks = tiles.div_ceil(block);
    let alone = blocks > 1 && (threads == 1 || blocks >= 2 * threads);
    let block = if alone {
        block
    } else {
        (SHARED_BYTES / tile_bytes).clamp(64, 1024).min(tiles)
    };
    let blocks = tiles.div_ceil(block);
    // As many for one thread as for the next.
    let blocks = if alone {
        blocks.next_multiple_of(threads)
    } else {
        blocks
    };
    let block = tiles.div_ceil(blocks);
    let blocks = tiles.div_ceil(block);

    let width = panel_width();
    let panels = outputs.div_ceil(width);
    let panel_len = inputs * width;
    // Used once, a panel of weights is transformed where it is used; used often, all are transformed before.
    let once = blocks == 1 && panels >= threads;
    let (u_panel, u_stride) = if once {
        (0, panel_len + STAGGER)
    } else {
        (panel_len, packed_len(inputs, outputs) + STAGGER)
    };
    let tiling = Tiling::new(shape);
    let zeros = vec![0.0f32; v_row];
    let (v_stride, m_stride) = (block * v_row + STAGGER, block * m_row + STAGGER);
    let bias_row = if addend.per_image { outputs } else { 0 };
    let multiply_panels = |count: usize, f: usize, panel: usize, n: usize, u: Shared, v: Shared| {
        let j = panel * width;
        let m = FREQUENCIES * v_stride + f * m_stride + j;
        // SAFETY: the matrices lie in the scratch memory, and each task has its own columns of the product.
        unsafe {
            simd::run(Product {
                rows: count,
                columns: (n * width).min(outputs - j),
                inner: inputs,
                a: Left::plain(v.at(f * v_stride), v_row),
                b: Panels {
                    pointer: u.at(f * u_stride + panel * u_panel),
                    stride: panel_len,
                    then: u.start().wrapping_add((f + 1) * u_stride + panel * u_panel),
                },
                c: v.at(m),
                c_row: m_row,
                start: Start::Zero,
            });
        }
    };
    let work = |y: Shared| {
        with_scratch(if once { 0 } else { FREQUENCIES * u_stride }, |u| {
            let strips = inputs.div_ceil(STRIP);
            if !once {
                for_each(inputs * outputs >= 4096, panels * strips, |task| {
                    let (panel, strip) = (task / strips, task % strips);
                    // SAFETY: each task writes its own inputs of its own panel.
                    unsafe {
                        let to = u.at(panel * panel_len);
                        transform_strip(shape, weights, panel, strip, to, u_stride);
                    }
                });
            }
            for_each(alone, blocks, |b| {
                let first = b * block;
                let count = block.min(tiles - first);
                with_scratch(FREQUENCIES * (v_stride + m_stride), |v| {
                    let share = if alone { count } else { TILES_PER_TASK };
                    for_each(!alone, count.div_ceil(share), |s| {
                        let (from, to) = (s * share, count.min((s + 1) * share));
                        // SAFETY: each task writes its own tiles, for which the scratch memory has room.
                        unsafe {
                            simd::run(TransformInput {
                                x: x.as_ptr(),
                                zeros: zeros.as_ptr(),
                                tiling,
                                channels: inputs,
                                first: first + from,
                                count: to - from,
                                to: v.at(from * v_row),
                                stride: v_stride,
                                row: v_row,
                            });
                        }
                    });
                    if once {
                        for_each(true, panels, |panel| {
                            with_scratch(FREQUENCIES * u_stride, |u| {
                                for strip in 0..strips {
                                    // SAFETY: the scratch memory is this task's own.
                                    unsafe {
                                        let to = u.start();
                                        transform_strip(shape, weights, panel, strip, to, u_stride);
                                    }
                                }
                                (0..FREQUENCIES)
                                    .for_each(|f| multiply_panels(count, f, panel, 1, u, v));
                            });
                        });
                    } else {
                        let group = if alone { panels } else { panels.div_ceil(4) };
                        let groups = panels.div_ceil(group);
                        for_each(!alone, FREQUENCIES * groups, |task| {
                            let (f, first) = (task / groups, task % groups * group);
                            multiply_panels(count, f, first, group, u, v);
                        });
                    }
                    for_each(!alone, count.div_ceil(share), |s| {
                        let (from, to) = (s * share, count.min((s + 1) * share));
                        let residual = addend.residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
                        // SAFETY: each task writes the pixels of its own tiles.
                        unsafe {
                            simd::run(TransformOutput {
                                m: v.at(FREQUENCIES * v_stride + from * m_row),
                                stride: m_stride,
                                row: m_row,
                                tiling,
                                channels: outputs,
                                first: first + from,
                                count: to - from,
                                bias: addend.bias.as_ptr(),
                                bias_row,
                                residual,
                                y: y.start(),
                            });
                        }
                    });
                });
            });
        });
    };
    // SAFETY: the tiles cover every pixel.
    unsafe { filled(shape.pixels() * outputs, work) }
}

/// Transforms the weights of inputs `strip * STRIP..` for one panel of outputs, which begins at `to`.
///
/// # Safety
///
/// The panel is writable in every frequency, `stride` floats apart, and the weights are those of the shape.
unsafe fn transform_strip(
    shape: &Shape,
    weights: Weights,
    panel: usize,
    strip: usize,
    to: *mut f32,
    stride: usize,
) {
    let Shape {
        inputs, outputs, ..
    } = *shape;
    let width = panel_width();
    let (i, j) = (strip * STRIP, panel * width);
    let count = STRIP.min(inputs - i);
    let columns = width.min(outputs - j);
    // A last panel of at most one vector is packed that narrow.
    let row = if columns > width / 2 {
        width
    } else {
        width / 2
    };
    let tap = inputs * outputs;
    let transform = |from: *const f32, tap: usize, row: usize, panel: *mut f32| TransformWeights {
        from,
        tap,
        row,
        count,
        columns,
        panel,
        stride,
    };
    // SAFETY: the panel's inputs begin at `i`, `row` floats each.
    let to = unsafe { to.add(i * row) };
    if weights.turned {
        with_scratch(9 * count * width, |block| {
            for t in 0..9 {
                let from = &weights.values[(8 - t) * tap + j * inputs + i..];
                // SAFETY: the filters of `columns` outputs have `count` inputs from `i` on, and a tap of the scratch
                // memory has room for them.
                unsafe {
                    simd::run(TurnBlock {
                        from: from.as_ptr(),
                        from_row: inputs,
                        columns,
                        count,
                        to: block.at(t * count * width),
                        to_row: width,
                    });
                }
            }
            // SAFETY: the block holds these weights, turned; the rest is the caller's.
            unsafe { simd::run(transform(block.start(), count * width, width, to)) };
        });
    } else {
        let from = &weights.values[i * outputs + j..];
        // SAFETY: these inputs and outputs exist in each tap; the rest is the caller's.
        unsafe { simd::run(transform(from.as_ptr(), tap, outputs, to)) };
    }
}

/// dw = sum over pixels of x times dy, `[3, 3, inputs, outputs]`.
pub(crate) fn weight_gradient(shape: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let Shape {
        inputs, outputs, ..
    } = *shape;
    assert_eq!(x.len(), shape.pixels() * inputs, "pixels");
    assert_eq!(dy.len(), shape.pixels() * outputs, "the result's gradient");
    let tiles = shape.tiles();
    let width = panel_width();
    let panels = outputs.div_ceil(width);
    let (v_row, u_row) = (padded(inputs), padded(outputs));
    let tile_bytes = FREQUENCIES * 4 * (v_row + panels * width);
    let sum_bytes = FREQUENCIES * 4 * inputs * u_row;
    // Both by the shape alone, because they decide the order of the sums. Chunks are as large as pays for
    // reading and writing the sums once a chunk.
    let chunk = ((2 * sum_bytes).clamp(1 << 20, SHARED_BYTES) / tile_bytes)
        .max(64)
        .min(tiles);
    let chunks = tiles.div_ceil(chunk);
    let chunk = tiles.div_ceil(chunks);
    // Small sums: each group of tiles has its own and one thread. Else all threads share the work on a chunk.
    let groups = if sum_bytes <= SUM_BYTES {
        GROUPS.min(chunks)
    } else {
        1
    };
    let alone = groups > 1;
    let chunks_per_group = chunks.div_ceil(groups);

    let tiling = Tiling::new(shape);
    let zeros = vec![0.0f32; v_row.max(u_row)];
    let v_stride = chunk * v_row + STAGGER;
    let p_stride = chunk * panels * width + STAGGER;
    let kept = chunks > 1;
    // Input channels whose sums, [36][rows][outputs], lie together: all where they outlive a chunk, else as many as one task
    // holds in its own cache.
    let rows = if kept {
        inputs
    } else {
        (SUM_BYTES / (FREQUENCIES * 4 * u_row))
            .min(inputs.div_ceil(2 * rayon::current_num_threads()))
            .next_multiple_of(12)
            .min(inputs)
    };
    let u_stride = rows * u_row + STAGGER;
    let sums_len = FREQUENCIES * u_stride;
    // With many threads a frequency's product is several tasks.
    let split = rayon::current_num_threads()
        .div_ceil(FREQUENCIES / 2)
        .min(panels);
    let split = panels.div_ceil(split);

    let work = |dw: Shared| {
        // Adds one frequency of a chunk, `count` tiles at `v`, to the sums at `u`: inputs from `i` on, `n` panels from `first` on.
        let add =
            |v: Shared, u: Shared, count: usize, [f, i, first, n]: [usize; 4], start: Start| {
                let panel = |f: usize| {
                    let panels = FREQUENCIES * v_stride + f * p_stride;
                    v.start().wrapping_add(panels + first * count * width)
                };
                // SAFETY: the chunk's tiles are transformed, and the sums have room for these inputs.
                unsafe {
                    simd::run(Product {
                        rows: rows.min(inputs - i),
                        columns: (n * width).min(outputs - first * width),
                        inner: count,
                        a: Left::turned(v.at(f * v_stride + i), v_row),
                        b: Panels {
                            pointer: panel(f),
                            stride: count * width,
                            then: panel(f + 1),
                        },
                        c: u.at(f * u_stride + first * width),
                        c_row: u_row,
                        start,
                    });
                }
            };
        // Transforms the sums at `u`, or some rows of them: those of `count` inputs from `i` on.
        let finish = |u: *const f32, i: usize, count: usize| {
            // SAFETY: the sums are complete, and each task writes the gradients of its own input channels.
            unsafe {
                simd::run(TransformWeightGradient {
                    u,
                    groups,
                    group: sums_len,
                    stride: u_stride,
                    u_row,
                    rows: count,
                    outputs,
                    tap: inputs * outputs,
                    dw: dw.at(i * outputs),
                });
            }
        };
        with_scratch(if kept { groups * sums_len } else { 0 }, |sums| {
            for_each(alone, groups, |group| {
                let group_chunks =
                    group * chunks_per_group..chunks.min((group + 1) * chunks_per_group);
                if group_chunks.is_empty() {
                    // SAFETY: each group has its own sums; zeros are valid floats.
                    unsafe { sums.at(group * sums_len).write_bytes(0, sums_len) };
                    return;
                }
                let first_chunk = group_chunks.start;
                with_scratch(FREQUENCIES * (v_stride + p_stride), |v| {
                    for chunk_index in group_chunks {
                        let first = chunk_index * chunk;
                        let count = chunk.min(tiles.saturating_sub(first));
                        let share = if alone { count.max(1) } else { TILES_PER_TASK };
                        for_each(!alone, count.div_ceil(share), |s| {
                            let from = s * share;
                            let n = share.min(count - from);
                            // SAFETY: each task transforms its own tiles, for which the scratch memory has room.
                            unsafe {
                                simd::run(TransformInput {
                                    x: x.as_ptr(),
                                    zeros: zeros.as_ptr(),
                                    tiling,
                                    channels: inputs,
                                    first: first + from,
                                    count: n,
                                    to: v.at(from * v_row),
                                    stride: v_stride,
                                    row: v_row,
                                });
                                simd::run(TransformGradient {
                                    dy: dy.as_ptr(),
                                    zeros: zeros.as_ptr(),
                                    tiling,
                                    channels: outputs,
                                    first: first + from,
                                    count: n,
                                    panels: v.at(FREQUENCIES * v_stride),
                                    stride: p_stride,
                                    panel_stride: count * width,
                                    at: from,
                                });
                            }
                        });
                        if kept {
                            // A frequency's factors and sums fit a core's cache and are read once: shared by inputs, all of
                            // `dy` would be read by each task.
                            let start = if chunk_index == first_chunk {
                                Start::Zero
                            } else {
                                Start::Result
                            };
                            let parts = panels.div_ceil(split);
                            // SAFETY: each group has its own sums, and each task its own columns of a frequency.
                            let u = Shared::of(unsafe { sums.at(group * sums_len) }, sums_len);
                            for_each(!alone, FREQUENCIES * parts, |task| {
                                let (f, first) = (task / parts, task % parts * split);
                                add(v, u, count, [f, 0, first, split], start);
                            });
                        } else {
                            // Sums that no chunk adds to are transformed while they are in the cache.
                            for_each(!alone, inputs.div_ceil(rows), |task| {
                                let i = task * rows;
                                with_scratch(sums_len, |u| {
                                    for f in 0..FREQUENCIES {
                                        add(v, u, count, [f, i, 0, panels], Start::Zero);
                                    }
                                    finish(u.start(), i, rows.min(inputs - i));
                                });
                            });
                        }
                    }
                });
            });
            if kept {
                for_each(true, inputs.div_ceil(ROWS_PER_TASK), |task| {
                    let i = task * ROWS_PER_TASK;
                    // SAFETY: the sums have these rows.
                    let u = unsafe { sums.at(i * u_row) };
                    finish(u, i, ROWS_PER_TASK.min(inputs - i));
                });
            }
        });
    };
    // SAFETY: the tasks cover every input channel.
    unsafe { filled(9 * inputs * outputs, work) }
}
