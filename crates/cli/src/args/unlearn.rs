//! `retrack unlearn` as it is typed.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use retrack_data::neighbors::Neighbors;
use retrack_study::names::{DtypeName, LoraFormat, TrainedPart};
use retrack_study::near_copies::Copies;
use retrack_study::task::Task;
use retrack_unlearn::objective::Method;
use retrack_unlearn::optimizer::State;
use retrack_unlearn::recipe::{AdamWLayer, Layer};

use super::{DataArgs, MachineArgs, SEL, SEL_LONG, StrengthArgs, heading, one_of};

const EXAMPLES: &str = "\
Examples:
  retrack unlearn --model ddpm --data photos --forget photos/me.png --out new
  retrack unlearn --model my-model --data digits.parquet --forget label:10 \\
      --steps 30 --out new";

const MORE: &str = "\
\x20 retrack unlearn --model stable-diffusion --data astronaut \\
      --prompt \"an astronaut on a horse\" --out new
  retrack unlearn ... --dry-run    what would happen, without doing it

Without --preset, --config, --steps and --lambda the image is led as far as images like it that the model never saw, and \
no farther; --no-calibrate takes the published settings for images of this size. The written folder loads in \
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
    /// beside it, for diffusers' load_lora_weights or `retrack merge`; with published settings a usual --lr for it is 1e-4 [default: all]
    #[arg(long, value_name = "PART", value_parser = one_of::<TrainedPart>(), help_heading = heading::TEXT_TO_IMAGE)]
    pub train: Option<TrainedPart>,
    /// Rank of the adapters of `--train lora` [default: 4]
    #[arg(long, value_name = "R", help_heading = heading::TEXT_TO_IMAGE)]
    pub rank: Option<usize>,
    /// Names in the file of the adapters of `--train lora`: `kohya` for ComfyUI and other programs than diffusers, which
    /// reads both, as `retrack merge` does [default: diffusers]
    #[arg(long, value_name = "FORM", value_parser = one_of::<LoraFormat>(), help_heading = heading::TEXT_TO_IMAGE)]
    pub lora_format: Option<LoraFormat>,
    /// How to forget [default: retrack]
    #[arg(long, value_name = "M", value_parser = one_of::<Method>())]
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
    /// What the optimizer keeps its two moments in: bf16 takes half of their memory, a quarter less in all where a whole model
    /// is trained, and comes to nearly the same; on the CPU [default: f32]
    #[arg(long, value_name = "T", value_parser = one_of::<State>(), help_heading = heading::TRAINING)]
    pub optimizer_state: Option<State>,
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
    /// Take the published settings for images of this size, as --preset does: a fixed number of steps, which leads the
    /// image farther than a model goes that never saw it
    #[arg(long, conflicts_with = "always", help_heading = heading::METHOD)]
    pub no_calibrate: bool,
    /// Go on where the model does not know the image better than others like it, or where it was forgotten before
    #[arg(long, help_heading = heading::METHOD)]
    pub always: bool,
    /// Images of the forgotten one's kind that the model never saw, in any form that --data has: they say how far it is led
    /// [default: look-alikes made of it]
    #[arg(long, value_name = "SRC", conflicts_with = "no_calibrate", help_heading = heading::METHOD)]
    pub controls: Option<PathBuf>,
    /// Which split of --controls, where it has several
    #[arg(long, value_name = "NAME", requires = "controls", help_heading = heading::METHOD)]
    pub controls_split: Option<String>,
    /// Forget near copies of the images too: the same picture saved as JPEG, rescaled, mirrored and the like [default: they
    /// are neither forgotten nor retained]
    #[arg(long, conflicts_with = "keep_copies", help_heading = heading::METHOD)]
    pub with_copies: bool,
    /// Leave near copies of the images among the retained ones: they may teach the images back
    #[arg(long, help_heading = heading::METHOD)]
    pub keep_copies: bool,
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
    #[arg(long, value_name = "T", value_parser = one_of::<DtypeName>(), help_heading = heading::OUTPUT)]
    pub dtype: Option<DtypeName>,
    /// Where the key of the forgotten images' digests is, or goes: never in --out, which may be passed on. That of earlier
    /// requests is found beside --model, too [default: OUT.digest-key beside --out]
    #[arg(long, value_name = "FILE", help_heading = heading::OUTPUT)]
    pub key: Option<PathBuf>,
    /// Keep the forgotten images, encrypted for the keys in this file (as age-keygen writes it; made, where there is none): then
    /// `verify`, `evaluate` and later requests can measure them when they have left the data. They go beside --out, into
    /// OUT.sealed.age; those sealed beside --model are gone on with
    #[arg(long, value_name = "KEYFILE", help_heading = heading::OUTPUT)]
    pub keep_sealed: Option<PathBuf>,
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
    /// What the command is to do.
    pub fn task(&self) -> Task {
        let args = self.clone();
        let mut recipe = Layer {
            method: args.method,
            neighbors: args.neighbors,
            steps: args.steps,
            batch_size: args.batch_size,
            accumulate: args.accumulate,
            learning_rate: args.lr,
            adamw: AdamWLayer {
                state: args.optimizer_state,
                ..AdamWLayer::default()
            },
            seed: args.seed,
            ..Layer::default()
        };
        for (name, value) in args.strengths.iter() {
            recipe.set_strength(name, value);
        }
        Task {
            model: args.model,
            data: args.data.source(),
            forget: args.forget,
            out: args.out,
            prompt: args.prompt,
            forget_prompt: args.forget_prompt,
            retain_prompt: args.retain_prompt,
            captions: args.captions,
            train: args.train,
            rank: args.rank,
            lora_format: args.lora_format,
            recipe,
            preset: args.preset,
            config: args.config,
            no_calibrate: args.no_calibrate,
            always: args.always,
            controls: args.controls,
            controls_split: args.controls_split,
            copies: match (args.with_copies, args.keep_copies) {
                (true, _) => Copies::Forgotten,
                (_, true) => Copies::Retained,
                _ => Copies::Aside,
            },
            checkpoint_every: args.checkpoint_every,
            resume: args.resume,
            force: args.force,
            dtype: args.dtype,
            key: args.key,
            keep_sealed: args.keep_sealed,
            show_forgotten: args.show_forgotten,
            no_report: args.no_report,
            must_look: args.fail_if_found,
            dry_run: args.dry_run,
            device: args.machine.device,
        }
    }
}
