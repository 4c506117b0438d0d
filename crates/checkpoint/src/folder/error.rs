use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::tensor::TensorError;

/// Why a model folder could not be read or written. Every message names the file or folder and, where there is one,
/// the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    #[error(
        "{}: weights in this form (.bin, or shards with an index) keep their element type",
        path.display()
    )]
    FixedTypes { path: PathBuf },
    #[error("{}: the disk is full: cannot {action}; free some space or choose another output folder", path.display())]
    DiskFull {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    #[error(
        "{}: no such folder; give the local folder of a model (`hf download NAME --local-dir DIR` fetches one from the Hugging Face Hub)",
        path.display()
    )]
    MissingFolder { path: PathBuf },
    #[error("{}: not a folder; give the folder that holds model_index.json or config.json", path.display())]
    NotAFolder { path: PathBuf },
    #[error("{}: no such file; {remedy}", path.display())]
    MissingFile { path: PathBuf, remedy: String },
    #[error("{}: not a regular file", path.display())]
    NotRegular { path: PathBuf },
    #[error(
        "{}: a link to {}, which is outside the model folder; put a copy of the file in its place",
        path.display(),
        target.display()
    )]
    LinkOutside { path: PathBuf, target: PathBuf },
    #[error(
        "{}: only a Git-LFS pointer, the content was never fetched; run `git lfs pull` in the model's repository",
        path.display()
    )]
    LfsPointer { path: PathBuf },
    #[error("{}: the file is empty; download it again", path.display())]
    Empty { path: PathBuf },
    #[error("{}: a web page (HTML), not a model file; download the file itself, not the page that shows it", path.display())]
    Html { path: PathBuf },
    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// The file's content breaks its format.
    #[error("{}: {problem}", path.display())]
    Malformed { path: PathBuf, problem: String },
    #[error("{}: {found} is not supported; supported here: {}", path.display(), supported.join(", "))]
    UnsupportedClass {
        path: PathBuf,
        found: String,
        supported: &'static [&'static str],
    },
    #[error("{}: no weights; expected one of {expected}{}", path.display(), found_instead(found))]
    NoWeights {
        path: PathBuf,
        expected: &'static str,
        found: Vec<String>,
    },
    #[error(
        "{}: only weights of a variant are here ({}); rename {} (or download the main variant) to use them",
        path.display(),
        found.join(", "),
        renames.iter().map(|(from, to)| format!("{from} to {to}")).collect::<Vec<_>>().join(", ")
    )]
    OnlyVariant {
        path: PathBuf,
        found: Vec<String>,
        /// Present and new name, first of a file in the folder, then of one in each other part that has a variant only.
        renames: Vec<(String, String)>,
    },
    #[error(
        "{}: shards of weights ({}) without their index ({index}); download it too",
        path.display(),
        found.join(", ")
    )]
    NoIndex {
        path: PathBuf,
        found: Vec<String>,
        index: String,
    },
    #[error("{}: tensor {}: {source}", path.display(), shown(name))]
    Tensor {
        path: PathBuf,
        name: String,
        source: TensorError,
    },
    /// NaN or infinity in weights: every tensor that holds one.
    #[error("{}: NaN or infinity in {}; such weights cannot be used", path.display(), shown_list(names))]
    NonFinite { path: PathBuf, names: Vec<String> },
    /// The pickle in a `.bin` names something that does not build a tensor.
    #[error(
        "{}: the pickle asks for {}, which is not needed to build tensors; refused, the file may be malicious",
        path.display(),
        shown(global)
    )]
    ForbiddenGlobal { path: PathBuf, global: String },
    #[error(
        "{}: written by torch.save before PyTorch 1.6 (not a zip file), which is not read; in Python, load it with torch.load(FILE, weights_only=True) and save it again with torch.save",
        path.display()
    )]
    LegacyTorch { path: PathBuf },
    /// An index and its shards disagree; all disagreements.
    #[error("{}: the index does not fit the files{}", path.display(), bullets(problems))]
    Index {
        path: PathBuf,
        problems: Vec<String>,
    },
    #[error("{}: the weights to be written were read from {}", path.display(), weights.display())]
    ForeignWeights { path: PathBuf, weights: PathBuf },
    #[error("{}: changed while in use: tensor {} is not what it was", path.display(), shown(name))]
    ChangedSince { path: PathBuf, name: String },
    #[error("{}: the path goes up from a folder that does not exist", path.display())]
    OutputPath { path: PathBuf },
    #[error("{}: the output folder is the model folder itself; choose another", path.display())]
    OutputIsInput { path: PathBuf },
    #[error(
        "{}: the output folder lies inside the model folder {}; choose one elsewhere",
        path.display(),
        input.display()
    )]
    OutputInsideInput { path: PathBuf, input: PathBuf },
    #[error(
        "{}: the output folder contains the model folder {}; choose another",
        path.display(),
        input.display()
    )]
    OutputContainsInput { path: PathBuf, input: PathBuf },
    #[error("{}: the output exists and is not a folder; choose another", path.display())]
    OutputNotAFolder { path: PathBuf },
    #[error("{}: the output folder exists and is not empty; choose another", path.display())]
    OutputNotEmpty { path: PathBuf },
}

impl FolderError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull {
                path,
                action,
                source,
            },
            _ => Self::Io {
                path,
                action,
                source,
            },
        }
    }

    pub(super) fn changed_since(path: &Path, name: &str) -> Self {
        Self::ChangedSince {
            path: path.to_path_buf(),
            name: name.to_string(),
        }
    }

    pub(super) fn malformed(path: &Path, problem: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            problem: problem.into(),
        }
    }
}

/// A name from a file, quoted, with control characters escaped and cut to a readable length: a file must not be able
/// to send escape sequences to the terminal or fill it.
pub(super) fn shown(name: &str) -> String {
    const LONGEST: usize = 160;
    if name.chars().nth(LONGEST).is_none() {
        return format!("{name:?}");
    }
    let start: String = name.chars().take(LONGEST).collect();
    format!("{start:?}...")
}

fn shown_list(names: &[String]) -> String {
    const MOST: usize = 10;
    let mut text = names
        .iter()
        .take(MOST)
        .map(|name| shown(name))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MOST {
        let _ = write!(text, " and {} more tensors", names.len() - MOST);
    }
    text
}

fn bullets(problems: &[String]) -> String {
    const MOST: usize = 20;
    let shown = problems.iter().take(MOST);
    let mut text: String = shown.map(|problem| format!("\n  - {problem}")).collect();
    if problems.len() > MOST {
        let _ = write!(text, "\n  - and {} more", problems.len() - MOST);
    }
    text
}

fn found_instead(found: &[String]) -> String {
    if found.is_empty() {
        String::new()
    } else {
        format!("; found {}, which cannot be read", found.join(", "))
    }
}

impl FolderError {
    /// Whether the machine failed (its disk, the output's permissions), and not what it was given.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            // What cannot be opened or read is what was given, unless its disk fails.
            Self::Io { action, source, .. } => {
                let reading = action.starts_with("open")
                    || action.starts_with("read")
                    || action.starts_with("list");
                !reading
                    || source.kind() == io::ErrorKind::Other
                    || source.raw_os_error() == Some(5)
            }
            _ => false,
        }
    }
}
