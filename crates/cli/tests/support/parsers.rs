//! Everything that reads what a stranger made, each as a function of bytes that must return whatever they are: the
//! bodies of the fuzz targets in `fuzz/`, and of the tests in `fuzz.rs`.

use std::fs;
use std::path::Path;

use age::secrecy::ExposeSecret;
use retrack_checkpoint::chain::{self, Chain};
use retrack_checkpoint::folder::{ModelFolder, Part, check_safetensors_names, read_weight_file};
use retrack_data::{
    Dataset, ImageShape, KeptFiles, OpenOptions, Selection, captions, modified_prompts,
    original_prompt, own_captions,
};
use retrack_eval::sscd::Sscd;
use retrack_networks::clip::ClipConfig;
use retrack_networks::conditional::UNet2DConditionConfig;
use retrack_networks::config::UNet2DConfig;
use retrack_networks::cost::LatentCost;
use retrack_networks::lora::{AdapterFile, Component, Layers};
use retrack_networks::schedule::{NoiseSchedule, Sampler, SchedulerConfig};
use retrack_networks::sd3::SD3Config;
use retrack_networks::t5::{T5Config, T5Tokenizer};
use retrack_networks::text::TextConfig;
use retrack_networks::tokenizer::ClipTokenizer;
use retrack_networks::vae::AutoencoderConfig;
use retrack_study::sealed::KeyFile;

/// A parser: its name, also that of its folder in `fuzz/corpus`, and what it does with bytes in a folder of its own.
/// Whether they were accepted.
pub struct Parser {
    pub name: &'static str,
    pub parse: fn(&Path, &[u8]) -> bool,
}

pub const PARSERS: [Parser; 20] = [
    Parser {
        name: "safetensors",
        parse: safetensors,
    },
    Parser {
        name: "torch",
        parse: torch,
    },
    Parser {
        name: "network_config",
        parse: network_config,
    },
    Parser {
        name: "model_index",
        parse: model_index,
    },
    Parser {
        name: "shard_index",
        parse: shard_index,
    },
    Parser {
        name: "scheduler_config",
        parse: scheduler_config,
    },
    Parser {
        name: "image",
        parse: image,
    },
    Parser {
        name: "parquet",
        parse: parquet,
    },
    Parser {
        name: "idx",
        parse: idx,
    },
    Parser {
        name: "cifar",
        parse: cifar,
    },
    Parser {
        name: "cifar_python",
        parse: cifar_python,
    },
    Parser {
        name: "settings",
        parse: settings,
    },
    Parser {
        name: "selection",
        parse: selection,
    },
    Parser {
        name: "tokenizer",
        parse: tokenizer,
    },
    Parser {
        name: "captions",
        parse: captions_and_labels,
    },
    Parser {
        name: "adapter",
        parse: adapter,
    },
    Parser {
        name: "adapter_config",
        parse: adapter_config,
    },
    Parser {
        name: "onnx",
        parse: onnx,
    },
    Parser {
        name: "requests",
        parse: requests,
    },
    Parser {
        name: "sealed",
        parse: sealed,
    },
];

/// Parses in a scratch folder that this thread keeps; for the fuzz targets.
#[allow(dead_code, reason = "the fuzz targets call it")]
pub fn parse(name: &str, bytes: &[u8]) {
    thread_local! {
        static SCRATCH: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder");
    }
    let parser = PARSERS.iter().find(|parser| parser.name == name);
    SCRATCH.with(|scratch| (parser.expect("a known name").parse)(scratch.path(), bytes));
}

fn put(path: &Path, bytes: &[u8]) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("a scratch folder");
    }
    fs::write(path, bytes).expect("a scratch file");
}

/// Writes a file that stays the same from call to call.
fn keep(path: &Path, bytes: &[u8]) {
    if !path.exists() {
        put(path, bytes);
    }
}

fn safetensors(scratch: &Path, bytes: &[u8]) -> bool {
    let path = scratch.join("x.safetensors");
    put(&path, bytes);
    let names = check_safetensors_names(bytes).is_ok();
    let read = read_weight_file(&path).is_ok();
    assert!(
        names || !read,
        "the weaker check refuses what the whole one takes"
    );
    read
}

fn torch(scratch: &Path, bytes: &[u8]) -> bool {
    let path = scratch.join("x.bin");
    put(&path, bytes);
    read_weight_file(&path).is_ok()
}

