//! Why a model folder could not be read or written.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::tensor::TensorError;

/// Why a model folder could not be read or written. Every message names the file or folder and, where there is one,
/// the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The system refused a file or a folder.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as "read" or "create".
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// Another element type was asked of weights whose form keeps it.
    #[error(
        "{}: weights in this form (.bin, or shards with an index) keep their element type",
        path.display()
    )]
    FixedTypes {
        /// The file or folder.
        path: PathBuf,
    },
    /// No space is left, or none that this user may take.
    #[error("{}: the disk is full: cannot {action}; free some space or choose another output folder", path.display())]
    DiskFull {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as "read" or "create".
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// There is no such folder.
    #[error(
        "{}: no such folder; give the local folder of a model (`hf download NAME --local-dir DIR` fetches one from the Hugging Face Hub)",
        path.display()
    )]
    MissingFolder {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file stands where a folder should.
    #[error("{}: not a folder; give the folder that holds model_index.json or config.json", path.display())]
    NotAFolder {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file that must be there is not.
    #[error("{}: no such file; {remedy}", path.display())]
    MissingFile {
        /// The file or folder.
        path: PathBuf,
        /// What to do about it.
        remedy: String,
    },
    /// A pipe, a device or a folder stands where a file should.
    #[error("{}: not a regular file", path.display())]
    NotRegular {
        /// The file or folder.
        path: PathBuf,
    },
    /// A link leads out of the model folder.
    #[error(
        "{}: a link to {}, which is outside the model folder; put a copy of the file in its place",
        path.display(),
        target.display()
    )]
    LinkOutside {
        /// The file or folder.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Git LFS left its pointer in place of the content.
    #[error(
        "{}: only a Git-LFS pointer, the content was never fetched; run `git lfs pull` in the model's repository",
        path.display()
    )]
    LfsPointer {
        /// The file or folder.
        path: PathBuf,
    },
    /// The file has no content.
    #[error("{}: the file is empty; download it again", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// A web page was saved under the file's name.
    #[error("{}: a web page (HTML), not a model file; download the file itself, not the page that shows it", path.display())]
    Html {
        /// The file or folder.
        path: PathBuf,
    },
    /// The file is no JSON.
    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        /// The file or folder.
        path: PathBuf,
        /// Where it stops being JSON.
        source: serde_json::Error,
    },
    /// The file's content breaks its format.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file or folder.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// The folder names a class that is not built here.
    #[error("{}: {found} is not supported; supported here: {}", path.display(), supported.join(", "))]
    UnsupportedClass {
        /// The file or folder.
        path: PathBuf,
        /// What it names.
        found: String,
        /// The classes that are built.
        supported: &'static [&'static str],
    },
    /// No weights of a known name lie there.
    #[error("{}: no weights; expected one of {expected}{}", path.display(), found_instead(found))]
    NoWeights {
        /// The file or folder.
        path: PathBuf,
        /// The names that were looked for.
        expected: &'static str,
        /// Files of other names that look like weights.
        found: Vec<String>,
    },
    /// All weights are of a variant, such as `fp16`.
    #[error(
        "{}: only weights of a variant are here ({}); rename {} (or download the main variant) to use them",
        path.display(),
        found.join(", "),
        renames.iter().map(|(from, to)| format!("{from} to {to}")).collect::<Vec<_>>().join(", ")
    )]
    OnlyVariant {
        /// The file or folder.
        path: PathBuf,
        /// The files of variants.
        found: Vec<String>,
        /// Present and new name, first of a file in the folder, then of one in each other part that has a variant only.
        renames: Vec<(String, String)>,
    },
    /// The shards are there, and the index that says what lies in which is not.
    #[error(
        "{}: shards of weights ({}) without their index ({index}); download it too",
        path.display(),
        found.join(", ")
    )]
    NoIndex {
        /// The file or folder.
        path: PathBuf,
        /// The shards.
        found: Vec<String>,
        /// The index's name.
        index: String,
    },
    /// A tensor's values or shape are wrong.
    #[error("{}: tensor {}: {source}", path.display(), shown(name))]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// What is wrong.
        source: TensorError,
    },
    /// NaN or infinity in weights: every tensor that holds one.
    #[error("{}: NaN or infinity in {}; such weights cannot be used", path.display(), shown_list(names))]
    NonFinite {
        /// The file or folder.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// The pickle in a `.bin` names something that does not build a tensor.
    #[error(
        "{}: the pickle asks for {}, which is not needed to build tensors; refused, the file may be malicious",
        path.display(),
        shown(global)
    )]
    ForbiddenGlobal {
        /// The file or folder.
        path: PathBuf,
        /// What it names: module and name.
        global: String,
    },
    /// The form of `torch.save` before PyTorch 1.6.
    #[error(
        "{}: written by torch.save before PyTorch 1.6 (not a zip file), which is not read; in Python, load it with torch.load(FILE, weights_only=True) and save it again with torch.save",
        path.display()
    )]
    LegacyTorch {
        /// The file or folder.
        path: PathBuf,
    },
    /// An index and its shards disagree; all disagreements.
    #[error("{}: the index does not fit the files{}", path.display(), bullets(problems))]
    Index {
        /// The file or folder.
        path: PathBuf,
        /// A sentence each.
        problems: Vec<String>,
    },
    /// The weights belong to another folder than the one that is written.
    #[error("{}: the weights to be written were read from {}", path.display(), weights.display())]
    ForeignWeights {
        /// The file or folder.
        path: PathBuf,
        /// The folder of the weights.
        weights: PathBuf,
    },
    /// A weight file changed between two looks at it.
    #[error("{}: changed while in use: tensor {} is not what it was", path.display(), shown(name))]
    ChangedSince {
        /// The file or folder.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// The output path goes up from a folder that does not exist.
    #[error("{}: the path goes up from a folder that does not exist", path.display())]
    OutputPath {
        /// The file or folder.
        path: PathBuf,
    },
    /// The output folder is the model folder.
    #[error("{}: the output folder is the model folder itself; choose another", path.display())]
    OutputIsInput {
        /// The file or folder.
        path: PathBuf,
    },
    /// The output folder lies inside the model folder.
    #[error(
        "{}: the output folder lies inside the model folder {}; choose one elsewhere",
        path.display(),
        input.display()
    )]
    OutputInsideInput {
        /// The file or folder.
        path: PathBuf,
        /// The model folder.
        input: PathBuf,
    },
    /// The model folder lies inside the output folder.
    #[error(
        "{}: the output folder contains the model folder {}; choose another",
        path.display(),
        input.display()
    )]
    OutputContainsInput {
        /// The file or folder.
        path: PathBuf,
        /// The model folder.
        input: PathBuf,
    },
    /// The output path is no folder.
    #[error("{}: the output exists and is not a folder; choose another", path.display())]
    OutputNotAFolder {
        /// The file or folder.
        path: PathBuf,
    },
    /// The output folder holds something.
    #[error("{}: the output folder exists and is not empty; choose another", path.display())]
    OutputNotEmpty {
        /// The file or folder.
        path: PathBuf,
    },
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
