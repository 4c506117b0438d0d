//! Every fast path against its plain reference on random shapes: results and every gradient, and that
//! gradients arrive where only some inputs want them.

mod support;

use burn::tensor::{Device, Tensor};
use retrack_kernels::{self as kernels, AdamWStep, Padding, plain};

use support::*;

/// Largest difference, relative to the reference's root mean square (at least `floor`).
fn difference(got: &[f32], expected: &[f32], floor: f64) -> f64 {
    assert_eq!(got.len(), expected.len());
    let squares: f64 = expected.iter().map(|v| (*v as f64).powi(2)).sum();
    let rms = (squares / expected.len().max(1) as f64).sqrt().max(floor);
    let largest = got.iter().zip(expected).map(|(a, b)| {
        let d = (*a as f64 - *b as f64).abs();
        assert!(d.is_finite(), "{a} beside {b}");
        d
    });
    largest.fold(0.0, f64::max) / rms
}

/// Runs the case both ways, with all gradients, none, and each alone.
fn check(name: &str, case: &dyn Case, tolerance: f64) {
    check_used(name, case, case.inputs(), tolerance);
}

/// Like [`check`], for a case whose inputs from `used` on play no part.
fn check_used(name: &str, case: &dyn Case, used: usize, tolerance: f64) {
    let n = case.inputs();
    let mut wishes = vec![vec![true; n], vec![false; n]];
    if n > 1 {
        wishes.extend((0..used).map(|i| (0..n).map(|j| i == j).collect()));
    }
    for wanted in wishes {
        let fast = case.run(true, &wanted);
        let slow = case.run(false, &wanted);
        assert_eq!(fast.len(), slow.len());
        for (i, (fast, slow)) in fast.iter().zip(&slow).enumerate() {
            match (fast, slow) {
                (Some(fast), Some(slow)) => {
                    let d = difference(fast, slow, 1e-2);
                    assert!(
                        d < tolerance,
                        "{name}, wanted {wanted:?}, output {i}: {d:e}"
                    );
                }
                (None, None) => {}
                _ => panic!("{name}, wanted {wanted:?}, output {i}: one way has no gradient"),
            }
        }
    }
}

const CHANNELS: &[usize] = &[1, 3, 4, 7, 8, 16, 17, 32, 40, 48, 64, 96];

#[test]
fn conv3x3_agrees_with_plain() {
    let mut source = Source::new(1);
    for n in 0..40 {
        let batch = source.pick(&[1, 2, 3, 5]);
        let [h, w] = [0; 2].map(|_| source.pick(&[1, 2, 3, 4, 5, 7, 8, 14, 17, 28]));
        let [ci, co] = [0; 2].map(|_| source.pick(CHANNELS));
        let rows = source.pick(&[1, batch]);
        let case = Conv {
            x: Input::new(&mut source, &[batch, h, w, ci]),
            w: Input::new(&mut source, &[3, 3, ci, co]),
            b: Input::new(&mut source, &[rows, co]),
            r: Input::new(&mut source, &[batch, h, w, co]),
            residual: n % 2 == 0,
            dy: source.normal(batch * h * w * co),
        };
        let used = if case.residual { 4 } else { 3 };
        check_used(
            &format!("{batch} x {h} x {w}, {ci} -> {co}"),
            &case,
            used,
            1e-4,
        );
    }
}

#[test]
fn conv3x3_of_many_tiles_agrees_with_plain() {
    let mut source = Source::new(2);
    for [batch, h, w, ci, co] in [[9, 28, 28, 32, 64], [70, 4, 4, 96, 40], [33, 7, 7, 40, 128]] {
        let case = Conv {
            x: Input::new(&mut source, &[batch, h, w, ci]),
            w: Input::new(&mut source, &[3, 3, ci, co]),
            b: Input::new(&mut source, &[batch, co]),
            r: Input::new(&mut source, &[batch, h, w, co]),
            residual: true,
            dy: source.normal(batch * h * w * co),
        };
        check(&format!("{batch} x {h} x {w}, {ci} -> {co}"), &case, 2e-4);
    }
}

