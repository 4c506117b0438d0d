//! Ordinary differential equations, step by step as `scipy.integrate.solve_ivp` solves them.

/// How far one step may be off: `absolute + relative * |y|` for each value, in the root mean square.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tolerance {
    /// Times the value.
    pub relative: f64,
    /// Of every value.
    pub absolute: f64,
}

/// Where an integration ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Solution {
    /// The state at the end of the interval.
    pub state: Vec<f64>,
    /// How often the derivative was asked for, scipy's `nfev`.
    pub evaluations: usize,
}

/// Why an integration failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OdeError {
    /// The derivative is no number.
    #[error("the derivative at t = {t} holds a number that is not finite")]
    NotFinite {
        /// Where.
        t: f64,
    },
    /// The derivative has another length than the state.
    #[error("the derivative at t = {t} has {found} values, the state {expected}")]
    Length {
        /// Where.
        t: f64,
        /// Its values.
        found: usize,
        /// The state's values.
        expected: usize,
    },
    /// The step vanished.
    #[error("the step at t = {t} would have to be shorter than numbers can tell apart")]
    StepTooSmall {
        /// Where.
        t: f64,
    },
    /// A tolerance that is none.
    #[error(
        "a tolerance of {relative} relative and {absolute} absolute: both must be numbers of at least 0"
    )]
    Tolerance {
        /// The relative one.
        relative: f64,
        /// The absolute one.
        absolute: f64,
    },
}

const STAGES: usize = 6;

/// Times of the stages, as shares of the step.
const C: [f64; STAGES] = [0.0, 1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0];

/// Weights of the earlier stages in each stage's state.
const A: [[f64; STAGES - 1]; STAGES] = [
    [0.0; 5],
    [1.0 / 5.0, 0.0, 0.0, 0.0, 0.0],
    [3.0 / 40.0, 9.0 / 40.0, 0.0, 0.0, 0.0],
    [44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0, 0.0, 0.0],
    [
        19372.0 / 6561.0,
        -25360.0 / 2187.0,
        64448.0 / 6561.0,
        -212.0 / 729.0,
        0.0,
    ],
    [
        9017.0 / 3168.0,
        -355.0 / 33.0,
        46732.0 / 5247.0,
        49.0 / 176.0,
        -5103.0 / 18656.0,
    ],
];

/// Weights of the stages in the step of order 5.
const B: [f64; STAGES] = [
    35.0 / 384.0,
    0.0,
    500.0 / 1113.0,
    125.0 / 192.0,
    -2187.0 / 6784.0,
    11.0 / 84.0,
];

/// Order 5 less order 4. The last stage is the derivative at the step's end.
const E: [f64; STAGES + 1] = [
    -71.0 / 57600.0,
    0.0,
    71.0 / 16695.0,
    -71.0 / 1920.0,
    17253.0 / 339200.0,
    -22.0 / 525.0,
    1.0 / 40.0,
];

/// The error estimate is of order 4: it falls with the fifth power of the step.
const ERROR_EXPONENT: f64 = -1.0 / 5.0;
const SAFETY: f64 = 0.9;
const MIN_FACTOR: f64 = 0.2;
const MAX_FACTOR: f64 = 10.0;

