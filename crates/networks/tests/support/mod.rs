//! Reads `fixtures/parity`, whose README says what each key holds, and builds the networks that its numbers are of.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses some of it, and so do tests of another crate"
)]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::config::UNet2DConfig;
use retrack_networks::parameters;
use retrack_networks::schedule::{NoiseSchedule, SchedulerConfig};
use retrack_networks::unet2d::UNet2DModel;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity")
}

/// Names of the cases that begin with `prefix`, in order.
pub fn cases(prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("case.safetensors").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

/// One folder of fixtures.
pub struct Case {
    pub name: String,
    bytes: Vec<u8>,
}

impl Case {
    pub fn read(name: &str) -> Self {
        let path = root().join(name).join("case.safetensors");
        Self {
            name: name.into(),
            bytes: fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        }
    }

    /// A JSON file beside the numbers.
    pub fn json(&self, file: &str) -> Value {
        let path = root().join(&self.name).join(file);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&bytes).unwrap()
    }

    pub fn keys(&self) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        tensors.names().into_iter().map(str::to_owned).collect()
    }

    pub fn has(&self, key: &str) -> bool {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        tensors.tensor(key).is_ok()
    }

    fn values<T>(&self, key: &str, convert: impl Fn(Dtype, &[u8]) -> T) -> (Vec<usize>, Vec<T>) {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors
            .tensor(key)
            .unwrap_or_else(|error| panic!("{}: {key}: {error}", self.name));
        let dtype = view.dtype();
        let values = view.data().chunks_exact(dtype.bitsize() / 8);
        (
            view.shape().to_vec(),
            values.map(|bytes| convert(dtype, bytes)).collect(),
        )
    }

    pub fn shape(&self, key: &str) -> Vec<usize> {
        self.values(key, |_, _| ()).0
    }

    pub fn floats(&self, key: &str) -> Vec<f32> {
        let f32_of = |dtype, bytes: &[u8]| match dtype {
            Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
            other => panic!("{}: {key} is {other:?}", self.name),
        };
        self.values(key, f32_of).1
    }

    /// Numbers of any type.
    pub fn doubles(&self, key: &str) -> Vec<f64> {
        let f64_of = |dtype, bytes: &[u8]| match dtype {
            Dtype::F64 => f64::from_le_bytes(bytes.try_into().unwrap()),
            Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
            Dtype::I64 => i64::from_le_bytes(bytes.try_into().unwrap()) as f64,
            Dtype::BOOL => bytes[0].into(),
            other => panic!("{}: {key} is {other:?}", self.name),
        };
        self.values(key, f64_of).1
    }

    pub fn scalar(&self, key: &str) -> f64 {
        let values = self.doubles(key);
        assert_eq!(values.len(), 1, "{}: {key}", self.name);
        values[0]
    }

    pub fn integers(&self, key: &str) -> Vec<i64> {
        let i64_of = |dtype, bytes: &[u8]| match dtype {
            Dtype::I64 => i64::from_le_bytes(bytes.try_into().unwrap()),
            other => panic!("{}: {key} is {other:?}", self.name),
        };
        self.values(key, i64_of).1
    }

    /// The last four dimensions `[N, C, H, W]` of a key as channel-last values, with its shape `[N, H, W, C]`.
    pub fn images(&self, key: &str) -> ([usize; 4], Vec<f32>) {
        let shape = self.shape(key);
        let [n, c, h, w] = shape[shape.len() - 4..].try_into().unwrap();
        ([n, h, w, c], channel_last(&self.floats(key), c, h * w))
    }

    pub fn image_tensor(&self, key: &str, device: &Device) -> Tensor<4> {
        let (shape, values) = self.images(key);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// The case's schedule: as diffusers computes its table, in f32, and with abar in f64, as the fixtures' gradients are.
    pub fn schedules(&self) -> (NoiseSchedule, NoiseSchedule) {
        let config = self.json("scheduler_config.json");
        let table = NoiseSchedule::new(&SchedulerConfig::from_json(&config).unwrap());
        let number = |key: &str| config[key].as_f64().unwrap();
        let (start, end) = (number("beta_start"), number("beta_end"));
        let step = (end - start) / (table.timesteps() - 1) as f64;
        let exact = (0..table.timesteps()).scan(1.0, |abar, t| {
            *abar *= 1.0 - (start + step * t as f64);
            Some(*abar)
        });
        let exact = NoiseSchedule {
            abar: exact.collect(),
            ..table.clone()
        };
        (table, exact)
    }

    /// The case's network with weights by formula.
    pub fn network(&self, device: &Device) -> UNet2DModel {
        let config = UNet2DConfig::from_json(&self.json("config.json")).unwrap();
        parameters::fill(config.init(device), |parameter| {
            formula(&parameter.name, &parameter.shape)
        })
    }
}

