//! What an unlearning run is to do.

use std::path::{Path, PathBuf};

use retrack_unlearn::recipe::Layer;

use crate::field::Field;
use crate::names::{DtypeName, LoraFormat, TrainedPart};
use crate::near_copies::Copies;
use crate::source::DataSource;

/// A model, images of which some are to be forgotten, and where the new model goes. `None`: as the preset or the model
/// says.
#[derive(Debug, Clone)]
pub struct Task {
    /// A diffusers pipeline or UNet2DModel folder.
    pub model: PathBuf,
    /// The images.
    pub data: DataSource,
    /// Selections. Empty where it was not given: data in the published layout says itself what was memorized.
    pub forget: Vec<String>,
    /// Where the new model folder goes.
    pub out: PathBuf,
    /// Text-to-image: the prompt of all images that have none of their own.
    pub prompt: Option<String>,
    /// The prompt of the images to forget.
    pub forget_prompt: Option<String>,
    /// The prompt of the images to keep.
    pub retain_prompt: Option<String>,
    /// A prompt for each image: a file, a folder of .txt files, or a Parquet column.
    pub captions: Option<String>,
    /// What is trained: the network, or adapters of it.
    pub train: Option<TrainedPart>,
    /// Rank of the adapters that are trained.
    pub rank: Option<usize>,
    /// How the file of the adapters names them. `None`: as diffusers does.
    pub lora_format: Option<LoraFormat>,
    /// How to forget, where it is not to be as preset and `config` say.
    pub recipe: Layer,
    /// A preset's name.
    pub preset: Option<String>,
    /// A TOML file whose values replace the preset's.
    pub config: Option<PathBuf>,
    /// Keeps to the published settings where nothing else says how to forget.
    pub no_calibrate: bool,
    /// Leads images away that the model does not know better than others like them.
    pub always: bool,
    /// Images like the forgotten ones that the model never saw, which say how far these are led; look-alikes where there are none.
    pub controls: Option<PathBuf>,
    /// Which split of the controls, where they have several.
    pub controls_split: Option<String>,
    /// What becomes of near copies of the forgotten images.
    pub copies: Copies,
    /// Steps between checkpoints.
    pub checkpoint_every: Option<usize>,
    /// Goes on with the interrupted run in `out`.
    pub resume: bool,
    /// Replaces what retrack wrote in `out`.
    pub force: bool,
    /// Element type of the written weights.
    pub dtype: Option<DtypeName>,
    /// Where the key of the report's digests is, or goes.
    pub key: Option<PathBuf>,
    /// The file of the owner's keys for which the forgotten images are sealed, and kept beside `out`. `None`: none are kept.
    pub keep_sealed: Option<PathBuf>,
    /// Lets the report show the forgotten images, their neighbors and what restores them.
    pub show_forgotten: bool,
    /// Makes no report.
    pub no_report: bool,
    /// Whether the report is to say that the image is found no more: refused where none can say so.
    pub must_look: bool,
    /// Says what would be done, and stops.
    pub dry_run: bool,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

impl Task {
    /// With what is required alone.
    pub fn new(model: &Path, data: &DataSource, forget: &str, out: &Path, device: &str) -> Self {
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
            lora_format: None,
            recipe: Layer::default(),
            preset: None,
            config: None,
            no_calibrate: false,
            always: false,
            controls: None,
            controls_split: None,
            copies: Copies::default(),
            checkpoint_every: None,
            resume: false,
            force: false,
            dtype: None,
            key: None,
            keep_sealed: None,
            show_forgotten: false,
            no_report: false,
            must_look: false,
            dry_run: false,
            device: device.into(),
        }
    }

    /// Rank of the adapters that are trained; `None` where the whole network is.
    ///
    /// # Errors
    /// A rank of 0 or without adapters, in words.
    pub fn adapter_rank(&self) -> Result<Option<usize>, String> {
        match (self.train, self.rank) {
            (_, Some(0)) => Err(format!("{} is 0; give at least 1", Field::Rank)),
            (Some(TrainedPart::Lora), rank) => Ok(Some(rank.unwrap_or(4))),
            (_, Some(_)) => Err(format!(
                "{} is that of adapters; give {} lora with it",
                Field::Rank,
                Field::Train
            )),
            (_, None) => Ok(None),
        }
    }
    /// How the file of the adapters that are trained names them.
    ///
    /// # Errors
    /// A format without adapters, in words.
    pub fn adapter_format(&self) -> Result<LoraFormat, String> {
        match (self.train, self.lora_format) {
            (Some(TrainedPart::Lora), format) => Ok(format.unwrap_or_default()),
            (_, Some(_)) => Err(format!(
                "{} is that of an adapter's file; give {} lora with it",
                Field::LoraFormat,
                Field::Train
            )),
            (_, None) => Ok(LoraFormat::default()),
        }
    }
}