fn network_config(scratch: &Path, bytes: &[u8]) -> bool {
    put(&scratch.join("config.json"), bytes);
    keep(
        &scratch.join("diffusion_pytorch_model.safetensors"),
        b"none",
    );
    let folder = ModelFolder::open(scratch);
    let Ok(json) = serde_json::from_slice(bytes) else {
        return false;
    };
    let unconditional = UNet2DConfig::from_json(&json);
    if let Ok(config) = &unconditional {
        let _ = config.check_size(32, 32);
        let _ = config.cost(32, 32);
    }
    let conditional = UNet2DConditionConfig::from_json(&json);
    if let Ok(config) = &conditional {
        let _ = LatentCost::step(&config.cost(32, 32), 2, Some(4));
    }
    let transformer = SD3Config::from_json(&json);
    if let Ok(config) = &transformer {
        let _ = LatentCost::step(&config.cost(32, 32), 2, Some(4));
    }
    let autoencoder = AutoencoderConfig::from_json(&json);
    if let Ok(config) = &autoencoder {
        let _ = config.encoding_cost(32, 32);
    }
    let text = TextConfig::from_json(&json);
    if let Ok(config) = &text {
        let _ = config.parameters();
    }
    let others = [
        conditional.is_ok(),
        autoencoder.is_ok(),
        text.is_ok(),
        transformer.is_ok(),
        T5Config::from_json(&json).is_ok_and(|config| config.parameters() > 0),
        ClipConfig::from_json(&json).is_ok(),
    ];
    drop(folder);
    unconditional.is_ok() || others.contains(&true)
}

const TINY_CONFIG: &[u8] = br#"{"_class_name": "UNet2DModel"}"#;

/// A file with one tensor.
fn one_tensor(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), &[0; 4]].concat()
}

fn model_index(scratch: &Path, bytes: &[u8]) -> bool {
    put(&scratch.join("model_index.json"), bytes);
    keep(&scratch.join("unet/config.json"), TINY_CONFIG);
    let weights = scratch.join("unet/diffusion_pytorch_model.safetensors");
    keep(&weights, &one_tensor("a"));
    let scheduler = br#"{"_class_name": "DDPMScheduler"}"#;
    keep(&scratch.join("scheduler/scheduler_config.json"), scheduler);
    ModelFolder::open(scratch).is_ok_and(|folder| folder.weights().is_ok())
}

fn shard_index(scratch: &Path, bytes: &[u8]) -> bool {
    keep(&scratch.join("config.json"), TINY_CONFIG);
    let name = |of: &str| scratch.join(format!("diffusion_pytorch_model{of}"));
    keep(&name("-00001-of-00002.safetensors"), &one_tensor("a"));
    keep(&name("-00002-of-00002.safetensors"), &one_tensor("b"));
    put(&name(".safetensors.index.json"), bytes);
    ModelFolder::open(scratch).is_ok_and(|folder| folder.weights().is_ok())
}

fn scheduler_config(_: &Path, bytes: &[u8]) -> bool {
    let Ok(json) = retrack_checkpoint::json::parse(bytes) else {
        return false;
    };
    let Ok(config) = SchedulerConfig::from_json(&json) else {
        return false;
    };
    let schedule = NoiseSchedule::new(&config);
    assert!(schedule.timesteps() > 0);
    let _ = Sampler::new(config.kind, &config, 50);
    true
}

/// Opens a data set and reads all of it.
fn read_all(path: &Path, memory_budget: u64) -> bool {
    let options = OpenOptions {
        channels: Some(3),
        memory_budget,
        ..OpenOptions::default()
    };
    let Ok(data) = Dataset::open(path, &options) else {
        return false;
    };
    let mut pixels = vec![0; data.shape().bytes()];
    // All images of one size: a few stand for the others.
    let rows = (0..data.len().min(8)).all(|row| {
        let _ = (data.name(row), data.label(row));
        data.read(row, &mut pixels).is_ok()
    });
    rows && data.digest().is_ok()
}

fn image(scratch: &Path, bytes: &[u8]) -> bool {
    put(&scratch.join("folder/x.png"), bytes);
    read_all(&scratch.join("folder"), 0)
}

fn parquet(scratch: &Path, bytes: &[u8]) -> bool {
    let path = scratch.join("x.parquet");
    put(&path, bytes);
    read_all(&path, 0) && read_all(&path, 64 << 20)
}

