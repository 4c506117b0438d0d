//! Group normalisation, optionally followed by SiLU, and its gradients.
//!
//! Sums over pixels are taken channel by channel in f32 over [`PIXELS`] pixels, relative to the image's
//! first pixel so that a large mean does not cancel, and go on in f64. The parts and their order depend
//! on the shape alone.

use crate::simd::{self, Shared, Simd, Vectorized, filled, for_each, load, store};

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

    /// What the pointers below rely on.
    fn check(&self, x: &[f32], gamma: &[f32], beta: &[f32]) {
        let rows = |per_image: bool| if per_image { self.batch } else { 1 };
        assert_eq!(x.len(), self.batch * self.image(), "pixels");
        for (values, per_image) in [(gamma, self.gamma_per_image), (beta, self.beta_per_image)] {
            assert_eq!(values.len(), rows(per_image) * self.channels, "affine rows");
        }
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
    norm.check(x, gamma, beta);
    let mut mean = vec![0.0; batch * groups];
    let mut scale = vec![0.0; batch * groups];
    let (means, scales) = (SharedF64::new(&mut mean), SharedF64::new(&mut scale));
    let work = |y: Shared| {
        norm.for_each_image(|i, parallel| {
            let from = &x[i * norm.image()..(i + 1) * norm.image()];
            // SAFETY: each image has its own moments.
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
            let affine = Affine {
                factor: &factor,
                offset: &offset,
                gamma,
                beta,
            };
            norm.for_each_part(parallel, |first, count, _| {
                let start = first * channels;
                // SAFETY: each part writes its own pixels; each of the affine's rows has all channels.
                unsafe {
                    simd::run(Apply {
                        x: from[start..].as_ptr(),
                        count,
                        channels,
                        affine,
                        silu: norm.silu,
                        y: y.at(i * norm.image() + start),
                    });
                }
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
    norm.check(x, gamma, beta);
    assert_eq!(dy.len(), x.len(), "the result's gradient");
    let parts = norm.parts();
    let row = 2 * channels;
    let mut sums = vec![0.0f32; batch * parts * row];
    let shared_sums = Shared::new(&mut sums);
    // Sums of dz and of dz times the normalised x, per image and channel.
    let mut totals = vec![0.0f64; batch * row];
    let shared_totals = SharedF64::new(&mut totals);
    let per_group = (norm.pixels * (channels / groups)) as f64;
    let work = |dx: Shared| {
        norm.for_each_image(|i, parallel| {
            let start = i * norm.image();
            let (mean, scale) = (
                &moments.mean[i * groups..][..groups],
                &moments.scale[i * groups..][..groups],
            );
            let gamma = norm.row(gamma, norm.gamma_per_image, i);
            let beta = norm.row(beta, norm.beta_per_image, i);
            let (factor, offset) = normal(norm, mean, scale);
            let affine = Affine {
                factor: &factor,
                offset: &offset,
                gamma,
                beta,
            };
            let slopes: Vec<f32> = gamma.iter().zip(&factor).map(|(g, s)| g * s).collect();
            norm.for_each_part(parallel, |first, count, part| {
                let at = start + first * channels;
                // SAFETY: each part writes its own pixels and its own row of sums; each of the affine's rows has all
                // channels.
                unsafe {
                    simd::run(GatherSums {
                        x: x[at..].as_ptr(),
                        dy: dy[at..].as_ptr(),
                        dz: dx.at(at),
                        count,
                        channels,
                        affine,
                        silu: norm.silu,
                        sums: shared_sums.at((i * parts + part) * row),
                    });
                }
            });
            // SAFETY: each image has its own totals.
            let totals = unsafe { shared_totals.slice(i * row, row) };
            for part in 0..parts {
                // SAFETY: an image's sums are its own, and complete.
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
            norm.for_each_part(parallel, |first, count, _| {
                let at = start + first * channels;
                // SAFETY: each part writes its own pixels, which the first pass has filled.
                unsafe {
                    simd::run(Combine {
                        x: x[at..].as_ptr(),
                        count,
                        channels,
                        factor: slopes.as_ptr(),
                        slope: slope.as_ptr(),
                        level: level.as_ptr(),
                        dx: dx.at(at),
                    });
                }
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
    let shared = Shared::new(&mut sums);
    norm.for_each_part(parallel, |first, count, part| {
        // SAFETY: each part has its own row of sums, and an image has a first pixel.
        unsafe {
            simd::run(SumPixels {
                x: x[first * channels..].as_ptr(),
                count,
                channels,
                shift: x.as_ptr(),
                sums: shared.at(part * row),
            });
        }
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

/// Like [`Shared`], for f64.
#[derive(Clone, Copy)]
struct SharedF64 {
    pointer: *mut f64,
    len: usize,
}

// SAFETY: each image's task takes its own part.
unsafe impl Send for SharedF64 {}
// SAFETY: as above.
unsafe impl Sync for SharedF64 {}

impl SharedF64 {
    fn new(values: &mut [f64]) -> Self {
        Self {
            pointer: values.as_mut_ptr(),
            len: values.len(),
        }
    }

    /// # Safety
    ///
    /// The values still exist, and nothing else refers to this part of them.
    unsafe fn slice<'a>(self, at: usize, count: usize) -> &'a mut [f64] {
        assert!(at + count <= self.len);
        // SAFETY: the part exists; the rest is the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(at), count) }
    }
}

/// sums[0..channels] = sum of x - shift, sums[channels..] = sum of its squares, over `count` pixels.
///
/// `x` is `[count, channels]`, `shift` one pixel, and `sums` writable for two.
struct SumPixels {
    x: *const f32,
    count: usize,
    channels: usize,
    shift: *const f32,
    sums: *mut f32,
}

impl Vectorized for SumPixels {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let mut c = 0;
        while c + 4 * S::F32_LANES <= self.channels {
            // SAFETY: four whole vectors of channels are left.
            unsafe { self.vectors::<S, 4>(simd, c, S::F32_LANES) };
            c += 4 * S::F32_LANES;
        }
        while c < self.channels {
            let lanes = (self.channels - c).min(S::F32_LANES);
            // SAFETY: `lanes` channels are left.
            unsafe { self.vectors::<S, 1>(simd, c, lanes) };
            c += S::F32_LANES;
        }
    }
}

impl SumPixels {
    /// The sums of `N` vectors of `lanes` channels from `c` on.
    ///
    /// # Safety
    ///
    /// The fields are what the type asks for, and these channels exist; if `N` is not 1, the vectors are whole.
    #[inline(always)]
    unsafe fn vectors<S: Simd, const N: usize>(&self, simd: S, c: usize, lanes: usize) {
        let &Self {
            x,
            count,
            channels,
            shift,
            sums,
        } = self;
        // SAFETY: the caller's, for every pixel.
        unsafe {
            let (x, shift, sums) = (x.add(c), shift.add(c), sums.add(c));
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
                let to = sums.add(n * S::F32_LANES);
                store(simd, to, lanes, sum[n]);
                store(simd, to.add(channels), lanes, squares[n]);
            }
        }
    }
}

/// The channels' factor and offset that normalise, then those of the result: (x factor + offset) gamma + beta.
#[derive(Clone, Copy)]
struct Affine<'a> {
    factor: &'a [f32],
    offset: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
}

/// y = f((x factor + offset) gamma + beta), f being SiLU or nothing, over `count` pixels.
///
/// `x` and `y` are `[count, channels]`; `y` is writable.
struct Apply<'a> {
    x: *const f32,
    count: usize,
    channels: usize,
    affine: Affine<'a>,
    silu: bool,
    y: *mut f32,
}
impl Vectorized for Apply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            count,
            channels,
            affine,
            silu,
            y,
        } = self;
        for p in 0..count {
            // SAFETY: there are `count` pixels.
            let (x, y) = unsafe { (x.add(p * channels), y.add(p * channels)) };
            let mut c = 0;
            while c < channels {
                let lanes = channels - c;
                // SAFETY: `lanes` channels of the pixel are left, and of each row.
                unsafe {
                    let row = |row: &[f32]| load(simd, row.as_ptr().add(c), lanes);
                    let x = load(simd, x.add(c), lanes);
                    let normal = simd.mul_add_e_f32s(x, row(affine.factor), row(affine.offset));
                    let z = simd.mul_add_e_f32s(normal, row(affine.gamma), row(affine.beta));
                    let value = if silu {
                        simd.mul_f32s(z, simd::sigmoid(simd, z))
                    } else {
                        z
                    };
                    store(simd, y.add(c), lanes, value);
                }
                c += S::F32_LANES;
            }
        }
    }
}

/// dz = dy f'(z); sums[0..channels] = sum of dz, sums[channels..] = sum of dz times the normalised x.
///
/// `x`, `dy` and `dz` are `[count, channels]`, `affine` as in [`Apply`]; `dz` and two pixels of `sums` are writable.
struct GatherSums<'a> {
    x: *const f32,
    dy: *const f32,
    dz: *mut f32,
    count: usize,
    channels: usize,
    affine: Affine<'a>,
    silu: bool,
    sums: *mut f32,
}

impl Vectorized for GatherSums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let channels = self.channels;
        let mut c = 0;
        while c < 2 * channels {
            // SAFETY: `2 * channels - c` sums are left.
            unsafe {
                let zero = simd.splat_f32s(0.0);
                store(simd, self.sums.add(c), 2 * channels - c, zero);
            }
            c += S::F32_LANES;
        }
        // Pixel by pixel: the sums stay in the nearest cache, and memory is read in its order.
        for p in 0..self.count {
            let pixel = p * channels;
            let mut c = 0;
            while c + S::F32_LANES <= channels {
                // SAFETY: a whole vector of channels is left.
                unsafe { self.vector(simd, pixel, c, S::F32_LANES) };
                c += S::F32_LANES;
            }
            if c < channels {
                // SAFETY: so many channels are left.
                unsafe { self.vector(simd, pixel, c, channels - c) };
            }
        }
    }
}

impl GatherSums<'_> {
    /// `lanes` channels from `c` on of the pixel that begins at `pixel`.
    ///
    /// # Safety
    ///
    /// The fields are what the type asks for, and these channels exist.
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, simd: S, pixel: usize, c: usize, lanes: usize) {
        let at = pixel + c;
        // SAFETY: the caller's.
        unsafe {
            let row = |row: &[f32]| load(simd, row.as_ptr().add(c), lanes);
            let (factor, offset) = (row(self.affine.factor), row(self.affine.offset));
            let normal = simd.mul_add_e_f32s(load(simd, self.x.add(at), lanes), factor, offset);
            let mut d = load(simd, self.dy.add(at), lanes);
            if self.silu {
                let z = simd.mul_add_e_f32s(normal, row(self.affine.gamma), row(self.affine.beta));
                let s = simd::sigmoid(simd, z);
                // s + z s (1 - s)
                let rest = simd.mul_f32s(z, simd.sub_f32s(simd.splat_f32s(1.0), s));
                d = simd.mul_f32s(d, simd.mul_add_e_f32s(s, rest, s));
            }
            store(simd, self.dz.add(at), lanes, d);
            let sum = self.sums.add(c);
            store(simd, sum, lanes, simd.add_f32s(load(simd, sum, lanes), d));
            let product = sum.add(self.channels);
            let products = simd.mul_add_e_f32s(d, normal, load(simd, product, lanes));
            store(simd, product, lanes, products);
        }
    }
}

/// dx = dx factor + x slope + level, over `count` pixels.
///
/// `x` and `dx` are `[count, channels]`, the others one row of channels; `dx` is writable.
struct Combine {
    x: *const f32,
    count: usize,
    channels: usize,
    factor: *const f32,
    slope: *const f32,
    level: *const f32,
    dx: *mut f32,
}

impl Vectorized for Combine {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            count,
            channels,
            factor,
            slope,
            level,
            dx,
        } = self;
        for p in 0..count {
            // SAFETY: there are `count` pixels.
            let (x, dx) = unsafe { (x.add(p * channels), dx.add(p * channels)) };
            let mut c = 0;
            while c < channels {
                let lanes = channels - c;
                // SAFETY: `lanes` channels of the pixel are left, and of each row.
                unsafe {
                    let (x, dx) = (x.add(c), dx.add(c));
                    let (slope, level) = (
                        load(simd, slope.add(c), lanes),
                        load(simd, level.add(c), lanes),
                    );
                    let rest = simd.mul_add_e_f32s(load(simd, x, lanes), slope, level);
                    let factor = load(simd, factor.add(c), lanes);
                    let value = simd.mul_add_e_f32s(load(simd, dx, lanes), factor, rest);
                    store(simd, dx, lanes, value);
                }
                c += S::F32_LANES;
            }
        }
    }
}
