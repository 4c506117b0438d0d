//! The command line as it is typed.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use retrack_unlearn::neighbors::Neighbors;
use serde::{Deserialize, Serialize};

const SRC: &str = "Images: a folder, a Parquet file or folder (Hugging Face image column), \
                   an IDX pair (*-images-idx3-ubyte[.gz]) or CIFAR-10 binary batches";
const SEL: &str = "What to forget: an image file, row:5, rows:10-19, label:10 (or cluster:1) or @list.txt \
                   (rows count from 0 in the source's order; a folder's is by name)";

/// Make a trained diffusion model forget chosen training images.
#[derive(Debug, Parser)]
#[command(name = "retrack", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  retrack demo
  retrack unlearn --model ddpm --data photos --forget photos/me.png --out forgotten
  retrack neighbors --data photos --forget photos/me.png --out neighbors.png
  retrack sample --model forgotten --count 64 --out samples.png

Exit codes: 0 done, 1 failed, 2 bad input or usage.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Forget a T-shirt: the whole story on the shipped model and data, in minutes
    Demo(DemoArgs),
    /// Train a DDPM from scratch
    Train(TrainArgs),
    /// Make a model forget images
    Unlearn(UnlearnArgs),
    /// Show the nearest retained neighbors of what is to be forgotten
    Neighbors(NeighborsArgs),
    /// Fold a low-rank adapter into a model's weights
    Merge(MergeArgs),
    /// Draw images from a model
    Sample(SampleArgs),
    /// Measure what a model still knows of the forgotten images, and how good its others are
    Evaluate(EvaluateArgs),
    /// Compare methods: unlearn and evaluate with several seeds, and print one table
    Experiment(ExperimentArgs),
    /// Check an unlearning run: compute its digests and scores again, and list what differs
    Verify(VerifyArgs),
    /// Say what a model folder or a data set holds
    Inspect(InspectArgs),
    /// Run a model's network on tensors from a file
    Predict(PredictArgs),
    /// Compute a method's loss and gradient on a batch from a file
    Gradient(GradientArgs),
    /// Time this machine's work: one JSON line a call
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Where and with how much to compute.
#[derive(Debug, Clone, ClapArgs)]
pub struct MachineArgs {
    /// cpu, or cuda, vulkan, metal with an optional :NUMBER where built in
    #[arg(long, default_value = "cpu", value_name = "D")]
    pub device: String,
    /// Threads on the CPU [default: all cores]
    #[arg(long, value_name = "T")]
    pub threads: Option<usize>,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct DemoArgs {
    /// Where everything goes
    #[arg(long, default_value = "retrack-demo", value_name = "DIR")]
    pub out: PathBuf,
    /// Replace an earlier demo there
    #[arg(long)]
    pub force: bool,
    /// Samples from each model
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub count: usize,
    /// Decides all random numbers
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Example:
  retrack train --data digits.parquet --arch config.json --steps 8000 --out my-model")]
pub struct TrainArgs {
    #[arg(long, value_name = "SRC", help = SRC)]
    pub data: PathBuf,
    /// The network: a UNet2DModel's config.json
    #[arg(long, value_name = "CONFIG.json")]
    pub arch: PathBuf,
    /// Where the model folder goes
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Images to leave out, written as for `unlearn --forget`; exact copies leave too
    #[arg(long, value_name = "SEL")]
    pub exclude: Option<String>,
    /// Training steps
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub steps: usize,
    /// Images in a micro-batch
    #[arg(long, default_value_t = 128, value_name = "B")]
    pub batch_size: usize,
    /// Micro-batches in a step
    #[arg(long, default_value_t = 1, value_name = "A")]
    pub accumulate: usize,
    /// Highest learning rate: reached after the warm-up, then half a cosine down to 0
    #[arg(long, default_value_t = 1e-4, value_name = "F")]
    pub lr: f64,
    /// Steps over which the learning rate rises
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub warmup: usize,
    /// Decides all random numbers
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub checkpoint_every: usize,
    /// Continue the interrupted run in --out
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace what lies in --out
    #[arg(long)]
    pub force: bool,
    /// Say what would be done and what it needs, and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// What of a denoiser is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrainedPart {
    All,
    /// Low-rank adapters of the attention layers.
    Lora,
}

/// The methods, as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodName {
    /// Lead the image's trajectory to its retained neighbors (arXiv 2509.13007)
    Retrack,
    /// Train on the retained images alone
    Finetune,
    /// Ascend the forgotten images' loss
    Neggrad,
    /// Push the forgotten images towards uniform noise (arXiv 2401.05779)
    Erasediff,
    /// Subtracted importance-sampled scores (ICLR 2025)
    Siss,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Examples:
  retrack unlearn --model ddpm-cifar10-32 --data cifar-10-batches-bin --forget row:10000 --out forgotten
  retrack unlearn --model my-model --data digits.parquet --forget label:10 --out forgotten --steps 30
  retrack unlearn --model stable-diffusion --data astronaut --prompt \"an astronaut on a horse\" --out forgotten
  retrack unlearn ... --dry-run    what would happen, without doing it

Without --preset the published settings for images of this size are taken. The written folder loads in
diffusers like the one given; run/report.html in it says what changed, and retrack verify checks that."
)]
pub struct UnlearnArgs {
    /// The model: a diffusers pipeline or UNet2DModel folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[arg(long, value_name = "SRC", help = SRC)]
    pub data: PathBuf,
    // Empty where it was not given: data in the published layout says itself what was memorized.
    #[arg(long, value_name = "SEL", help = SEL, default_value = "", hide_default_value = true)]
    pub forget: String,
    /// Where the new model folder goes
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Text-to-image: the prompt of all images that have none of their own
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Text-to-image: the prompt of the images to forget
    #[arg(long, value_name = "TEXT")]
    pub forget_prompt: Option<String>,
    /// Text-to-image: the prompt of the images to keep
    #[arg(long, value_name = "TEXT")]
    pub retain_prompt: Option<String>,
    /// Text-to-image: a prompt for each image, from a JSON or JSON Lines file or a Parquet column
    #[arg(long, value_name = "FILE|COLUMN")]
    pub captions: Option<String>,
    /// Text-to-image: what is trained. `lora` leaves the model as it is and writes pytorch_lora_weights.safetensors
    /// beside it, for diffusers' load_lora_weights or `retrack merge`; a usual --lr for it is 1e-4 [default: all]
    #[arg(long, value_name = "PART")]
    pub train: Option<TrainedPart>,
    /// Rank of the adapters of `--train lora` [default: 4]
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
    /// How to forget [default: retrack]
    #[arg(long, value_name = "M")]
    pub method: Option<MethodName>,
    /// Nearest retained images that take the forgotten one's place, or all: every retained one, weighed at each step
    #[arg(long, value_name = "K|all")]
    pub neighbors: Option<Neighbors>,
    /// Weight of forgetting against keeping, 0 to 1 (retrack, siss)
    #[arg(long, value_name = "L")]
    pub lambda: Option<f64>,
    /// Length of the subtracted gradient (siss)
    #[arg(long, value_name = "R")]
    pub rescale: Option<f64>,
    /// How strongly the forgetting gradient is kept (erasediff)
    #[arg(long, value_name = "E")]
    pub eta: Option<f64>,
    /// Fine-tuning steps
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Images of each stream in a micro-batch
    #[arg(long, value_name = "B")]
    pub batch_size: Option<usize>,
    /// Micro-batches in a step
    #[arg(long, value_name = "A")]
    pub accumulate: Option<usize>,
    /// Learning rate
    #[arg(long, value_name = "F")]
    pub lr: Option<f64>,
    /// Decides all random numbers [default: 0]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Published settings: mnist-tshirt, cifar10, celeba-hq or stable-diffusion [default: by kind of model and image
    /// size]
    #[arg(long, value_name = "P")]
    pub preset: Option<String>,
    /// A TOML file like the presets, whose values replace theirs
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Steps between checkpoints [default: none]
    #[arg(long, value_name = "N")]
    pub checkpoint_every: Option<usize>,
    /// Continue the interrupted run in --out
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace what lies in --out
    #[arg(long)]
    pub force: bool,
    /// Let the report show the forgotten images, their neighbors and what restores them: not for every reader's eyes
    #[arg(long)]
    pub show_forgotten: bool,
    /// Make no report: nothing is looked at before and after (about a tenth of the time), and nothing can be verified
    #[arg(long, conflicts_with = "show_forgotten")]
    pub no_report: bool,
    /// Say what would be done and what it needs, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

impl UnlearnArgs {
    /// Rank of the adapters that are trained; `None` where the whole network is.
    pub fn adapter_rank(&self) -> Result<Option<usize>, &'static str> {
        match (self.train, self.rank) {
            (_, Some(0)) => Err("--rank is 0; give at least 1"),
            (Some(TrainedPart::Lora), rank) => Ok(Some(rank.unwrap_or(4))),
            (_, Some(_)) => Err("--rank is that of adapters; give --train lora with it"),
            (_, None) => Ok(None),
        }
    }

