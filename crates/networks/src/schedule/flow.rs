//! Flow matching along straight lines (Lipman et al. 2022, arXiv 2210.02747; Liu et al. 2022, arXiv 2209.03003).

use super::ScheduleError;
use super::config::{SchedulerConfig, SigmaSpacing};
use super::euler::respaced;
use crate::process::{Process, Target, Time};
use crate::random::Draw;
use burn::tensor::Tensor;

/// What a `FlowMatchEulerDiscreteScheduler` says of how its network was trained and is sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// Moves times towards noise: sigma becomes `shift sigma / (1 + (shift - 1) sigma)`.
    pub shift: f64,
    /// With it, the shift follows from the size of the image, and `shift` is not read.
    pub dynamic: Option<DynamicShift>,
    /// Where the sigmas of a sampling end before 0; else they are not stretched.
    pub terminal: Option<f64>,
}

/// A shift that grows with the number of an image's tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicShift {
    /// For images of `base_tokens`.
    pub base: f64,
    /// For images of `max_tokens`.
    pub max: f64,
    /// `base_image_seq_len`.
    pub base_tokens: usize,
    /// `max_image_seq_len`.
    pub max_tokens: usize,
    /// Whether the shift is the exponential of this number (else the number itself).
    pub exponential: bool,
    /// Tokens of the images that are drawn.
    pub tokens: usize,
}

impl DynamicShift {
    fn shift(self) -> f64 {
        let tokens = self.tokens;
        let slope = (self.max - self.base) / (self.max_tokens as f64 - self.base_tokens as f64);
        let mu = slope * (tokens as f64 - self.base_tokens as f64) + self.base;
        match self.exponential {
            true => mu.exp(),
            false => mu,
        }
    }
}

/// The process `x_s = (1 - s) x + s e`, on which a network learns `e - x`. It is told s times the number of its training's
/// timesteps, which is the process's time.
///
/// Training draws s as Stable Diffusion 3's did (Esser et al. 2024, arXiv 2403.03206, section 3.1): of a logit-normal distribution,
/// rounded up to a whole share of the timesteps, then shifted. (diffusers' `train_dreambooth_lora_sd3.py` by default.)
#[derive(Debug, Clone, PartialEq)]
pub struct FlowMatching {
    shift: f64,
    timesteps: usize,
}

impl FlowMatching {
    /// The process of this configuration. A shift that hangs on the size is left out of training, as diffusers' trainers do.
    pub fn new(flow: &Flow, timesteps: usize) -> Self {
        let shift = match flow.dynamic {
            Some(_) => 1.0,
            None => flow.shift,
        };
        Self { shift, timesteps }
    }

    fn sigma(&self, time: Time) -> f64 {
        let sigma = time.value() / self.timesteps as f64;
        assert!(
            sigma > 0.0 && sigma <= 1.0,
            "{time} is no time of flow matching over {}",
            self.timesteps
        );
        sigma
    }

    /// The time below which this share of training's draws lies.
    fn time_at(&self, share: f64) -> Time {
        let count = self.timesteps as f64;
        let drawn = logistic(inverse_normal(share));
        let sigma = ((drawn * count).floor() + 1.0).min(count) / count;
        Time::new(shifted(sigma, self.shift) * count)
    }
}

impl Process for FlowMatching {
    fn signal(&self, time: Time) -> f64 {
        1.0 - self.sigma(time)
    }

    fn noise(&self, time: Time) -> f64 {
        self.sigma(time)
    }

    fn target(&self, _: Time) -> Target {
        Target {
            clean: -1.0,
            noise: 1.0,
        }
    }

    fn check(&self, timesteps: &[f64]) -> Result<Vec<Time>, ScheduleError> {
        let last = self.timesteps;
        let checked =
            timesteps.iter().map(
                |&timestep| match timestep > 0.0 && timestep <= last as f64 {
                    true => Ok(Time::new(timestep)),
                    false => Err(ScheduleError::FlowTime { timestep, last }),
                },
            );
        checked.collect()
    }

    fn draw(&self, part: usize, parts: usize, draw: &mut Draw) -> Time {
        // One of 2^53 shares of the part, from the middle of it.
        const SHARES: usize = 1 << 53;
        let within = (draw.integers(1, SHARES)[0] as f64 + 0.5) / SHARES as f64;
        self.time_at((part as f64 + within) / parts as f64)
    }

