//! The sum of squared differences of bytes, vectorized for the processor at hand.

use pulp::{Arch, Simd, WithSimd};

/// Rows that one call compares, for each of a few queries.
pub(crate) const QUERIES: usize = 4;

/// Bytes whose sum fits an `i32`: 32,768 x 255^2 is just below 2^31.
const CHUNK: usize = 32_768;

/// Squared distance of `row` to each query. All slices have one length.
///
/// The loops are plain: `pulp` compiles them for AVX2, AVX-512 and NEON, and the compiler turns them into widening
/// loads and multiply-add of pairs. One query reads memory at full speed; with several queries each row is loaded
/// once for four of them.
pub(crate) fn distances(arch: Arch, row: &[u8], queries: &[&[u8]], out: &mut [u64]) {
    arch.dispatch(Distances { row, queries, out });
}

struct Distances<'a> {
    row: &'a [u8],
    queries: &'a [&'a [u8]],
    out: &'a mut [u64],
}

impl WithSimd for Distances<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut out = self.out.chunks_exact_mut(QUERIES);
        let mut queries = self.queries.chunks_exact(QUERIES);
        for (out, queries) in (&mut out).zip(&mut queries) {
            four(
                self.row,
                [queries[0], queries[1], queries[2], queries[3]],
                out,
            );
        }
        for (out, query) in out.into_remainder().iter_mut().zip(queries.remainder()) {
            *out = one(self.row, query);
        }
    }
}

/// The wrapping operations never wrap ([`CHUNK`]); with the checked ones a debug build would not vectorize.
#[inline(always)]
fn add_square(sum: i32, a: u8, b: u8) -> i32 {
    let difference = i32::from(i16::from(a).wrapping_sub(i16::from(b)));
    sum.wrapping_add(difference.wrapping_mul(difference))
}

#[inline(always)]
fn one(row: &[u8], query: &[u8]) -> u64 {
    let mut total = 0;
    for (row, query) in row.chunks(CHUNK).zip(query.chunks(CHUNK)) {
        let mut sum = 0i32;
        for (&a, &b) in row.iter().zip(query) {
            sum = add_square(sum, a, b);
        }
        total += sum as u64;
    }
    total
}

#[inline(always)]
fn four(row: &[u8], queries: [&[u8]; 4], out: &mut [u64]) {
    out.fill(0);
    let mut start = 0;
    for row in row.chunks(CHUNK) {
        let [a, b, c, d] = queries.map(|query| &query[start..start + row.len()]);
        let mut sums = [0i32; 4];
        for index in 0..row.len() {
            sums[0] = add_square(sums[0], row[index], a[index]);
            sums[1] = add_square(sums[1], row[index], b[index]);
            sums[2] = add_square(sums[2], row[index], c[index]);
            sums[3] = add_square(sums[3], row[index], d[index]);
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out += sum as u64;
        }
        start += row.len();
    }
}
