//! Every kernel on small slices against plain loops in f64. Small, because Miri runs them too (`scripts/check-unsafe`).

use crate::attention::{self, Attention};
use crate::conv::{self, Padding, Way, Window};
use crate::linear::{self, Linear};
use crate::norm::{self, Norm};
use crate::optim::{self, AdamWStep};
use crate::winograd::{Addend, Shape};
use crate::{gelu, layout};

/// Numbers between -1 and 1.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn check(what: &str, got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0, |most: f64, v| most.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        assert!(error < 2e-5 * largest, "{what} {i}: {got} {expected}");
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Calls `product(x, w, y)` with the places of every product of a 3x3 convolution.
fn for_each_product(window: &Window, mut product: impl FnMut(usize, usize, usize)) {
    let Window {
        batch,
        height,
        width,
        inputs,
        outputs,
        down,
        across,
        stride,
        before,
    } = *window;
    for n in 0..batch {
        for (oy, ox) in (0..down).flat_map(|oy| (0..across).map(move |ox| (oy, ox))) {
            for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                let (y, x) = (oy * stride + ky, ox * stride + kx);
                if y < before || y >= height + before || x < before || x >= width + before {
                    continue;
                }
                let from = ((n * height + y - before) * width + x - before) * inputs;
                let to = ((n * down + oy) * across + ox) * outputs;
                for (i, o) in (0..inputs).flat_map(|i| (0..outputs).map(move |o| (i, o))) {
                    product(from + i, ((ky * 3 + kx) * inputs + i) * outputs + o, to + o);
                }
            }
        }
    }
}

/// The window's convolution of x with w and the gradients of both for dy.
fn convolution(window: &Window, x: &[f32], w: &[f32], dy: &[f32]) -> [Vec<f64>; 3] {
    let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
    let [x, w, dy] = [x, w, dy].map(wide);
    for_each_product(window, |xi, wi, yi| {
        y[yi] += x[xi] * w[wi];
        dx[xi] += w[wi] * dy[yi];
        dw[wi] += x[xi] * dy[yi];
    });
    [y, dx, dw]
}

#[test]
fn convolutions_and_their_gradients_are_those_of_the_definition() {
    for (batch, height, width, inputs, outputs, way) in [
        (2, 6, 7, 9, 19, Way::Winograd),
        (1, 5, 3, 8, 17, Way::Winograd),
        (2, 5, 4, 3, 10, Way::Columns),
        (2, 1, 1, 17, 9, Way::Columns),
        (2, 3, 2, 10, 3, Way::Taps),
        // So many tiles that a weight gradient's sums are kept from chunk to chunk.
        (66, 4, 4, 8, 8, Way::Winograd),
    ] {
        let shape = Shape {
            batch,
            height,
            width,
            inputs,
            outputs,
        };
        assert_eq!(Way::of(&shape), way);
        let x = values(shape.pixels() * inputs, 1);
        let w = values(9 * inputs * outputs, 2);
        let dy = values(shape.pixels() * outputs, 3);
        if cfg!(miri) && shape.tiles() * outputs > 100 {
            // Too many for the loops below, which are a thousand times slower there.
            conv::weight_gradient(&shape, &x, &dy);
            continue;
        }
        let bias = values(batch * outputs, 4);
        let [mut y, dx, dw] = convolution(&Window::stride1(&shape), &x, &w, &dy);
        let addend = Addend {
            bias: &bias,
            per_image: true,
            residual: Some(&dy),
        };
        for (i, y) in y.iter_mut().enumerate() {
            let image = i / (height * width * outputs);
            *y += f64::from(bias[image * outputs + i % outputs]) + f64::from(dy[i]);
        }
        check("y", &conv::convolve(&shape, &x, &w, addend), &y);
        check("dx", &conv::input_gradient(&shape, &w, &dy), &dx);
        check("dw", &conv::weight_gradient(&shape, &x, &dy), &dw);
        let mut db = vec![0.0; outputs];
        for (i, dy) in dy.iter().enumerate() {
            db[i % outputs] += f64::from(*dy);
        }
        check("db", &conv::bias_gradient(&dy, 1, outputs), &db);
    }
}

