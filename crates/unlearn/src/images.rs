//! What a run trains on: clean images as its network takes them, by row.

use retrack_networks::random::Stream;

use retrack_data::pixels::to_unit;
use retrack_data::{DataError, Dataset};

/// Where in a run's random numbers an image is drawn: images that are distributions differ from one draw to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// What the number is for.
    pub stream: Stream,
    /// The image's number in the run.
    pub index: u64,
}

/// Clean images of one shape. `row` counts the rows of a data set.
pub trait Images: Sync {
    /// Height, width, channels.
    fn shape(&self) -> [usize; 3];

    /// Class of the image, or number of its text.
    fn label(&self, row: usize) -> Option<i64>;

    /// Appends the image to `values`, as drawn.
    ///
    /// # Errors
    /// An image that cannot be read.
    fn clean(&self, row: usize, drawn: Drawn, values: &mut Vec<f32>) -> Result<(), DataError>;

    /// Appends the image to `values` as it is on average: what another may be led to.
    ///
    /// # Errors
    /// An image that cannot be read.
    fn average(&self, row: usize, values: &mut Vec<f32>) -> Result<(), DataError>;

    /// The data set whose bytes these are, if they are no more than that.
    fn as_bytes(&self) -> Option<&Dataset>;

    /// What [`average`](Self::average) appends, where it lies in memory; `None` only of images that are
    /// [bytes](Self::as_bytes).
    fn in_memory(&self, row: usize) -> Option<&[f32]>;
}

/// Pixels, scaled to [-1, 1].
impl Images for Dataset {
    fn shape(&self) -> [usize; 3] {
        let shape = Dataset::shape(self);
        [shape.height, shape.width, shape.channels]
    }

    fn label(&self, row: usize) -> Option<i64> {
        Dataset::label(self, row)
    }

    fn clean(&self, row: usize, _: Drawn, values: &mut Vec<f32>) -> Result<(), DataError> {
        self.average(row, values)
    }

    fn average(&self, row: usize, values: &mut Vec<f32>) -> Result<(), DataError> {
        let mut bytes = vec![0; Dataset::shape(self).bytes()];
        self.read(row, &mut bytes)?;
        values.extend(bytes.iter().map(|&byte| to_unit(byte)));
        Ok(())
    }

    fn as_bytes(&self) -> Option<&Dataset> {
        Some(self)
    }

    fn in_memory(&self, _: usize) -> Option<&[f32]> {
        None
    }
}
