//! Products of small and middle-sized f32 matrices.
//!
//! The right factor is packed into panels two vectors wide; the micro-kernel then keeps a block of the
//! result in registers over the whole inner dimension. Each element of a result is summed over the inner
//! dimension in one fixed order, whatever the number of threads.

use crate::simd::{self, Shared, Simd, for_each, load, store, vectorized};

/// Inner dimension of one pass: a panel of it stays within the fast caches.
const INNER: usize = 384;

/// Where the left factor's elements lie: (i, p) is at `pointer + i * row + p * column`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub pointer: *const f32,
    pub row: usize,
    pub column: usize,
}

/// Where the right factor's elements lie before packing: (p, j) is at `pointer + p * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub pointer: *const f32,
    pub row: usize,
    pub column: usize,
}

impl Left {
    /// The factor without its first `i` rows and `p` columns.
    ///
    /// # Safety
    ///
    /// That element exists, or none is read.
    #[inline(always)]
    pub(crate) unsafe fn from(self, i: usize, p: usize) -> Self {
        let pointer = unsafe { self.pointer.add(i * self.row + p * self.column) };
        Self { pointer, ..self }
    }
}

impl Right {
    /// The factor without its first `p` rows.
    ///
    /// # Safety
    ///
    /// That element exists, or none is read.
    #[inline(always)]
    pub(crate) unsafe fn from(self, p: usize) -> Self {
        let pointer = unsafe { self.pointer.add(p * self.row) };
        Self { pointer, ..self }
    }
}

impl Start {
    /// The start of the columns from `j` on.
    ///
    /// # Safety
    ///
    /// A row has that many columns.
    #[inline(always)]
    unsafe fn from(self, j: usize) -> Self {
        match self {
            Start::Row(row) => Start::Row(unsafe { row.add(j) }),
            other => other,
        }
    }
}

// SAFETY: only read through, while the owner waits.
unsafe impl Send for Left {}
unsafe impl Sync for Left {}
unsafe impl Send for Right {}
unsafe impl Sync for Right {}

/// What the product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    Zero,
    /// What the result already holds.
    Result,
    /// This row, in every row.
    Row(*const f32),
}

// SAFETY: as for the factors.
unsafe impl Send for Start {}
unsafe impl Sync for Start {}

/// Columns of one panel.
pub(crate) fn panel_width() -> usize {
    2 * simd::lanes()
}

/// Floats that the packed panels of an `inner` x `columns` factor take.
pub(crate) fn packed_len(inner: usize, columns: usize) -> usize {
    inner * columns.next_multiple_of(panel_width())
}

vectorized! {
    /// c[rows, columns] = start + a b, b packed by [`pack`] with `panel_stride` floats from panel to panel.
    ///
    /// # Safety
    ///
    /// The pointers cover the matrices; `c` has `c_row` >= `columns` floats from row to row.
    pub(crate) unsafe fn multiply(
        simd;
        rows: usize,
        columns: usize,
        inner: usize,
        a: Left,
        panels: *const f32,
        panel_stride: usize,
        c: *mut f32,
        c_row: usize,
        start: Start,
    ) {
        let width = 2 * S::F32_LANES;
        let mut done = 0;
        let mut start = start;
        // At least once, so that an empty inner dimension still writes the start.
        loop {
            let depth = INNER.min(inner - done);
            let a = a.from(0, done);
            let mut j = 0;
            while j < columns {
                let panel = panels.add(j / width * panel_stride);
                let start = start.from(j);
                let count = (columns - j).min(width);
                if count > S::F32_LANES {
                    let panel = panel.add(done * width);
                    column::<S, 2>(simd, rows, count, depth, a, panel, c.add(j), c_row, start);
                } else {
                    let panel = panel.add(done * S::F32_LANES);
                    column::<S, 1>(simd, rows, count, depth, a, panel, c.add(j), c_row, start);
                }
                j += width;
            }
            done += depth;
            start = Start::Result;
            if done >= inner {
                break;
            }
        }
    }
}