#[test]
fn strided_convolutions_and_their_gradients_are_those_of_the_definition() {
    for (dims, outputs, padding) in [
        ([2, 5, 6, 3], 10, Padding::Symmetric),
        ([2, 4, 5, 9], 4, Padding::BottomRight),
    ] {
        let window = Window::stride2(dims, outputs, padding);
        let results = window.batch * window.down * window.across;
        let x = values(dims.iter().product(), 1);
        let w = values(9 * window.inputs * outputs, 2);
        let dy = values(results * outputs, 3);
        let [y, dx, dw] = convolution(&window, &x, &w, &dy);
        let addend = Addend {
            bias: &vec![0.0; outputs],
            per_image: false,
            residual: None,
        };
        check("y", &conv::convolve_columns(&window, &x, &w, addend), &y);
        check("dx", &conv::input_gradient_columns(&window, &w, &dy), &dx);
        check("dw", &conv::weight_gradient_columns(&window, &x, &dy), &dw);
    }
}

#[test]
fn linear_layers_are_sums_of_products() {
    for (rows, inputs, outputs) in [(1, 1, 1), (5, 9, 19), (14, 3, 8), (100, 2, 3)] {
        let sizes = Linear {
            rows,
            inputs,
            outputs,
        };
        let x = values(rows * inputs, 1);
        let w = values(inputs * outputs, 2);
        let bias = values(outputs, 3);
        let dy = values(rows * outputs, 4);
        let mut y: Vec<f64> = (0..rows).flat_map(|_| wide(&bias)).collect();
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        for r in 0..rows {
            for i in 0..inputs {
                for o in 0..outputs {
                    let [x, w, dy] =
                        [x[r * inputs + i], w[i * outputs + o], dy[r * outputs + o]].map(f64::from);
                    y[r * outputs + o] += x * w;
                    dx[r * inputs + i] += dy * w;
                    dw[i * outputs + o] += x * dy;
                }
            }
        }
        check("y", &linear::forward(sizes, &x, &w, Some(&bias)), &y);
        check("dx", &linear::input_gradient(sizes, &w, &dy), &dx);
        check("dw", &linear::weight_gradient(sizes, &x, &dy), &dw);
    }
}

fn silu(z: f64) -> f64 {
    z / (1.0 + (-z).exp())
}

fn silu_slope(z: f64) -> f64 {
    let s = 1.0 / (1.0 + (-z).exp());
    s + z * s * (1.0 - s)
}

