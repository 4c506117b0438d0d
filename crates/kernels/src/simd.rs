//! Vector instructions, chosen once at run time, and the memory that vector code works in.

use std::cell::RefCell;
use std::sync::OnceLock;

use pulp::{Arch, WithSimd};

pub(crate) use pulp::Simd;

/// Environment variable that lowers the choice to `avx2` or `scalar`, for tests and measurements.
const OVERRIDE: &str = "RETRACK_SIMD";

fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| {
        let wanted = std::env::var(OVERRIDE).unwrap_or_default();
        #[cfg(target_arch = "x86_64")]
        if wanted == "avx2"
            && let Some(simd) = pulp::x86::V3::try_new()
        {
            return Arch::V3(simd);
        }
        if wanted == "scalar" {
            Arch::Scalar
        } else {
            Arch::new()
        }
    })
}

/// Name of the vector instructions that the fast paths use on this machine: `avx512`, `avx2`, `neon` or `scalar`.
///
/// Chosen when it is first asked for. The environment variable `RETRACK_SIMD`, `avx2` or `scalar`, lowers the choice.
pub fn simd_name() -> &'static str {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "avx512",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "avx2",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => "neon",
        _ => "scalar",
    }
}

/// A loop that is compiled once for each instruction set. Its fields are its arguments, pointers among them.
///
/// Every implementation and every function that it calls with `S` must be `#[inline(always)]`: only what is inlined into
/// the function that [`run`] enters is compiled with the instructions switched on. A test looks after that.
pub(crate) trait Vectorized {
    type Output;

    /// # Safety
    ///
    /// What the implementing type asks of its fields holds.
    unsafe fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `work` compiled for the chosen instructions.
///
/// # Safety
///
/// What the type of `work` asks of its fields holds.
#[inline(always)]
pub(crate) unsafe fn run<V: Vectorized>(work: V) -> V::Output {
    struct Call<V>(V);
    impl<V: Vectorized> WithSimd for Call<V> {
        type Output = V::Output;
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> V::Output {
            // SAFETY: `Call` is only made here, where the caller promised it.
            unsafe { self.0.run(simd) }
        }
    }
    // Miri has no vector instructions. Eight lanes in plain Rust take the ways that a vector takes, rests included.
    #[cfg(miri)]
    return Call(work).with_simd(pulp::Scalar256b);
    #[cfg(not(miri))]
    arch().dispatch(Call(work))
}

/// f32 lanes of one vector.
pub(crate) fn lanes() -> usize {
    struct Lanes;
    impl Vectorized for Lanes {
        type Output = usize;
        #[inline(always)]
        unsafe fn run<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    // SAFETY: it asks for nothing.
    unsafe { run(Lanes) }
}

/// Loads `count` floats, at most a vector of them; the other lanes are zero.
///
/// # Safety
///
/// `count` floats are readable at `from`.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(simd: S, from: *const f32, count: usize) -> S::f32s {
    // SAFETY: `S::f32s` is `S::F32_LANES` floats, which are read only where there are as many.
    unsafe {
        if count >= S::F32_LANES {
            from.cast::<S::f32s>().read_unaligned()
        } else {
            simd.partial_load_f32s(std::slice::from_raw_parts(from, count))
        }
    }
}

/// Stores the first `count` lanes, at most a vector.
///
/// # Safety
///
/// `count` floats are writable at `to`.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(simd: S, to: *mut f32, count: usize, value: S::f32s) {
    // SAFETY: `S::f32s` is `S::F32_LANES` floats; as many are written, or the fewer that there is room for.
    unsafe {
        if count >= S::F32_LANES {
            to.cast::<S::f32s>().write_unaligned(value);
        } else {
            // A partial store may not be given memory that was never written.
            let lanes: *const S::f32s = &value;
            std::ptr::copy_nonoverlapping(lanes.cast::<f32>(), to, count);
            let _ = simd;
        }
    }
}

