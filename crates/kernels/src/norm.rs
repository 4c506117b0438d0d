//! Group normalisation, optionally followed by SiLU, and its gradients.
//!
//! Sums over pixels are taken channel by channel in f32 over [`PIXELS`] pixels, relative to the image's
//! first pixel so that a large mean does not cancel, and go on in f64. The parts and their order depend
//! on the shape alone.

use crate::simd::{self, Shared, Simd, filled, for_each, load, store, vectorized};

/// Pixels that are summed in f32.
const PIXELS: usize = 256;

/// Sizes and settings of one group normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    pub batch: usize,
    pub pixels: usize,
    pub channels: usize,
    pub groups: usize,
    pub eps: f64,
    pub silu: bool,
    /// Whether `gamma` and `beta` have a row per image.
    pub gamma_per_image: bool,
    pub beta_per_image: bool,
}

/// Mean and reciprocal standard deviation of every group of every image.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

/// Gradients of a group normalisation.
pub(crate) struct NormGradients {
    pub dx: Vec<f32>,
    /// `[1 or batch, channels]`, as `gamma`.
    pub dgamma: Vec<f32>,
    /// `[1 or batch, channels]`, as `beta`.
    pub dbeta: Vec<f32>,
}

impl Norm {
    fn parts(&self) -> usize {
        self.pixels.div_ceil(PIXELS)
    }

    fn image(&self) -> usize {
        self.pixels * self.channels
    }

    /// Runs `image(i, parallel)` for every image: images side by side where they keep all threads busy,
    /// else one after the other with `parallel` set.
    fn for_each_image(&self, image: impl Fn(usize, bool) + Sync + Send) {
        let side_by_side = self.batch >= rayon::current_num_threads();
        let worth = self.batch * self.image() > 16 * 1024;
        for_each(worth && side_by_side, self.batch, |i| {
            image(i, worth && !side_by_side)
        });
    }

    /// Runs `part(first pixel, pixels, part)` for the parts of one image.
    fn for_each_part(&self, parallel: bool, part: impl Fn(usize, usize, usize) + Sync + Send) {
        for_each(parallel, self.parts(), |p| {
            let first = p * PIXELS;
            part(first, PIXELS.min(self.pixels - first), p);
        });
    }

    fn row<'a>(&self, values: &'a [f32], per_image: bool, image: usize) -> &'a [f32] {
        let start = if per_image { image * self.channels } else { 0 };
        &values[start..start + self.channels]
    }
}

/// The result and what its gradients need.
pub(crate) fn forward(norm: &Norm, x: &[f32], gamma: &[f32], beta: &[f32]) -> (Vec<f32>, Moments) {
    let Norm {
        batch,
        channels,
        groups,
        ..
    } = *norm;
    let mut mean = vec![0.0; batch * groups];
    let mut scale = vec![0.0; batch * groups];
    let (means, scales) = (SharedF64(mean.as_mut_ptr()), SharedF64(scale.as_mut_ptr()));
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        norm.for_each_image(|i, parallel| {
            let from = &x[i * norm.image()..(i + 1) * norm.image()];
            // SAFETY: each image has its own moments and pixels.
            let (mean, scale) = unsafe {
                (
                    means.slice(i * groups, groups),
                    scales.slice(i * groups, groups),
                )
            };
            moments(norm, from, parallel, mean, scale);
            let gamma = norm.row(gamma, norm.gamma_per_image, i);
            let beta = norm.row(beta, norm.beta_per_image, i);
            let (factor, offset) = normal(norm, mean, scale);
            let affine: [&[f32]; 4] = [&factor, &offset, gamma, beta];
            norm.for_each_part(parallel, |first, count, _| unsafe {
                let from = from.as_ptr().add(first * channels);
                let to = y.at(i * norm.image() + first * channels);
                apply(from, count, channels, pointers(affine), norm.silu, to);
            });
        });
    };
    // SAFETY: the parts cover every pixel.
    let y = unsafe { filled(x.len(), work) };
    (y, Moments { mean, scale })
}

