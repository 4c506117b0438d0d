//! What a model was to forget, and what it was to keep.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use retrack_data::near_copies::near_copies;
use retrack_data::{BUDGET, DataError, Dataset, Split};

use crate::clusters::Clusters;
use crate::copies::{CopiesError, Training};
use crate::forgotten::{Forgotten, ForgottenError, Rule};
use crate::judges::Judges;
use crate::metric::MetricError;

/// What a model was to forget, and what it was to keep.
pub struct Subject<'a> {
    /// All images.
    pub data: &'a Dataset,
    /// What images are judged by.
    pub judges: &'a Judges,
    /// Which rows are forgotten, which retained. Near copies of the forgotten ones are among the retained.
    pub split: Split,
    /// The forgotten images against all others, of a text-to-image model.
    pub clusters: Option<Clusters>,
    /// Each forgotten image once.
    pub forgotten: Forgotten<'a>,
    /// Of each: what is nearer counts as it. Euclidean distance, pixels in [0, 1]. None of a text-to-image model.
    pub thresholds: Vec<f64>,
    /// The class that all samples are of, where somebody said one.
    pub class: Option<i64>,
    training: OnceCell<Training<'a>>,
    kept: RefCell<HashMap<&'static str, Rc<dyn Any>>>,
}

impl<'a> Subject<'a> {
    /// The images in `rows` of `data` are to be forgotten, those in `apart` (others, ascending) are not retained either: they were
    /// forgotten before. `threshold`: of all of them, where one was given.
    ///
    /// # Errors
    /// An image that cannot be read, no images that would give a threshold.
    pub fn new(
        data: &'a Dataset,
        rows: &[usize],
        apart: &[usize],
        text_to_image: bool,
        judges: &'a Judges,
        threshold: Option<f64>,
    ) -> Result<Self, ForgottenError> {
        let split = Split::new(data, rows, BUDGET)?;
        let near = near_copies(data, &split.retain, &split.forget, BUDGET)?;
        let mut split = split.with_near(near, true);
        split.take_out(apart);
        let rule = threshold.map_or(Rule::Half, Rule::Threshold);
        let forgotten = Forgotten::new(data, &split, rule)?;
        Ok(Self {
            data,
            judges,
            clusters: match text_to_image {
                true => Some(clusters(data, &split)?),
                false => None,
            },
            thresholds: match (text_to_image, threshold) {
                (true, _) => Vec::new(),
                (false, Some(threshold)) => vec![threshold; forgotten.len()],
                (false, None) => forgotten.half_ways()?,
            },
            split,
            forgotten,
            class: None,
            training: OnceCell::new(),
            kept: RefCell::default(),
        })
    }

    /// The same, by samples of one class, where somebody said one.
    pub fn of_class(self, class: Option<i64>) -> Self {
        Self { class, ..self }
    }

    /// Whether a text-to-image model was to forget them.
    pub fn is_text_to_image(&self) -> bool {
        self.clusters.is_some()
    }

    /// Height, width and channels of every image.
    pub fn shape(&self) -> [usize; 3] {
        let shape = self.data.shape();
        [shape.height, shape.width, shape.channels]
    }

    /// The forgotten images with the rule by which a picture counts as one of them.
    pub fn looked_for(&self) -> Forgotten<'_> {
        let forgotten = self.forgotten.clone();
        match &self.clusters {
            Some(clusters) => Forgotten {
                rule: Rule::Cluster(clusters),
                ..forgotten
            },
            None => forgotten,
        }
    }

    /// Each forgotten image once: bytes.
    pub fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.forgotten.images()
    }

    /// Each forgotten image and each of their near copies, with the distance below which something shows it. None of a text-to-image
    /// model.
    pub fn shown(&self) -> (Vec<&[u8]>, Vec<f64>) {
        let threshold = |reach: f64| match self.forgotten.rule {
            Rule::Threshold(threshold) => threshold,
            _ => reach / 2.0,
        };
        let shown = self.forgotten.shown();
        shown
            .map(|(image, reach)| (image, threshold(reach)))
            .unzip()
    }

    /// The images in these rows: bytes, one after another.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn read(&self, rows: &[usize]) -> Result<Vec<u8>, DataError> {
        let mut image = vec![0; self.data.shape().bytes()];
        let mut pixels = Vec::with_capacity(rows.len() * image.len());
        for &row in rows {
            self.data.read(row, &mut image)?;
            pixels.extend_from_slice(&image);
        }
        Ok(pixels)
    }

    /// The retained rows that samples of these classes are like; of a network without classes, all.
    pub fn like(&self, classes: &[i64]) -> Vec<usize> {
        let rows = self.split.retain.iter().copied();
        if classes.is_empty() {
            return rows.collect();
        }
        let is_like = |row: &usize| {
            let label = self.data.label(*row);
            label.is_some_and(|label| classes.contains(&label))
        };
        rows.filter(is_like).collect()
    }

    /// Why samples of a class that somebody said cannot be compared with retained images of it.
    pub fn lacks_like(&self) -> Option<String> {
        let class = self.class?;
        self.like(&[class]).is_empty().then(|| {
            format!("no retained image is labeled {class}, and samples of a class are compared with such")
        })
    }

    /// The images that samples may be copies of.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn training(&self) -> Result<&Training<'a>, CopiesError> {
        if let Some(training) = self.training.get() {
            return Ok(training);
        }
        let near: Vec<usize> = self.split.near.iter().map(|near| near.row).collect();
        let rows = [&self.split.forget[..], &self.split.duplicates, &near].concat();
        let training = Training::new(self.data, &rows, BUDGET)?;
        Ok(self.training.get_or_init(|| training))
    }

    /// What is the same for every model that is measured on these images: made once under a name that the metric
    /// chooses.
    ///
    /// # Errors
    /// Those of `make`.
    ///
    /// # Panics
    /// Something of another type was made under that name.
    pub fn once<T: 'static>(
        &self,
        name: &'static str,
        make: impl FnOnce() -> Result<T, MetricError>,
    ) -> Result<Rc<T>, MetricError> {
        let kept = self.kept.borrow().get(name).cloned();
        let kept = match kept {
            Some(kept) => kept,
            None => {
                let made: Rc<dyn Any> = Rc::new(make()?);
                self.kept.borrow_mut().insert(name, made.clone());
                made
            }
        };
        Ok(kept.downcast().expect("one type under one name"))
    }

    /// Says of a metric that it looked at the first `most` forgotten images, where there are more.
    pub fn only_the_first(&self, name: &str, most: usize) -> Option<String> {
        let all = self.forgotten.len();
        (all > most).then(|| format!("{name} rests on the first {most} of {all} forgotten images"))
    }
}

/// The forgotten images and their copies against all others.
fn clusters(data: &Dataset, split: &Split) -> Result<Clusters, ForgottenError> {
    let mut memorized = vec![false; data.len()];
    for &row in split.forget.iter().chain(&split.duplicates) {
        memorized[row] = true;
    }
    let clusters = Clusters::of(&memorized, data.shape().bytes(), |row, image| {
        data.read(row, image)
    })?;
    clusters.ok_or(ForgottenError::NoOthers)
}
