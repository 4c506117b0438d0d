//! Which images to forget: `row:5`, `rows:10-19`, `label:10`, `@list.txt` or an image file.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use retrack_checkpoint::files::read_text;

use super::error::rows;
use super::{DataError, Dataset};
use crate::neighbors;

/// Bytes for decoded blocks while the data set is searched for an image.
const SEARCH_BUDGET: usize = 64 << 20;

/// A selection as it was written, before a data set gives it rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// `row:5` is 5 to 5, `rows:10-19` is 10 to 19, both ends included.
    Rows {
        /// The first row.
        first: usize,
        /// The last row.
        last: usize,
    },
    /// `label:10`: all rows whose label is called so or, where none is, has this number.
    Label(i64),
    /// `label:dog` or `label:07`: all rows whose label is called so or, where none is, has this number.
    LabelName(String),
    /// `@list.txt`: a text file with a selector, a row number or a file name a line; `#` starts a comment.
    List(PathBuf),
    /// An image file: the row that it is, or all rows with exactly its pixels. A name that only the data set's folder
    /// knows is accepted too.
    Image(PathBuf),
}

/// Rows that a selection stands for, in ascending order and each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The rows.
    pub rows: Vec<usize>,
    /// What the user may not have meant.
    pub warnings: Vec<SelectionWarning>,
}

/// Something odd in a selection that does not make it wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectionWarning {
    /// Rows that a list selects more than once.
    Repeated {
        /// The rows, ascending.
        rows: Vec<usize>,
    },
}

impl fmt::Display for SelectionWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Repeated { rows } = self;
        match rows.as_slice() {
            [row] => write!(
                f,
                "row {row} is selected more than once; it is forgotten once"
            ),
            [row, ..] => write!(
                f,
                "{} rows are selected more than once, row {row} the first; each is forgotten once",
                rows.len()
            ),
            [] => Ok(()),
        }
    }
}