    fn quantile(&self, part: usize, parts: usize) -> Time {
        match part {
            0 => Time::new(0.0),
            _ => self.time_at(part as f64 / parts as f64),
        }
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// The number below which a standard normal draw lies with this probability (Acklam's rational approximation; relative error
/// below 1.2e-9).
fn inverse_normal(probability: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
    ];
    const TAIL: f64 = 0.02425;
    let polynomial = |all: &[f64], x: f64| all.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |probability: f64| {
        let q = (-2.0 * probability.ln()).sqrt();
        polynomial(&C, q) / (polynomial(&D, q) * q + 1.0)
    };
    if probability < TAIL {
        tail(probability)
    } else if probability > 1.0 - TAIL {
        -tail(1.0 - probability)
    } else {
        let q = probability - 0.5;
        let r = q * q;
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    }
}

/// diffusers' `FlowMatchEulerDiscreteScheduler` with its timesteps set.
#[derive(Debug, Clone)]
pub struct FlowEuler {
    process: FlowMatching,
    timesteps: Vec<Time>,
    /// At each of the timesteps, and 0.
    sigmas: Vec<f64>,
}

impl FlowEuler {
    /// # Errors
    ///
    /// A configuration of another process, sigmas that are not computed here; no steps, or more than the training has.
    pub fn new(config: &SchedulerConfig, inference_steps: usize) -> Result<Self, ScheduleError> {
        let Some(flow) = &config.flow else {
            return Err(ScheduleError::NotFlow);
        };
        let train_steps = config.num_train_timesteps;
        if !(1..=train_steps).contains(&inference_steps) {
            return Err(ScheduleError::InferenceSteps {
                steps: inference_steps,
                train_steps,
            });
        }
        let shift = match flow.dynamic {
            Some(dynamic) => dynamic.shift(),
            None => flow.shift,
        };
        // Between the ends of the training's sigmas, which a constant shift has moved already, as diffusers keeps them in f32.
        let count = train_steps as f64;
        let end = |sigma: f64| match flow.dynamic {
            Some(_) => f64::from(sigma as f32),
            None => f64::from(shifted(sigma, flow.shift) as f32),
        };
        let (first, last) = (end(1.0), end(1.0 / count));
        let spread = inference_steps.saturating_sub(1).max(1) as f64;
        let sigmas = (0..inference_steps).map(|step| first + step as f64 / spread * (last - first));
        let mut sigmas: Vec<f64> = sigmas.map(|sigma| shifted(sigma, shift)).collect();
        if let Some(terminal) = flow.terminal {
            let rest = 1.0 - sigmas[sigmas.len() - 1];
            let factor = rest / (1.0 - terminal);
            sigmas = sigmas
                .iter()
                .map(|sigma| 1.0 - (1.0 - sigma) / factor)
                .collect();
        }
        if config.sigmas.spacing == SigmaSpacing::Beta {
            return Err(ScheduleError::Unsupported {
                key: "use_beta_sigmas",
                value: "true".into(),
                supported: "false",
            });
        }
        // diffusers reads no bounds of its own here.
        let (from, to) = (sigmas[0], sigmas[sigmas.len() - 1]);
        if let Some(respaced) = respaced(config.sigmas.spacing, from, to, inference_steps) {
            sigmas = respaced;
        }
        let sigmas: Vec<f64> = sigmas.into_iter().map(|s| f64::from(s as f32)).collect();
        let times = sigmas.iter().map(|sigma| f64::from((sigma * count) as f32));
        Ok(Self {
            process: FlowMatching::new(flow, train_steps),
            timesteps: times.map(Time::new).collect(),
            sigmas: [sigmas, vec![0.0]].concat(),
        })
    }

    /// The forward process that it undoes.
    pub fn process(&self) -> &FlowMatching {
        &self.process
    }

    /// The timesteps to visit, from noise to image.
    pub fn timesteps(&self) -> &[Time] {
        &self.timesteps
    }

