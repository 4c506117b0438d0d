//! `retrack evaluate`, `experiment` and `verify` as they are typed.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use retrack_eval::metric::Metric;
use retrack_study::evaluate::Evaluate;
use retrack_study::measuring::Measuring;
use retrack_study::names::{DtypeName, SamplerName};
use retrack_study::source::PromptOptions;
use retrack_study::verify::Verify;
use retrack_unlearn::objective::Method;

use super::strengths::all_methods;
use super::{DataArgs, MachineArgs, SEL, SEL_LONG, heading, one_of};
use crate::metric_words::parser;

/// What is measured, and how.
#[derive(Debug, Clone, ClapArgs)]
pub struct ProtocolArgs {
    /// Samples drawn from each model, of each prompt [default: 256, text-to-image 16; `experiment`: the preset's]
    #[arg(long, value_name = "N", help_heading = heading::MEASURING)]
    pub samples: Option<usize>,
    /// A picture nearer to a forgotten image than this counts as it: Euclidean distance over pixels in [0, 1]
    ///
    /// Without it: of each image, half its distance to the nearest retained one that is no copy; in `experiment` the
    /// preset's, where it has one.
    #[arg(long, value_name = "F")]
    pub threshold: Option<f64>,
    /// Inception's weights: pt_inception-2015-12-05-6726825d.pth [default: found in PyTorch's cache]
    #[arg(long, value_name = "FILE", help_heading = heading::MEASURING)]
    pub inception: Option<PathBuf>,
    /// SSCD's network as ONNX, converted from sscd_disc_mixup.torchscript.pt
    #[arg(long, value_name = "FILE", help_heading = heading::MEASURING)]
    pub sscd: Option<PathBuf>,
    /// CLIP's folder: such as openai/clip-vit-base-patch16
    #[arg(long, value_name = "DIR", help_heading = heading::MEASURING)]
    pub clip: Option<PathBuf>,
    /// Images like the training images that the model never saw
    #[arg(long, value_name = "SRC", help_heading = heading::MEASURING)]
    pub controls: Option<PathBuf>,
    /// Which split of --controls, where it has several
    #[arg(long, value_name = "NAME", requires = "controls", help_heading = heading::MEASURING)]
    pub controls_split: Option<String>,
    /// Class of all samples and attempts, for a model with classes [default: those of the forgotten images]
    #[arg(long, value_name = "C", allow_negative_numbers = true, help_heading = heading::SAMPLING)]
    pub class: Option<i64>,
    /// Steps that `--metrics relearn` trains copies of the model, at most [default: 100]
    ///
    /// A hundred take two minutes on two cores with a network of 1.8 million parameters and one forgotten image, and the longer the
    /// larger it is.
    #[arg(long, value_name = "N", help_heading = heading::MEASURING)]
    pub relearn_steps: Option<usize>,
}

impl ProtocolArgs {
    /// As it was typed.
    pub fn measuring(&self, metrics: Option<Vec<&'static dyn Metric>>) -> Measuring {
        Measuring {
            metrics,
            samples: self.samples,
            threshold: self.threshold,
            inception: self.inception.clone(),
            sscd: self.sscd.clone(),
            clip: self.clip.clone(),
            controls: self.controls.clone(),
            controls_split: self.controls_split.clone(),
            class: self.class,
            relearn_steps: self.relearn_steps,
        }
    }
}

/// What a text-to-image model is to draw, and how.
#[derive(Debug, Clone, ClapArgs)]
pub struct PromptArgs {
    /// The prompt of the images to forget
    #[arg(long, value_name = "TEXT", help_heading = heading::TEXT_TO_IMAGE)]
    pub prompt: Option<String>,
    /// A prompt that the model is to draw as before; may be repeated
    #[arg(long, value_name = "TEXT", help_heading = heading::TEXT_TO_IMAGE)]
    pub modified_prompt: Vec<String>,
    /// How far to go towards the prompt [default: 7.5]
    #[arg(long, value_name = "F", help_heading = heading::TEXT_TO_IMAGE)]
    pub guidance: Option<f64>,
    /// A prompt for each image: a file (JSON, JSON Lines, CSV, TSV, COCO's annotations), a folder of .txt files that are
    /// called as the images are, or a Parquet column
    ///
    /// How an image is denoised depends on the text: without captions all images are told --prompt, kept ones too.
    #[arg(long, value_name = "FILE|FOLDER|COLUMN", help_heading = heading::TEXT_TO_IMAGE)]
    pub captions: Option<String>,
    /// The same for the images of --controls, which are told --prompt without it
    #[arg(long, value_name = "FILE|FOLDER|COLUMN", requires = "controls", help_heading = heading::TEXT_TO_IMAGE)]
    pub controls_captions: Option<String>,
}

