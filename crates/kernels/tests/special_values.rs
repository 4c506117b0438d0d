//! What is not a number, infinite, denormal or huge comes out of a fast path as it does of the plain one: results and
//! every gradient, wherever it went in.

mod support;

use burn::tensor::{Device, Tensor};
use retrack_kernels::{self as kernels, AdamWStep};

use Expected::{Edges, NotFinite, Padding, Same, Wider};
use support::*;

const SPECIAL: [f32; 7] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    1e-40,
    -1e-40,
    1e18,
    -1e18,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Class {
    Nan,
    Plus,
    Minus,
    Finite,
}

impl Class {
    fn of(value: f32) -> Self {
        match value {
            _ if value.is_nan() => Self::Nan,
            f32::INFINITY => Self::Plus,
            f32::NEG_INFINITY => Self::Minus,
            _ => Self::Finite,
        }
    }
}

/// How near the two must be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Same,
    /// Results are the same; of gradients both are finite or neither is. The plain form adds two parts of a product, of
    /// which one may be infinite and the other its negative, where the fast one and PyTorch multiply once.
    NotFinite,
    /// Results are the same; gradients are finite together or not. Whether NaN times the zeros of the padding counts is
    /// not the same in all ways to compute them.
    Padding,
    /// The same of results: a tap that falls on the padding is left out, and not multiplied by zero.
    Edges,
    /// What is finite in the fast form is the plain one's: Winograd's transforms add and subtract what the direct sum
    /// keeps apart.
    Wider,
}

type Build<'a> = &'a dyn Fn(Vec<Input>, Vec<f32>) -> Box<dyn Case>;

/// Puts each special value at the beginning, in the middle and at the end of each input and of the result's gradient.
/// `expected`: of each of them, where it is not the same.
fn check(name: &str, dims: &[&[usize]], outputs: usize, expected: &[Expected], build: Build) {
    let mut source = Source::new(21);
    for special in SPECIAL {
        for target in 0..=dims.len() {
            let expected = expected.get(target).copied().unwrap_or(Expected::Same);
            for place in 0..3 {
                let mut inputs: Vec<Input> = dims
                    .iter()
                    .map(|dims| Input::new(&mut source, dims))
                    .collect();
                let mut dy = source.normal(outputs);
                let values = inputs.get_mut(target).map_or(&mut dy, |input| &mut input.0);
                let last = values.len() - 1;
                values[[0, last / 2, last][place]] = special;
                let case = build(inputs, dy);
                let wanted = vec![true; case.inputs()];
                let (fast, plain) = (case.run(true, &wanted), case.run(false, &wanted));
                for (output, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
                    let what =
                        format!("{name}: {special:e} in {target} at {place}, output {output}");
                    let expected = match expected {
                        NotFinite | Padding if output == 0 => Same,
                        expected => expected,
                    };
                    if let (Some(fast), Some(plain)) = (fast, plain) {
                        compare(&what, fast, plain, special, expected);
                    }
                }
            }
        }
    }
}

fn compare(what: &str, fast: &[f32], plain: &[f32], special: f32, expected: Expected) {
    assert_eq!(fast.len(), plain.len(), "{what}");
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    assert!(finite(plain) || !finite(fast), "{what}");
    assert!(
        finite(fast) || !finite(plain) || expected == Wider,
        "{what}"
    );
    for (index, (&fast, &plain)) in fast.iter().zip(plain).enumerate() {
        let what = format!("{what}[{index}]: {fast:e}, plain {plain:e}");
        match expected {
            Same => assert_eq!(Class::of(fast), Class::of(plain), "{what}"),
            NotFinite => assert_eq!(fast.is_finite(), plain.is_finite(), "{what}"),
            Wider => assert!(plain.is_finite() || !fast.is_finite(), "{what}"),
            Padding | Edges => {}
        }
        if fast.is_finite() && plain.is_finite() && special.abs() != 1e18 {
            let bound = 1e-3 * (1.0 + plain.abs());
            assert!((fast - plain).abs() <= bound, "{what}");
        }
    }
}