fn idx(scratch: &Path, bytes: &[u8]) -> bool {
    // An images file or a labels file, packed or not, as its content says.
    let packed = if bytes.starts_with(&[0x1f, 0x8b]) {
        ".gz"
    } else {
        ""
    };
    let folder = scratch.join(format!("idx{packed}"));
    let images = folder.join(format!("images-idx3-ubyte{packed}"));
    put(&images, bytes);
    let read = read_all(&images, 64 << 20);
    let labels = scratch.join("labels/images-idx3-ubyte");
    keep(
        &labels,
        &[
            &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1],
            &[5u8, 6][..],
        ]
        .concat(),
    );
    put(
        &scratch.join(format!("labels/labels-idx1-ubyte{packed}")),
        bytes,
    );
    let labelled = read_all(&labels, 0);
    let _ = fs::remove_file(scratch.join(format!("labels/labels-idx1-ubyte{packed}")));
    read || labelled
}

fn cifar(scratch: &Path, bytes: &[u8]) -> bool {
    let path = scratch.join("x.bin");
    put(&path, bytes);
    read_all(&path, 0)
}

fn cifar_python(scratch: &Path, bytes: &[u8]) -> bool {
    let path = scratch.join("data_batch_1");
    put(&path, bytes);
    read_all(&path, 0)
}

fn settings(scratch: &Path, bytes: &[u8]) -> bool {
    let path = scratch.join("x.toml");
    put(&path, bytes);
    retrack_cli::check_settings(&path).is_ok()
}

/// What lies in a sealed file: whoever has the public key can make one. The bytes are read as a file of keys, too.
fn sealed(scratch: &Path, bytes: &[u8]) -> bool {
    let keys = scratch.join("keys");
    let identity = age::x25519::Identity::generate();
    put(&keys, identity.to_string().expose_secret().as_bytes());
    let sealed = age::encrypt(&identity.to_public(), bytes).expect("nothing is written");
    put(&scratch.join("model.sealed.age"), &sealed);
    let opened = retrack_study::sealed::open(&keys, &scratch.join("model"));
    put(&keys, bytes);
    let is_key = KeyFile::read(&keys).is_ok();
    let Ok(archive) = opened else {
        return is_key;
    };
    let count = archive.images().len().min(16);
    let all = (0..count).all(|number| archive.file(number).is_ok());
    all && archive.forgotten().count() <= archive.rows().len()
}

fn requests(scratch: &Path, bytes: &[u8]) -> bool {
    put(&scratch.join(chain::NAME), bytes);
    match Chain::read(scratch) {
        Ok(Some(chain)) => {
            let last = chain.requests.last().expect("there is one");
            assert!(chain.changed(&last.after).is_empty());
            assert!(Chain::parse(&chain.text()).is_ok());
            chain.check(scratch).is_ok() && !chain.images().is_empty()
        }
        _ => false,
    }
}

fn selection(scratch: &Path, bytes: &[u8]) -> bool {
    let shape = ImageShape {
        height: 1,
        width: 1,
        channels: 1,
    };
    let data = Dataset::from_pixels(shape, vec![1, 2, 3, 3, 4], vec![0, 1, 1, -2, i64::MAX]);
    let data = data.expect("lengths agree");
    let text = String::from_utf8_lossy(bytes);
    let of_text = Selection::parse(&text)
        .map_err(|_| ())
        .and_then(|selection| selection.resolve(&data).map_err(|_| ()));
    let list = scratch.join("list.txt");
    put(&list, bytes);
    let of_list = Selection::List(list).resolve(&data);
    for resolved in of_text.iter().chain(&of_list) {
        assert!(!resolved.rows.is_empty() && resolved.rows.len() < data.len());
        assert!(resolved.rows.is_sorted_by(|a, b| a < b));
    }
    of_text.is_ok() || of_list.is_ok()
}

/// As the whole tokenizer, of CLIP and of T5, as its vocabulary and as its merges.
fn tokenizer(scratch: &Path, bytes: &[u8]) -> bool {
    const VOCAB: &[u8] = br#"{"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4, "<|startoftext|>": 5, "<|endoftext|>": 6}"#;
    const MERGES: &[u8] = b"#version: 0.2\na b</w>\n";
    let [whole, vocab, merges] = ["whole", "vocab", "merges"].map(|name| scratch.join(name));
    put(&whole.join("tokenizer.json"), bytes);
    put(&vocab.join("vocab.json"), bytes);
    keep(&vocab.join("merges.txt"), MERGES);
    keep(&merges.join("vocab.json"), VOCAB);
    put(&merges.join("merges.txt"), bytes);
    let t5 = T5Tokenizer::read(&Part::at(&whole).expect("a folder"));
    let t5 = t5.is_ok_and(|tokenizer| tokenizer.encode("ab a, B! \u{1f600}", 5).is_ok());
    let accepted = [whole, vocab, merges].map(|folder| {
        let part = Part::at(&folder).expect("a folder");
        let read = ClipTokenizer::read(&part, 77);
        read.is_ok_and(|tokenizer| tokenizer.encode("ab a, B! \u{1f600}").is_ok())
    });
    t5 || accepted.contains(&true)
}