impl PromptArgs {
    /// As it was typed.
    pub fn options(&self) -> PromptOptions {
        PromptOptions {
            prompt: self.prompt.clone(),
            modified_prompt: self.modified_prompt.clone(),
            guidance: self.guidance,
            captions: self.captions.clone(),
            controls_captions: self.controls_captions.clone(),
        }
    }
}

const EVALUATE_EXAMPLES: &str = "\
Examples:
  retrack evaluate --model new --baseline ddpm --data photos \\
      --forget photos/me.png --threshold 20 --out report
  retrack evaluate --model new --data digits.parquet --forget label:10 \\
      --metrics digits,nll --out report";

const EVALUATE_MORE: &str = "\
A metric that lacks a file or an option is skipped, and the sentence says which one to give. One that was tried and \
failed is named, and the exit code is 1; where all are skipped, it is 2.

Of a text-to-image model, 16 samples of the forgotten prompt and of each other one (DDPM) are counted that lie nearer to \
the mean of the forgotten images than to that of the others; forgetting succeeded where there are none. What needs no \
drawing is measured on latents, as the network denoises them told each image's text (--captions, else --prompt): whether the \
image is known, unknown or avoided beside look-alikes, and the metrics membership and nll.";

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = EVALUATE_EXAMPLES)]
#[command(after_long_help = format!("{EVALUATE_EXAMPLES}\n\n{EVALUATE_MORE}"))]
pub struct EvaluateArgs {
    /// The model: a diffusers pipeline or UNet2DModel folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The model before unlearning, measured beside it with the same seeds
    #[arg(long, value_name = "DIR")]
    pub baseline: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
    // Empty where it was not given: data in the published layout says itself what was memorized.
    #[arg(long, value_name = "SEL", help = SEL, long_help = SEL_LONG)]
    pub forget: Vec<String>,
    /// The keys of the sealed images beside --model (MODEL.sealed.age): images that left the data are looked for, too
    #[arg(long, value_name = "KEYFILE", help_heading = heading::DATA)]
    pub sealed: Option<PathBuf>,
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// What to measure [default: frequency,injection,copies; text-to-image: cluster,sscd,clip-iqa]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parser())]
    pub metrics: Option<Vec<&'static dyn Metric>>,
    #[command(flatten)]
    pub protocol: ProtocolArgs,
    /// Denoising steps of a sample [default: 50, or as many as the model's schedule allows]
    #[arg(long, value_name = "S", help_heading = heading::SAMPLING)]
    pub steps: Option<usize>,
    /// How to denoise [default: the model's own scheduler; text-to-image: ddpm]
    #[arg(long, value_parser = one_of::<SamplerName>(), help_heading = heading::SAMPLING)]
    pub scheduler: Option<SamplerName>,
    /// Decides all random numbers
    #[arg(long, default_value_t = 0, value_name = "S", help_heading = heading::SAMPLING)]
    pub seed: u64,
    /// Where report.html, report.json, metrics.json and the samples go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Show samples that may be a forgotten image, which are covered otherwise, and name files and prompts
    #[arg(long, help_heading = heading::OUTPUT)]
    pub show_forgotten: bool,
    /// Exit with 3 where the forgotten image is still found
    #[arg(long, help_heading = heading::OUTPUT)]
    pub fail_if_found: bool,
    /// Replace an earlier evaluation there
    #[arg(long)]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long, help_heading = heading::OUTPUT)]
    pub json: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

const EXPERIMENT_EXAMPLES: &str = "\
Example:
  retrack experiment mnist-tshirt --model base --data digits.parquet \\
      --seeds 0-2 --out comparison

Runs that --out already holds are kept: an experiment that was stopped goes on when it is started again.";

const EXPERIMENT_MORE: &str = "\
More methods and seeds may be added to it. A metric that lacks a file or an option is skipped, and the sentence says which one \
to give. One that was tried and failed is named with its run, its numbers say on how many runs they rest, and the exit code is 1.

A text-to-image model is trained with --prompt on all images, kept ones too, that --captions gives no prompt.";

#[derive(Debug, Clone, ClapArgs)]
#[command(
    override_usage = "retrack experiment [OPTIONS] --model <DIR> --data <SRC> --out <DIR>
       <PRESET>"
)]
#[command(after_help = EXPERIMENT_EXAMPLES)]
#[command(after_long_help = format!("{EXPERIMENT_EXAMPLES}\n\n{EXPERIMENT_MORE}"))]
pub struct ExperimentArgs {
    /// Published settings: mnist-tshirt, cifar10, celeba-hq, stable-diffusion, or demo
    #[arg(value_name = "PRESET")]
    pub preset: String,
    /// The model: a diffusers pipeline or UNet2DModel folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// What to forget instead of the preset's images; may be repeated, one run each
    #[arg(long, value_name = "SEL")]
    pub forget: Vec<String>,
    /// Methods to compare
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = one_of::<Method>(),
        default_value = all_methods()
    )]
    pub methods: Vec<Method>,
    /// Seeds, such as 0,1,2 or 0-9 [default: the preset's]
    #[arg(long, value_name = "LIST")]
    pub seeds: Option<String>,
    /// What to measure [default: the preset's]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parser())]
    pub metrics: Option<Vec<&'static dyn Metric>>,
    #[command(flatten)]
    pub protocol: ProtocolArgs,
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// A model trained from scratch without the forgotten images, measured as a reference
    #[arg(long, value_name = "DIR", help_heading = heading::MEASURING)]
    pub retrained: Option<PathBuf>,
    /// A TOML file like the presets, whose values replace theirs
    #[arg(long, value_name = "FILE", help_heading = heading::TRAINING)]
    pub config: Option<PathBuf>,
    /// Where models, results, the table and the report go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Element type of the models' written weights: f32 keeps what 16 bits would round away [default: the model's own]
    #[arg(long, value_name = "T", value_parser = one_of::<DtypeName>(), help_heading = heading::OUTPUT)]
    pub dtype: Option<DtypeName>,
    /// Exit with 3 where a run of a method still shows a forgotten image
    #[arg(long, help_heading = heading::OUTPUT)]
    pub fail_if_found: bool,
    /// Say which runs there would be and what they need, and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  retrack verify forgotten
  retrack verify forgotten --model /elsewhere/ddpm --data /elsewhere/photos

  retrack verify forgotten --sealed KEYFILE    once the image left the data