#[test]
fn activations_keep_what_is_no_number() {
    for count in [3, 16, 37] {
        check(
            "silu",
            &[&[1, 1, count]],
            count,
            &[Same, NotFinite],
            &|mut inputs, dy| {
                Box::new(Silu {
                    x: inputs.remove(0),
                    dy,
                })
            },
        );
        check(
            "gelu",
            &[&[1, 1, count]],
            count,
            &[Same, NotFinite],
            &|mut inputs, dy| {
                Box::new(Gelu {
                    x: inputs.remove(0),
                    dy,
                })
            },
        );
        check(
            "geglu",
            &[&[3, 2 * count]],
            3 * count,
            &[NotFinite, NotFinite],
            &|mut inputs, dy| {
                Box::new(Geglu {
                    x: inputs.remove(0),
                    dy,
                })
            },
        );
    }
}

/// torch.nn.functional of PyTorch 2.15: gelu by its own kernels (oneDNN's gives NaN for infinity).
#[test]
fn activations_of_infinity_are_those_of_pytorch() {
    let device = Device::default();
    let x = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e38, -3e38];
    for x in [x.to_vec(), x.repeat(8)] {
        let x = Tensor::<1>::from_floats(&*x, &device);
        for y in [values(kernels::gelu(x.clone())), values(kernels::silu(x))] {
            assert_eq!(y[0], f32::INFINITY);
            assert!(y[1].is_nan() && y[2].is_nan(), "{y:?}");
            assert!((y[3] / 3e38 - 1.0).abs() < 1e-5 && y[4] == 0.0, "{y:?}");
        }
    }
}

#[test]
fn attention_keeps_what_is_no_number() {
    // Fewer keys than a vector has lanes, a whole vector, and a rest beyond.
    for (queries, keys) in [(2, 3), (5, 16), (7, 37), (100, 20)] {
        let dims: [&[usize]; 3] = [&[2, queries, 8], &[2, keys, 8], &[2, keys, 4]];
        check("attention", &dims, 2 * queries * 4, &[], &|inputs, dy| {
            let [q, k, v] = inputs.try_into().unwrap_or_else(|_| panic!("three"));
            Box::new(Attention {
                q,
                k,
                v,
                scale: 0.35,
                dy,
            })
        });
    }
}

#[test]
fn scores_that_overflow_do_so_on_both_paths() {
    // Products of 1e39 and more, which a scale of 0.01 applied before them keeps finite.
    for (size, scale) in [(1e19, 0.01), (1e20, 0.01), (3e19, 1.0)] {
        let input = |count: usize| Input(vec![size; count], vec![1, count / 8, 8]);
        let mut source = Source::new(22);
        let case = Attention {
            q: input(40),
            k: input(160),
            v: Input::new(&mut source, &[1, 20, 4]),
            scale,
            dy: source.normal(5 * 4),
        };
        let (fast, plain) = (case.run(true, &[false; 3]), case.run(false, &[false; 3]));
        let (fast, plain) = (fast[0].as_ref().unwrap(), plain[0].as_ref().unwrap());
        compare(&format!("scores of {size:e}"), fast, plain, size, Same);
    }
}

#[test]
fn normalization_keeps_what_is_no_number() {
    for silu in [false, true] {
        for (batch, side, channels, groups) in [(1, 3, 8, 2), (2, 5, 24, 8), (2, 20, 16, 4)] {
            let image: &[usize] = &[batch, side, side, channels];
            let row: &[usize] = &[1, channels];
            let outputs = batch * side * side * channels;
            check(
                "group_norm",
                &[image, row, row],
                outputs,
                &[Same, NotFinite, Same, NotFinite],
                &|inputs, dy| {
                    let [x, gamma, beta] = inputs.try_into().unwrap_or_else(|_| panic!("three"));
                    Box::new(Norm {
                        x,
                        gamma,
                        beta,
                        groups,
                        silu,
                        dy,
                    })
                },
            );
        }
    }
}