    /// The command with its required options alone.
    pub fn plain(
        model: &Path,
        data: &Path,
        forget: &str,
        out: &Path,
        machine: &MachineArgs,
    ) -> Self {
        Self {
            model: model.into(),
            data: data.into(),
            forget: forget.into(),
            out: out.into(),
            prompt: None,
            forget_prompt: None,
            retain_prompt: None,
            captions: None,
            train: None,
            rank: None,
            method: None,
            neighbors: None,
            lambda: None,
            rescale: None,
            eta: None,
            steps: None,
            batch_size: None,
            accumulate: None,
            lr: None,
            seed: None,
            preset: None,
            config: None,
            checkpoint_every: None,
            resume: false,
            force: false,
            show_forgotten: false,
            no_report: false,
            dry_run: false,
            json: false,
            machine: machine.clone(),
        }
    }
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Example:
  retrack neighbors --data digits.parquet --forget label:10 --out neighbors.png")]
pub struct NeighborsArgs {
    #[arg(long, value_name = "SRC", help = SRC)]
    pub data: PathBuf,
    #[arg(long, value_name = "SEL", help = SEL)]
    pub forget: String,
    #[arg(long, default_value_t = 10, value_name = "K")]
    pub neighbors: usize,
    /// A picture: a row for each forgotten image (shown first) and its neighbors
    #[arg(long, value_name = "GRID.png")]
    pub out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Threads on the CPU [default: all cores]
    #[arg(long, value_name = "T")]
    pub threads: Option<usize>,
}

/// The metrics, as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Share of samples nearer to a forgotten image than --threshold
    Frequency,
    /// How often a forgotten image comes back from noise at timestep 250 (nearer than --threshold)
    Injection,
    /// How similar to the forgotten image is what comes back from that noise, or for its prompt, by SSCD (--sscd)
    Sscd,
    /// Bits per dimension of the forgotten images
    Nll,
    /// Denoising loss of the forgotten images against images never seen (--controls)
    Membership,
    /// How near samples are to training images
    Copies,
    /// Quality of digits by this project's own classifier (28 x 28 gray)
    Digits,
    /// Frechet Inception distance to the retained images (--inception)
    Fid,
    /// Inception score (--inception)
    Is,
    /// Text-to-image: samples nearer to the mean of the forgotten images than to that of the others
    Cluster,
    /// Text-to-image: how good samples look, from 0 to 1 (--clip)
    #[value(name = "clip-iqa")]
    #[serde(rename = "clip-iqa")]
    ClipIqa,
}

