//! Look-alikes of the forgotten images: pictures first, and what a network sees of them.

use std::collections::{HashMap, HashSet};

use retrack_data::look_alikes::{Change, mirrored};
use retrack_data::pixels::to_unit;
use retrack_data::{DataError, Dataset};
use retrack_eval::controls::Controls;
use retrack_networks::random::{Random, Stream};

/// What a set of look-alikes is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// How badly the model denoises what it does not know.
    Level,
    /// Whether the run is at its end.
    Stop,
    /// What the report says.
    Report,
}

impl Purpose {
    /// What tells the random numbers of one purpose from those of another.
    pub(super) fn random(self, seed: u64) -> Random {
        let far = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(1 + self as u64);
        Random::new(seed.wrapping_add(far))
    }

    /// What a run is led by takes turns with what ends it.
    fn turn(self) -> Option<usize> {
        match self {
            Self::Level => Some(0),
            Self::Stop => Some(1),
            Self::Report => None,
        }
    }

    /// How many look-alikes forgotten image number `image` of `images` has. Ranks need 19.
    fn count(self, image: usize, images: usize) -> usize {
        match self {
            Self::Level => (512 / images).clamp(12, 32),
            Self::Stop => (256 / images).clamp(19, 24),
            // Whoever measures again makes them without knowing how many images there were.
            Self::Report if image < REPORTED => 24,
            Self::Report => 0,
        }
    }
}

/// How many controls a run needs at least: as many to lead by as ranks need to end it.
pub const CONTROLS: usize = 2 * 19;

/// How large the changes are, in turns, of look-alikes that lead a run; the first also of all others.
pub(super) const SIZES: [f64; 2] = [1.0, 2.0];

/// Retained images that are compared with their mirror images, of how many of them look-alikes are made, too, and how many
/// of each.
const KEPT: [usize; 3] = [20, 5, 4];

/// Retained images from all over them, which show what a change costs and what a mirror image is to the model.
pub fn kept(retain: &[usize]) -> Vec<usize> {
    let count = KEPT[0].min(retain.len());
    (0..count)
        .map(|at| retain[at * retain.len() / count])
        .collect()
}

/// How many of the distinct forgotten images a report looks at, at most: the first ones.
pub const REPORTED: usize = 16;

/// The distinct forgotten images, and what look-alikes are to be made of them.
pub struct Pictures<'a> {
    data: &'a Dataset,
    /// The first row of each.
    rows: Vec<usize>,
    /// Which of them each forgotten row holds.
    of_row: HashMap<usize, usize>,
    /// Bytes of each.
    images: Vec<Vec<u8>>,
    /// Rows of retained images, see [`kept`].
    kept: Vec<usize>,
    purposes: &'a [Purpose],
    /// Take the place of look-alikes, but in a report, which can be checked without them.
    controls: Option<&'a Controls>,
    /// Forgotten images whose mirror images are in the data.
    known_mirrors: HashSet<usize>,
    seed: u64,
}