/// Why a selection has no rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// The text is none of the five forms.
    #[error(
        "cannot select \"{text}\": {problem}; write row:5, rows:10-19, label:10, @list.txt or the path of an image"
    )]
    Syntax {
        /// The selector.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A range that ends before it starts.
    #[error(
        "cannot select \"rows:{first}-{last}\": the range ends before it starts; did you mean rows:{last}-{first}?"
    )]
    Backwards {
        /// As written, the larger.
        first: usize,
        /// As written, the smaller.
        last: usize,
    },
    /// A row beyond the end.
    #[error("\"{text}\" selects row {row}, but the data set has {}", rows(*len))]
    Beyond {
        /// The selector.
        text: String,
        /// Its first row that does not exist.
        row: usize,
        /// Rows in the data set.
        len: usize,
    },
    /// A label that no row has.
    #[error("no row has label {label}; {known}")]
    NoSuchLabel {
        /// The label, or what it is called.
        label: String,
        /// The labels that there are, for people.
        known: String,
    },
    /// Several files of the data set have this name.
    #[error("\"{text}\" is the name of {} files, among them {} and {}; give the path below the folder", names.len(), names[0], names[1])]
    AmbiguousName {
        /// The selector.
        text: String,
        /// The paths below the folder.
        names: Vec<String>,
    },
    /// No image has exactly the pixels of the file.
    #[error(
        "no image of the data set has exactly the pixels of {}; the nearest is row {row}{}, {rms:.2} of 255 away \
         per value (root mean square); select it with row:{row} if it is the one meant",
        path.display(),
        name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
    )]
    NoExactMatch {
        /// The image file.
        path: PathBuf,
        /// The nearest row.
        row: usize,
        /// Its file name, if it has one.
        name: Option<String>,
        /// Its distance: sum of squared differences of the bytes.
        distance_squared: u64,
        /// The same as root mean square difference a value, 0 to 255.
        rms: f64,
    },
    /// A line of a list.
    #[error("{}, line {line}: {source}", path.display())]
    Line {
        /// The list.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with the line.
        source: Box<SelectionError>,
    },
    /// The list cannot be read.
    #[error("{}: {problem}", path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nothing would be left.
    #[error("the selection covers {} of the data set; nothing would be retained", all_images(*len))]
    Everything {
        /// Rows in the data set.
        len: usize,
    },
    /// An image cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl Selection {
    /// Reads one of the five forms. Whether rows, labels and files exist is checked by [`resolve`](Self::resolve).
    ///
    /// # Errors
    /// [`SelectionError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, SelectionError> {
        let text = text.trim();
        let fail = |problem: String| SelectionError::Syntax {
            text: text.to_owned(),
            problem,
        };
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            match digits.parse::<usize>() {
                Ok(number) if is_number => Ok(number),
                _ => Err(fail(format!("\"{digits}\" is not a row number"))),
            }
        };
        if text.is_empty() {
            Err(fail("it is empty".into()))
        } else if let Some(row) = text.strip_prefix("row:") {
            let row = number(row.trim())?;
            Ok(Self::Rows {
                first: row,
                last: row,
            })
        } else if let Some(range) = text.strip_prefix("rows:") {
            let (first, last) = range
                .split_once('-')
                .ok_or_else(|| fail("a range is FIRST-LAST".into()))?;
            let (first, last) = (number(first.trim())?, number(last.trim())?);
            if first > last {
                return Err(SelectionError::Backwards { first, last });
            }
            Ok(Self::Rows { first, last })
        } else if let Some(label) = text
            .strip_prefix("label:")
            .or_else(|| text.strip_prefix("cluster:"))
        {
            // "07" may be what a label is called, and 7 another.
            match (label.trim(), label.trim().parse::<i64>()) {
                ("", _) => Err(fail("the label is missing".into())),
                (text, Ok(label)) if label.to_string() == text => Ok(Self::Label(label)),
                (name, _) => Ok(Self::LabelName(name.to_owned())),
            }
        } else if let Some(list) = text.strip_prefix('@') {
            if list.is_empty() {
                return Err(fail("the list's path is missing after @".into()));
            }
            Ok(Self::List(PathBuf::from(list)))
        } else {
            Ok(Self::Image(PathBuf::from(text)))
        }
    }

    /// The rows of `data` that the selection stands for.
    ///
    /// # Errors
    /// [`SelectionError`]: a row or label that does not exist, an image that is not in the data set (the nearest row
    /// is named), a list with a bad line or without any, or a selection of everything.
    pub fn resolve(&self, data: &Dataset) -> Result<Resolved, SelectionError> {
        Self::resolve_all(std::slice::from_ref(self), data)
    }

    /// The rows of `data` that any of the selections stands for.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_all(selections: &[Self], data: &Dataset) -> Result<Resolved, SelectionError> {
        let mut found = Found::default();
        for selection in selections {
            match selection {
                Self::List(path) => resolve_list(path, data, &mut found)?,
                one => found.add(one, &one.to_string(), data, Path::new(""), None)?,
            }
        }
        found.match_pixels(data)?;
        let Found { rows, repeated, .. } = found;
        if rows.len() == data.len() {
            return Err(SelectionError::Everything { len: data.len() });
        }
        let warnings = if repeated.is_empty() {
            Vec::new()
        } else {
            vec![SelectionWarning::Repeated {
                rows: repeated.into_iter().collect(),
            }]
        };
        Ok(Resolved {
            rows: rows.into_iter().collect(),
            warnings,
        })
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows { first, last } if first == last => write!(f, "row:{first}"),
            Self::Rows { first, last } => write!(f, "rows:{first}-{last}"),
            Self::Label(label) => write!(f, "label:{label}"),
            Self::LabelName(name) => write!(f, "label:{name}"),
            Self::List(path) => write!(f, "@{}", path.display()),
            Self::Image(path) => write!(f, "{}", path.display()),
        }
    }
}