/// The gradients for `dy`, given what [`forward`] was given and returned.
pub(crate) fn backward(
    norm: &Norm,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    moments: &Moments,
    dy: &[f32],
) -> NormGradients {
    let Norm {
        batch,
        channels,
        groups,
        ..
    } = *norm;
    let parts = norm.parts();
    let row = 2 * channels;
    let mut sums = vec![0.0f32; batch * parts * row];
    let shared_sums = Shared::new(sums.as_mut_ptr());
    // Sums of dz and of dz times the normalised x, per image and channel.
    let mut totals = vec![0.0f64; batch * row];
    let shared_totals = SharedF64(totals.as_mut_ptr());
    let per_group = (norm.pixels * (channels / groups)) as f64;
    let work = |dx: *mut f32| {
        let dx = Shared::new(dx);
        norm.for_each_image(|i, parallel| {
            let start = i * norm.image();
            let (mean, scale) = (
                &moments.mean[i * groups..][..groups],
                &moments.scale[i * groups..][..groups],
            );
            let gamma = norm.row(gamma, norm.gamma_per_image, i);
            let beta = norm.row(beta, norm.beta_per_image, i);
            let (factor, offset) = normal(norm, mean, scale);
            let affine: [&[f32]; 4] = [&factor, &offset, gamma, beta];
            let slopes: Vec<f32> = gamma.iter().zip(&factor).map(|(g, s)| g * s).collect();
            // SAFETY: each part writes its own pixels and its own row of sums.
            norm.for_each_part(parallel, |first, count, part| unsafe {
                let at = start + first * channels;
                let pixels = BackwardPixels {
                    x: x.as_ptr().add(at),
                    dy: dy.as_ptr().add(at),
                    dz: dx.at(at),
                    count,
                    channels,
                    silu: norm.silu,
                };
                gather_sums(
                    pixels,
                    pointers(affine),
                    shared_sums.at((i * parts + part) * row),
                );
            });
            // SAFETY: each image has its own totals; its sums are complete.
            let totals = unsafe { shared_totals.slice(i * row, row) };
            for part in 0..parts {
                let sums = unsafe {
                    std::slice::from_raw_parts(shared_sums.at((i * parts + part) * row), row)
                };
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total += *sum as f64;
                }
            }
            // dx = gamma scale dz - scale (a + xhat b), a and b the group's means of gamma dz and gamma dz xhat.
            let mut slope = vec![0.0f32; channels];
            let mut level = vec![0.0f32; channels];
            for g in 0..groups {
                let members = g * (channels / groups)..(g + 1) * (channels / groups);
                let (mut a, mut b) = (0.0, 0.0);
                for c in members.clone() {
                    a += gamma[c] as f64 * totals[c];
                    b += gamma[c] as f64 * totals[channels + c];
                }
                let (a, b) = (a / per_group, b / per_group);
                let (mean, scale) = (mean[g], scale[g]);
                for c in members {
                    slope[c] = (-scale * scale * b) as f32;
                    level[c] = (scale * scale * b * mean - scale * a) as f32;
                }
            }
            norm.for_each_part(parallel, |first, count, _| unsafe {
                let at = start + first * channels;
                combine(
                    x.as_ptr().add(at),
                    count,
                    channels,
                    slopes.as_ptr(),
                    slope.as_ptr(),
                    level.as_ptr(),
                    dx.at(at),
                );
            });
        });
    };
    // SAFETY: the parts cover every pixel.
    let dx = unsafe { filled(x.len(), work) };
    let gradient = |which: usize, per_image: bool| {
        let rows = if per_image { batch } else { 1 };
        let images = batch / rows.max(1);
        let mut gradient = Vec::with_capacity(rows * channels);
        for r in 0..rows {
            for c in 0..channels {
                let column =
                    (0..images).map(|i| totals[(r * images + i) * row + which * channels + c]);
                gradient.push(column.sum::<f64>() as f32);
            }
        }
        gradient
    };
    NormGradients {
        dx,
        dgamma: gradient(1, norm.gamma_per_image),
        dbeta: gradient(0, norm.beta_per_image),
    }
}

