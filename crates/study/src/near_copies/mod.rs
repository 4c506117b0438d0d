//! Near copies of what is to be forgotten: found before anything is learned, said, shown, and kept from teaching it back.

mod sheet;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use retrack_data::near_copies::near_copies;
use retrack_data::{Dataset, NearCopy, Split};
use serde_json::{Value, json};

use crate::evidence::Private;
use crate::failure::Failure;
use crate::folders::new_file;
use crate::situation::{self, Situation};
use crate::{model, progress};

/// What becomes of near copies of the forgotten images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// They are neither forgotten nor retained.
    #[default]
    Aside,
    /// They are forgotten with the images.
    Forgotten,
    /// They stay among the retained images.
    Retained,
}

/// How the name of the picture ends that lies beside the output folder.
const ENDING: &str = ".near-copies.png";
/// Near copies that are named one by one.
const NAMED: usize = 5;

impl Copies {
    /// What became of the near copies of a split.
    fn of(split: &Split) -> Self {
        let is_forgotten = |near: &NearCopy| split.forget.binary_search(&near.row).is_ok();
        match (split.near.first(), split.retains_near()) {
            (_, true) => Self::Retained,
            (Some(near), _) if is_forgotten(near) => Self::Forgotten,
            _ => Self::Aside,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Aside => "set aside: neither forgotten nor retained",
            Self::Forgotten => "forgotten too",
            Self::Retained => "retained: they may teach the image back",
        }
    }
}

/// The split of the rows to forget, once near copies of them were looked for among all others. The split names those that were
/// found, whatever becomes of them. They are not set aside where less than `least` images would be retained then.
///
/// # Errors
/// A row that does not exist or an image that cannot be read.
pub fn split(
    data: &Dataset,
    rows: &[usize],
    copies: Copies,
    least: usize,
) -> Result<Split, Failure> {
    let searching = progress::activity("searching for copies");
    let split = Split::new(data, rows, model::BUDGET)?;
    let near = near_copies(data, &split.retain, &split.forget, model::BUDGET)?;
    let left = split.retain.len() - near.len();
    let split = match copies {
        Copies::Forgotten if !near.is_empty() => {
            let rows = near.iter().map(|near| near.row);
            let rows: Vec<usize> = split.forget.iter().copied().chain(rows).collect();
            Split::new(data, &rows, model::BUDGET)?.with_near(near, true)
        }
        Copies::Aside => split.with_near(near, left < least),
        _ => split.with_near(near, true),
    };
    drop(searching);
    Ok(split)
}

/// Says which copies there are and what becomes of them. `sheet`: where they are to be seen.
pub fn report(split: &Split, data: &Dataset, sheet: Option<&Path>) {
    if !split.duplicates.is_empty() {
        progress::note(format!(
            "{} of what is to be forgotten {} the retained images with it",
            match split.duplicates.len() {
                1 => "1 exact copy".to_owned(),
                many => format!("{many} exact copies"),
            },
            match split.duplicates.len() {
                1 => "leaves",
                _ => "leave",
            }
        ));
    }
    for near in split.near.iter().take(NAMED) {
        let how = match near.mirrored {
            true => "mirrored".to_owned(),
            false => format!("{:.1} of 255 apart per value", near.distance),
        };
        progress::warn(format!(
            "{} is nearly a copy of {} ({how})",
            data.name(near.row),
            data.name(near.of),
        ));
    }
    if split.near.is_empty() {
        return;
    }
    let count = match split.near.len() {
        1 => "1 near copy".to_owned(),
        many => format!("{many} near copies"),
    };
    let copies = Copies::of(split);
    let becomes = match copies {
        Copies::Aside => {
            "set aside in this run, neither forgotten nor retained, so as not to teach the image back; "
        }
        Copies::Forgotten => "forgotten too",
        Copies::Retained => "among the retained images, and may teach the image back",
    };
    let advice = match copies {
        Copies::Aside => situation::advice(Situation::NearCopy),
        _ => "",
    };
    let are = if split.near.len() == 1 { "is" } else { "are" };
    progress::warn(format!("{count} in all {are} {becomes}{advice}"));
    if let Some(sheet) = sheet {
        progress::note(format!(
            "{} shows the forgotten images (rows on white) and their near copies: look, and delete it",
            sheet.display()
        ));
    }
}

/// What is said of near copies on the page and in the record.
pub fn fact(split: &Split) -> String {
    match split.near.len() {
        0 => "none found".into(),
        many => format!("{many}, {}", Copies::of(split).words()),
    }
}

/// The near copies for the record; nothing where there are none.
pub fn record(split: &Split) -> Option<Value> {
    let rows: Vec<usize> = split.near.iter().map(|near| near.row).collect();
    let are = match Copies::of(split) {
        Copies::Aside => "set_aside",
        Copies::Forgotten => "forgotten",
        Copies::Retained => "retained",
    };
    (!rows.is_empty()).then(|| json!({"rows": rows, "are": are}))
}

/// Puts a picture of the near copies beside the output folder, which may be passed on, for the owner's eyes alone. Where it is,
/// unless there are none, they cannot be drawn, or something else is there.
///
/// # Errors
/// An image that cannot be read, a file that cannot be written.
pub fn show(
    split: &Split,
    data: &Dataset,
    out: &Path,
    force: bool,
) -> Result<Option<PathBuf>, Failure> {
    if split.near.is_empty() || !matches!(data.shape().channels, 1 | 3) {
        return Ok(None);
    }
    let Some(path) = Private::beside(out, ENDING) else {
        return Ok(None);
    };
    let (png, left_out) = sheet::png(split, data)?;
    if let Err(failure) = new_file(&path, force) {
        progress::warn(format!(
            "no picture of the near copies is made: {}",
            failure.message
        ));
        return Ok(None);
    }
    write(&path, &png).map_err(|error| Failure::writing(&path, error))?;
    if left_out > 0 {
        progress::note(format!(
            "{left_out} of the near copies have no place in that picture"
        ));
    }
    Ok(Some(path))
}

/// Writes a file that nobody else may read.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
        std::fs::create_dir_all(parent)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