#[test]
fn conv3x3_stride2_agrees_with_plain() {
    let mut source = Source::new(3);
    for n in 0..24 {
        let padding = if n % 2 == 0 {
            Padding::Symmetric
        } else {
            Padding::BottomRight
        };
        let batch = source.pick(&[1, 2, 3]);
        let [h, w] = [0; 2].map(|_| source.pick(&[2, 3, 4, 5, 7, 8, 14, 28]));
        let [ci, co] = [0; 2].map(|_| source.pick(CHANNELS));
        let window = |n: usize| {
            if padding == Padding::Symmetric {
                (n - 1) / 2 + 1
            } else {
                (n - 2) / 2 + 1
            }
        };
        let case = Stride2 {
            x: Input::new(&mut source, &[batch, h, w, ci]),
            w: Input::new(&mut source, &[3, 3, ci, co]),
            b: Input::new(&mut source, &[co]),
            padding,
            dy: source.normal(batch * window(h) * window(w) * co),
        };
        check(
            &format!("{padding:?} {batch} x {h} x {w}, {ci} -> {co}"),
            &case,
            2e-5,
        );
    }
}

#[test]
fn linear_agrees_with_plain() {
    let mut source = Source::new(4);
    for n in 0..24 {
        let rows = source.pick(&[1, 2, 5, 13, 100, 333, 5000]);
        let [i, o] = [0; 2].map(|_| source.pick(CHANNELS));
        let case = Linear {
            x: Input::new(&mut source, &[rows, i]),
            w: Input::new(&mut source, &[i, o]),
            b: Input::new(&mut source, &[o]),
            bias: n % 2 == 0,
            dy: source.normal(rows * o),
        };
        let used = if case.bias { 3 } else { 2 };
        check_used(&format!("{rows}, {i} -> {o}"), &case, used, 5e-5);
    }
}

#[test]
fn group_norm_agrees_with_plain() {
    let mut source = Source::new(5);
    for n in 0..30 {
        let batch = source.pick(&[1, 2, 3, 5]);
        let [h, w] = [0; 2].map(|_| source.pick(&[1, 2, 3, 4, 7, 14, 28]));
        let (groups, members) = (source.pick(&[1, 2, 8, 32]), source.pick(&[1, 2, 3, 4]));
        // Of two or three values nothing is left but rounding once their mean and spread are taken away.
        if h * w * members < 8 {
            continue;
        }
        let c = groups * members;
        let [g_rows, b_rows] = [0; 2].map(|_| source.pick(&[1, batch]));
        let case = Norm {
            x: Input::new(&mut source, &[batch, h, w, c]),
            gamma: Input::new(&mut source, &[g_rows, c]),
            beta: Input::new(&mut source, &[b_rows, c]),
            groups,
            silu: n % 2 == 0,
            dy: source.normal(batch * h * w * c),
        };
        check(
            &format!("{batch} x {h} x {w} x {c}, {groups} groups"),
            &case,
            2e-4,
        );
    }
}

#[test]
fn a_large_mean_does_not_spoil_the_variance() {
    let mut source = Source::new(6);
    let device = Device::default();
    let x = Input::new(&mut source, &[2, 28, 28, 32]);
    let far = Input(x.0.iter().map(|v| v + 300.0).collect(), x.1.clone());
    let one = Tensor::<2>::ones([1, 32], &device);
    let zero = Tensor::<2>::zeros([1, 32], &device);
    let near = kernels::group_norm(x.tensor(&device), one.clone(), zero.clone(), 8, 1e-5, false);
    let far = kernels::group_norm(far.tensor(&device), one, zero, 8, 1e-5, false);
    // 300 + x itself is rounded to 1.5e-5.
    assert!(difference(&values(far), &values(near), 1.0) < 1e-4);
}