/// One panel: all rows, in blocks as tall as the registers hold and as equal as can be.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn column<S: Simd, const C: usize>(
    simd: S,
    rows: usize,
    count: usize,
    depth: usize,
    a: Left,
    panel: *const f32,
    c: *mut f32,
    c_row: usize,
    start: Start,
) {
    let tallest = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };
    let blocks = rows.div_ceil(tallest);
    let mut i = 0;
    for block in 0..blocks {
        let height = (rows - i).div_ceil(blocks - block);
        unsafe {
            let a = a.from(i, 0);
            let c = c.add(i * c_row);
            macro_rules! heights {
                ($($height:literal),*) => {
                    match height {
                        $($height => tile::<S, $height, C>(simd, count, depth, a, panel, c, c_row, start),)*
                        _ => unreachable!(),
                    }
                };
            }
            if S::REGISTER_COUNT >= 32 {
                heights!(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
            } else {
                heights!(1, 2, 3, 4, 5, 6);
            }
        }
        i += height;
    }
}

/// The micro-kernel: `R` rows of `C` vectors, of which `count` floats are real.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<S: Simd, const R: usize, const C: usize>(
    simd: S,
    count: usize,
    depth: usize,
    a: Left,
    panel: *const f32,
    c: *mut f32,
    c_row: usize,
    start: Start,
) {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    unsafe {
        match start {
            Start::Zero => {}
            Start::Result => {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = load(
                            simd,
                            c.add(r * c_row + j * lanes),
                            count.saturating_sub(j * lanes),
                        );
                    }
                }
            }
            Start::Row(row) => {
                for sums in &mut sums {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = load(simd, row.add(j * lanes), count.saturating_sub(j * lanes));
                    }
                }
            }
        }
        let (mut left, mut right) = (a.pointer, panel);
        for _ in 0..depth {
            let mut b = [simd.splat_f32s(0.0); C];
            for (j, b) in b.iter_mut().enumerate() {
                *b = load(simd, right.add(j * lanes), lanes);
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = simd.splat_f32s(*left.add(r * a.row));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = simd.mul_add_e_f32s(a, b, *sum);
                }
            }
            left = left.add(a.column);
            right = right.add(C * lanes);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                store(
                    simd,
                    c.add(r * c_row + j * lanes),
                    count.saturating_sub(j * lanes),
                    *sum,
                );
            }
        }
    }
}

/// Packs columns `j..j + width` of `b` into one panel, `[inner][width]`, or `[inner][width / 2]` where the
/// last columns fit that; missing columns are zero.
///
/// # Safety
///
/// `b` is readable for all `inner` x `columns` elements, `panel` writable for `inner * panel_width()`.
pub(crate) unsafe fn pack_panel(inner: usize, columns: usize, j: usize, b: Right, panel: *mut f32) {
    let full = panel_width();
    let count = (columns - j).min(full);
    let width = if count > full / 2 { full } else { full / 2 };
    unsafe {
        let from = b.pointer.add(j * b.column);
        if b.column == 1 {
            for p in 0..inner {
                let to = panel.add(p * width);
                std::ptr::copy_nonoverlapping(from.add(p * b.row), to, count);
                to.add(count).write_bytes(0, width - count);
            }
        } else {
            for jj in 0..width {
                let to = panel.add(jj);
                for p in 0..inner {
                    let value = if jj < count {
                        *from.add(jj * b.column + p * b.row)
                    } else {
                        0.0
                    };
                    *to.add(p * width) = value;
                }
            }
        }
    }
}

/// Rows of the left factor that one task takes.
const ROWS: usize = 96;
/// Inner dimension that is packed at a time.
const DEPTH: usize = 4096;