/// As captions, named and found, as lines of captions, as labels of clusters and as prompts.
fn captions_and_labels(scratch: &Path, bytes: &[u8]) -> bool {
    const BMP: &[u8] = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\x03\0";
    let published = scratch.join("published");
    for name in ["0.bmp", "1.bmp"] {
        keep(&published.join("images").join(name), BMP);
    }
    put(&published.join("original_prompts.json"), bytes);
    put(&published.join("modified_prompts.json"), bytes);
    put(&published.join("kmeans_labels.json"), bytes);
    let options = OpenOptions {
        channels: Some(3),
        memory_budget: 1 << 20,
        ..OpenOptions::default()
    };
    let labelled = Dataset::open(&published, &options).is_ok();
    let prompts = original_prompt(&published).is_ok_and(|prompt| prompt.is_some());
    let _ = modified_prompts(&published);
    let images = published.join("images");
    let data = Dataset::open(&images, &options).expect("two images");
    let captioned = ["x.json", "x.jsonl", "x.csv", "x.txt", "x.parquet"].map(|name| {
        let path = scratch.join(name);
        put(&path, bytes);
        captions(&data, path.to_str().expect("a scratch path")).is_ok()
    });
    let found = ["metadata.jsonl", "metadata.csv", "metadata.parquet"].map(|name| {
        let path = images.join(name);
        put(&path, bytes);
        let own = own_captions(&data);
        fs::remove_file(&path).expect("it was written");
        own.is_ok_and(|own| own.is_some())
    });
    labelled || prompts || captioned.contains(&true) || found.contains(&true)
}

/// Weights of a pipeline that the seed files adapt.
const ADAPTED: [(Component, &str, [usize; 2]); 5] = [
    (
        Component::Network,
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight",
        [16, 16],
    ),
    (
        Component::Network,
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
        [8, 8],
    ),
    // Which an SDXL has.
    (
        Component::Network,
        "add_embedding.linear_1.weight",
        [32, 58],
    ),
    (
        Component::TextEncoder,
        "text_model.encoder.layers.0.mlp.fc1.weight",
        [24, 16],
    ),
    (Component::TextEncoder2, "text_projection.weight", [10, 12]),
];

fn adapter(scratch: &Path, bytes: &[u8]) -> bool {
    let path = scratch.join("x.safetensors");
    put(&path, bytes);
    let Ok(file) = AdapterFile::open(&path) else {
        return false;
    };
    let networks = Component::ALL.map(|component| {
        let own = ADAPTED.iter().filter(|(of, _, _)| *of == component);
        let parameters = own.map(|(_, name, shape)| ((*name).to_owned(), shape.to_vec()));
        Layers::new(component, parameters)
    });
    // Of another model or not.
    let _ = file.resolve(scratch, &networks);
    true
}

/// PEFT's settings, beside an adapter of one layer.
fn adapter_config(scratch: &Path, bytes: &[u8]) -> bool {
    const FACTORS: [(&str, &str); 2] = [("lora_A", "[2,1]"), ("lora_B", "[1,2]")];
    let tensors = FACTORS.iter().enumerate().map(|(place, (factor, shape))| {
        let (start, end) = (8 * place, 8 * place + 8);
        format!(
            r#""base_model.model.a.to_q.{factor}.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#
        )
    });
    let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    let length = (header.len() as u64).to_le_bytes();
    let path = scratch.join("adapter_model.safetensors");
    keep(&path, &[&length, header.as_bytes(), &[0; 16]].concat());
    put(&scratch.join("adapter_config.json"), bytes);
    AdapterFile::open(&path).is_ok()
}

fn onnx(scratch: &Path, bytes: &[u8]) -> bool {
    let path = scratch.join("x.onnx");
    put(&path, bytes);
    Sscd::open(&path).is_ok()
}
