//! Images like those of a data set that forgotten ones are compared with.

use retrack_data::{DataError, Dataset};

/// Images like those of the data set, for comparison.
#[derive(Debug)]
pub struct Controls {
    data: Dataset,
    rows: Vec<usize>,
    /// How many images are in the data set.
    shared: usize,
}

impl Controls {
    /// `controls` to the images of `data`.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn new(controls: Dataset, data: &Dataset) -> Result<Self, DataError> {
        let known = data.digests(&(0..data.len()).collect::<Vec<_>>())?;
        let mut rows = Vec::new();
        for row in 0..controls.len() {
            if controls.digests(&[row])?.is_disjoint(&known) {
                rows.push(row);
            }
        }
        let shared = controls.len() - rows.len();
        if rows.is_empty() {
            rows = (0..controls.len()).collect();
        }
        Ok(Self {
            data: controls,
            rows,
            shared,
        })
    }

    /// All that were given.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// Rows of images that are not in the data set, which the model may have seen; where there are none, all.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// About `most` of these rows, from all over them.
    pub fn some(&self, most: usize) -> Vec<usize> {
        let stride = self.rows.len().div_ceil(most).max(1);
        self.rows.iter().copied().step_by(stride).collect()
    }

    /// All of them are images of the data set.
    pub fn are_known(&self) -> bool {
        self.shared == self.data.len()
    }

    /// What a reader of a score should know.
    pub fn note(&self) -> Option<String> {
        match self.shared {
            0 => None,
            _ if self.are_known() => Some(
                "the controls are images of the data set itself, which the model may have seen: membership then tells \
                 nothing; give images that it never saw, such as the test split"
                    .into(),
            ),
            shared => Some(format!(
                "{shared} of {} controls {} of the data set, which the model may have seen: membership leaves them out",
                self.data.len(),
                if shared == 1 { "is an image" } else { "are images" }
            )),
        }
    }
}