#[test]
fn products_and_moves_keep_what_is_no_number() {
    for (rows, inputs, outputs) in [(1, 3, 5), (13, 17, 40), (100, 64, 7)] {
        let dims: [&[usize]; 3] = [&[rows, inputs], &[inputs, outputs], &[outputs]];
        check("linear", &dims, rows * outputs, &[], &|inputs, dy| {
            let [x, w, b] = inputs.try_into().unwrap_or_else(|_| panic!("three"));
            Box::new(Linear {
                x,
                w,
                b,
                bias: true,
                dy,
            })
        });
    }
    check(
        "upsample",
        &[&[1, 3, 5, 7]],
        4 * 105,
        &[],
        &|mut inputs, dy| {
            Box::new(Upsample {
                x: inputs.remove(0),
                dy,
            })
        },
    );
    check(
        "concat",
        &[&[1, 3, 5, 7], &[1, 3, 5, 2]],
        135,
        &[],
        &|inputs, dy| {
            let [a, b] = inputs.try_into().ok().expect("two");
            Box::new(Concat { a, b, dy })
        },
    );
}

#[test]
fn convolutions_keep_what_is_no_number() {
    // By gathered neighborhoods, by taps, and by Winograd.
    let direct = [Same, Padding];
    let taps = [Padding, Edges, Same, Same, Padding];
    let winograd = [Wider, Wider, Same, Same, Wider];
    for (side, ci, co, expected) in [
        (5, 3, 16, &direct[..]),
        (2, 16, 16, &direct),
        (9, 16, 3, &taps),
        (8, 16, 16, &winograd),
        (14, 24, 40, &winograd),
    ] {
        let dims: [&[usize]; 4] = [
            &[1, side, side, ci],
            &[3, 3, ci, co],
            &[1, co],
            &[1, side, side, co],
        ];
        let name = format!("conv3x3 {side} {ci} -> {co}");
        check(&name, &dims, side * side * co, expected, &|inputs, dy| {
            let [x, w, b, r] = inputs.try_into().unwrap_or_else(|_| panic!("four"));
            Box::new(Conv {
                x,
                w,
                b,
                r,
                residual: true,
                dy,
            })
        });
    }
    for padding in [kernels::Padding::Symmetric, kernels::Padding::BottomRight] {
        let side = if padding == kernels::Padding::Symmetric {
            4
        } else {
            3
        };
        let dims: [&[usize]; 3] = [&[1, 7, 7, 8], &[3, 3, 8, 16], &[16]];
        let name = format!("stride 2 {padding:?}");
        check(&name, &dims, side * side * 16, &direct, &|inputs, dy| {
            let [x, w, b] = inputs.try_into().unwrap_or_else(|_| panic!("three"));
            Box::new(Stride2 {
                x,
                w,
                b,
                padding,
                dy,
            })
        });
    }
}

#[test]
fn sums_of_squares_keep_what_is_no_number() {
    let device = Device::default();
    for count in [1, 5, 255, 256, 257, 40_000] {
        for special in SPECIAL {
            for place in [0, count / 2, count - 1] {
                let mut x = vec![1.0f32; count];
                x[place] = special;
                let x = Tensor::<1>::from_floats(&*x, &device);
                let fast = kernels::sum_squares(x.clone()) as f32;
                let plain = kernels::plain::sum_squares(x) as f32;
                assert_eq!(Class::of(fast), Class::of(plain), "{special:e} of {count}");
            }
        }
    }
}

#[test]
fn an_optimizer_step_keeps_what_is_no_number() {
    let device = Device::default();
    let step = AdamWStep {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.01,
        step: 3,
        gradient_scale: 0.5,
        parameter: 0,
    };
    let count = 37;
    for special in SPECIAL {
        for target in 0..4 {
            for place in [0, 18, count - 1] {
                let inputs: Vec<Tensor<1>> = (0..4)
                    .map(|input| {
                        let mut values = vec![0.5f32; count];
                        if input == target {
                            values[place] = special;
                        }
                        Tensor::from_floats(&*values, &device)
                    })
                    .collect();
                let [p, g, m, v] = inputs.try_into().unwrap_or_else(|_| panic!("four"));
                let fast = kernels::adamw_step(p.clone(), g.clone(), m.clone(), v.clone(), &step);
                let plain = kernels::plain::adamw_step(p, g, m, v, &step);
                for (fast, plain) in [(fast.0, plain.0), (fast.1, plain.1), (fast.2, plain.2)] {
                    let what = format!("{special:e} in {target}");
                    compare(&what, &values(fast), &values(plain), special, Same);
                }
            }
        }
    }
}