/// `[.., channels, pixels]` to `[.., pixels, channels]`.
pub fn channel_last(values: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for image in values.chunks_exact(channels * pixels) {
        for pixel in 0..pixels {
            out.extend((0..channels).map(|channel| image[channel * pixels + pixel]));
        }
    }
    out
}

/// 64-bit FNV-1a of a parameter's name.
pub fn hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// Output `index`, counted from 0, of splitmix64 started at `seed`.
pub fn splitmix(seed: u64, index: u64) -> u64 {
    let step = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = seed.wrapping_add(step);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Numbers in [-1, 1) that belong to a name.
pub fn unit(name: &str, count: usize) -> Vec<f32> {
    let seed = hash(name);
    (0..count as u64)
        .map(|index| ((splitmix(seed, index) >> 40) as f64 / (1 << 23) as f64 - 1.0) as f32)
        .collect()
}

/// An image of bytes by the README's formula: sixteen colors under noise.
pub fn picture(name: &str, [height, width, channels]: [usize; 3]) -> Vec<u8> {
    let bytes = |what: &str, count: usize| -> Vec<usize> {
        let values = unit(&format!("{name}.{what}"), count).into_iter();
        values.map(|v| ((v + 1.0) * 128.0) as usize).collect()
    };
    let colors = bytes("colors", 16 * channels);
    let noise = bytes("noise", height * width * channels);
    let mixed = noise.iter().enumerate().map(|(i, noise)| {
        let (pixel, channel) = (i / channels, i % channels);
        let (row, column) = (pixel / width * 4 / height, pixel % width * 4 / width);
        let color = colors[(row * 4 + column) * channels + channel];
        ((3 * color + noise) / 4) as u8
    });
    mixed.collect()
}

/// A parameter's values by the README's formula, in PyTorch's layout.
pub fn formula(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let (scale, offset) = match (name, shape.len()) {
        ("time_proj.weight", 1) => (16.0, 0.0),
        ("time_proj.weight" | "class_embedding.weight", _) => (1.0, 0.0),
        (_, 2..) => {
            let fan_in: usize = shape[1..].iter().product();
            (((3.0 / fan_in as f64).sqrt() * 0.8) as f32, 0.0)
        }
        _ if name.ends_with(".weight") => (0.1, 1.0),
        _ if name.ends_with(".running_var") => (0.1, 0.32),
        _ => (0.05, 0.0),
    };
    let values = unit(name, count).into_iter();
    values.map(|u| scale * u + offset).collect()
}

/// The image that is furthest from what is expected, on its own scale.
#[derive(Debug, Clone, Copy)]
pub struct Worst {
    pub image: usize,
    /// Where in the image, in the order of the values.
    pub element: usize,
    pub found: f32,
    pub expected: f32,
    /// `|found - expected|` divided by the image's largest expected magnitude.
    pub error: f32,
}

/// Compares image by image. A number that is none counts as infinitely far.
pub fn worst(found: &[f32], expected: &[f32], images: usize) -> Worst {
    assert_eq!(found.len(), expected.len());
    let len = found.len() / images;
    let mut worst = Worst {
        image: 0,
        element: 0,
        found: found[0],
        expected: expected[0],
        error: 0.0,
    };
    let pairs = found.chunks_exact(len).zip(expected.chunks_exact(len));
    for (image, (found, expected)) in pairs.enumerate() {
        let scale = expected.iter().fold(0f32, |scale, v| scale.max(v.abs()));
        assert!(scale > 0.0, "image {image} is expected to be all zeros");
        for (element, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let error = (found - expected).abs() / scale;
            let error = if error.is_nan() { f32::INFINITY } else { error };
            if error > worst.error {
                worst = Worst {
                    image,
                    element,
                    found,
                    expected,
                    error,
                };
            }
        }
    }
    worst
}