/// e^x, within 2 units in the last place of a normal f32, and as the exact one where that is no normal number: infinite
/// from 88.73 on, denormal below -87.3, 0 below -104, NaN of NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let f = |value: f32| simd.splat_f32s(value);
    let clamped = simd.max_f32s(simd.min_f32s(x, f(89.0)), f(-104.0));
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    let magic = f(MAGIC);
    let shifted = simd.mul_add_e_f32s(clamped, f(std::f32::consts::LOG2_E), magic);
    let n = simd.sub_f32s(shifted, magic);
    // x - n ln 2 in two steps: 0.693359375 has few bits, so n times it is exact.
    let r = simd.mul_add_e_f32s(n, f(-0.693_359_4), clamped);
    let r = simd.mul_add_e_f32s(n, f(2.121_944_4e-4), r);
    // Cephes' polynomial for e^r on [-ln 2 / 2, ln 2 / 2].
    let mut p = f(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_6e-1,
        0.5,
    ] {
        p = simd.mul_add_e_f32s(p, r, f(c));
    }
    let p = simd.mul_add_e_f32s(p, simd.mul_f32s(r, r), simd.add_f32s(r, f(1.0)));
    // 2^n as two factors, because n goes from -150 to 128 and an exponent field from -126 to 127.
    let n = simd.sub_u32s(
        simd.transmute_u32s_f32s(shifted),
        simd.splat_u32s(MAGIC.to_bits() - 254),
    );
    let half = simd.wrapping_dyn_shr_u32s(n, simd.splat_u32s(1));
    let power =
        |n: S::u32s| simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(n, simd.splat_u32s(23)));
    let y = simd.mul_f32s(simd.mul_f32s(p, power(half)), power(simd.sub_u32s(n, half)));
    // What `min` and `max` make of NaN differs between instruction sets.
    simd.select_f32s(simd.equal_f32s(x, x), y, x)
}

/// 1.5 * 2^23: a float near it has no bits below 1.
const MAGIC: f32 = 12_582_912.0;

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let e = exp(simd, simd.sub_f32s(simd.splat_f32s(0.0), x));
    simd.div_f32s(one, simd.add_f32s(one, e))
}

/// One cache line, which is also the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Floats rounded up to whole cache lines.
pub(crate) fn padded(floats: usize) -> usize {
    floats.next_multiple_of(16)
}

/// Lends `floats` floats of this thread's reusable, cache-line-aligned scratch memory; their values are
/// whatever the last use left. Calls may nest.
pub(crate) fn with_scratch<R>(floats: usize, use_it: impl FnOnce(Shared) -> R) -> R {
    // A stack of buffers, one for each level of nesting. Popped, not borrowed: while this thread waits for
    // others, rayon may run another kernel on it.
    thread_local! { static SCRATCH: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) }; }
    let mut lines = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = floats.div_ceil(16);
    if lines.len() < needed {
        lines = vec![Line([0.0; 16]); needed];
    }
    let result = use_it(Shared::of(lines.as_mut_ptr().cast(), floats));
    SCRATCH.with_borrow_mut(|stack| stack.push(lines));
    result
}

/// Floats that tasks share; each task writes only what is its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    pointer: *mut f32,
    /// How many there are, for the check in [`Shared::at`].
    #[cfg(debug_assertions)]
    len: usize,
}

// SAFETY: every use states why what a task writes is not touched by the others.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The floats of a slice, which must not be used otherwise as long as this or a copy of it is.
    pub(crate) fn new(floats: &mut [f32]) -> Self {
        Self::of(floats.as_mut_ptr(), floats.len())
    }

    /// `len` floats from `pointer` on.
    pub(crate) fn of(pointer: *mut f32, len: usize) -> Self {
        #[cfg(not(debug_assertions))]
        let _ = len;
        Self {
            pointer,
            #[cfg(debug_assertions)]
            len,
        }
    }

    /// The first of them.
    #[inline(always)]
    pub(crate) fn start(self) -> *mut f32 {
        self.pointer
    }

    /// The one at `offset`, or the end.
    ///
    /// # Safety
    ///
    /// There are that many, and they still exist.
    #[inline(always)]
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        #[cfg(debug_assertions)]
        assert!(offset <= self.len, "{offset} of {} floats", self.len);
        // SAFETY: the caller's.
        unsafe { self.pointer.add(offset) }
    }
}