    /// One step from `timestep` to the next along the output.
    ///
    /// # Shapes
    ///
    /// `output` (the network's) and `sample`: `[batch, ..]`, alike; so is the result.
    ///
    /// # Panics
    ///
    /// `timestep` is not one of [`timesteps`](Self::timesteps).
    pub fn step(&self, output: Tensor<4>, timestep: Time, sample: Tensor<4>) -> Tensor<4> {
        let mut all = self.timesteps.iter();
        let place = all.position(|&own| own == timestep);
        let place = place.expect("one of this sampler's timesteps");
        sample + output.mul_scalar(self.sigmas[place + 1] - self.sigmas[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Stream};

    const FLOW: Flow = Flow {
        shift: 3.0,
        dynamic: None,
        terminal: None,
    };

    #[test]
    fn normal_quantiles_are_those_of_tables() {
        for (probability, expected) in [
            (0.5, 0.0),
            (0.975, 1.959_963_985),
            (0.001, -3.090_232_306),
            (0.999_99, 4.264_890_794),
        ] {
            let found = inverse_normal(probability);
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
    }

    #[test]
    fn conversions_are_those_of_straight_lines() {
        let process = FlowMatching::new(&FLOW, 1000);
        let time = Time::new(250.0);
        assert_eq!((process.signal(time), process.noise(time)), (0.75, 0.25));
        let image = |value: f32| {
            let data = burn::tensor::TensorData::new(vec![value], [1, 1, 1, 1]);
            Tensor::<4>::from_data(data, &burn::tensor::Device::flex())
        };
        let value = |x: Tensor<4>| x.into_scalar::<f32>();
        let noisy = process.add_noise(image(2.0), image(-1.0), &[time]);
        assert_eq!(value(noisy.clone()), 1.25);
        // e - x
        let target = process.target_of_noise(image(2.0), image(-1.0), &[time]);
        assert_eq!(value(target.clone()), -3.0);
        assert_eq!(
            value(process.clean(noisy.clone(), target.clone(), &[time])),
            2.0
        );
        assert_eq!(value(process.epsilon(noisy.clone(), target, &[time])), -1.0);
        // (x_s - n) / s, of another clean image n
        assert_eq!(
            value(process.target_of_clean(noisy, image(0.5), &[time])),
            3.0
        );
    }

    #[test]
    fn times_are_drawn_around_the_middle_and_shifted_towards_noise() {
        let draws = |shift| {
            let process = FlowMatching::new(&Flow { shift, ..FLOW }, 1000);
            let random = Random::new(4);
            let mut draw = random.stream(Stream::RetainTimestep, 0);
            let mut all: Vec<f64> = (0..4000)
                .map(|_| process.draw(0, 1, &mut draw).value())
                .collect();
            all.sort_by(f64::total_cmp);
            (all[1000], all[2000], all[3000])
        };
        // Quartiles of a logit-normal draw: 1 / (1 + e^0.6745) and so on.
        let (low, median, high) = draws(1.0);
        assert!(
            (low - 337.0).abs() < 15.0 && (high - 663.0).abs() < 15.0,
            "{low} {high}"
        );
        assert!((median - 500.0).abs() < 15.0, "{median}");
        let (_, median, _) = draws(3.0);
        assert!((median - 750.0).abs() < 15.0, "{median}");
    }

    #[test]
    fn parts_of_the_draws_lie_between_their_quantiles() {
        let process = FlowMatching::new(&FLOW, 1000);
        let random = Random::new(2);
        for part in 0..5 {
            let mut draw = random.stream(Stream::ProbeTimestep, part as u64);
            let (from, to) = (process.quantile(part, 5), process.quantile(part + 1, 5));
            for _ in 0..50 {
                let time = process.draw(part, 5, &mut draw);
                assert!(from <= time && time <= to, "{from} {time} {to}");
            }
        }
    }

    #[test]
    fn what_it_cannot_do_is_refused_by_name() {
        let flow = SchedulerConfig {
            flow: Some(FLOW),
            ..SchedulerConfig::default()
        };
        assert!(FlowEuler::new(&SchedulerConfig::default(), 4).is_err());
        assert!(FlowEuler::new(&flow, 0).is_err());
        let mut beta = flow.clone();
        beta.sigmas.spacing = SigmaSpacing::Beta;
        let text = FlowEuler::new(&beta, 4).unwrap_err().to_string();
        assert!(text.contains("use_beta_sigmas"), "{text}");
    }
}