#[test]
fn group_normalisation_and_its_gradients_are_those_of_the_formula() {
    for (batch, pixels, channels, groups, with_silu) in [
        (2, 6, 36, 4, true),
        (1, 270, 3, 1, false),
        (3, 9, 8, 8, true),
    ] {
        let norm = Norm {
            batch,
            pixels,
            channels,
            groups,
            eps: 1e-5,
            silu: with_silu,
            gamma_per_image: false,
            beta_per_image: true,
        };
        let x = values(batch * pixels * channels, 1);
        let gamma = values(channels, 2);
        let beta = values(batch * channels, 3);
        let dy = values(x.len(), 4);
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; batch * channels]);
        let members = channels / groups;
        for (n, g) in (0..batch).flat_map(|n| (0..groups).map(move |g| (n, g))) {
            let places: Vec<(usize, usize)> = (0..pixels)
                .flat_map(|p| (g * members..(g + 1) * members).map(move |c| (p, c)))
                .map(|(p, c)| ((n * pixels + p) * channels + c, c))
                .collect();
            let count = places.len() as f64;
            let mean = |f: &dyn Fn(usize, usize) -> f64| {
                places.iter().map(|(i, c)| f(*i, *c)).sum::<f64>() / count
            };
            let m = mean(&|i, _| f64::from(x[i]));
            let scale = 1.0 / (mean(&|i, _| (f64::from(x[i]) - m).powi(2)) + 1e-5).sqrt();
            let normal = |i: usize| (f64::from(x[i]) - m) * scale;
            let z = |i, c| normal(i) * f64::from(gamma[c]) + f64::from(beta[n * channels + c]);
            let dz = |i: usize, c: usize| {
                let slope = if with_silu { silu_slope(z(i, c)) } else { 1.0 };
                f64::from(dy[i]) * slope
            };
            let weighted = |i, c| dz(i, c) * f64::from(gamma[c]);
            let a = mean(&weighted);
            let b = mean(&|i, c| weighted(i, c) * normal(i));
            for &(i, c) in &places {
                y[i] = if with_silu { silu(z(i, c)) } else { z(i, c) };
                dx[i] = scale * (weighted(i, c) - a - normal(i) * b);
                dgamma[c] += dz(i, c) * normal(i);
                dbeta[n * channels + c] += dz(i, c);
            }
        }
        let (found, moments) = norm::forward(&norm, &x, &gamma, &beta);
        check("y", &found, &y);
        let found = norm::backward(&norm, &x, &gamma, &beta, &moments, &dy);
        check("dx", &found.dx, &dx);
        check("dgamma", &found.dgamma, &dgamma);
        check("dbeta", &found.dbeta, &dbeta);
    }
}

#[test]
fn attention_and_its_gradients_are_those_of_the_formula() {
    for (heads, queries, keys, dim, value_dim) in [(2, 3, 5, 4, 9), (1, 99, 9, 3, 2)] {
        let sizes = Attention {
            heads,
            queries,
            keys,
            dim,
            value_dim,
            scale: 0.7,
        };
        let q = values(heads * queries * dim, 1);
        let k = values(heads * keys * dim, 2);
        let v = values(heads * keys * value_dim, 3);
        let dy = values(heads * queries * value_dim, 4);
        let found = attention::forward(&sizes, &q, &k, &v);
        let gradients = attention::backward(&sizes, &q, &k, &v, &dy);
        let [q, k, v, dy] = [&q, &k, &v, &dy].map(|values| wide(values));
        let mut y = vec![0.0; dy.len()];
        let mut expected = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
        let row = |m: &[f64], r: usize, n: usize| m[r * n..(r + 1) * n].to_vec();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for r in 0..heads * queries {
            let first = r / queries * keys;
            let query = row(&q, r, dim);
            let powers: Vec<f64> = (0..keys)
                .map(|j| (0.7 * dot(&query, &row(&k, first + j, dim))).exp())
                .collect();
            let total: f64 = powers.iter().sum();
            let p: Vec<f64> = powers.iter().map(|power| power / total).collect();
            let dy = row(&dy, r, value_dim);
            let dp: Vec<f64> = (0..keys)
                .map(|j| dot(&dy, &row(&v, first + j, value_dim)))
                .collect();
            let mean = dot(&p, &dp);
            for j in 0..keys {
                let ds = p[j] * (dp[j] - mean) * 0.7;
                for c in 0..value_dim {
                    let at = (first + j) * value_dim + c;
                    y[r * value_dim + c] += p[j] * v[at];
                    expected[2][at] += p[j] * dy[c];
                }
                for c in 0..dim {
                    expected[0][r * dim + c] += ds * k[(first + j) * dim + c];
                    expected[1][(first + j) * dim + c] += ds * query[c];
                }
            }
        }
        check("y", &found, &y);
        for (what, (found, expected)) in ["dq", "dk", "dv"]
            .iter()
            .zip(gradients.iter().zip(&expected))
        {
            check(what, found, expected);
        }
    }
}

