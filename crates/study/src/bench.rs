//! How fast this machine is at the work of a study. Weights and pixels are random; one call that is not timed comes first.
//!
//! Each work gives one object: what it was, and the best and the median of the timed calls.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use retrack_data::neighbors::nearest;
use retrack_data::{Dataset, ImageShape};
use retrack_networks::family::{self, PixelConfig};
use retrack_networks::network::Network;
use retrack_networks::parameters;
use retrack_networks::process::Time;
use retrack_networks::random::{Random, Stream};
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{Sampler, SchedulerConfig, SchedulerKind};
use retrack_unlearn::feed::{BatchSize, Feed};
use retrack_unlearn::objective::Method;
use retrack_unlearn::optimizer::{AdamW, AdamWConfig, LearningRate};
use retrack_unlearn::trainer::Trainer;
use serde_json::{Value, json};

use crate::evidence::peak_memory_bytes;
use crate::failure::Failure;
use crate::field::Field;
use crate::machine;

/// Retained neighbors of each forgotten image: the published experiments' number.
const NEIGHBORS: usize = 10;
/// The published CIFAR-10 experiment's rate. Any small one does: no time depends on it.
const LEARNING_RATE: f64 = 2e-5;
/// The timestep of every image of `predict`.
const TIMESTEP: Time = Time::timestep(500);

