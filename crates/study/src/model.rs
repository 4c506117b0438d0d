//! What several commands do with models and data sets.

use std::path::Path;

use retrack_checkpoint::folder::ModelFolder;
use retrack_checkpoint::words::counted;
use retrack_data::{Alpha, Crop, Dataset, OpenOptions, Selection, SelectionError};
use retrack_eval::images;
use retrack_networks::family::PixelConfig;
use retrack_networks::model::Model;
use retrack_networks::schedule::{Sampler, ScheduleError, SchedulerConfig, SchedulerKind};
use serde_json::Value;

use crate::evidence::names_files;
use crate::failure::Failure;
use crate::field::Field;
use crate::progress;
use crate::situation::{self, Situation};
use crate::source::DataSource;
use crate::space::Bytes;

/// No more is held of a whole data set than four times this.
pub use retrack_data::BUDGET;

/// Denoising steps of a sample where nothing is said.
pub const STEPS: usize = 50;

/// Opens a data set for images of `channels` (`None`: of their own).
///
/// # Errors
/// What cannot be read.
pub fn open_images(source: &DataSource, channels: Option<usize>) -> Result<Dataset, Failure> {
    let options = source.reading.options(channels, 4 * BUDGET as u64);
    read(source, &options, Field::Split)
}

/// Says how many images are transparent, deeper than 8 bits or of another size, and what becomes of that.
fn warn_of_lossy(data: &Dataset) -> Result<(), Failure> {
    let lossy = data.lossy()?;
    let of = |count: usize| {
        let have = if count == 1 { "has" } else { "have" };
        let all = counted(data.len(), "image");
        format!("{}: {count} of {all} {have}", data.path().display())
    };
    if lossy.transparent > 0 {
        let what = match data.alpha() {
            Alpha::Drop => format!(
                "their transparency is dropped and the color below it kept, as Pillow's convert(\"RGB\") does; {}",
                situation::advice(Situation::Transparent)
            ),
            Alpha::White => format!("they are laid over white, as {} says", Field::Alpha),
            Alpha::Black => format!("they are laid over black, as {} says", Field::Alpha),
        };
        progress::warn(format!(
            "{} transparent pixels: {what}",
            of(lossy.transparent)
        ));
    }
    if lossy.scaled > 0 {
        progress::warn(format!(
            "{} 16 bits of gray: they are scaled to 8 bits, where Pillow's convert(\"L\") makes all above 255 white",
            of(lossy.scaled)
        ));
    }
    if let Some(resize) = data.resize() {
        let (shape, all) = (data.shape(), counted(data.len(), "image"));
        let cut = match resize.crop {
            Crop::Center => ", of which the middle is kept",
            Crop::None => "",
        };
        progress::note(format!(
            "{}: {} of {all} resized to {} x {} pixels ({}{cut})",
            data.path().display(),
            lossy.resized,
            shape.height,
            shape.width,
            resize.interpolation,
        ));
    }
    Ok(())
}

/// Opens a data set, whose split the field `split` names.
///
/// # Errors
/// What cannot be read.
pub fn read_data(path: &Path, options: &OpenOptions, split: Field) -> Result<Dataset, Failure> {
    read(&DataSource::at(path), options, split)
}

fn read(source: &DataSource, options: &OpenOptions, split: Field) -> Result<Dataset, Failure> {
    let _activity = progress::activity("reading the data");
    let path = &source.path;
    let opened = source.open(options);
    let data = opened.map_err(|error| Failure::of_data(error, split))?;
    warn_of_lossy(&data)?;
    if let Some(note) = data.label_note() {
        progress::warn(format!("{}: {note}", path.display()));
    }
    if let Some(note) = data.beside() {
        progress::warn(format!("{}: {note}", path.display()));
    }
    let shape = data.shape();
    progress::detail(format_args!(
        "read {}: {}, {} of {} x {} x {}",
        path.display(),
        data.kind(),
        counted(data.len(), "image"),
        shape.height,
        shape.width,
        shape.channels
    ));
    Ok(data)
}

/// Says which weights are read, to who wants to know.
pub fn say_weights(folder: &ModelFolder) {
    for path in folder.weight_files() {
        let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        progress::detail(format_args!(
            "reading {} ({})",
            path.display(),
            Bytes(bytes as f64)
        ));
    }
}

/// Says that every name of the weights in a folder begins with what a wrapper of PyTorch put there.
pub fn note_wrapping(folder: &Path, prefix: &str) {
    if !prefix.is_empty() {
        progress::note(format!(
            "{}: every tensor's name begins with \"{prefix}\", which a wrapper of PyTorch put there; it is read, and \
             written, without",
            folder.display()
        ));
    }
}

/// Says that the betas in the scheduler's file are taken for those of the training, where its sampler has none.
pub fn warn_of_betas(folder: &ModelFolder, scheduler: &SchedulerConfig) {
    if let Some(name) = scheduler.without_own_betas() {
        progress::warn(format!(
            "{}: {name} has no betas of its own; the network is taken to be trained like DDPM with those that its file \
             kept of another scheduler",
            folder.root().display()
        ));
    }
}