/// c[rows, columns] = start + a b, over rayon's threads where the product is worth it.
///
/// # Safety
///
/// The pointers cover the matrices; `c` has `c_row` >= `columns` floats from row to row.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn matmul(
    parallel: bool,
    rows: usize,
    columns: usize,
    inner: usize,
    a: Left,
    b: Right,
    c: *mut f32,
    c_row: usize,
    start: Start,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    let parallel = parallel && rows * columns * inner.max(1) > 64 * 1024;
    let width = panel_width();
    let panel_count = columns.div_ceil(width);
    let shared = Shared::new(c);
    simd::with_scratch(packed_len(inner.min(DEPTH), columns), |panels| {
        let panels = Shared::new(panels);
        let mut done = 0;
        let mut start = start;
        loop {
            let depth = DEPTH.min(inner - done);
            let panel_stride = depth * width;
            for_each(parallel, panel_count, |p| unsafe {
                // SAFETY: each task writes its own panel.
                pack_panel(
                    depth,
                    columns,
                    p * width,
                    b.from(done),
                    panels.at(p * panel_stride),
                );
            });
            // Few rows: the panels are spread over tasks as well.
            let row_tasks = rows.div_ceil(ROWS);
            let group = panel_count.div_ceil((64 / row_tasks).clamp(1, panel_count));
            let groups = panel_count.div_ceil(group);
            for_each(parallel, row_tasks * groups, |task| unsafe {
                let (i, first) = (task / groups * ROWS, task % groups * group);
                let j = first * width;
                let a = a.from(i, done);
                let start = start.from(j);
                // SAFETY: each task writes its own rows and columns.
                multiply(
                    ROWS.min(rows - i),
                    (group * width).min(columns - j),
                    depth,
                    a,
                    panels.at(first * panel_stride),
                    panel_stride,
                    shared.at(i * c_row + j),
                    c_row,
                    start,
                );
            });
            done += depth;
            start = Start::Result;
            if done >= inner {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn products_of_every_layout_agree_with_f64_sums() {
        let shapes = [
            (1, 1, 1),
            (5, 3, 7),
            (13, 33, 40),
            (100, 17, 4100),
            (97, 70, 385),
            (3, 5, 0),
            (200, 16, 9),
        ];
        for (n, &(rows, columns, inner)) in shapes.iter().enumerate() {
            let a = values(rows * inner, n as u32);
            let b = values(inner * columns, 100 + n as u32);
            let bias = values(columns, 200);
            for (a_transposed, b_transposed, with_row) in [
                (false, false, true),
                (true, false, false),
                (false, true, false),
                (true, true, true),
            ] {
                let left = if a_transposed {
                    Left {
                        pointer: a.as_ptr(),
                        row: 1,
                        column: rows,
                    }
                } else {
                    Left {
                        pointer: a.as_ptr(),
                        row: inner,
                        column: 1,
                    }
                };
                let right = if b_transposed {
                    Right {
                        pointer: b.as_ptr(),
                        row: 1,
                        column: inner,
                    }
                } else {
                    Right {
                        pointer: b.as_ptr(),
                        row: columns,
                        column: 1,
                    }
                };
                let mut c = vec![9.0f32; rows * columns];
                let start = if with_row {
                    Start::Row(bias.as_ptr())
                } else {
                    Start::Zero
                };
                unsafe {
                    matmul(
                        true,
                        rows,
                        columns,
                        inner,
                        left,
                        right,
                        c.as_mut_ptr(),
                        columns,
                        start,
                    )
                };
                for i in 0..rows {
                    for j in 0..columns {
                        let mut sum = if with_row { bias[j] as f64 } else { 0.0 };
                        for p in 0..inner {
                            let x = a[i * left.row + p * left.column] as f64;
                            sum += x * b[p * right.row + j * right.column] as f64;
                        }
                        let got = c[i * columns + j] as f64;
                        assert!(
                            (got - sum).abs() < 1e-5 * (1.0 + (inner as f64).sqrt()),
                            "{rows} {columns} {inner}: {got} {sum}"
                        );
                    }
                }
            }
        }
    }
}
