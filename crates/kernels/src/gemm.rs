//! Products of small and middle-sized f32 matrices.
//!
//! The right factor is packed into panels two vectors wide; the micro-kernel then keeps a block of the
//! result in registers over the whole inner dimension. Each element of a result is summed over the inner
//! dimension in one fixed order, whatever the number of threads.

use crate::simd::{self, Shared, Simd, Vectorized, for_each, load, store};

/// Inner dimension of one pass: a panel of it stays within the fast caches.
const INNER: usize = 384;
/// How many rows of a panel are asked for before they are needed. Panels come from memory that all cores share, and where both of
/// two wait for it they would compute at two thirds of their speed.
const AHEAD: usize = 16;

/// Where the left factor's elements lie: (i, p) is at `pointer + i * row + p * column`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pointer: *const f32,
    row: usize,
    column: usize,
}

/// Where the right factor's elements lie before packing: (p, j) is at `pointer + p * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pointer: *const f32,
    row: usize,
    column: usize,
}

// Where a matrix is empty, the places below may lie outside of it; nothing is read there.

impl Left {
    /// A matrix with `row` floats from row to row.
    pub(crate) fn plain(pointer: *const f32, row: usize) -> Self {
        Self {
            pointer,
            row,
            column: 1,
        }
    }

    /// The transpose of a matrix with `row` floats from row to row.
    pub(crate) fn turned(pointer: *const f32, row: usize) -> Self {
        Self {
            pointer,
            row: 1,
            column: row,
        }
    }

    /// The factor without its first `i` rows and `p` columns.
    #[inline(always)]
    fn from(self, i: usize, p: usize) -> Self {
        let pointer = self.pointer.wrapping_add(i * self.row + p * self.column);
        Self { pointer, ..self }
    }
}

impl Right {
    /// A matrix with `row` floats from row to row.
    pub(crate) fn plain(pointer: *const f32, row: usize) -> Self {
        Self {
            pointer,
            row,
            column: 1,
        }
    }

    /// The transpose of a matrix with `row` floats from row to row.
    pub(crate) fn turned(pointer: *const f32, row: usize) -> Self {
        Self {
            pointer,
            row: 1,
            column: row,
        }
    }

    /// The factor without its first `p` rows.
    #[inline(always)]
    fn from(self, p: usize) -> Self {
        let pointer = self.pointer.wrapping_add(p * self.row);
        Self { pointer, ..self }
    }
}

impl Panels {
    /// The factor without its first `n` panels.
    #[inline(always)]
    fn from(self, n: usize) -> Self {
        let pointer = self.pointer.wrapping_add(n * self.stride);
        Self { pointer, ..self }
    }
}

impl Start {
    /// The start of the columns from `j` on.
    #[inline(always)]
    fn from(self, j: usize) -> Self {
        match self {
            Start::Row(row) => Start::Row(row.wrapping_add(j)),
            other => other,
        }
    }
}

/// The right factor as [`pack_panel`] packed it, `stride` floats from panel to panel.
#[derive(Clone, Copy)]
pub(crate) struct Panels {
    pub pointer: *const f32,
    pub stride: usize,
    /// What is read after the last of them, which need not exist.
    pub then: *const f32,
}

// SAFETY: only read through, while whoever lent it waits for the product.
unsafe impl Send for Panels {}
// SAFETY: as above.
unsafe impl Sync for Panels {}
// SAFETY: as above.
unsafe impl Send for Left {}
// SAFETY: as above.
unsafe impl Sync for Left {}
// SAFETY: as above.
unsafe impl Send for Right {}
// SAFETY: as above.
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
// SAFETY: as above.
unsafe impl Sync for Start {}

/// c = start + a b, the right factor as it lies ([`Right`]) or packed ([`Panels`]).
///
/// The pointers cover the matrices, `[rows, inner]`, `[inner, columns]` and `[rows, columns]`, and a [`Start::Row`] has
/// `columns` floats. Nothing else touches the result while the product is computed; it is only read with
/// [`Start::Result`].
#[derive(Clone, Copy)]
pub(crate) struct Product<B> {
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    pub a: Left,
    pub b: B,
    pub c: *mut f32,
    /// Floats of `c` from row to row, `columns` at least.
    pub c_row: usize,
    pub start: Start,
}

/// Columns of one panel.
pub(crate) fn panel_width() -> usize {
    2 * simd::lanes()
}

/// Floats that the packed panels of an `inner` x `columns` factor take.
pub(crate) fn packed_len(inner: usize, columns: usize) -> usize {
    inner * columns.next_multiple_of(panel_width())
}