/// What is measured, and how.
#[derive(Debug, Clone, ClapArgs)]
pub struct ProtocolArgs {
    /// Samples drawn from each model, of each prompt [default: 256, text-to-image 16; `experiment`: the preset's]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// A sample nearer to a forgotten image than this counts as it: Euclidean distance over pixels in [0, 1]
    #[arg(long, value_name = "F")]
    pub threshold: Option<f64>,
    /// Inception's weights: pt_inception-2015-12-05-6726825d.pth [default: found in PyTorch's cache]
    #[arg(long, value_name = "FILE")]
    pub inception: Option<PathBuf>,
    /// SSCD's network as ONNX, converted from sscd_disc_mixup.torchscript.pt
    #[arg(long, value_name = "FILE")]
    pub sscd: Option<PathBuf>,
    /// CLIP's folder: such as openai/clip-vit-base-patch16
    #[arg(long, value_name = "DIR")]
    pub clip: Option<PathBuf>,
    /// Images like the training images that the model never saw
    #[arg(long, value_name = "SRC")]
    pub controls: Option<PathBuf>,
}

/// What a text-to-image model is to draw, and how.
#[derive(Debug, Clone, ClapArgs)]
pub struct PromptArgs {
    /// Text-to-image: the prompt of the images to forget
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Text-to-image: a prompt that the model is to draw as before; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub modified_prompt: Vec<String>,
    /// Text-to-image: how far to go towards the prompt [default: 7.5]
    #[arg(long, value_name = "F")]
    pub guidance: Option<f64>,
}