impl<'a> Pictures<'a> {
    /// Reads the images in these rows. `kept`: of retained images, see there. `seed` decides how they are changed.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn read(
        data: &'a Dataset,
        forget: &[usize],
        kept: Vec<usize>,
        purposes: &'a [Purpose],
        seed: u64,
    ) -> Result<Self, DataError> {
        let mut rows = Vec::new();
        let mut of_row = HashMap::new();
        let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
        for &row in forget {
            let mut image = vec![0; data.shape().bytes()];
            data.read(row, &mut image)?;
            let number = *known.entry(image).or_insert_with(|| {
                rows.push(row);
                rows.len() - 1
            });
            of_row.insert(row, number);
        }
        let mut images = vec![Vec::new(); known.len()];
        for (image, number) in known {
            images[number] = image;
        }
        Ok(Self {
            data,
            rows,
            of_row,
            images,
            kept,
            purposes,
            controls: None,
            known_mirrors: HashSet::new(),
            seed,
        })
    }

    /// Without the mirror images of the forgotten images in these rows: the data has them, so a model may know them, too.
    pub fn without_mirrors_of(self, rows: &[usize]) -> Self {
        let known_mirrors = rows.iter().filter_map(|row| self.of_row.get(row).copied());
        Self {
            known_mirrors: known_mirrors.collect(),
            ..self
        }
    }

    /// With these images in the place of look-alikes, but in a report, which can be checked without them.
    ///
    /// # Panics
    /// There are less than [`CONTROLS`].
    pub fn with_controls(self, controls: &'a Controls) -> Self {
        assert!(controls.rows().len() >= CONTROLS);
        Self {
            controls: Some(controls),
            ..self
        }
    }

    /// How many look-alikes are to be made.
    pub fn count(&self) -> usize {
        let images = self.images.len();
        let of = |image| {
            let counts = self.purposes.iter();
            counts
                .map(|purpose| self.count_of(*purpose, image))
                .sum::<usize>()
        };
        let changed = KEPT[1].min(self.kept.len());
        // Each has a mirror image, or may have one.
        (0..images).map(of).sum::<usize>() + images + self.kept.len() + KEPT[2] * changed
    }

    fn count_of(&self, purpose: Purpose, image: usize) -> usize {
        let count = purpose.count(image, self.images.len());
        match (self.controls, purpose.turn()) {
            (Some(controls), Some(_)) => count.min(controls.rows().len() / 2),
            _ => count,
        }
    }

    /// Number `place` of what one forgotten image is compared with for a purpose.
    fn picture(&self, purpose: Purpose, image: usize, place: usize) -> Result<Vec<u8>, DataError> {
        if let (Some(controls), Some(turn)) = (self.controls, purpose.turn()) {
            let (rows, data) = (controls.rows(), controls.data());
            // From all over them: they may be sorted.
            let half = rows.len() / 2;
            let row = rows[2 * (place * half / self.count_of(purpose, image)) + turn];
            let mut picture = vec![0; data.shape().bytes()];
            data.read(row, &mut picture)?;
            return Ok(picture);
        }
        let random = purpose.random(self.seed);
        let size = match purpose {
            Purpose::Level => SIZES[place % SIZES.len()],
            Purpose::Stop | Purpose::Report => SIZES[0],
        };
        Ok(self.changed(&self.images[image], random, [image, place], size))
    }

    /// A picture changed as numbers say that belong to its number and its look-alike's.
    fn changed(
        &self,
        picture: &[u8],
        random: Random,
        [image, place]: [usize; 2],
        size: f64,
    ) -> Vec<u8> {
        let mut draw = random.at(Stream::LookAlike, image as u64, place as u64);
        let change = Change::drawn(&draw.uniform(Change::NUMBERS), size);
        change.apply(self.data.shape(), picture)
    }

    /// The mirror image of forgotten image number `image`, where it lies at least half as far from it as its look-alikes do.
    /// None where the data has it. The same whatever the purposes are.
    fn mirror(&self, image: usize) -> Option<Vec<u8>> {
        if self.known_mirrors.contains(&image) {
            return None;
        }
        let own = &self.images[image];
        let differs = |other: &[u8]| -> f64 {
            let squares = own
                .iter()
                .zip(other)
                .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
            squares.sum()
        };
        let random = Purpose::Report.random(self.seed);
        let changed = |place| differs(&self.changed(own, random, [image, place], SIZES[0]));
        let mirror = mirrored(self.data.shape(), own);
        let far = (0..KEPT[2]).map(changed).sum::<f64>() / KEPT[2] as f64;
        // Squares of distances.
        (4.0 * differs(&mirror) > far).then_some(mirror)
    }

    /// The look-alikes as a network sees them: `see` makes the values that it takes of a picture's bytes. It is told the
    /// row of the forgotten image, too.
    ///
    /// # Errors
    /// What `see` returns, a control that cannot be read.
    pub fn seen<E: From<DataError>>(
        self,
        mut see: impl FnMut(usize, Vec<u8>) -> Result<Vec<f32>, E>,
    ) -> Result<LookAlikes, E> {
        let mut sets = vec![[const { Vec::new() }; 3]; self.images.len()];
        for (number, sets) in sets.iter_mut().enumerate() {
            for &purpose in self.purposes {
                for place in 0..self.count_of(purpose, number) {
                    let picture = self.picture(purpose, number, place)?;
                    sets[purpose as usize].extend(see(self.rows[number], picture)?);
                }
            }
        }
        let mut mirrors = Vec::with_capacity(self.images.len());
        for (number, &row) in self.rows.iter().enumerate() {
            let mirror = self.mirror(number).map(|picture| see(row, picture));
            mirrors.push(mirror.transpose()?);
        }
        let mut kept = Vec::with_capacity(self.kept.len());
        // Another stream than any purpose's.
        let random = Random::new(self.seed.wrapping_sub(1));
        let all = self.kept.len();
        let changed: Vec<usize> = (0..KEPT[1].min(all))
            .map(|at| at * all / KEPT[1].min(all))
            .collect();
        for (number, &row) in self.kept.iter().enumerate() {
            let mut picture = vec![0; self.data.shape().bytes()];
            self.data.read(row, &mut picture)?;
            let mirror = see(row, mirrored(self.data.shape(), &picture))?;
            let mut look_alikes = Vec::new();
            if changed.contains(&number) {
                for place in 0..KEPT[2] {
                    let changed = self.changed(&picture, random, [number, place], SIZES[0]);
                    look_alikes.push(see(row, changed)?);
                }
            }
            kept.push(Kept {
                row,
                mirror,
                look_alikes,
            });
        }
        Ok(LookAlikes {
            rows: self.rows,
            of_row: self.of_row,
            sets,
            mirrors,
            kept,
            are_controls: self.controls.is_some(),
        })
    }

    /// The look-alikes as a network of pixels sees them: values in [-1, 1].
    ///
    /// # Errors
    /// A control that cannot be read.
    pub fn as_pixels(self) -> Result<LookAlikes, DataError> {
        self.seen(|_, bytes| Ok(bytes.into_iter().map(to_unit).collect()))
    }
}

