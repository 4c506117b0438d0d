//! The command line as it is typed.
//!
//! `--help` shows the options that are required or have no heading: the common ones. Those under a heading of
//! [`heading`] are for `--help-all`, which shows everything.

mod bench;
mod choice;
mod command;
mod data;
mod measure;
mod strengths;
mod unlearn;

use std::path::PathBuf;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand};
use retrack_study::names::{DtypeName, SamplerName};
use retrack_study::sample::Sample;
use retrack_study::tensors::{Gradient, Predict};
use retrack_unlearn::objective::Method;

pub use self::bench::BenchCommand;
use self::choice::one_of;
pub use self::command::{command, parse};
pub use self::data::{DataArgs, ReadingArgs};
pub use self::measure::{EvaluateArgs, ExperimentArgs, VerifyArgs};
pub use self::strengths::StrengthArgs;
pub use self::unlearn::UnlearnArgs;

/// What options are about that `--help` leaves to `--help-all`.
pub mod heading {
    pub const DATA: &str = "Data";
    pub const TEXT_TO_IMAGE: &str = "Text-to-image models";
    pub const METHOD: &str = "Method";
    pub const TRAINING: &str = "Training";
    pub const SAMPLING: &str = "Sampling";
    pub const MEASURING: &str = "Measuring";
    pub const OUTPUT: &str = "Output";
    pub const MACHINE: &str = "Machine";
}

/// Behind a command's own options.
const LAST: usize = 1000;

const SEL: &str = "What to forget: an image file, row:5, rows:10-19, label:10 or @list.txt";
const SEL_LONG: &str = "What to forget: an image file, row:5, rows:10-19, label:10 (or cluster:1, or label:dog) \
                        or @list.txt (rows count from 0 in the source's order; a folder's is by name). May be repeated";

/// Make a trained diffusion model forget chosen training images.
#[derive(Debug, Parser)]
#[command(name = "retrack", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// Print the common options
    #[arg(short, long, global = true, action = ArgAction::HelpShort, display_order = LAST)]
    help: Option<bool>,
    /// Print all options
    #[arg(long, global = true, action = ArgAction::HelpLong, display_order = LAST)]
    help_all: Option<bool>,
}

/// How much is said on the way, by any command.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct VolumeArgs {
    /// Say nothing on the way but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = LAST)]
    pub quiet: bool,
    /// Say more: what is read and written, settings, times
    #[arg(short, long, global = true, display_order = LAST)]
    pub verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  retrack demo
  retrack unlearn --model ddpm --data photos --forget photos/me.png --out forgotten
  retrack neighbors --data photos --forget photos/me.png --out neighbors.png
  retrack sample --model forgotten --count 64 --out samples.png

Exit codes: 0 done, 1 failed, 2 bad input or usage, 3 still found (--fail-if-found), 130 or 143 interrupted.";

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
    /// Print the requests that made a model, and check them
    History(HistoryArgs),
    /// Say what a model folder or a data set holds
    Inspect(InspectArgs),
    /// Run a model's network on tensors from a file
    Predict(PredictArgs),
    /// Compute a method's loss and gradient on a batch from a file
    Gradient(GradientArgs),
    /// Time this machine's work: one JSON line a call
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a script with which a shell completes commands and options
    Completions(CompletionsArgs),
}