#[test]
fn moves_and_activations_agree_with_plain() {
    let mut source = Source::new(7);
    for _ in 0..10 {
        let batch = source.pick(&[1, 2, 3]);
        let [h, w] = [0; 2].map(|_| source.pick(&[1, 2, 3, 7, 14]));
        let [m, n] = [0; 2].map(|_| source.pick(CHANNELS));
        let x = Input::new(&mut source, &[batch, h, w, m]);
        let dy = source.normal(4 * batch * h * w * m);
        check("upsample", &Upsample { x, dy }, 1e-6);
        let a = Input::new(&mut source, &[batch, h, w, m]);
        let b = Input::new(&mut source, &[batch, h, w, n]);
        let dy = source.normal(batch * h * w * (m + n));
        check("concat", &Concat { a, b, dy }, 1e-9);
        let x = Input::new(&mut source, &[batch, h * w, n]);
        let dy = source.normal(batch * h * w * n);
        check("silu", &Silu { x, dy }, 1e-5);
        let x = Input::new(&mut source, &[batch, h * w, n]);
        let dy = source.normal(batch * h * w * n);
        check("gelu", &Gelu { x, dy }, 1e-5);
        let x = Input::new(&mut source, &[batch * h * w, 2 * n]);
        let dy = source.normal(batch * h * w * n);
        check("geglu", &Geglu { x, dy }, 1e-5);
    }
    // More than a task's share, in long rows and in short ones.
    for (rows, width) in [(3, 20_000), (700, 40)] {
        let x = Input::new(&mut source, &[rows, 2 * width]);
        let dy = source.normal(rows * width);
        check("geglu", &Geglu { x, dy }, 1e-5);
    }
}

#[test]
fn attention_of_stable_diffusion_agrees_with_plain() {
    let mut source = Source::new(11);
    // Heads of 40, 80 and 160 channels, over the pixels of 32 x 36 and over a text.
    for (queries, keys, dim) in [(1152, 1152, 40), (1152, 77, 80), (64, 77, 160)] {
        let case = Attention {
            q: Input::new(&mut source, &[3, queries, dim]),
            k: Input::new(&mut source, &[3, keys, dim]),
            v: Input::new(&mut source, &[3, keys, dim]),
            scale: 1.0 / (dim as f64).sqrt(),
            dy: source.normal(3 * queries * dim),
        };
        check(&format!("{queries} x {keys}, {dim}"), &case, 1e-4);
    }
}

#[test]
fn attention_agrees_with_plain() {
    let mut source = Source::new(8);
    for _ in 0..16 {
        let heads = source.pick(&[1, 2, 5]);
        let [queries, keys] = [0; 2].map(|_| source.pick(&[1, 2, 16, 49, 100, 196, 300]));
        let [dim, value_dim] = [0; 2].map(|_| source.pick(&[1, 8, 17, 40, 64]));
        let case = Attention {
            q: Input::new(&mut source, &[heads, queries, dim]),
            k: Input::new(&mut source, &[heads, keys, dim]),
            v: Input::new(&mut source, &[heads, keys, value_dim]),
            scale: 1.0 / (dim as f64).sqrt(),
            dy: source.normal(heads * queries * value_dim),
        };
        check(
            &format!("{heads} heads, {queries} x {keys}, {dim}, {value_dim}"),
            &case,
            1e-4,
        );
    }
}