#[test]
fn pixels_are_moved_where_they_belong() {
    let (a, b) = (values(5 * 3, 1), values(5 * 9, 2));
    let joined = layout::concat(&a, &b, 3, 9);
    for (r, row) in joined.chunks_exact(12).enumerate() {
        assert_eq!(row[..3], a[r * 3..][..3]);
        assert_eq!(row[3..], b[r * 9..][..9]);
    }
    assert_eq!(layout::columns(&joined, 12, 0, 3), a);
    assert_eq!(layout::columns(&joined, 12, 3, 9), b);

    let (lines, width, channels) = (3, 2, 9);
    let x = values(lines * width * channels, 3);
    let large = layout::double(&x, width, channels);
    let mut sums = vec![0.0; x.len()];
    assert_eq!(large.len(), 4 * x.len());
    for (i, value) in large.iter().enumerate() {
        let (pixel, c) = (i / channels, i % channels);
        let (line, column) = (pixel / (2 * width) / 2, pixel % (2 * width) / 2);
        let from = (line * width + column) * channels + c;
        assert_eq!(*value, x[from]);
        sums[from] += f64::from(large[i]);
    }
    check(
        "sums",
        &layout::double_gradient(&large, width, channels),
        &sums,
    );
}

#[test]
fn activations_are_those_of_the_formulas() {
    let (x, dy) = (values(21, 1), values(21, 2));
    let of = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).collect::<Vec<f64>>();
    check("silu", &layout::silu(&x), &of(&silu));
    let slopes = of(&silu_slope).into_iter().zip(wide(&dy));
    let expected: Vec<f64> = slopes.map(|(slope, dy)| slope * dy).collect();
    check("silu", &layout::silu_gradient(&x, &dy), &expected);

    // The gate is tested by itself, beside its definition.
    let (rows, width) = (2, 9);
    let x = values(2 * rows * width, 3);
    let dy = values(rows * width, 4);
    let (mut y, mut dx) = (vec![], vec![0.0; x.len()]);
    for (i, dy) in dy.iter().enumerate() {
        let at = i / width * 2 * width + i % width;
        let (value, gate) = (x[at], x[at + width]);
        y.push(f64::from(value) * f64::from(gelu::gelu(&[gate])[0]));
        dx[at] = f64::from(*dy) * f64::from(gelu::gelu(&[gate])[0]);
        dx[at + width] = f64::from(gelu::gelu_gradient(&[gate], &[dy * value])[0]);
    }
    check("geglu", &gelu::geglu(&x, width), &y);
    check("geglu", &gelu::geglu_gradient(&x, &dy, width), &dx);
}

#[test]
fn an_optimizer_step_is_that_of_the_formula() {
    let step = AdamWStep {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-3,
        weight_decay: 0.2,
        step: 3,
        gradient_scale: 0.5,
        parameter: 0,
    };
    let [mut p, g, mut m] = [1, 2, 3].map(|seed| values(21, seed));
    let mut v: Vec<f32> = values(21, 4).iter().map(|v| v.abs()).collect();
    let mut expected = [vec![], vec![], vec![]];
    for i in 0..p.len() {
        let [p, g, m, v] = [p[i], g[i], m[i], v[i]].map(f64::from);
        let g = 0.5 * g;
        let (m, v) = (0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g);
        let root = (v / (1.0 - 0.99f64.powi(3))).sqrt() + 1e-3;
        expected[0].push(p * (1.0 - 0.1 * 0.2) - 0.1 * m / (1.0 - 0.9f64.powi(3)) / root);
        expected[1].push(m);
        expected[2].push(v);
    }
    optim::adamw(&step, &mut p, &g, &mut m, &mut v);
    check("parameter", &p, &expected[0]);
    check("first moment", &m, &expected[1]);
    check("second moment", &v, &expected[2]);

    let x = values(300, 5);
    let squares: f64 = wide(&x).iter().map(|x| x * x).sum();
    check("squares", &[optim::sum_squares(&x) as f32], &[squares]);
}