/// Where and with how much to compute.
#[derive(Debug, Clone, ClapArgs)]
pub struct MachineArgs {
    /// cpu, or cuda, vulkan, metal with an optional :NUMBER where built in
    #[arg(long, default_value = "cpu", value_name = "D", help_heading = heading::MACHINE)]
    pub device: String,
    /// Threads on the CPU [default: all cores]
    #[arg(long, value_name = "T", help_heading = heading::MACHINE)]
    pub threads: Option<usize>,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct DemoArgs {
    /// Where everything goes
    #[arg(long, default_value = "retrack-demo", value_name = "DIR")]
    pub out: PathBuf,
    /// Replace the files of an earlier demo there; other files stay
    #[arg(long)]
    pub force: bool,
    /// Samples from each model
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub count: usize,
    /// Exit with 3 where the T-shirt is still found
    #[arg(long)]
    pub fail_if_found: bool,
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
Networks for --arch, in millions of parameters:
  small                1.8  learns small pictures on a CPU in minutes
  mnist               14.7  the published MNIST and T-shirt experiment's
  ddpm-cifar10-32     35.7  the shape of google/ddpm-cifar10-32
  ddpm-celebahq-256  113.7  the shape of google/ddpm-ema-celebahq-256

Samples and the loss on the way: OUT/run/samples-*.png, loss.svg, TensorBoard.

Examples:
  retrack train --data photos --arch small --out my-model \\
      --steps 2000 --batch-size 32 --lr 5e-4 --warmup 100
  retrack train --data digits.parquet --arch config.json --out my-model")]
pub struct TrainArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// The network: a name below, or a UNet2DModel's config.json (docs/train.md). Image size and channels follow the data
    /// where it does not say them
    #[arg(long, value_name = "NETWORK")]
    pub arch: PathBuf,
    /// Where the model folder goes
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Images to leave out, written as for `unlearn --forget`; exact copies leave too. May be repeated
    #[arg(long, value_name = "SEL", help_heading = heading::DATA)]
    pub exclude: Vec<String>,
    /// Training steps
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub steps: usize,
    /// Images in a micro-batch
    #[arg(long, default_value_t = 128, value_name = "B")]
    pub batch_size: usize,
    /// Micro-batches in a step
    #[arg(long, default_value_t = 1, value_name = "A", help_heading = heading::TRAINING)]
    pub accumulate: usize,
    /// Highest learning rate: reached after the warm-up, then half a cosine down to 0
    #[arg(long, default_value_t = 1e-4, value_name = "F")]
    pub lr: f64,
    /// Steps over which the learning rate rises [default: a tenth of --steps, at most 500]
    #[arg(long, value_name = "N", help_heading = heading::TRAINING)]
    pub warmup: Option<usize>,
    /// Decides all random numbers
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 500, value_name = "N", help_heading = heading::TRAINING)]
    pub checkpoint_every: usize,
    /// Continue the interrupted run in --out, or the finished one with a larger --steps
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace what retrack wrote in --out; other files stay
    #[arg(long)]
    pub force: bool,
    /// Say what would be done and what it needs, and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Example:
  retrack neighbors --data digits.parquet --forget label:10 --out neighbors.png")]