impl PromptArgs {
    /// The first option that was typed, for models that take no text.
    pub fn typed(&self) -> Option<&'static str> {
        [
            ("--prompt", self.prompt.is_some()),
            ("--modified-prompt", !self.modified_prompt.is_empty()),
            ("--guidance", self.guidance.is_some()),
        ]
        .into_iter()
        .find_map(|(option, typed)| typed.then_some(option))
    }
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Examples:
  retrack evaluate --model forgotten --baseline ddpm --data photos --forget photos/me.png --threshold 20 --out report
  retrack evaluate --model forgotten --data digits.parquet --forget label:10 --metrics digits,nll --out report

A metric that lacks a file is skipped, and the sentence says which file to give.

Of a text-to-image model, 16 samples of the forgotten prompt and of each other one (DDPM) are counted that lie nearer to
the mean of the forgotten images than to that of the others; forgetting succeeded where there are none.")]
pub struct EvaluateArgs {
    /// The model: a diffusers pipeline or UNet2DModel folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The model before unlearning, measured beside it with the same seeds
    #[arg(long, value_name = "DIR")]
    pub baseline: Option<PathBuf>,
    #[arg(long, value_name = "SRC", help = SRC)]
    pub data: PathBuf,
    // Empty where it was not given: data in the published layout says itself what was memorized.
    #[arg(long, value_name = "SEL", help = SEL, default_value = "", hide_default_value = true)]
    pub forget: String,
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// What to measure [default: frequency,injection,copies; text-to-image: cluster,sscd,clip-iqa]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub metrics: Option<Vec<Metric>>,
    #[command(flatten)]
    pub protocol: ProtocolArgs,
    /// Denoising steps of a sample
    #[arg(long, default_value_t = 50, value_name = "S")]
    pub steps: usize,
    /// How to denoise [default: the model's own scheduler; text-to-image: ddpm]
    #[arg(long)]
    pub scheduler: Option<SamplerName>,
    /// Decides all random numbers
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Where report.html, report.json, metrics.json and the samples go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Let pictures show samples that may be a forgotten image; they are covered otherwise
    #[arg(long)]
    pub show_forgotten: bool,
    /// Replace an earlier evaluation there
    #[arg(long)]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Example:
  retrack experiment mnist-tshirt --model base --data digits.parquet --seeds 0-2 --out comparison

Runs that --out already holds are kept: an experiment that was stopped goes on when it is started again, and more
methods and seeds may be added. A metric that lacks a file is skipped, and the sentence says which file to give.

A text-to-image model is trained with --prompt on all images, kept ones too, that --captions gives no prompt.")]
pub struct ExperimentArgs {
    /// Published settings: mnist-tshirt, cifar10, celeba-hq, stable-diffusion, or demo
    #[arg(value_name = "PRESET")]
    pub preset: String,
    /// The model: a diffusers pipeline or UNet2DModel folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[arg(long, value_name = "SRC", help = SRC)]
    pub data: PathBuf,
    /// What to forget instead of the preset's images; may be repeated, one run each
    #[arg(long, value_name = "SEL")]
    pub forget: Vec<String>,
    /// Methods to compare
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "retrack,finetune,neggrad,erasediff,siss"
    )]
    pub methods: Vec<MethodName>,
    /// Seeds, such as 0,1,2 or 0-9 [default: the preset's]
    #[arg(long, value_name = "LIST")]
    pub seeds: Option<String>,
    /// What to measure [default: the preset's]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub metrics: Option<Vec<Metric>>,
    #[command(flatten)]
    pub protocol: ProtocolArgs,
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// Text-to-image: a prompt for each image, from a JSON or JSON Lines file or a Parquet column
    #[arg(long, value_name = "FILE|COLUMN")]
    pub captions: Option<String>,
    /// A model trained from scratch without the forgotten images, measured as a reference
    #[arg(long, value_name = "DIR")]
    pub retrained: Option<PathBuf>,
    /// A TOML file like the presets, whose values replace theirs
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where models, results, the table and the report go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Say which runs there would be and what they need, and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// The samplers, as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerName {
    Ddpm,
    Ddim,
    Pndm,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Examples:
  retrack sample --model my-model --count 64 --out samples.png
  retrack sample --model my-model --count 2000 --steps 50 --out samples/    one PNG each
  retrack sample --model stable-diffusion --prompt \"a cat on the beach\" --count 4 --out cats.png")]