/// Refuses a network that lies in a pipeline whose other parts make something else than images of what it denoises, and one
/// that [does not predict](check_denoises) it.
pub(crate) fn check_images(model: &Model) -> Result<(), Failure> {
    match model.folder.around() {
        None => check_denoises(&model.config, &model.folder.config_path()),
        Some(pipeline) => Err(Failure::input(format!(
            "{}: this network belongs to {pipeline}, so it does not denoise images; supported here: a UNet2DModel that \
             denoises images; predict and gradient take this one too",
            model.folder.root().display()
        ))),
    }
}

/// Checks that a network (its configuration read from `path`) predicts what it takes, at every timestep.
///
/// # Errors
/// It predicts something else.
pub fn check_denoises(config: &PixelConfig, path: &Path) -> Result<(), Failure> {
    if config.in_channels != config.out_channels {
        return Err(Failure::input(format!(
            "{}: `in_channels` is {} and `out_channels` {}; learned variances are not supported",
            path.display(),
            config.in_channels,
            config.out_channels
        )));
    }
    if let Some(setting) = config.architecture.without_time_zero() {
        return Err(Failure::input(format!(
            "{}: {setting}, which has no timestep 0; such networks work in predict and gradient only",
            path.display()
        )));
    }
    Ok(())
}

/// Checks that each of `rows` has a label that a network with classes knows.
///
/// # Errors
/// An image without a label, or with one that the network does not have.
pub fn check_labels(data: &Dataset, rows: &[usize], config: &PixelConfig) -> Result<(), Failure> {
    match config.condition().classes() {
        Some(classes) => Ok(data.check_labels(rows, classes)?),
        None => Ok(()),
    }
}

/// The rows that any of the selections means.
///
/// # Errors
/// A selection that cannot be read, or that means no row.
pub fn select(texts: &[String], data: &Dataset) -> Result<Vec<usize>, SelectionError> {
    let selections = texts.iter().map(|text| Selection::parse(text));
    let resolved = Selection::resolve_all(&selections.collect::<Result<Vec<_>, _>>()?, data)?;
    for warning in &resolved.warnings {
        progress::warn(warning);
    }
    Ok(resolved.rows)
}

/// Selections as a run records them: one alone, several as a list; by their `rows` where they name a file of the data.
pub fn recorded(selections: &[String], rows: &[usize]) -> Value {
    match selections {
        selections if names_files(selections) => rows.into(),
        [one] => one.as_str().into(),
        several => several.into(),
    }
}

/// As many denoising steps as are wanted, or the most that a schedule allows: it may have fewer timesteps, and an offset
/// leaves no room for all of them.
pub fn steps(kind: SchedulerKind, scheduler: &SchedulerConfig, wanted: usize) -> usize {
    let most = wanted.min(scheduler.num_train_timesteps);
    let allowed = |steps: &usize| Sampler::new(kind, scheduler, *steps).is_ok();
    // Where nothing is allowed, the sampler says why.
    (1..=most).rev().find(allowed).unwrap_or(most)
}

/// A sampler by a model's scheduler.
///
/// # Errors
/// What of the scheduler's file does not fit, with that file.
pub fn sampler(
    kind: SchedulerKind,
    scheduler: &SchedulerConfig,
    steps: usize,
    folder: &ModelFolder,
) -> Result<Sampler, Failure> {
    Sampler::new(kind, scheduler, steps).map_err(|error| match error {
        ScheduleError::Unsupported { .. } => Failure::input(format!(
            "{}: not a schedule for {}: {error}",
            folder.scheduler_path().display(),
            kind.class_name()
        )),
        error => error.into(),
    })
}

/// Pixels of what a network made, values around [-1, 1].
///
/// # Errors
/// Values that are not finite: as bytes they would be black, and no image that was forgotten.
pub fn to_bytes(values: &[f32], what: &'static str) -> Result<Vec<u8>, Failure> {
    images::to_bytes(values, what).map_err(Failure::failed)
}

/// Writes a file, naming it where that fails.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    write_for(path, path, content)
}

/// Writes a file that moves to `place` with the folder around it, which is what is said of it.
///
/// # Errors
/// A file that cannot be written.
pub fn write_for(path: &Path, place: &Path, content: &[u8]) -> Result<(), Failure> {
    if let Some(parent) = path.parent()
        && parent != Path::new("")
    {
        std::fs::create_dir_all(parent).map_err(|error| Failure::write(parent, error))?;
    }
    retrack_checkpoint::durable::write(path, |out| out.write_all(content))
        .map_err(|error| Failure::writing(path, error))?;
    progress::detail(format_args!(
        "wrote {} ({})",
        place.display(),
        Bytes(content.len() as f64)
    ));
    Ok(())
}
