//! What the demo asks of one of its two models.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_data::pixels::{to_byte, to_unit};
use retrack_networks::model::Model;
use retrack_networks::network::Network;
use retrack_networks::random::{Random, Stream};
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{Sampler, SchedulerKind};

use super::{Demo, HALF_WAY, PROBES, SCHEDULER, STEPS};
use crate::failure::Failure;
use crate::samples::{Of, Samples};
use crate::{model, opened};

/// One of the two models.
pub(super) struct Side {
    pub model: Model,
    network: Network,
}

impl Side {
    pub fn open(path: &Path, device: &Device) -> Result<Self, Failure> {
        let model = opened::open_denoiser(path)?;
        let network = model.network(device)?;
        Ok(Self { model, network })
    }

    /// Bytes of samples, one after another.
    pub fn sample(&self, demo: &Demo, device: &Device) -> Result<Vec<u8>, Failure> {
        let samples = Samples {
            count: demo.count,
            steps: STEPS,
            scheduler: Some(SCHEDULER),
            seed: demo.seed,
            batch_size: 64,
            of: Of::Classes(Vec::new()),
        };
        let (bytes, _) = samples.draw(&self.model, &self.network, device, "sampling")?;
        Ok(bytes)
    }

    /// The image noised half-way, then what this model makes of that, several times.
    pub fn restore(&self, image: &[u8], seed: u64, device: &Device) -> Result<Vec<u8>, Failure> {
        let scheduler = &self.model.scheduler;
        // The published injection test denoises by ancestral sampling.
        let sampler = Sampler::new(SchedulerKind::Ddpm, scheduler, STEPS)?;
        let network = self.network.valid();
        let Some([height, width]) = self.model.config.sample_size else {
            unreachable!("the shipped model has a size")
        };
        let generator = Generator {
            network: &*network,
            sampler: &sampler,
            random: Random::new(seed),
            shape: [height, width, 1],
            device,
        };
        let clean: Vec<f32> = image.iter().map(|&byte| to_unit(byte)).collect();
        let copies = clean.repeat(PROBES);
        let copies = TensorData::new(copies, [PROBES, height, width, 1]);
        let restored = generator.reconstruct(
            Tensor::from_data(copies, device),
            HALF_WAY,
            0..PROBES as u64,
            None,
            &mut || {},
        )?;
        let process = scheduler.process();
        let noise = generator.random.noise(Stream::Probe, 0, 0..1, clean.len());
        let noisy = clean.iter().zip(noise).map(|(&x, e)| {
            (process.signal(HALF_WAY) * f64::from(x) + process.noise(HALF_WAY) * f64::from(e))
                as f32
        });
        let mut bytes: Vec<u8> = noisy.map(to_byte).collect();
        bytes.extend(model::to_bytes(&restored, "half-way attempts")?);
        Ok(bytes)
    }
}