/// Asks for the line of memory at `pointer`, which need not exist, before it is read: `SOON` into the first cache, else into
/// the second, which is a core's own, too.
#[inline(always)]
pub(crate) fn prefetch<const SOON: bool>(pointer: *const f32) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: SSE is part of every x86-64, and a hint never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if SOON {
            _mm_prefetch::<_MM_HINT_T0>(pointer.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(pointer.cast());
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = pointer;
}

/// Runs `task(0..count)`, over rayon's threads if `parallel`.
pub(crate) fn for_each(parallel: bool, count: usize, task: impl Fn(usize) + Sync + Send) {
    use rayon::prelude::*;
    // Miri watches for tasks that touch each other's floats, on its small cases too.
    let parallel = parallel || cfg!(miri);
    if parallel && count > 1 && rayon::current_num_threads() > 1 {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    } else {
        (0..count).for_each(task);
    }
}

/// Fresh floats that `fill` writes: every one of them, or the result is undefined.
///
/// # Safety
///
/// `fill` writes all `count` floats.
pub(crate) unsafe fn filled(count: usize, fill: impl FnOnce(Shared)) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    fill(Shared::of(values.as_mut_ptr(), count));
    // SAFETY: the caller's, and there is room for them.
    unsafe { values.set_len(count) };
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` floats at `from` are readable, as many at `to` writable.
    struct Exponentials {
        from: *const f32,
        to: *mut f32,
        count: usize,
    }

    impl Vectorized for Exponentials {
        type Output = ();

        #[inline(always)]
        unsafe fn run<S: Simd>(self, simd: S) {
            let Self { from, to, count } = self;
            let mut i = 0;
            while i < count {
                // SAFETY: `count - i` floats are left.
                unsafe {
                    let x = load(simd, from.add(i), count - i);
                    store(simd, to.add(i), count - i, exp(simd, x));
                }
                i += S::F32_LANES;
            }
        }
    }

    fn exponentials(x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        let work = Exponentials {
            from: x.as_ptr(),
            to: y.as_mut_ptr(),
            count: x.len(),
        };
        // SAFETY: both have that many.
        unsafe { run(work) };
        y
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads the sources")]
    fn what_runs_on_vectors_is_inlined_into_the_function_that_has_the_instructions() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for file in std::fs::read_dir(sources).unwrap() {
            let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let lines: Vec<&str> = source.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let generic = line.contains("fn ") && line.contains("<S: Simd");
                if generic && !line.ends_with(';') {
                    assert_eq!(lines[at - 1].trim(), "#[inline(always)]", "{line}");
                }
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let step = if cfg!(miri) { 200 } else { 1 };
        let x = (0..20_001).step_by(step);
        let x: Vec<f32> = x.map(|i| (i - 10_000) as f32 * 0.0086).collect();
        let y = exponentials(&x);
        for (x, y) in x.iter().zip(&y) {
            let exact = (*x as f64).exp();
            let error = (*y as f64 - exact).abs() / exact;
            assert!(
                error < 2.0 * f32::EPSILON as f64,
                "exp({x}) = {y}, error {error:e}"
            );
        }
    }

    #[test]
    fn exp_of_what_has_no_normal_exponential_is_the_exact_one() {
        let inf = f32::INFINITY;
        let x = [
            -inf, -3e38, -110.0, -104.0, -103.5, -100.0, -95.0, -89.0, -87.4, -1e-40, 0.0, 1e-40,
            88.7, 88.73, 89.0, 3e38, inf,
        ];
        let y = exponentials(&x);
        for (x, y) in x.iter().zip(&y) {
            let exact = f64::from(*x).exp() as f32;
            let least = f32::from_bits(1);
            assert!(
                exact == *y || (exact - y).abs() <= (exact * 2.0 * f32::EPSILON).max(least),
                "exp({x}) = {y:e}, {exact:e}"
            );
        }
        let y = exponentials(&[0.0, f32::NAN, 1.0]);
        assert!(y[1].is_nan() && y[0] == 1.0 && y[2] > 2.7, "{y:?}");
    }
}
