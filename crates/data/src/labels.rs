//! Labels as classes of a network.

use std::path::PathBuf;

use crate::Dataset;

/// An image whose label is no class of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// There is no such class.
    #[error("{name}: label {label} is not among the network's 0 to {last}")]
    Unknown {
        /// The image.
        name: String,
        /// Its label.
        label: i64,
        /// The network's last class.
        last: usize,
    },
    /// It has none.
    #[error("{name}: no label, but the network has classes")]
    Missing {
        /// The image.
        name: String,
    },
    /// No image has one.
    #[error("{}: the model has classes, but the data set has no labels", path.display())]
    NoLabels {
        /// The data set.
        path: PathBuf,
    },
}

impl Dataset {
    /// Checks that each of `rows` has a label that a network of so many classes knows.
    ///
    /// # Errors
    /// [`LabelError`] of the first that has none.
    pub fn check_labels(&self, rows: &[usize], classes: usize) -> Result<(), LabelError> {
        for &row in rows {
            let name = || self.name(row);
            match self.label(row) {
                Some(label) if (0..classes as i64).contains(&label) => {}
                Some(label) => {
                    return Err(LabelError::Unknown {
                        name: name(),
                        label,
                        last: classes.saturating_sub(1),
                    });
                }
                None if (0..self.len()).any(|row| self.label(row).is_some()) => {
                    return Err(LabelError::Missing { name: name() });
                }
                None => {
                    return Err(LabelError::NoLabels {
                        path: self.path().to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}