/// Look-alikes of each distinct forgotten image, a set for each purpose, as the network takes them: pixels or latents.
#[derive(Debug, Clone)]
pub struct LookAlikes {
    /// The first row of each forgotten image.
    pub rows: Vec<usize>,
    /// Which of them each forgotten row holds.
    pub of_row: HashMap<usize, usize>,
    sets: Vec<[Vec<f32>; 3]>,
    /// The mirror image of each forgotten image that differs enough from it.
    pub mirrors: Vec<Option<Vec<f32>>>,
    /// Retained images.
    pub kept: Vec<Kept>,
    /// Those that lead and end a run are images as they were taken.
    pub are_controls: bool,
}

/// What is made of a retained image, as the network takes it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Where it lies in the data set.
    pub row: usize,
    /// Its mirror image.
    pub mirror: Vec<f32>,
    /// Its look-alikes; of most none are made.
    pub look_alikes: Vec<Vec<f32>>,
}

impl LookAlikes {
    /// Those of one forgotten image; none for a purpose that they were not made for.
    pub fn of(&self, image: usize, purpose: Purpose) -> &[f32] {
        &self.sets[image][purpose as usize]
    }

    /// The forgotten rows that hold one of these images, ascending.
    pub fn rows_of(&self, images: &[usize]) -> Vec<usize> {
        let of_row = self.of_row.iter();
        let mut rows: Vec<usize> = of_row
            .filter(|(_, image)| images.contains(image))
            .map(|(row, _)| *row)
            .collect();
        rows.sort_unstable();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_data::ImageShape;

    #[test]
    fn a_mirror_image_that_the_data_has_is_no_measure_of_what_is_unknown() {
        let shape = ImageShape {
            height: 8,
            width: 8,
            channels: 1,
        };
        let picture = |seed: u32| (0..64).map(move |at| (at * at * seed % 251) as u8);
        let pixels = picture(3).chain(picture(7)).collect();
        let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
        let pictures = || Pictures::read(&data, &[0, 1], Vec::new(), &[], 5).unwrap();
        let has = |pictures: Pictures| {
            let found = pictures.as_pixels().unwrap();
            found
                .mirrors
                .iter()
                .map(Option::is_some)
                .collect::<Vec<_>>()
        };
        assert_eq!(has(pictures()), [true, true]);
        assert_eq!(has(pictures().without_mirrors_of(&[1])), [true, false]);
    }

    #[test]
    fn no_look_alike_serves_two_purposes() {
        let shape = ImageShape {
            height: 8,
            width: 8,
            channels: 1,
        };
        let pixels = (0..64)
            .map(|value| 3 * value)
            .collect::<Vec<u8>>()
            .repeat(2);
        let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
        let purposes = [Purpose::Level, Purpose::Stop, Purpose::Report];
        let pictures = Pictures::read(&data, &[0, 1], Vec::new(), &purposes, 5).unwrap();
        let count = pictures.count();
        let found = pictures.as_pixels().unwrap();
        assert_eq!(found.rows, [0]);
        assert_eq!(found.of_row[&1], 0);
        let mut all: Vec<&[f32]> = purposes
            .iter()
            .flat_map(|&purpose| found.of(0, purpose).chunks_exact(64))
            .collect();
        assert_eq!(all.len(), 32 + 24 + 24);
        assert_eq!(all.len() + 1, count);
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let made = all.len();
        all.dedup();
        assert_eq!(all.len(), made);
    }

    /// Images of one pixel, a different one in each row.
    fn pixels(rows: u8) -> Dataset {
        let shape = ImageShape {
            height: 1,
            width: 1,
            channels: 1,
        };
        Dataset::from_pixels(shape, (0..rows).collect(), Vec::new()).unwrap()
    }

    #[test]
    fn a_network_sees_what_it_is_shown_of_each_picture_and_whose_it_is() {
        let data = pixels(3);
        let pictures = Pictures::read(&data, &[2, 0], vec![1], &[Purpose::Stop], 5).unwrap();
        let mut rows = Vec::new();
        let found = pictures.seen::<DataError>(|row, bytes| {
            rows.push(row);
            Ok(vec![f32::from(bytes[0]), row as f32])
        });
        let found = found.unwrap();
        assert_eq!(rows[..48], [[2; 24], [0; 24]].concat());
        // A pixel is its own mirror image, which is only looked at among retained images.
        assert_eq!(rows[48..], [1; 1 + KEPT[2]]);
        assert_eq!(found.mirrors, [None, None]);
        assert_eq!(found.kept[0].row, 1);
        assert_eq!(found.kept[0].mirror, [1.0, 1.0]);
        assert_eq!(found.kept[0].look_alikes.len(), KEPT[2]);
        assert_eq!(found.of(0, Purpose::Stop).len(), 2 * 24);
        assert_eq!(found.of(1, Purpose::Stop)[1], 0.0);
        assert!(found.of(0, Purpose::Level).is_empty());
    }

    #[test]
    fn an_image_that_is_its_own_mirror_image_has_none() {
        let shape = ImageShape {
            height: 8,
            width: 8,
            channels: 1,
        };
        let even = [0, 0, 90, 200, 200, 90, 0, 0].repeat(8);
        let odd = [0, 200, 200, 90, 0, 0, 0, 0].repeat(8);
        let data = Dataset::from_pixels(shape, [even, odd].concat(), Vec::new()).unwrap();
        let pictures = Pictures::read(&data, &[0, 1], Vec::new(), &[Purpose::Stop], 5).unwrap();
        let found = pictures.as_pixels().unwrap();
        assert_eq!(found.mirrors[0], None);
        let mirror = found.mirrors[1].as_ref().unwrap();
        assert_eq!(mirror[..5], [-1.0, -1.0, -1.0, -1.0, to_unit(90)]);
    }

    #[test]
    fn controls_lead_a_run_or_end_it_and_never_both() {
        let data = pixels(2);
        let shape = data.shape();
        let others = Dataset::from_pixels(shape, (0..100).collect(), Vec::new()).unwrap();
        let controls = Controls::new(others, &data).unwrap();
        let purposes = [Purpose::Level, Purpose::Stop, Purpose::Report];
        let pictures = Pictures::read(&data, &[0], Vec::new(), &purposes, 5).unwrap();
        let pictures = pictures.with_controls(&controls);
        let count = pictures.count();
        let found = pictures
            .seen::<DataError>(|_, bytes| Ok(vec![f32::from(bytes[0])]))
            .unwrap();
        let [level, stop, report] = purposes.map(|purpose| found.of(0, purpose));
        assert_eq!([level.len(), stop.len(), report.len()], [32, 24, 24]);
        assert_eq!(count, 32 + 24 + 24 + 1);
        // Two of the hundred are images of the data set.
        assert!(level.iter().chain(stop).all(|&value| value >= 2.0));
        assert!(level.iter().all(|value| !stop.contains(value)));
        assert_eq!((level[0], level[31]), (2.0, 96.0));
    }

    #[test]
    fn what_a_report_looks_at_does_not_depend_on_how_many_images_there_are() {
        let data = pixels(20);
        let report = |rows: &[usize]| {
            let pictures = Pictures::read(&data, rows, Vec::new(), &[Purpose::Report], 5).unwrap();
            pictures.as_pixels().unwrap()
        };
        let rows: Vec<usize> = (0..20).collect();
        let [few, all] = [report(&rows[..3]), report(&rows)];
        for image in 0..3 {
            let [few, all] = [&few, &all].map(|found| found.of(image, Purpose::Report));
            assert_eq!(few, all);
        }
        assert!(all.of(REPORTED, Purpose::Report).is_empty());
    }
}