fn resolve_list(path: &Path, data: &Dataset, found: &mut Found) -> Result<(), SelectionError> {
    let fail = |problem: String| SelectionError::List {
        path: path.to_owned(),
        problem,
    };
    let text = read_text(path).map_err(|error| {
        fail(match error.kind() {
            io::ErrorKind::NotFound => {
                "no such file; a list is a text file with one selector a line".into()
            }
            io::ErrorKind::InvalidData => "this is not a text file (UTF-8)".into(),
            _ => error.to_string(),
        })
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut lines = 0;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // A file name may hold a # of its own.
        let line = match line.find(" #") {
            Some(end) if data.source.rows_named(line).is_empty() => line[..end].trim_end(),
            _ => line,
        };
        lines += 1;
        let at_line = |error: SelectionError| match error {
            SelectionError::Data(_) | SelectionError::Everything { .. } => error,
            error => SelectionError::Line {
                path: path.to_owned(),
                line: index + 1,
                source: Box::new(error),
            },
        };
        let selection = if line.bytes().all(|byte| byte.is_ascii_digit()) {
            Selection::parse(&format!("row:{line}"))
        } else {
            Selection::parse(line)
        };
        let origin = Some((path, index + 1));
        selection
            .and_then(|selection| found.add(&selection, line, data, folder, origin))
            .map_err(at_line)?;
    }
    if lines == 0 {
        return Err(fail(
            "the list selects nothing: it has no line besides comments".into(),
        ));
    }
    Ok(())
}

/// An image that must be looked for by its pixels.
struct Wanted {
    path: PathBuf,
    pixels: Vec<u8>,
    line: Option<(PathBuf, usize)>,
}

#[derive(Default)]
struct Found {
    rows: BTreeSet<usize>,
    repeated: BTreeSet<usize>,
    wanted: Vec<Wanted>,
}

impl Found {
    fn insert(&mut self, row: usize) {
        if !self.rows.insert(row) {
            self.repeated.insert(row);
        }
    }

    fn add(
        &mut self,
        selection: &Selection,
        text: &str,
        data: &Dataset,
        folder: &Path,
        line: Option<(&Path, usize)>,
    ) -> Result<(), SelectionError> {
        match *selection {
            Selection::Rows { first, last } => {
                let len = data.len();
                if last >= len {
                    return Err(SelectionError::Beyond {
                        text: text.to_owned(),
                        row: first.max(len),
                        len,
                    });
                }
                (first..=last).for_each(|row| self.insert(row));
            }
            Selection::Label(label) => self.add_label(&label.to_string(), text, data)?,
            Selection::LabelName(ref name) => self.add_label(name, text, data)?,
            Selection::List(_) => {
                let problem = "a list cannot name another list".to_owned();
                return Err(SelectionError::Syntax {
                    text: text.to_owned(),
                    problem,
                });
            }
            Selection::Image(ref path) => self.add_image(path, text, data, folder, line)?,
        }
        Ok(())
    }

    /// The rows of a label that is called `name` or, where none is, that has this number.
    fn add_label(&mut self, name: &str, text: &str, data: &Dataset) -> Result<(), SelectionError> {
        let names = data.source.label_names();
        let first = |label: i64| (0..data.len()).find(|&row| data.label(row) == Some(label));
        let called = names.iter().position(|known| known == name);
        let called = called.map(|label| label as i64);
        let number = name.parse::<i64>().ok();
        if let (Some(called), Some(number)) = (called, number)
            && called != number
            && (data.label_name(number).is_some() || first(number).is_some())
        {
            let row = |label| match first(label) {
                Some(row) => format!("its first row is {row}"),
                None => "no row has it".into(),
            };
            let of_number = match data.label_name(number) {
                Some(name) => format!("the one with number {number}, called \"{name}\""),
                None => format!("the one with number {number}"),
            };
            return Err(SelectionError::Syntax {
                text: text.to_owned(),
                problem: format!(
                    "it means two labels: the one called \"{name}\", with number {called} ({}), and {of_number} ({}); \
                     select its rows instead, one by one or in a list",
                    row(called),
                    row(number)
                ),
            });
        }
        let rows: Vec<usize> = match called.or(number) {
            Some(label) => (0..data.len())
                .filter(|&row| data.label(row) == Some(label))
                .collect(),
            None => Vec::new(),
        };
        if rows.is_empty() {
            let known = known_labels(data);
            return Err(SelectionError::NoSuchLabel {
                label: name.to_owned(),
                known: match (names, number) {
                    ([], None) => format!("labels are whole numbers here; {known}"),
                    _ => known,
                },
            });
        }
        rows.into_iter().for_each(|row| self.insert(row));
        Ok(())
    }

    fn add_image(
        &mut self,
        path: &Path,
        text: &str,
        data: &Dataset,
        folder: &Path,
        line: Option<(&Path, usize)>,
    ) -> Result<(), SelectionError> {
        // In a list, a name of the data set goes before a file of that name beside the list.
        let place = [path.to_owned(), folder.join(path)]
            .into_iter()
            .find(|place| place.is_file());
        let by_name = if line.is_some() || place.is_none() {
            data.source.rows_named(text)
        } else {
            Vec::new()
        };
        match (by_name.as_slice(), place) {
            (&[row], _) => self.insert(row),
            ([_, ..], _) => {
                let names = by_name.iter().map(|&row| data.name(row)).collect();
                return Err(SelectionError::AmbiguousName {
                    text: text.to_owned(),
                    names,
                });
            }
            ([], None) => {
                let problem = if path.is_dir() {
                    "this is a folder, not an image".to_owned()
                } else {
                    "it is not a file, nor the name of an image of the data set".to_owned()
                };
                return Err(SelectionError::Syntax {
                    text: text.to_owned(),
                    problem,
                });
            }
            ([], Some(place)) => {
                let own = fs::canonicalize(&place)
                    .ok()
                    .and_then(|place| data.source.row_of(&place));
                match own {
                    Some(row) => self.insert(row),
                    None => {
                        let pixels = data.read_file(&place)?;
                        let line = line.map(|(list, line)| (list.to_owned(), line));
                        self.wanted.push(Wanted {
                            path: place,
                            pixels,
                            line,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks for all wanted images in one pass over the data.
    fn match_pixels(&mut self, data: &Dataset) -> Result<(), SelectionError> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let wanted = std::mem::take(&mut self.wanted);
        let queries: Vec<&[u8]> = wanted
            .iter()
            .map(|wanted| wanted.pixels.as_slice())
            .collect();
        let all: Vec<usize> = (0..data.len()).collect();
        let mut exact = vec![Vec::new(); wanted.len()];
        data.blocks(&all, SEARCH_BUDGET, |block| {
            for index in 0..block.rows.len() {
                for (rows, &query) in exact.iter_mut().zip(&queries) {
                    if block.image(index) == query {
                        rows.push(block.rows[index]);
                    }
                }
            }
            Ok::<(), SelectionError>(())
        })?;
        for (wanted, rows) in wanted.into_iter().zip(exact) {
            if rows.is_empty() {
                return Err(no_exact_match(wanted, data, &all)?);
            }
            rows.into_iter().for_each(|row| self.insert(row));
        }
        Ok(())
    }
}

fn no_exact_match(
    wanted: Wanted,
    data: &Dataset,
    all: &[usize],
) -> Result<SelectionError, SelectionError> {
    let nearest =
        neighbors::nearest_to(data, all, &[&wanted.pixels], 1, SEARCH_BUDGET).map_err(|error| {
            match error {
                neighbors::NeighborError::Data(error) => SelectionError::Data(error),
                error => SelectionError::List {
                    path: wanted.path.clone(),
                    problem: error.to_string(),
                },
            }
        })?;
    let nearest = nearest[0][0];
    let name = Some(data.name(nearest.row)).filter(|name| !name.starts_with("row "));
    let error = SelectionError::NoExactMatch {
        path: wanted.path,
        row: nearest.row,
        name,
        distance_squared: nearest.distance_squared,
        rms: neighbors::root_mean_square(nearest.distance_squared, data.shape().bytes()),
    };
    Ok(match wanted.line {
        Some((path, line)) => SelectionError::Line {
            path,
            line,
            source: Box::new(error),
        },
        None => error,
    })
}

fn all_images(len: usize) -> String {
    match len {
        1 => "the only image".into(),
        len => format!("all {len} images"),
    }
}

fn known_labels(data: &Dataset) -> String {
    let labels: BTreeSet<i64> = (0..data.len()).filter_map(|row| data.label(row)).collect();
    let shown: Vec<String> = labels
        .iter()
        .take(20)
        .map(|&label| match data.label_name(label) {
            Some(name) => format!("{label} ({name})"),
            None => label.to_string(),
        })
        .collect();
    match labels.len() {
        0 => match data.label_note() {
            Some(note) => format!("the data set has no labels: {note}"),
            None => "the data set has no labels".to_owned(),
        },
        1 => format!("its only label is {}", shown[0]),
        2..=20 => format!("its labels are {}", shown.join(", ")),
        more => format!("its {more} labels are {}, ...", shown.join(", ")),
    }
}