/// Mean and reciprocal standard deviation of one image's groups.
fn moments(norm: &Norm, x: &[f32], parallel: bool, mean: &mut [f64], scale: &mut [f64]) {
    let channels = norm.channels;
    let parts = norm.parts();
    let row = 2 * channels;
    let mut sums = vec![0.0f32; parts * row];
    let shared = Shared::new(sums.as_mut_ptr());
    // SAFETY: each part has its own row of sums.
    norm.for_each_part(parallel, |first, count, part| unsafe {
        let from = x.as_ptr().add(first * channels);
        sum_pixels(from, count, channels, x.as_ptr(), shared.at(part * row));
    });
    let members = channels / norm.groups;
    let pixels = norm.pixels as f64;
    let total = pixels * members as f64;
    for g in 0..norm.groups {
        let channel = |c: usize| {
            let part = |offset: usize| {
                (0..parts)
                    .map(|p| sums[p * row + offset + c] as f64)
                    .sum::<f64>()
            };
            (x[c] as f64, part(0), part(channels))
        };
        let of_group = g * members..(g + 1) * members;
        let sum: f64 = of_group
            .clone()
            .map(channel)
            .map(|(shift, sum, _)| pixels * shift + sum)
            .sum();
        let m = sum / total;
        let squares = of_group.map(channel).map(|(shift, sum, squares)| {
            let d = shift - m;
            squares + d * (2.0 * sum + pixels * d)
        });
        let variance = squares.sum::<f64>() / total;
        // Rounding may leave it below 0. `max` would make 0 of NaN as well.
        let variance = if variance < 0.0 { 0.0 } else { variance };
        mean[g] = m;
        scale[g] = 1.0 / (variance + norm.eps).sqrt();
    }
}

/// Factor and offset per channel that normalise. Scale and shift come after: in one factor with them, an infinite
/// gamma would meet its own negative.
fn normal(norm: &Norm, mean: &[f64], scale: &[f64]) -> (Vec<f32>, Vec<f32>) {
    let members = norm.channels / norm.groups;
    let channel = |c: usize| {
        let (mean, scale) = (mean[c / members], scale[c / members]);
        (scale as f32, (-mean * scale) as f32)
    };
    (0..norm.channels).map(channel).unzip()
}

fn pointers(rows: [&[f32]; 4]) -> [*const f32; 4] {
    rows.map(<[f32]>::as_ptr)
}

/// Like [`Shared`], for f64.
#[derive(Clone, Copy)]
struct SharedF64(*mut f64);
// SAFETY: each image's task takes its own part.
unsafe impl Send for SharedF64 {}
unsafe impl Sync for SharedF64 {}

impl SharedF64 {
    /// # Safety
    ///
    /// The part exists, and nothing else refers to it.
    unsafe fn slice<'a>(self, at: usize, count: usize) -> &'a mut [f64] {
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), count) }
    }
}

vectorized! {
    /// sums[0..channels] = sum of x - shift, sums[channels..] = sum of its squares, over `count` pixels.
    unsafe fn sum_pixels(simd; x: *const f32, count: usize, channels: usize, shift: *const f32, sums: *mut f32) {
        let mut c = 0;
        while c + 4 * S::F32_LANES <= channels {
            sum_vectors::<S, 4>(simd, x.add(c), count, channels, shift.add(c), sums.add(c), S::F32_LANES);
            c += 4 * S::F32_LANES;
        }
        while c < channels {
            let lanes = (channels - c).min(S::F32_LANES);
            sum_vectors::<S, 1>(simd, x.add(c), count, channels, shift.add(c), sums.add(c), lanes);
            c += S::F32_LANES;
        }
    }
}

#[inline(always)]
unsafe fn sum_vectors<S: Simd, const N: usize>(
    simd: S,
    x: *const f32,
    count: usize,
    channels: usize,
    shift: *const f32,
    sums: *mut f32,
    lanes: usize,
) {
    unsafe {
        let mut sum = [simd.splat_f32s(0.0); N];
        let mut squares = [simd.splat_f32s(0.0); N];
        let mut shifts = [simd.splat_f32s(0.0); N];
        for (n, to) in shifts.iter_mut().enumerate() {
            *to = load(simd, shift.add(n * S::F32_LANES), lanes);
        }
        for p in 0..count {
            for n in 0..N {
                let d = load(simd, x.add(p * channels + n * S::F32_LANES), lanes);
                let d = simd.sub_f32s(d, shifts[n]);
                sum[n] = simd.add_f32s(sum[n], d);
                squares[n] = simd.mul_add_e_f32s(d, d, squares[n]);
            }
        }
        for n in 0..N {
            store(simd, sums.add(n * S::F32_LANES), lanes, sum[n]);
            store(
                simd,
                sums.add(channels + n * S::F32_LANES),
                lanes,
                squares[n],
            );
        }
    }
}