/// Work of a new network.
#[derive(Debug, Clone)]
pub struct NetworkWork {
    /// A UNet2DModel's config.json.
    pub arch: PathBuf,
    /// Images computed together; in a step of each stream, retained and forgotten.
    pub batch_size: usize,
    /// Timed calls.
    pub repeat: usize,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// A search among random bytes in memory.
#[derive(Debug, Clone)]
pub struct SearchWork {
    /// Images to search.
    pub rows: usize,
    /// Of an image.
    pub bytes: usize,
    /// Images whose neighbors are looked for together.
    pub queries: usize,
    /// How many of each.
    pub neighbors: usize,
    /// Timed calls.
    pub repeat: usize,
}

/// One ReTrack step: both forwards, backward, clipping, AdamW.
///
/// # Errors
/// A network that cannot be built, sizes of 0, work that does not fit into memory.
pub fn step(args: &NetworkWork) -> Result<Value, Failure> {
    let bench = Bench::new(args, |device| device.autodiff())?;
    let batch = args.batch_size;
    let data = bench.random_images(2 * batch + NEIGHBORS)?;
    // The neighbors are retained too, so that a batch of one has as many as any other.
    let (forget, retain): (Vec<usize>, Vec<usize>) = (0..data.len()).partition(|&row| row < batch);
    let neighbors: HashMap<usize, Vec<usize>> = forget
        .iter()
        .map(|&row| (row, retain[..NEIGHBORS].to_vec()))
        .collect();
    let process = SchedulerConfig::default().process();
    let size = BatchSize {
        images: batch,
        accumulate: 1,
    };
    let classes = bench.config.num_class_embeds.is_some();
    let feed = Feed::new(
        &data,
        &retain,
        &forget,
        bench.random,
        size,
        process.clone(),
        classes,
    )
    .with_neighbors(&neighbors);
    let parameters = bench.parameters();
    let device = bench.device.clone();
    let line = bench.line("step", args);
    let method = Method::default();
    let mut trainer = Trainer::new(
        bench.network,
        process,
        device.clone(),
        method.objective(&method.defaults()),
        AdamW::new(AdamWConfig::default()),
        LearningRate::Constant {
            rate: LEARNING_RATE,
        },
    );
    let seconds = time(args.repeat, || {
        trainer.step(&feed)?;
        finish(&device)
    })?;
    Ok(with(
        line,
        json!({
            "neighbors": NEIGHBORS,
            "parameters": parameters,
            "seconds_per_image": summary(&seconds, 2 * batch),
            "peak_rss_bytes": peak_memory_bytes(),
        }),
    ))
}

/// The network's output, without autodiff.
///
/// # Errors
/// A network that cannot be built, sizes of 0, work that does not fit into memory.
pub fn predict(args: &NetworkWork) -> Result<Value, Failure> {
    let bench = Bench::new(args, |device| device)?;
    let [height, width] = bench.size;
    let shape = [args.batch_size, height, width, bench.config.in_channels];
    let noise = bench
        .random
        .stream(Stream::Probe, 0)
        .normal(shape.iter().product());
    let input = Tensor::<4>::from_data(TensorData::new(noise, shape), &bench.device);
    let timesteps = vec![TIMESTEP; args.batch_size];
    let labels = bench.labels(args.batch_size);
    let seconds = time(args.repeat, || {
        bench
            .network
            .predict(input.clone(), &timesteps, labels.as_deref(), None)?;
        finish(&bench.device)
    })?;
    Ok(with(
        bench.line("predict", args),
        json!({
            "parameters": bench.parameters(),
            "seconds_per_image": summary(&seconds, args.batch_size),
            "peak_rss_bytes": peak_memory_bytes(),
        }),
    ))
}

/// Whole images by the DDPM sampler in so many steps.
///
/// # Errors
/// A network that cannot be built, sizes of 0, work that does not fit into memory.
pub fn sample(args: &NetworkWork, steps: usize) -> Result<Value, Failure> {
    let bench = Bench::new(args, |device| device)?;
    bench.square_channels()?;
    let [height, width] = bench.size;
    let sampler = Sampler::new(SchedulerKind::Ddpm, &SchedulerConfig::default(), steps)?;
    let generator = Generator {
        network: &*bench.network,
        sampler: &sampler,
        random: bench.random,
        shape: [height, width, bench.config.in_channels],
        device: &bench.device,
    };
    let labels = bench.labels(args.batch_size);
    let seconds = time(args.repeat, || {
        let images = 0..args.batch_size as u64;
        generator.images(images, labels.as_deref(), &mut || ())?;
        Ok(())
    })?;
    Ok(with(
        bench.line("sample", args),
        json!({
            "steps": steps,
            "parameters": bench.parameters(),
            "seconds_per_image": summary(&seconds, args.batch_size),
            "peak_rss_bytes": peak_memory_bytes(),
        }),
    ))
}

/// Nearest neighbors of random bytes in memory.
///
/// # Errors
/// A network that cannot be built, sizes of 0, work that does not fit into memory.
pub fn neighbors(args: &SearchWork) -> Result<Value, Failure> {
    at_least_one(Field::Rows, args.rows)?;
    at_least_one(Field::Bytes, args.bytes)?;
    at_least_one(Field::Queries, args.queries)?;
    at_least_one(Field::Neighbors, args.neighbors)?;
    at_least_one(Field::Repeat, args.repeat)?;
    let random = Random::new(0);
    let rows = random_bytes(&random, Stream::RetainOrder, args.rows, args.bytes)?;
    let queries = random_bytes(&random, Stream::ForgetOrder, args.queries, args.bytes)?;
    let queries: Vec<&[u8]> = queries.chunks_exact(args.bytes).collect();
    let seconds = time(args.repeat, || {
        nearest(&rows, args.bytes, &queries, args.neighbors)?;
        Ok(())
    })?;
    Ok(json!({
        "work": "neighbors",
        "rows": args.rows,
        "bytes": args.bytes,
        "queries": args.queries,
        "neighbors": args.neighbors,
        "threads": rayon::current_num_threads(),
        "simd": retrack_kernels::simd_name(),
        "repeat": args.repeat,
        "seconds_per_query": summary(&seconds, args.queries),
        "peak_rss_bytes": peak_memory_bytes(),
    }))
}

/// A network with new weights.
struct Bench {
    config: PixelConfig,
    network: Network,
    /// Height and width of its images.
    size: [usize; 2],
    random: Random,
    device: Device,
}

impl Bench {
    fn new(args: &NetworkWork, on: impl Fn(Device) -> Device) -> Result<Self, Failure> {
        at_least_one(Field::BatchSize, args.batch_size)?;
        at_least_one(Field::Repeat, args.repeat)?;
        let device = on(machine::device(&args.device)?);
        let config = read_config(&args.arch)?;
        let Some(size) = config.sample_size else {
            return Err(Failure::input(format!(
                "{}: `sample_size` is missing; add the height and width of its images",
                args.arch.display()
            )));
        };
        config.check_size(size[0], size[1])?;
        let random = Random::new(0);
        let network = parameters::initialize(config.init(&device), &random);
        Ok(Self {
            config,
            network,
            size,
            random,
            device,
        })
    }

    /// What every line of a network says.
    fn line(&self, work: &str, args: &NetworkWork) -> Value {
        let [height, width] = self.size;
        json!({
            "work": work,
            "arch": args.arch.display().to_string(),
            "height": height,
            "width": width,
            "batch_size": args.batch_size,
            "threads": rayon::current_num_threads(),
            "simd": retrack_kernels::simd_name(),
            "device": args.device,
            "repeat": args.repeat,
        })
    }