pub struct SampleArgs {
    /// The model: a diffusers pipeline or UNet2DModel folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// How many images
    #[arg(long, value_name = "N")]
    pub count: usize,
    /// Denoising steps
    #[arg(long, default_value_t = 50, value_name = "S")]
    pub steps: usize,
    /// How to denoise [default: the model's own scheduler]
    #[arg(long)]
    pub scheduler: Option<SamplerName>,
    /// Decides all random numbers
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Images computed together [default: 64, text-to-image 1]
    #[arg(long, value_name = "B")]
    pub batch_size: Option<usize>,
    /// Class of every image, for a model with classes
    #[arg(long, value_name = "C")]
    pub class: Option<i64>,
    /// What to draw, for a text-to-image model
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// What to keep away from
    #[arg(long, value_name = "TEXT", requires = "prompt")]
    pub negative_prompt: Option<String>,
    /// How far to go from the negative prompt towards the prompt; 1 ignores the negative one [default: 7.5]
    #[arg(long, value_name = "F", requires = "prompt")]
    pub guidance: Option<f64>,
    /// A grid where it ends in .png, else a folder of single images
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
The new folder computes what diffusers computes after load_lora_weights(FILE). Only the UNet's weights change.

Example:
  retrack merge --model stable-diffusion-v1-4 --adapter forgotten/pytorch_lora_weights.safetensors --out merged")]
pub struct MergeArgs {
    /// The model folder that the adapter belongs to
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The adapter, as diffusers' save_lora_weights writes it [default: pytorch_lora_weights.safetensors in --model]
    #[arg(long, value_name = "FILE")]
    pub adapter: Option<PathBuf>,
    /// Where the new model folder goes
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace the model folder in --out
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Examples:
  retrack verify forgotten
  retrack verify forgotten --model /elsewhere/ddpm-cifar10-32 --data /elsewhere/cifar-10-batches-bin

Compared are the SHA-256 of the base model's weights, of every file of the written model (but its README.md) and of the
run's record, the data set's digest, the keyed digests of the forgotten images where run/digest-key is there, the page
with its report.json, the version of retrack, and the scores of the report, measured again with the recorded seeds.
Prints `same` and exits with 0, or lists what differs and exits with 1.")]
pub struct VerifyArgs {
    /// The --out folder of an unlearning run
    #[arg(value_name = "RUN_DIR")]
    pub run: PathBuf,
    /// Where the base model is now, if it moved
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Where the data set is now, if it moved
    #[arg(long, value_name = "SRC")]
    pub data: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct InspectArgs {
    /// A model folder or a data set
    pub path: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Input keys: sample [N, C, H, W] f32, timestep [N] i64, class_labels [N] i64 where the network has classes,
encoder_hidden_states [N or 1, T, D] f32 where it takes texts.
Output key: prediction [N, C, H, W] f32.")]
pub struct PredictArgs {
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[arg(long, value_name = "IN.safetensors")]
    pub input: PathBuf,
    #[arg(long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Input keys, each read by the methods that need it: retain, forget [N, C, H, W] f32, neighbors [N, K, C, H, W],
retain_noise, forget_noise, uniform [N, C, H, W], retain_timestep, forget_timestep, mixture_mask [N] (siss: 1 where
the slot holds the retained image), retain_labels, forget_labels [N] i64. A network that takes texts:
encoder_hidden_states [N or 1, T, D], or retain_encoder_hidden_states and forget_encoder_hidden_states.
Output: loss, and a gradient for each parameter under its checkpoint name, before clipping.")]
pub struct GradientArgs {
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[arg(long, value_name = "M")]
    pub method: MethodName,
    #[arg(long, value_name = "BATCH.safetensors")]
    pub input: PathBuf,
    #[arg(long, value_name = "GRADS.safetensors")]
    pub output: PathBuf,
    /// Weight of forgetting against keeping (retrack, siss)
    #[arg(long, value_name = "L")]
    pub lambda: Option<f64>,
    /// Length of the subtracted gradient (siss)
    #[arg(long, value_name = "R")]
    pub rescale: Option<f64>,
    /// How strongly the forgetting gradient is kept (erasediff)
    #[arg(long, value_name = "E")]
    pub eta: Option<f64>,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  retrack bench step --arch config.json --batch-size 8 --threads 2
  retrack bench neighbors --rows 50000 --bytes 3072

Weights and pixels are random. One untimed run comes first; times are the best and the median of --repeat others.")]
pub enum BenchCommand {
    /// One ReTrack step: both forwards, backward, clipping, AdamW
    Step(BenchNetworkArgs),
    /// The network's output, without autodiff
    Predict(BenchNetworkArgs),
    /// Whole images by the DDPM sampler
    Sample(BenchSampleArgs),
    /// Nearest neighbors of random bytes in memory
    Neighbors(BenchNeighborsArgs),
}

#[derive(Debug, Clone, ClapArgs)]
pub struct BenchNetworkArgs {
    /// The network: a UNet2DModel's config.json
    #[arg(long, value_name = "CONFIG.json")]
    pub arch: PathBuf,
    /// Images computed together; in `step` of each stream, retained and forgotten
    #[arg(long, value_name = "B")]
    pub batch_size: usize,
    /// Timed runs
    #[arg(long, default_value_t = 5, value_name = "R")]
    pub repeat: usize,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct BenchSampleArgs {
    #[command(flatten)]
    pub network: BenchNetworkArgs,
    /// Denoising steps
    #[arg(long, default_value_t = 50, value_name = "S")]
    pub steps: usize,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct BenchNeighborsArgs {
    /// Images to search
    #[arg(long, value_name = "N")]
    pub rows: usize,
    /// Bytes of an image
    #[arg(long, value_name = "D")]
    pub bytes: usize,
    /// Images whose neighbors are looked for together
    #[arg(long, default_value_t = 1, value_name = "Q")]
    pub queries: usize,
    #[arg(long, default_value_t = 10, value_name = "K")]
    pub neighbors: usize,
    /// Timed runs
    #[arg(long, default_value_t = 5, value_name = "R")]
    pub repeat: usize,
    /// Threads on the CPU [default: all cores]
    #[arg(long, value_name = "T")]
    pub threads: Option<usize>,
}