vectorized! {
    /// y = f((x factor + offset) gamma + beta), f being SiLU or nothing, over `count` pixels. `affine` gives the four.
    unsafe fn apply(
        simd;
        x: *const f32,
        count: usize,
        channels: usize,
        affine: [*const f32; 4],
        silu: bool,
        y: *mut f32,
    ) {
        for p in 0..count {
            let (x, y) = (x.add(p * channels), y.add(p * channels));
            let mut c = 0;
            while c < channels {
                let lanes = channels - c;
                let row = |which: usize| load(simd, affine[which].add(c), lanes);
                let normal = simd.mul_add_e_f32s(load(simd, x.add(c), lanes), row(0), row(1));
                let z = simd.mul_add_e_f32s(normal, row(2), row(3));
                let value = if silu { simd.mul_f32s(z, simd::sigmoid(simd, z)) } else { z };
                store(simd, y.add(c), lanes, value);
                c += S::F32_LANES;
            }
        }
    }
}

/// Where the first pass of [`backward`] reads and writes.
#[derive(Clone, Copy)]
struct BackwardPixels {
    x: *const f32,
    dy: *const f32,
    dz: *mut f32,
    count: usize,
    channels: usize,
    silu: bool,
}

vectorized! {
    /// dz = dy f'(z); sums[0..channels] = sum of dz, sums[channels..] = sum of dz times the normalised x.
    /// `affine` is [`apply`]'s.
    unsafe fn gather_sums(simd; pixels: BackwardPixels, affine: [*const f32; 4], sums: *mut f32) {
        let BackwardPixels { x, dy, dz, count, channels, silu } = pixels;
        let zero = simd.splat_f32s(0.0);
        let mut c = 0;
        while c < 2 * channels {
            store(simd, sums.add(c), 2 * channels - c, zero);
            c += S::F32_LANES;
        }
        // Pixel by pixel: the sums stay in the nearest cache, and memory is read in its order.
        for p in 0..count {
            let (x, dy, dz) = (x.add(p * channels), dy.add(p * channels), dz.add(p * channels));
            let mut c = 0;
            while c + S::F32_LANES <= channels {
                gather_vector(simd, S::F32_LANES, channels, x.add(c), dy.add(c), dz.add(c), silu, affine, c, sums.add(c));
                c += S::F32_LANES;
            }
            if c < channels {
                gather_vector(simd, channels - c, channels, x.add(c), dy.add(c), dz.add(c), silu, affine, c, sums.add(c));
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn gather_vector<S: Simd>(
    simd: S,
    lanes: usize,
    channels: usize,
    x: *const f32,
    dy: *const f32,
    dz: *mut f32,
    silu: bool,
    affine: [*const f32; 4],
    c: usize,
    sums: *mut f32,
) {
    unsafe {
        let row = |which: usize| load(simd, affine[which].add(c), lanes);
        let normal = simd.mul_add_e_f32s(load(simd, x, lanes), row(0), row(1));
        let mut d = load(simd, dy, lanes);
        if silu {
            let z = simd.mul_add_e_f32s(normal, row(2), row(3));
            let s = simd::sigmoid(simd, z);
            // s + z s (1 - s)
            let rest = simd.mul_f32s(z, simd.sub_f32s(simd.splat_f32s(1.0), s));
            d = simd.mul_f32s(d, simd.mul_add_e_f32s(s, rest, s));
        }
        store(simd, dz, lanes, d);
        let sum = simd.add_f32s(load(simd, sums, lanes), d);
        store(simd, sums, lanes, sum);
        let products = simd.mul_add_e_f32s(d, normal, load(simd, sums.add(channels), lanes));
        store(simd, sums.add(channels), lanes, products);
    }
}

vectorized! {
    /// dx = dx factor + x slope + level, over `count` pixels.
    unsafe fn combine(
        simd;
        x: *const f32,
        count: usize,
        channels: usize,
        factor: *const f32,
        slope: *const f32,
        level: *const f32,
        dx: *mut f32,
    ) {
        for p in 0..count {
            let (x, dx) = (x.add(p * channels), dx.add(p * channels));
            let mut c = 0;
            while c < channels {
                let lanes = channels - c;
                let rest = simd.mul_add_e_f32s(load(simd, x.add(c), lanes), load(simd, slope.add(c), lanes), load(simd, level.add(c), lanes));
                let value = simd.mul_add_e_f32s(load(simd, dx.add(c), lanes), load(simd, factor.add(c), lanes), rest);
                store(simd, dx.add(c), lanes, value);
                c += S::F32_LANES;
            }
        }
    }
}
