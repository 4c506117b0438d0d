//! From a beta schedule to `abar`, rounded where diffusers rounds.
//!
//! diffusers keeps betas and their running product in f32, and a published network was trained with those numbers:
//! against pure f64 they differ by 4e-7 in `abar` and, near t = 0 where `1 - abar` cancels, by 8e-5 in
//! `sqrt(1 - abar)`. The same roundings are made here, so that `abar` is the same to the last bit; everything
//! that is derived from it is f64. (With `rescale_betas_zero_snr` a few last bits differ: PyTorch's vectorised square
//! root is not always the nearest f32.)

use super::config::{BetaSchedule, SchedulerConfig};

/// One a timestep.
pub(super) fn betas(config: &SchedulerConfig) -> Vec<f32> {
    let steps = config.num_train_timesteps;
    let mut betas = match &config.beta_schedule {
        BetaSchedule::Linear { start, end } => linspace(*start, *end, steps),
        BetaSchedule::ScaledLinear { start, end } => linspace(start.sqrt(), end.sqrt(), steps)
            .into_iter()
            .map(|root| root * root)
            .collect(),
        BetaSchedule::SquaredCosCapV2 => squared_cosine(steps),
        BetaSchedule::Trained(betas) => betas.iter().map(|&beta| beta as f32).collect(),
    };
    if config.rescale_betas_zero_snr {
        rescale_zero_terminal_snr(&mut betas);
    }
    betas
}

/// The same before they are rounded, where that says more than the rounded ones: linear betas lie on a line.
pub(super) fn unrounded(config: &SchedulerConfig, rounded: &[f32]) -> Vec<f64> {
    match config.beta_schedule {
        BetaSchedule::Linear { start, end } if !config.rescale_betas_zero_snr => {
            let last = (rounded.len() - 1).max(1) as f64;
            let beta = |timestep| start + (end - start) * timestep as f64 / last;
            (0..rounded.len()).map(beta).collect()
        }
        _ => rounded.iter().copied().map(f64::from).collect(),
    }
}

/// The running product of `1 - beta`, one value a timestep.
pub(super) fn abar(betas: &[f32]) -> Vec<f64> {
    running_product(betas).into_iter().map(f64::from).collect()
}

/// `torch.linspace` in f32: counted from the nearer end.
fn linspace(start: f64, end: f64, steps: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if steps == 1 {
        return vec![start];
    }
    let stride = (end - start) / (steps - 1) as f32;
    (0..steps)
        .map(|i| {
            if i < steps / 2 {
                stride.mul_add(i as f32, start)
            } else {
                (-stride).mul_add((steps - 1 - i) as f32, end)
            }
        })
        .collect()
}

/// The squared cosine of Nichol & Dhariwal 2021 (arXiv 2102.09672, eq. 17), with betas of at most 0.999.
fn squared_cosine(steps: usize) -> Vec<f32> {
    let abar = |t: f64| {
        ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
            .cos()
            .powi(2)
    };
    (0..steps)
        .map(|i| {
            let (from, to) = (i as f64 / steps as f64, (i + 1) as f64 / steps as f64);
            (1.0 - abar(to) / abar(from)).min(0.999) as f32
        })
        .collect()
}

/// Shifts and scales `sqrt(abar)` so that its last value is zero and its first stays
/// (Lin et al. 2023, arXiv 2305.08891, algorithm 1).
fn rescale_zero_terminal_snr(betas: &mut [f32]) {
    let mut signal: Vec<f32> = running_product(betas).into_iter().map(f32::sqrt).collect();
    let (first, last) = (signal[0], signal[signal.len() - 1]);
    let scale = first / (first - last);
    for value in &mut signal {
        *value = (*value - last) * scale;
    }
    let mut before = 1.0;
    for (beta, value) in betas.iter_mut().zip(signal) {
        let abar = value * value;
        *beta = 1.0 - abar / before;
        before = abar;
    }
}

/// Accumulated in f64 and stored in f32, as PyTorch's `cumprod` does on a CPU.
fn running_product(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0f64;
    betas
        .iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect()
}