#[test]
fn an_adamw_step_agrees_with_f64_and_works_on_tracked_parameters() {
    let mut source = Source::new(9);
    for (n, tracked) in [(1, false), (7, true), (33, false), (40_000, true)] {
        let device = if tracked {
            Device::default().autodiff()
        } else {
            Device::default()
        };
        let [p, g, m] = [0; 3].map(|_| Input::new(&mut source, &[n]));
        let v = Input(source.normal(n).iter().map(|v| v * v).collect(), vec![n]);
        let step = AdamWStep {
            learning_rate: 1e-2,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.1,
            step: 3,
            gradient_scale: 0.5,
            parameter: 0,
        };
        let tensors = [&p, &g, &m, &v].map(|i| i.tensor::<1>(&device));
        let [tp, tg, tm, tv] = tensors;
        let (new_p, new_m, new_v) = kernels::adamw_step(tp, tg, tm, tv, &step);
        let mut expected = [Vec::new(), Vec::new(), Vec::new()];
        for i in 0..n {
            let g = g.0[i] as f64 * 0.5;
            let m = 0.9 * m.0[i] as f64 + 0.1 * g;
            let v = 0.99 * v.0[i] as f64 + 0.01 * g * g;
            let (mh, vh) = (m / (1.0 - 0.9f64.powi(3)), v / (1.0 - 0.99f64.powi(3)));
            let p = p.0[i] as f64 * (1.0 - 1e-2 * 0.1) - 1e-2 * mh / (vh.sqrt() + 1e-8);
            for (to, value) in expected.iter_mut().zip([p, m, v]) {
                to.push(value as f32);
            }
        }
        for (got, expected) in [new_p, new_m, new_v].into_iter().zip(&expected) {
            assert!(difference(&values(got), expected, 1e-3) < 1e-5);
        }
    }
}

#[test]
fn squares_are_summed_in_f64() {
    let mut source = Source::new(10);
    for n in [1, 3, 1000, 100_000] {
        let x = Input::new(&mut source, &[n]);
        let exact: f64 = x.0.iter().map(|v| (*v as f64).powi(2)).sum();
        let device = Device::default();
        for sum in [
            kernels::sum_squares(x.tensor::<1>(&device)),
            plain::sum_squares(x.tensor::<1>(&device)),
            kernels::sum_squares(x.tensor::<1>(&device.clone().autodiff())),
        ] {
            assert!((sum - exact).abs() < 1e-6 * exact, "{sum} {exact}");
        }
    }
}

#[test]
fn views_are_read_as_what_they_show() {
    let mut source = Source::new(11);
    let device = Device::default();
    let x = Input::new(&mut source, &[2, 16, 8, 8]).tensor::<4>(&device);
    let view = x.clone().permute([0, 2, 3, 1]);
    let whole = Tensor::<4>::from_data(view.clone().into_data(), &device);
    let part = x.slice([1..2, 3..9]);
    let w = Input::new(&mut source, &[3, 3, 16, 16]).tensor::<4>(&device);
    let w8 = Input::new(&mut source, &[3, 3, 8, 8]).tensor::<4>(&device);
    let bias = |n| Tensor::<2>::ones([1, n], &device);
    let got = values(kernels::conv3x3(view, w.clone(), bias(16), None));
    assert_eq!(got, values(kernels::conv3x3(whole, w, bias(16), None)));
    let got = values(kernels::conv3x3(part.clone(), w8.clone(), bias(8), None));
    let expected = values(plain::conv3x3(part, w8, bias(8), None));
    assert!(difference(&got, &expected, 1e-2) < 1e-4);
}

#[test]
fn one_and_several_threads_give_the_same_bits() {
    let mut source = Source::new(12);
    let cases: Vec<Box<dyn Case + Sync>> = vec![
        Box::new(Conv {
            x: Input::new(&mut source, &[6, 14, 14, 40]),
            w: Input::new(&mut source, &[3, 3, 40, 64]),
            b: Input::new(&mut source, &[6, 64]),
            r: Input::new(&mut source, &[6, 14, 14, 64]),
            residual: true,
            dy: source.normal(6 * 14 * 14 * 64),
        }),
        Box::new(Norm {
            x: Input::new(&mut source, &[2, 28, 28, 64]),
            gamma: Input::new(&mut source, &[1, 64]),
            beta: Input::new(&mut source, &[1, 64]),
            groups: 8,
            silu: true,
            dy: source.normal(2 * 28 * 28 * 64),
        }),
        Box::new(Linear {
            x: Input::new(&mut source, &[5000, 40]),
            w: Input::new(&mut source, &[40, 70]),
            b: Input::new(&mut source, &[70]),
            bias: true,
            dy: source.normal(5000 * 70),
        }),
        Box::new(Attention {
            q: Input::new(&mut source, &[1, 196, 32]),
            k: Input::new(&mut source, &[1, 196, 32]),
            v: Input::new(&mut source, &[1, 196, 32]),
            scale: 0.2,
            dy: source.normal(196 * 32),
        }),
    ];
    for (n, case) in cases.iter().enumerate() {
        let wanted = vec![true; case.inputs()];
        let results = [1, 2, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| case.run(true, &wanted))
        });
        assert!(results[0] == results[1], "case {n}: 1 and 2 threads");
        assert!(results[0] == results[2], "case {n}: 1 and 3 threads");
    }
}