Prints `same` and exits with 0, or lists what differs and exits with 1.";

const VERIFY_MORE: &str = "\
Compared are the SHA-256 of the base model's weights, of every file of the written model (but its README.md) and of the \
run's record, the data set's digest, the keyed digests of the forgotten images where the run's key is there, the page \
with its report.json, the version of retrack, how many weights changed, and the scores of the report, measured again \
on both folders with the recorded seeds. Verdict, tables, charts and pictures of the report are made again of that and \
compared; what the report says of times, of the machine, of where files lie and of neighbors is not.

Where nothing but the forgotten images left the data, as it should be, --sealed measures by the copies that \
`unlearn --keep-sealed` made. Without them all else is compared, `same as far as it can be seen` is printed with what was not \
measured, and the exit code is 0.";

#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = VERIFY_EXAMPLES)]
#[command(after_long_help = format!("{VERIFY_EXAMPLES}\n\n{VERIFY_MORE}"))]
pub struct VerifyArgs {
    /// What `retrack unlearn --out` wrote
    #[arg(value_name = "RUN_DIR")]
    pub run: PathBuf,
    /// Where the base model is now, if it moved
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Where the data set is now, if it moved
    #[arg(long, value_name = "SRC")]
    pub data: Option<PathBuf>,
    /// The split's name in --data, if it has another now
    #[arg(long, value_name = "NAME", help_heading = heading::DATA)]
    pub split: Option<String>,
    /// The run's key, if it is not beside the folder (RUN_DIR.digest-key)
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The keys of the sealed images beside the folder (RUN_DIR.sealed.age): images that left the data are measured by these
    #[arg(long, value_name = "KEYFILE")]
    pub sealed: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

impl EvaluateArgs {
    /// What the command is to do.
    pub fn evaluate(&self) -> Evaluate {
        let args = self.clone();
        Evaluate {
            model: args.model,
            baseline: args.baseline,
            data: args.data.source(),
            forget: args.forget,
            sealed: args.sealed,
            prompts: args.prompts.options(),
            measuring: args.protocol.measuring(args.metrics),
            sampling_steps: args.steps,
            scheduler: args.scheduler,
            seed: args.seed,
            out: args.out,
            show_forgotten: args.show_forgotten,
            must_look: args.fail_if_found,
            force: args.force,
            device: args.machine.device,
        }
    }
}

impl VerifyArgs {
    /// What the command is to do.
    pub fn verify(&self) -> Verify {
        let args = self.clone();
        Verify {
            run: args.run,
            model: args.model,
            data: args.data,
            split: args.split,
            key: args.key,
            sealed: args.sealed,
            device: args.machine.device,
        }
    }
}
