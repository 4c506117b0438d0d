//! `retrack unlearn` as it is typed.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use retrack_checkpoint::folder::Dtype;
use retrack_data::neighbors::Neighbors;
use retrack_unlearn::objective::Method;

use super::method::method;
use super::{DataArgs, MachineArgs, SEL, SEL_LONG, StrengthArgs, heading};

/// What of a denoiser is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrainedPart {
    All,
    /// Low-rank adapters of the attention layers.
    Lora,
}

/// Element types of weights, as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeName {
    F32,
    F16,
    Bf16,
}

impl From<DtypeName> for Dtype {
    fn from(name: DtypeName) -> Self {
        match name {
            DtypeName::F32 => Self::F32,
            DtypeName::F16 => Self::F16,
            DtypeName::Bf16 => Self::BF16,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  retrack unlearn --model ddpm --data photos --forget photos/me.png --out new
  retrack unlearn --model my-model --data digits.parquet --forget label:10 \\
      --steps 30 --out new";

const MORE: &str = "\
\x20 retrack unlearn --model stable-diffusion --data astronaut \\
      --prompt \"an astronaut on a horse\" --out new
  retrack unlearn ... --dry-run    what would happen, without doing it

Without --preset the published settings for images of this size are taken. The written folder loads in \
diffusers like the one given; run/report.html in it says what changed, and retrack verify checks that.";

#[derive(Debug, Clone, ClapArgs)]
#[command(allow_negative_numbers = true, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n{MORE}"))]
pub struct UnlearnArgs {
    /// The model: a diffusers pipeline or UNet2DModel folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    // Empty where it was not given: data in the published layout says itself what was memorized.
    #[arg(long, value_name = "SEL", help = SEL, long_help = SEL_LONG)]
    pub forget: Vec<String>,
    /// Where the new model folder goes
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Text-to-image: the prompt of all images that have none of their own
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// The prompt of the images to forget
    #[arg(long, value_name = "TEXT", help_heading = heading::TEXT_TO_IMAGE)]
    pub forget_prompt: Option<String>,
    /// The prompt of the images to keep
    #[arg(long, value_name = "TEXT", help_heading = heading::TEXT_TO_IMAGE)]
    pub retain_prompt: Option<String>,
    /// A prompt for each image: a file (JSON, JSON Lines, CSV, TSV, COCO's annotations), a folder of .txt files that are
    /// called as the images are, or a Parquet column
    #[arg(long, value_name = "FILE|FOLDER|COLUMN", help_heading = heading::TEXT_TO_IMAGE)]
    pub captions: Option<String>,
    /// Text-to-image: what is trained. `lora` leaves the model as it is and writes pytorch_lora_weights.safetensors
    /// beside it, for diffusers' load_lora_weights or `retrack merge`; a usual --lr for it is 1e-4 [default: all]
    #[arg(long, value_name = "PART", help_heading = heading::TEXT_TO_IMAGE)]
    pub train: Option<TrainedPart>,
    /// Rank of the adapters of `--train lora` [default: 4]
    #[arg(long, value_name = "R", help_heading = heading::TEXT_TO_IMAGE)]
    pub rank: Option<usize>,
    /// How to forget [default: retrack]
    #[arg(long, value_name = "M", value_parser = method())]
    pub method: Option<Method>,
    /// Nearest retained images that take the forgotten one's place, or all: every retained one, weighed at each step
    #[arg(long, value_name = "K|all", help_heading = heading::METHOD)]
    pub neighbors: Option<Neighbors>,
    #[command(flatten)]
    pub strengths: StrengthArgs,
    /// Fine-tuning steps
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Images of each stream in a micro-batch
    #[arg(long, value_name = "B", help_heading = heading::TRAINING)]
    pub batch_size: Option<usize>,
    /// Micro-batches in a step
    #[arg(long, value_name = "A", help_heading = heading::TRAINING)]
    pub accumulate: Option<usize>,
    /// Learning rate
    #[arg(long, value_name = "F")]
    pub lr: Option<f64>,
    /// Decides all random numbers [default: 0]
    #[arg(long, value_name = "S", help_heading = heading::TRAINING)]
    pub seed: Option<u64>,
    /// Published settings: mnist-tshirt, cifar10, celeba-hq or stable-diffusion [default: by kind of model and image
    /// size]
    #[arg(long, value_name = "P")]
    pub preset: Option<String>,
    /// A TOML file like the presets, whose values replace theirs
    #[arg(long, value_name = "FILE", help_heading = heading::TRAINING)]
    pub config: Option<PathBuf>,
    /// Steps between checkpoints [default: none]
    #[arg(long, value_name = "N", help_heading = heading::TRAINING)]
    pub checkpoint_every: Option<usize>,
    /// Continue the interrupted run in --out
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace what retrack wrote in --out; other files stay
    #[arg(long)]
    pub force: bool,
    /// Element type of the written weights: f32 keeps what 16 bits would round away [default: the model's own]
    #[arg(long, value_name = "T", help_heading = heading::OUTPUT)]
    pub dtype: Option<DtypeName>,
    /// Where the key of the report's digests is, or goes: never in --out, which may be passed on [default: OUT.digest-key
    /// beside --out]
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "no_report",
        help_heading = heading::OUTPUT
    )]
    pub key: Option<PathBuf>,
    /// Let the report show the forgotten images, their neighbors and what restores them: not for every reader's eyes
    #[arg(long, help_heading = heading::OUTPUT)]
    pub show_forgotten: bool,
    /// Make no report: nothing is looked at before, on the way and after (about a quarter of the time), and nothing can
    /// be verified
    #[arg(long, conflicts_with = "show_forgotten", help_heading = heading::OUTPUT)]
    pub no_report: bool,
    /// Exit with 3 where the report still finds the image
    #[arg(long, conflicts_with = "no_report", help_heading = heading::OUTPUT)]
    pub fail_if_found: bool,
    /// Say what would be done and what it needs, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long, help_heading = heading::OUTPUT)]
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
        data: &DataArgs,
        forget: &str,
        out: &Path,
        machine: &MachineArgs,
    ) -> Self {
        Self {
            model: model.into(),
            data: data.clone(),
            forget: vec![forget.into()],
            out: out.into(),
            prompt: None,
            forget_prompt: None,
            retain_prompt: None,
            captions: None,
            train: None,
            rank: None,
            method: None,
            neighbors: None,
            strengths: StrengthArgs::default(),
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
            dtype: None,
            key: None,
            show_forgotten: false,
            no_report: false,
            fail_if_found: false,
            dry_run: false,
            json: false,
            machine: machine.clone(),
        }
    }
}