pub struct NeighborsArgs {
    #[command(flatten)]
    pub data: DataArgs,
    #[arg(long, value_name = "SEL", help = SEL, long_help = SEL_LONG, required = true)]
    pub forget: Vec<String>,
    /// How many of each forgotten image
    #[arg(long, default_value_t = 10, value_name = "K")]
    pub neighbors: usize,
    /// A picture: a row for each forgotten image (shown first) and its neighbors
    #[arg(long, value_name = "GRID.png")]
    pub out: Option<PathBuf>,
    /// Replace the picture if it is there
    #[arg(long, requires = "out")]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Threads on the CPU [default: all cores]
    #[arg(long, value_name = "T", help_heading = heading::MACHINE)]
    pub threads: Option<usize>,
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
    /// Denoising steps [default: 50, or as many as the model's schedule has]
    #[arg(long, value_name = "S")]
    pub steps: Option<usize>,
    /// How to denoise [default: the model's own scheduler]
    #[arg(long, value_parser = one_of::<SamplerName>())]
    pub scheduler: Option<SamplerName>,
    /// Decides all random numbers
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Images computed together [default: 64, text-to-image 1]
    #[arg(long, value_name = "B", help_heading = heading::SAMPLING)]
    pub batch_size: Option<usize>,
    /// Class of every image, for a model with classes
    #[arg(long, value_name = "C")]
    pub class: Option<i64>,
    /// What to draw, for a text-to-image model
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// What to keep away from
    #[arg(long, value_name = "TEXT", requires = "prompt", help_heading = heading::TEXT_TO_IMAGE)]
    pub negative_prompt: Option<String>,
    /// How far to go from the negative prompt towards the prompt; 1 ignores the negative one [default: 7.5]
    #[arg(long, value_name = "F", requires = "prompt", help_heading = heading::TEXT_TO_IMAGE)]
    pub guidance: Option<f64>,
    /// A grid where it ends in .png, else a folder of single images
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Replace the grid, or the samples that retrack wrote into the folder
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
The new folder computes what diffusers computes after load_lora_weights(FILE), up to the rounding of the merged weights to their \
element type: where that has 16 bits, it can take most of a small adapter away, which is counted; --dtype f32 keeps all \
of it. Only the weights of the UNet and of the text encoders change, as far as the adapter has layers of them.

Read are files of diffusers, present and past; of PEFT (adapter_model.safetensors with adapter_config.json beside it), with DoRA; \
and of kohya's sd-scripts and what writes like them (lora_unet_..., lora_te_...), for Stable Diffusion and SDXL.

Examples:
  retrack merge --model sdxl --adapter style.safetensors --out merged
  retrack merge --model stable-diffusion-v1-4 --adapter forgotten/pytorch_lora_weights.safetensors --out merged")]
pub struct MergeArgs {
    /// The model folder that the adapter belongs to
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The adapter, of diffusers, PEFT or kohya: the file, or its folder [default: pytorch_lora_weights.safetensors in
    /// --model]
    #[arg(long, value_name = "PATH")]
    pub adapter: Option<PathBuf>,
    /// Where the new model folder goes
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace what retrack wrote in --out; other files stay
    #[arg(long)]
    pub force: bool,
    /// Element type of the UNet's written weights, and of a text encoder's that change: f32 keeps what 16 bits would round
    /// away [default: the model's own]
    #[arg(long, value_name = "T", value_parser = one_of::<DtypeName>())]
    pub dtype: Option<DtypeName>,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Exit codes: 0 every request began with the weights that the one before wrote, and the weights are those of the last one; 1 not \
so; 2 no record.

Example:
  retrack history forgotten")]
pub struct HistoryArgs {
    /// A model folder that `retrack unlearn` wrote
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct InspectArgs {
    /// A model folder or a data set
    pub path: PathBuf,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Input keys: sample [N, C, H, W] f32, timestep [N] i64, class_labels [N] i64 where the network has classes, \
encoder_hidden_states [N or 1, T, D] f32 where it takes texts.
Output key: prediction [N, C, H, W] f32.")]
#[command(
    override_usage = "retrack predict [OPTIONS] --model <DIR> --input <IN.safetensors>
       --output <OUT.safetensors>"
)]
pub struct PredictArgs {
    /// The model: a diffusers pipeline or UNet folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Tensors: what the network takes; keys below
    #[arg(long, value_name = "IN.safetensors")]
    pub input: PathBuf,
    /// Where its output goes
    #[arg(long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Input keys, each read by the methods that need it: retain, forget [N, C, H, W] f32, neighbors [N, K, C, H, W], \
retain_noise, forget_noise, uniform [N, C, H, W], retain_timestep, forget_timestep, mixture_mask [N] (siss: 1 where \
the slot holds the retained image), retain_labels, forget_labels [N] i64. A network that takes texts: \
encoder_hidden_states [N or 1, T, D], or retain_encoder_hidden_states and forget_encoder_hidden_states.
Output: loss, and a gradient for each parameter under its checkpoint name, before clipping.")]
#[command(
    override_usage = "retrack gradient [OPTIONS] --model <DIR> --method <M>
       --input <BATCH.safetensors> --output <GRADS.safetensors>"
)]
pub struct GradientArgs {
    /// The model: a diffusers pipeline or UNet folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The method whose loss and gradient are computed
    #[arg(long, value_name = "M", value_parser = one_of::<Method>())]
    pub method: Method,
    /// Tensors: a batch; keys below
    #[arg(long, value_name = "BATCH.safetensors")]
    pub input: PathBuf,
    /// Where loss and gradients go
    #[arg(long, value_name = "GRADS.safetensors")]
    pub output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub strengths: StrengthArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = "\
Examples:
  retrack completions bash > ~/.local/share/bash-completion/completions/retrack
  retrack completions zsh > \"${fpath[1]}/_retrack\"
  retrack completions fish > ~/.config/fish/completions/retrack.fish")]
pub struct CompletionsArgs {
    /// Whose script
    pub shell: clap_complete::Shell,
}

impl SampleArgs {
    /// What the command is to do.
    pub fn sample(&self) -> Sample {
        let args = self.clone();
        Sample {
            model: args.model,
            count: args.count,
            steps: args.steps,
            scheduler: args.scheduler,
            seed: args.seed,
            batch_size: args.batch_size,
            class: args.class,
            prompt: args.prompt,
            negative_prompt: args.negative_prompt,
            guidance: args.guidance,
            out: args.out,
            force: args.force,
            device: args.machine.device,
        }
    }
}

impl PredictArgs {
    /// What the command is to do.
    pub fn predict(&self) -> Predict {
        let args = self.clone();
        Predict {
            model: args.model,
            input: args.input,
            output: args.output,
            force: args.force,
            device: args.machine.device,
        }
    }
}

impl GradientArgs {
    /// What the command is to do.
    pub fn gradient(&self) -> Gradient {
        let args = self.clone();
        Gradient {
            model: args.model,
            method: args.method,
            strengths: args.strengths.iter().collect(),
            input: args.input,
            output: args.output,
            force: args.force,
            device: args.machine.device,
        }
    }
}