impl Vectorized for Product<Panels> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        debug_assert!(self.c_row >= self.columns || self.rows <= 1);
        let width = 2 * S::F32_LANES;
        let mut done = 0;
        let mut start = self.start;
        // At least once, so that an empty inner dimension still writes the start.
        loop {
            let depth = INNER.min(self.inner - done);
            let mut j = 0;
            while j < self.columns {
                let count = (self.columns - j).min(width);
                let packed = if count > S::F32_LANES {
                    width
                } else {
                    S::F32_LANES
                };
                let next = if j + width < self.columns {
                    let panel = self.b.from(j / width + 1);
                    panel.pointer.wrapping_add(done * width)
                } else if done + depth < self.inner {
                    self.b.pointer.wrapping_add((done + depth) * width)
                } else {
                    self.b.then
                };
                // SAFETY: column `j` exists, in a panel whose rows are packed that wide and of which row `done` is there.
                unsafe {
                    let panel = self.b.pointer.add(j / width * self.b.stride);
                    let column = Column {
                        count,
                        depth,
                        a: self.a.from(0, done),
                        panel: panel.add(done * packed),
                        c: self.c.add(j),
                        c_row: self.c_row,
                        start: start.from(j),
                        next,
                    };
                    if count > S::F32_LANES {
                        column.all_rows::<S, 2>(simd, self.rows);
                    } else {
                        column.all_rows::<S, 1>(simd, self.rows);
                    }
                }
                j += width;
            }
            done += depth;
            start = Start::Result;
            if done >= self.inner {
                break;
            }
        }
    }
}

/// The `count` columns of a product that one panel makes, over `depth` of the inner dimension; `a` and `c` begin at the
/// first row wanted, `panel`, `c` and `start` at the first column.
#[derive(Clone, Copy)]
struct Column {
    count: usize,
    depth: usize,
    a: Left,
    panel: *const f32,
    c: *mut f32,
    c_row: usize,
    start: Start,
    /// The panel after this one. It need not exist.
    next: *const f32,
}