/// Integrates `dy/dt = derivative(t, y)` from `start` to `end` (forwards or backwards) by the method of Dormand &
/// Prince (1980) of orders 5 and 4 with the step control of Hairer, Norsett & Wanner (Solving ODEs I, II.4).
///
/// First step, error norm and step control are those of scipy's `solve_ivp(method="RK45")`, so that the steps are
/// the same. `accepted` is called with the time that each step reached.
///
/// # Errors
/// What `derivative` returns; [`OdeError`] for a first derivative that is not finite (later, a step that meets such
/// a number is tried again, shorter), for one of another length than the state, and for a step that would have to
/// be shorter than the spacing of numbers.
pub(crate) fn rk45<F: From<OdeError>>(
    mut derivative: impl FnMut(f64, &[f64]) -> Result<Vec<f64>, F>,
    [start, end]: [f64; 2],
    mut state: Vec<f64>,
    tolerance: Tolerance,
    accepted: &mut dyn FnMut(f64),
) -> Result<Solution, F> {
    let Tolerance { relative, absolute } = tolerance;
    if !(relative >= 0.0 && absolute >= 0.0) {
        return Err(OdeError::Tolerance { relative, absolute }.into());
    }
    let tolerance = Tolerance {
        relative: relative.max(100.0 * f64::EPSILON),
        absolute,
    };
    let mut evaluations = 0;
    let mut slope = |t: f64, y: &[f64]| -> Result<Vec<f64>, F> {
        evaluations += 1;
        let slope = derivative(t, y)?;
        if slope.len() != y.len() {
            return Err(OdeError::Length {
                t,
                found: slope.len(),
                expected: y.len(),
            }
            .into());
        }
        Ok(slope)
    };

    let direction = if end < start { -1.0 } else { 1.0 };
    let mut t = start;
    let mut first = slope(t, &state)?;
    if first.iter().any(|value| !value.is_finite()) {
        return Err(OdeError::NotFinite { t }.into());
    }
    let mut step = match state.is_empty() || start == end {
        true => 0.0,
        false => first_step(&mut slope, [start, end], &state, &first, tolerance)?,
    };
    while t != end && !state.is_empty() {
        let neighbor = if direction > 0.0 {
            t.next_up()
        } else {
            t.next_down()
        };
        let min_step = 10.0 * (neighbor - t).abs();
        step = step.max(min_step);
        let mut rejected = false;
        loop {
            // Not a number is no step either.
            if step.is_nan() || step < min_step {
                return Err(OdeError::StepTooSmall { t }.into());
            }
            let mut reached = t + step * direction;
            if direction * (reached - end) > 0.0 {
                reached = end;
            }
            let h = reached - t;
            step = h.abs();

            let mut stages = vec![std::mem::take(&mut first)];
            for s in 1..STAGES {
                let y = moved(&state, &stages, &A[s][..s], h);
                stages.push(slope(t + C[s] * h, &y)?);
            }
            let next = moved(&state, &stages, &B, h);
            stages.push(slope(reached, &next)?);

            let error = root_mean_square(state.iter().zip(&next).enumerate().map(
                |(i, (before, after))| {
                    let scale = tolerance.scale(before.abs().max(after.abs()));
                    combined(&stages, &E, i) * h / scale
                },
            ));
            if error < 1.0 {
                // The power of 0 is infinite, which the minimum catches.
                let factor = (SAFETY * error.powf(ERROR_EXPONENT)).min(MAX_FACTOR);
                step *= if rejected { factor.min(1.0) } else { factor };
                (t, state) = (reached, next);
                // First same as last: the step's end is the next one's beginning.
                first = stages.pop().expect("holds all stages");
                break;
            }
            // The maximum is the number where the other is none.
            step *= (SAFETY * error.powf(ERROR_EXPONENT)).max(MIN_FACTOR);
            rejected = true;
            first = stages.swap_remove(0);
        }
        accepted(t);
    }
    Ok(Solution { state, evaluations })
}

impl Tolerance {
    fn scale(self, magnitude: f64) -> f64 {
        self.absolute + magnitude * self.relative
    }
}

/// The length of a first step whose error should be a hundredth of the tolerance (Hairer, Norsett & Wanner, II.4).
fn first_step<F>(
    slope: &mut impl FnMut(f64, &[f64]) -> Result<Vec<f64>, F>,
    [start, end]: [f64; 2],
    state: &[f64],
    first: &[f64],
    tolerance: Tolerance,
) -> Result<f64, F> {
    let interval = (end - start).abs();
    let direction = (end - start).signum();
    let scale: Vec<f64> = state.iter().map(|y| tolerance.scale(y.abs())).collect();
    let norm =
        |values: &[f64]| root_mean_square(values.iter().zip(&scale).map(|(value, s)| value / s));
    let (d0, d1) = (norm(state), norm(first));
    let guess = if d0 < 1e-5 || d1 < 1e-5 {
        1e-6
    } else {
        0.01 * d0 / d1
    };
    let guess = guess.min(interval);
    let moved: Vec<f64> = state
        .iter()
        .zip(first)
        .map(|(y, f)| y + guess * direction * f)
        .collect();
    let second = slope(start + guess * direction, &moved)?;
    let change: Vec<f64> = second.iter().zip(first).map(|(b, a)| b - a).collect();
    let d2 = norm(&change) / guess;
    let wanted = if d1 <= 1e-15 && d2 <= 1e-15 {
        (guess * 1e-3).max(1e-6)
    } else {
        (0.01 / d1.max(d2)).powf(-ERROR_EXPONENT)
    };
    Ok((100.0 * guess).min(wanted).min(interval))
}

/// `state + h * sum_s weights_s * stages_s`.
fn moved(state: &[f64], stages: &[Vec<f64>], weights: &[f64], h: f64) -> Vec<f64> {
    (0..state.len())
        .map(|i| state[i] + combined(stages, weights, i) * h)
        .collect()
}

fn combined(stages: &[Vec<f64>], weights: &[f64], i: usize) -> f64 {
    stages.iter().zip(weights).map(|(k, w)| k[i] * w).sum()
}