/// Largest and root-mean-square error, relative to the root mean square of the reference.
fn errors(got: &[f32], exact: &[f64]) -> (f64, f64) {
    let rms = |values: &mut dyn Iterator<Item = f64>| {
        (values.map(|v| v * v).sum::<f64>() / exact.len() as f64).sqrt()
    };
    let scale = rms(&mut exact.iter().copied());
    let error = |(a, b): (&f32, &f64)| (*a as f64 - b).abs() / scale;
    let largest = got.iter().zip(exact).map(error).fold(0.0, f64::max);
    (largest, rms(&mut got.iter().zip(exact).map(error)))
}

#[test]
fn winograd_errors_stay_within_their_bounds() {
    let (batch, size, ci, co) = (2, 16, 128, 128);
    let mut source = Source::new(13);
    let case = Conv {
        x: Input::new(&mut source, &[batch, size, size, ci]),
        w: Input::new(&mut source, &[3, 3, ci, co]),
        b: Input(vec![0.0; co], vec![1, co]),
        r: Input(vec![0.0], vec![1, 1, 1, 1]),
        residual: false,
        dy: source.normal(batch * size * size * co),
    };
    let mut y = vec![0.0f64; batch * size * size * co];
    let mut dx = vec![0.0f64; batch * size * size * ci];
    let mut dw = vec![0.0f64; 9 * ci * co];
    for pixel in 0..batch * size * size {
        let (row, column) = (pixel / size % size, pixel % size);
        for tap in 0..9 {
            let (sy, sx) = (
                (row + tap / 3).wrapping_sub(1),
                (column + tap % 3).wrapping_sub(1),
            );
            if sy >= size || sx >= size {
                continue;
            }
            let from = (pixel / (size * size) * size + sy) * size + sx;
            for i in 0..ci {
                let x = case.x.0[from * ci + i] as f64;
                let at = (tap * ci + i) * co;
                let mut sum = 0.0;
                for o in 0..co {
                    let w = case.w.0[at + o] as f64;
                    let dy = case.dy[pixel * co + o] as f64;
                    y[pixel * co + o] += x * w;
                    dw[at + o] += x * dy;
                    sum += w * dy;
                }
                dx[from * ci + i] += sum;
            }
        }
    }
    let found = case.run(true, &[true, true, false, false]);
    for (name, got, exact) in [
        ("y", &found[0], &y),
        ("dx", &found[1], &dx),
        ("dw", &found[2], &dw),
    ] {
        let (largest, mean) = errors(got.as_ref().unwrap(), exact);
        println!("{name}: largest {largest:.1e}, root mean square {mean:.1e}");
        assert!(largest < 1e-4, "{name}: {largest:e}");
        assert!(mean < 1e-5, "{name}: {mean:e}");
    }
}

/// The kernels are compiled for several instruction sets; the tests above run with the best one.
#[test]
fn the_other_instruction_sets_agree_as_well() {
    const CHOICE: &str = "RETRACK_SIMD";
    if std::env::var_os(CHOICE).is_some() {
        return;
    }
    for choice in ["avx2", "scalar"] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["agree", "--test-threads", "1"])
            .env(CHOICE, choice)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{choice}: {text}");
        assert!(!text.contains(" 0 passed"), "{choice}: no test ran");
    }
}