impl Column {
    /// `rows` rows, in blocks as tall as the registers hold and as equal as can be.
    ///
    /// # Safety
    ///
    /// [`Product`]'s pointers, from the places that the fields say. The panel is `C` vectors wide.
    #[inline(always)]
    unsafe fn all_rows<S: Simd, const C: usize>(self, simd: S, rows: usize) {
        let tallest = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };
        let blocks = rows.div_ceil(tallest);
        // Each block asks for its share of the next panel.
        let step = (C * S::F32_LANES).div_ceil(blocks.max(1));
        let mut i = 0;
        for block in 0..blocks {
            let height = (rows - i).div_ceil(blocks - block);
            // SAFETY: the rows `i..i + height` exist.
            unsafe {
                let block = Self {
                    a: self.a.from(i, 0),
                    c: self.c.add(i * self.c_row),
                    next: self.next.wrapping_add(block * self.depth * step),
                    ..self
                };
                macro_rules! heights {
                    ($($height:literal),*) => {
                        match height {
                            $($height => block.tile::<S, $height, C>(simd, step),)*
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
    ///
    /// # Safety
    ///
    /// As for [`Column::all_rows`], `R` rows being left.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const C: usize>(self, simd: S, step: usize) {
        let Self {
            count,
            depth,
            a,
            panel,
            c,
            c_row,
            start,
            mut next,
        } = self;
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); C]; R];
        // SAFETY: row `r` of `c` has `count` floats from `r * c_row` on, more than `(C - 1) * lanes`; a row of the panel
        // has `C * lanes`. The left factor has `depth` elements in each row; what lies behind the last is not read.
        unsafe {
            match start {
                Start::Zero => {}
                Start::Result => {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (j, sum) in sums.iter_mut().enumerate() {
                            let from = c.add(r * c_row + j * lanes);
                            *sum = load(simd, from, count.saturating_sub(j * lanes));
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
            // One pointer for three rows: with one for all, the address of each row would wait for that of the row before.
            let mut lefts: [*const f32; 4] =
                std::array::from_fn(|three| a.pointer.wrapping_add(3 * three * a.row));
            let mut right = panel;
            for _ in 0..depth {
                let mut b = [simd.splat_f32s(0.0); C];
                for (j, b) in b.iter_mut().enumerate() {
                    *b = load(simd, right.add(j * lanes), lanes);
                    simd::prefetch::<true>(right.wrapping_add((AHEAD * C + j) * lanes));
                    simd::prefetch::<false>(next.wrapping_add(j * lanes));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = simd.splat_f32s(*lefts[r / 3].add(r % 3 * a.row));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = simd.mul_add_e_f32s(a, b, *sum);
                    }
                }
                // The step after the last may leave the matrix.
                lefts = lefts.map(|left| left.wrapping_add(a.column));
                right = right.add(C * lanes);
                next = next.wrapping_add(step);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    let to = c.add(r * c_row + j * lanes);
                    store(simd, to, count.saturating_sub(j * lanes), *sum);
                }
            }
        }
    }
}

/// Packs columns `j..j + width` of `b` into one panel, `[inner][width]`, or `[inner][width / 2]` where the
/// last columns fit that; missing columns are zero.
///
/// # Safety
///
/// `b` is readable for all `inner` x `columns` elements, `panel` writable for `inner` rows of the panel's width.
pub(crate) unsafe fn pack_panel(inner: usize, columns: usize, j: usize, b: Right, panel: *mut f32) {
    debug_assert!(j < columns);
    let full = panel_width();
    let count = (columns - j).min(full);
    let width = if count > full / 2 { full } else { full / 2 };
    // SAFETY: the columns `j..j + count` of the factor exist, and `count` is `width` at most.
    unsafe {
        let from = b.pointer.wrapping_add(j * b.column);
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

/// Packs a whole factor, `[inner, columns]`, into the panels that begin where `panels` does.
///
/// # Safety
///
/// `b` is readable for all its elements, and `panels` has room for [`packed_len`] of them.
pub(crate) unsafe fn pack(
    parallel: bool,
    inner: usize,
    columns: usize,
    b: Right,
    panels: Shared,
) -> Panels {
    let width = panel_width();
    let stride = inner * width;
    for_each(parallel, columns.div_ceil(width), |p| {
        // SAFETY: each task packs its own panel; the rest is the caller's.
        unsafe { pack_panel(inner, columns, p * width, b, panels.at(p * stride)) };
    });
    Panels {
        pointer: panels.start(),
        stride,
        then: panels.start(),
    }
}

/// Rows of the left factor that one task takes.
const ROWS: usize = 96;
/// Inner dimension that is packed at a time.
const DEPTH: usize = 4096;

/// Computes a product over rayon's threads, if `parallel` and where it is worth it.
///
/// # Safety
///
/// What [`Product`] asks for.
pub(crate) unsafe fn matmul(parallel: bool, product: Product<Right>) {
    let Product {
        rows,
        columns,
        inner,
        a,
        b,
        c,
        c_row,
        start,
    } = product;
    if rows == 0 || columns == 0 {
        return;
    }
    debug_assert!(c_row >= columns || rows == 1);
    let parallel = parallel && rows * columns * inner.max(1) > 64 * 1024;
    let width = panel_width();
    let panel_count = columns.div_ceil(width);
    let shared = Shared::of(c, (rows - 1) * c_row + columns);
    simd::with_scratch(packed_len(inner.min(DEPTH), columns), |panels| {
        let mut done = 0;
        let mut start = start;
        loop {
            let depth = DEPTH.min(inner - done);
            // SAFETY: the factor has `depth` rows from there on, for which the scratch memory has room.
            let packed = unsafe { pack(parallel, depth, columns, b.from(done), panels) };
            // Few rows: the panels are spread over tasks as well.
            let row_tasks = rows.div_ceil(ROWS);
            let group = panel_count.div_ceil((64 / row_tasks).clamp(1, panel_count));
            let groups = panel_count.div_ceil(group);
            for_each(parallel, row_tasks * groups, |task| {
                let (i, first) = (task / groups * ROWS, task % groups * group);
                let j = first * width;
                // SAFETY: row `i`, column `j` and panel `first` exist; each task writes its own rows and columns.
                unsafe {
                    simd::run(Product {
                        rows: ROWS.min(rows - i),
                        columns: (group * width).min(columns - j),
                        inner: depth,
                        a: a.from(i, done),
                        b: packed.from(first),
                        c: shared.at(i * c_row + j),
                        c_row,
                        start: start.from(j),
                    });
                }
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
            (3, 5, 0),
            (13, 18, 5),
            (13, 33, 40),
            (200, 16, 9),
            (97, 70, 385),
            (100, 17, 4100),
        ];
        // Miri is a thousand times slower.
        let shapes = if cfg!(miri) { &shapes[..4] } else { &shapes };
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
                    Left::turned(a.as_ptr(), rows)
                } else {
                    Left::plain(a.as_ptr(), inner)
                };
                let right = if b_transposed {
                    Right::turned(b.as_ptr(), inner)
                } else {
                    Right::plain(b.as_ptr(), columns)
                };
                let mut c = vec![9.0f32; rows * columns];
                let start = if with_row {
                    Start::Row(bias.as_ptr())
                } else {
                    Start::Zero
                };
                let product = Product {
                    rows,
                    columns,
                    inner,
                    a: left,
                    b: right,
                    c: c.as_mut_ptr(),
                    c_row: columns,
                    start,
                };
                // SAFETY: the vectors have these sizes.
                unsafe { matmul(true, product) };
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