fn root_mean_square(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(|value| value * value).sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solve(
        derivative: impl Fn(f64, &[f64]) -> Vec<f64>,
        interval: [f64; 2],
        start: &[f64],
        [relative, absolute]: [f64; 2],
    ) -> Result<(Solution, usize), OdeError> {
        let mut steps = 0;
        let tolerance = Tolerance { relative, absolute };
        let solution = rk45(
            |t, y| Ok::<_, OdeError>(derivative(t, y)),
            interval,
            start.to_vec(),
            tolerance,
            &mut |_| steps += 1,
        )?;
        Ok((solution, steps))
    }

    /// `nfev`, the number of steps and the final state of scipy 1.17's `solve_ivp(method="RK45")`.
    fn assert_is_scipys(found: (Solution, usize), evaluations: usize, steps: usize, state: &[f64]) {
        assert_eq!((found.0.evaluations, found.1), (evaluations, steps));
        for (found, expected) in found.0.state.iter().zip(state) {
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-9, "{found} is not {expected}");
        }
    }

    #[test]
    fn predators_and_prey_go_as_in_scipy() {
        let found = solve(
            |_, y| vec![1.5 * y[0] - y[0] * y[1], -3.0 * y[1] + y[0] * y[1]],
            [0.0, 15.0],
            &[10.0, 5.0],
            [1e-5, 1e-5],
        );
        let state = [0.7140383535754029, 0.07538806734819951];
        assert_is_scipys(found.unwrap(), 800, 109, &state);
    }

    #[test]
    fn rejected_steps_are_those_of_scipy() {
        // Van der Pol's oscillator: 21 of 117 steps are rejected.
        let found = solve(
            |_, y| vec![y[1], 5.0 * (1.0 - y[0] * y[0]) * y[1] - y[0]],
            [0.0, 20.0],
            &[2.0, 0.0],
            [1e-3, 1e-6],
        );
        let state = [-1.5948219926178886, 0.20003222384533714];
        assert_is_scipys(found.unwrap(), 704, 96, &state);
        // A drift that jumps, as that of whole timesteps does: 74 of 122.
        let found = solve(
            |t, y| vec![(10.0 * t).trunc() - y[0]],
            [1e-5, 1.0],
            &[0.25],
            [1e-5, 1e-5],
        );
        assert_is_scipys(found.unwrap(), 734, 48, &[3.4477544916931877]);
    }

    #[test]
    fn time_may_run_backwards() {
        let found = solve(
            |t, y| vec![y[1], -y[0], -0.5 * y[2] * t],
            [3.0, -1.0],
            &[1.0, 0.0, 2.0],
            [1e-6, 1e-8],
        );
        let state = [-0.6536430931760715, -0.7568022292342008, 14.7781152722693];
        assert_is_scipys(found.unwrap(), 140, 21, &state);
    }

    #[test]
    fn a_state_or_a_derivative_of_zero_has_a_first_step() {
        let tolerance = [1e-3, 1e-6];
        let found = solve(|_, _| vec![1.0], [0.0, 10.0], &[0.0], tolerance);
        assert_is_scipys(found.unwrap(), 38, 6, &[9.999999999999998]);
        let found = solve(|_, _| vec![0.0; 2], [0.0, 10.0], &[0.0, 1.0], tolerance);
        assert_is_scipys(found.unwrap(), 50, 8, &[0.0, 1.0]);
    }

    #[test]
    fn nothing_to_integrate_leaves_the_state() {
        let tolerance = [1e-3, 1e-6];
        let found = solve(|_, y| y.to_vec(), [2.0, 2.0], &[3.0], tolerance).unwrap();
        assert_eq!(found.0.state, [3.0]);
        let found = solve(|_, y| y.to_vec(), [0.0, 1.0], &[], tolerance).unwrap();
        assert_eq!((found.0.state.len(), found.1), (0, 0));
    }

    #[test]
    fn a_solution_that_leaves_the_numbers_ends_in_an_error() {
        let tolerance = [1e-5, 1e-5];
        // 1 / (1 - t). scipy stops at 1.000003 as well.
        let error = solve(|_, y| vec![y[0] * y[0]], [0.0, 2.0], &[1.0], tolerance);
        match error {
            Err(OdeError::StepTooSmall { t }) => assert!((t - 1.000003467876918).abs() < 1e-7),
            other => panic!("{other:?}"),
        }
        let error = solve(|t, _| vec![1.0 / t], [0.0, 2.0], &[1.0], tolerance);
        assert_eq!(error, Err(OdeError::NotFinite { t: 0.0 }));
        let later = |t: f64, _: &[f64]| vec![if t > 0.5 { f64::NAN } else { 1.0 }];
        let error = solve(later, [0.0, 2.0], &[1.0], tolerance);
        assert!(matches!(error, Err(OdeError::StepTooSmall { t }) if (t - 0.5).abs() < 1e-9));
        let error = solve(|_, _| vec![], [0.0, 2.0], &[1.0], tolerance);
        let (found, expected) = (0, 1);
        assert_eq!(
            error,
            Err(OdeError::Length {
                t: 0.0,
                found,
                expected
            })
        );
        let error = solve(|_, y| y.to_vec(), [0.0, 2.0], &[1.0], [-1.0, 0.0]);
        assert!(matches!(error, Err(OdeError::Tolerance { .. })));
    }
}