    /// Numbers that training changes.
    fn parameters(&self) -> usize {
        let trained = parameters::list(&self.network).into_iter();
        trained
            .filter(|parameter| parameter.trained)
            .map(|parameter| parameter.shape.iter().product::<usize>())
            .sum()
    }

    fn labels(&self, images: usize) -> Option<Vec<i64>> {
        self.config.num_class_embeds.map(|_| vec![0; images])
    }

    /// Whether the network predicts what it takes.
    fn square_channels(&self) -> Result<(), Failure> {
        let (input, output) = (self.config.in_channels, self.config.out_channels);
        if input != output {
            return Err(Failure::input(format!(
                "the network takes {input} channels and predicts {output}; learned variances are not supported"
            )));
        }
        Ok(())
    }

    fn random_images(&self, count: usize) -> Result<Dataset, Failure> {
        self.square_channels()?;
        let shape = ImageShape {
            height: self.size[0],
            width: self.size[1],
            channels: self.config.in_channels,
        };
        let pixels = random_bytes(&self.random, Stream::RetainOrder, count, shape.bytes())?;
        let labels = self.labels(count).unwrap_or_default();
        Ok(Dataset::from_pixels(shape, pixels, labels)?)
    }
}

fn read_config(path: &Path) -> Result<PixelConfig, Failure> {
    let text =
        retrack_checkpoint::files::read_text(path).map_err(|error| Failure::read(path, error))?;
    let at = |problem: String| Failure::input(format!("{}: {problem}", path.display()));
    let json: Value =
        retrack_checkpoint::json::parse(text.as_bytes()).map_err(|error| at(error.to_string()))?;
    PixelConfig::from_json(family::class_name(&json), &json).map_err(|error| at(error.to_string()))
}

fn at_least_one(field: Field, value: usize) -> Result<(), Failure> {
    if value == 0 {
        return Err(Failure::input(format!("{field} is 0; give at least 1")));
    }
    Ok(())
}

/// `rows` rows of `row_len` bytes, one after another.
fn random_bytes(
    random: &Random,
    stream: Stream,
    rows: usize,
    row_len: usize,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let enough = rows
        .checked_mul(row_len)
        .is_some_and(|len| bytes.try_reserve_exact(len).is_ok());
    if !enough {
        return Err(Failure::input(format!(
            "{rows} rows of {row_len} bytes do not fit into memory; give fewer"
        )));
    }
    bytes.resize(rows * row_len, 0);
    let each = bytes.par_chunks_exact_mut(row_len).enumerate();
    each.for_each(|(row, bytes)| {
        let values = random.at(stream, 0, row as u64).integers(row_len, 256);
        for (byte, value) in bytes.iter_mut().zip(values) {
            *byte = value as u8;
        }
    });
    Ok(bytes)
}

/// Seconds of each of `repeat` calls, after one that is not counted.
fn time(repeat: usize, mut work: impl FnMut() -> Result<(), Failure>) -> Result<Vec<f64>, Failure> {
    work()?;
    let mut seconds = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

/// Waits for what a device still computes.
fn finish(device: &Device) -> Result<(), Failure> {
    device.sync().map_err(Failure::failed)
}

/// Best and median of the calls, each divided by the `parts` it did.
fn summary(seconds: &[f64], parts: usize) -> Value {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    };
    json!({ "best": sorted[0] / parts as f64, "median": median / parts as f64 })
}

/// `line` with the keys of `more` after its own.
fn with(mut line: Value, more: Value) -> Value {
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_two() {
        let odd = summary(&[6.0, 2.0, 4.0], 2);
        assert_eq!(odd, json!({ "best": 1.0, "median": 2.0 }));
        let even = summary(&[8.0, 2.0, 4.0, 6.0], 1);
        assert_eq!(even, json!({ "best": 2.0, "median": 5.0 }));
    }

    #[test]
    fn the_first_call_is_not_timed() {
        let mut calls = 0;
        let seconds = time(3, || {
            calls += 1;
            Ok(())
        });
        assert_eq!(seconds.unwrap().len(), 3);
        assert_eq!(calls, 4);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_at_least_what_is_held() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak_memory_bytes().unwrap() > held.len() as u64);
    }
}
