//! Look-alikes of the forgotten images: pictures first, and what a network sees of them.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

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

/// Retained images that look-alikes are made of, too, and how many of each.
const KEPT: [usize; 2] = [20, 4];

/// Retained images from all over them, which show what a change costs and what a mirror image is to the model. Those that are
/// repeated in the data, which the model may know, show neither.
///
/// # Errors
/// An image that cannot be read.
pub fn kept(data: &Dataset, retain: &[usize]) -> Result<Vec<usize>, DataError> {
    /// Images that are compared with one another: what is repeated so seldom that one of it is among them counts for little.
    const COMPARED: usize = 200;
    let some = |from: &[usize], most: usize| -> Vec<usize> {
        let count = most.min(from.len());
        let places = (0..count).map(|at| at * from.len() / count);
        places.map(|place| from[place]).collect()
    };
    let mut by_image: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    for row in some(retain, COMPARED) {
        by_image.entry(read(data, row)?).or_default().push(row);
    }
    let alone = by_image.into_values().filter(|rows| rows.len() == 1);
    let mut alone: Vec<usize> = alone.flatten().collect();
    alone.sort_unstable();
    Ok(some(&alone, KEPT[0]))
}

/// How many of the distinct forgotten images a report looks at, at most: the first ones.
pub const REPORTED: usize = 16;

/// The rows with some of them put first.
pub fn with_first(first: &[usize], rows: &[usize]) -> Vec<usize> {
    let others = rows.iter().filter(|row| !first.contains(row));
    first.iter().chain(others).copied().collect()
}

/// The distinct forgotten images, and what look-alikes are to be made of them. Pictures are made when they are asked for: of a
/// thousand images there are more than memory holds.
#[derive(Debug, Clone)]
pub struct Pictures<'a> {
    data: &'a Dataset,
    /// The first row of each.
    rows: Vec<usize>,
    /// Which of them each forgotten row holds.
    of_row: HashMap<usize, usize>,
    /// Rows of retained images, see [`kept`].
    kept: Vec<usize>,
    purposes: Vec<Purpose>,
    /// Take the place of look-alikes, but in a report, which can be checked without them.
    controls: Option<&'a Controls>,
    /// Forgotten images whose mirror images are in the data.
    known_mirrors: HashSet<usize>,
    seed: u64,
}

impl<'a> Pictures<'a> {
    /// Tells the images in these rows apart. `kept`: of retained images, see there. `seed` decides how they are changed.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn read(
        data: &'a Dataset,
        forget: &[usize],
        kept: Vec<usize>,
        purposes: &[Purpose],
        seed: u64,
    ) -> Result<Self, DataError> {
        let mut rows: Vec<usize> = Vec::new();
        let mut of_row = HashMap::new();
        let hasher = RandomState::new();
        let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
        for &row in forget {
            let image = read(data, row)?;
            let alike = by_hash.entry(hasher.hash_one(&image)).or_default();
            let mut known = None;
            for &number in alike.iter() {
                if read(data, rows[number])? == image {
                    known = Some(number);
                }
            }
            let number = known.unwrap_or_else(|| {
                alike.push(rows.len());
                rows.push(row);
                rows.len() - 1
            });
            of_row.insert(row, number);
        }
        Ok(Self {
            data,
            rows,
            of_row,
            kept,
            purposes: purposes.to_vec(),
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

    /// Where the images lie.
    pub fn data(&self) -> &'a Dataset {
        self.data
    }

    /// Rows of the retained images that are looked at, too.
    pub fn kept_rows(&self) -> &[usize] {
        &self.kept
    }

    /// How many look-alikes are to be made.
    pub fn count(&self) -> usize {
        let images = self.rows.len();
        let of = |image| {
            let counts = self.purposes.iter();
            counts
                .map(|purpose| self.count_of(*purpose, image))
                .sum::<usize>()
        };
        // Each has a mirror image, or may have one.
        let mirrors = if self.purposes.is_empty() { 0 } else { images };
        (0..images).map(of).sum::<usize>() + mirrors + (1 + KEPT[1]) * self.kept.len()
    }

    fn count_of(&self, purpose: Purpose, image: usize) -> usize {
        let count = purpose.count(image, self.rows.len());
        match (self.controls, purpose.turn()) {
            _ if !self.purposes.contains(&purpose) => 0,
            (Some(controls), Some(_)) => count.min(controls.rows().len() / 2),
            _ => count,
        }
    }

    /// What forgotten image number `image` is compared with for a purpose: the first `most`.
    fn of(&self, purpose: Purpose, image: usize, most: usize) -> Result<Vec<Vec<u8>>, DataError> {
        let count = self.count_of(purpose, image);
        let places = 0..count.min(most);
        if let (Some(controls), Some(turn)) = (self.controls, purpose.turn()) {
            let (rows, data) = (controls.rows(), controls.data());
            // From all over them: they may be sorted.
            let half = rows.len() / 2;
            let row = |place| rows[2 * (place * half / count) + turn];
            return places.map(|place| read(data, row(place))).collect();
        }
        let own = read(self.data, self.rows[image])?;
        let random = purpose.random(self.seed);
        let size = |place| match purpose {
            Purpose::Level => SIZES[place % SIZES.len()],
            Purpose::Stop | Purpose::Report => SIZES[0],
        };
        let changed = |place| self.changed(&own, random, [image, place], size(place));
        Ok(places.map(changed).collect())
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
    fn mirror(&self, image: usize) -> Result<Option<Vec<u8>>, DataError> {
        if self.known_mirrors.contains(&image) {
            return Ok(None);
        }
        let own = read(self.data, self.rows[image])?;
        let differs = |other: &[u8]| -> f64 {
            let squares = own
                .iter()
                .zip(other)
                .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
            squares.sum()
        };
        let random = Purpose::Report.random(self.seed);
        let changed = |place| differs(&self.changed(&own, random, [image, place], SIZES[0]));
        let mirror = mirrored(self.data.shape(), &own);
        let far = (0..KEPT[1]).map(changed).sum::<f64>() / KEPT[1] as f64;
        // Squares of distances.
        Ok((4.0 * differs(&mirror) > far).then_some(mirror))
    }

    /// What is made of retained images, as a network sees it.
    fn kept<E: From<DataError>>(
        &self,
        see: &mut impl FnMut(usize, Vec<u8>) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<Kept>, E> {
        // Another stream than any purpose's.
        let random = Random::new(self.seed.wrapping_sub(1));
        let mut kept = Vec::with_capacity(self.kept.len());
        for (number, &row) in self.kept.iter().enumerate() {
            let picture = read(self.data, row)?;
            let mirror = see(row, mirrored(self.data.shape(), &picture))?;
            let look_alikes = (0..KEPT[1]).map(|place| {
                let changed = self.changed(&picture, random, [number, place], SIZES[0]);
                see(row, changed)
            });
            let look_alikes = look_alikes.collect::<Result<_, _>>()?;
            kept.push(Kept {
                row,
                mirror,
                look_alikes,
            });
        }
        Ok(kept)
    }

    /// The look-alikes as a network sees them that does not see pixels: `see` makes the values that it takes of a picture's
    /// bytes. It is told the row of the forgotten image, too. All of them are made at once.
    ///
    /// # Errors
    /// What `see` returns, an image that cannot be read.
    pub fn seen<E: From<DataError>>(
        self,
        mut see: impl FnMut(usize, Vec<u8>) -> Result<Vec<f32>, E>,
    ) -> Result<LookAlikes<'a>, E> {
        let mut sets = vec![[const { Vec::new() }; 3]; self.rows.len()];
        let mut mirrors = Vec::with_capacity(self.rows.len());
        for (number, sets) in sets.iter_mut().enumerate() {
            let row = self.rows[number];
            for &purpose in &self.purposes {
                for picture in self.of(purpose, number, usize::MAX)? {
                    sets[purpose as usize].push(see(row, picture)?);
                }
            }
            // What nothing asks for is not seen.
            let mirror = match self.purposes.is_empty() {
                true => None,
                false => self.mirror(number)?,
            };
            mirrors.push(mirror.map(|picture| see(row, picture)).transpose()?);
        }
        Ok(LookAlikes {
            kept: self.kept(&mut see)?,
            rows: self.rows,
            of_row: self.of_row,
            are_controls: self.controls.is_some(),
            sets: Sets::Made { sets, mirrors },
        })
    }

    /// The look-alikes as a network of pixels sees them: values in [-1, 1].
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn as_pixels(self) -> Result<LookAlikes<'a>, DataError> {
        Ok(LookAlikes {
            kept: self.kept(&mut |_, bytes| Ok::<_, DataError>(values(bytes)))?,
            rows: self.rows.clone(),
            of_row: self.of_row.clone(),
            are_controls: self.controls.is_some(),
            sets: Sets::Pixels(self),
        })
    }
}

fn read(data: &Dataset, row: usize) -> Result<Vec<u8>, DataError> {
    let mut image = vec![0; data.shape().bytes()];
    data.read(row, &mut image)?;
    Ok(image)
}

/// Pixels as a network takes them.
fn values(bytes: Vec<u8>) -> Vec<f32> {
    bytes.into_iter().map(to_unit).collect()
}

/// Look-alikes of each distinct forgotten image, a set for each purpose, as the network takes them: pixels or latents.
#[derive(Debug, Clone)]
pub struct LookAlikes<'a> {
    /// The first row of each forgotten image.
    pub rows: Vec<usize>,
    /// Which of them each forgotten row holds.
    pub of_row: HashMap<usize, usize>,
    sets: Sets<'a>,
    /// Retained images.
    pub kept: Vec<Kept>,
    /// Those that lead and end a run are images as they were taken.
    pub are_controls: bool,
}

/// Where look-alikes come from.
#[derive(Debug, Clone)]
enum Sets<'a> {
    /// They lie in memory, and each forgotten image's mirror image, which differs enough from it, with them.
    Made {
        sets: Vec<[Vec<Vec<f32>>; 3]>,
        mirrors: Vec<Option<Vec<f32>>>,
    },
    /// They are made anew each time.
    Pixels(Pictures<'a>),
}

/// What is made of a retained image, as the network takes it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Where it lies in the data set.
    pub row: usize,
    /// Its mirror image.
    pub mirror: Vec<f32>,
    /// Its look-alikes.
    pub look_alikes: Vec<Vec<f32>>,
}

impl LookAlikes<'_> {
    /// The first `most` of one forgotten image; none for a purpose that they were not asked for.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn of(
        &self,
        image: usize,
        purpose: Purpose,
        most: usize,
    ) -> Result<Vec<Vec<f32>>, DataError> {
        match &self.sets {
            Sets::Made { sets, .. } => {
                let set = sets[image][purpose as usize].iter();
                Ok(set.take(most).cloned().collect())
            }
            Sets::Pixels(pictures) => {
                let made = pictures.of(purpose, image, most)?.into_iter();
                Ok(made.map(values).collect())
            }
        }
    }

    /// The mirror image of one forgotten image, where it differs enough from it.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn mirror(&self, image: usize) -> Result<Option<Vec<f32>>, DataError> {
        match &self.sets {
            Sets::Made { mirrors, .. } => Ok(mirrors[image].clone()),
            Sets::Pixels(pictures) => Ok(pictures.mirror(image)?.map(values)),
        }
    }

    /// Look-alikes for a report whose images are those in `first`, then the others. Nothing where the network does not see pixels:
    /// those were made for the images as they lie in the data.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn reported_first(&self, first: &[usize]) -> Result<Option<Self>, DataError> {
        let Sets::Pixels(pictures) = &self.sets else {
            return Ok(None);
        };
        let mut rows: Vec<usize> = self.of_row.keys().copied().collect();
        rows.sort_unstable();
        let known = pictures.known_mirrors.iter();
        let known_mirrors: Vec<usize> = known.map(|&image| self.rows[image]).collect();
        let pictures = Pictures::read(
            pictures.data,
            &with_first(first, &rows),
            pictures.kept.clone(),
            &[Purpose::Report],
            pictures.seed,
        )?
        .without_mirrors_of(&known_mirrors);
        Ok(Some(pictures.as_pixels()?))
    }

    /// The forgotten rows that hold one of these images, ascending.
    pub fn rows_of(&self, images: &[usize]) -> Vec<usize> {
        let of_row = self.of_row.iter();
        let mut rows: Vec<usize> = of_row
            .filter(|(_, image)| images.binary_search(image).is_ok())
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
            [0, 1].map(|image| found.mirror(image).unwrap().is_some())
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
        let mut all: Vec<Vec<f32>> = purposes
            .iter()
            .flat_map(|&purpose| found.of(0, purpose, usize::MAX).unwrap())
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
        assert_eq!(rows[48..], [1; 1 + KEPT[1]]);
        assert_eq!(found.mirror(0).unwrap(), None);
        assert_eq!(found.kept[0].row, 1);
        assert_eq!(found.kept[0].mirror, [1.0, 1.0]);
        assert_eq!(found.kept[0].look_alikes.len(), KEPT[1]);
        let of = |image, purpose, most| found.of(image, purpose, most).unwrap();
        assert_eq!(of(0, Purpose::Stop, usize::MAX).len(), 24);
        assert_eq!(of(0, Purpose::Stop, 4), of(0, Purpose::Stop, 24)[..4]);
        assert_eq!(of(1, Purpose::Stop, 1)[0][1], 0.0);
        assert!(of(0, Purpose::Level, 1).is_empty());
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
        assert_eq!(found.mirror(0).unwrap(), None);
        let mirror = found.mirror(1).unwrap().unwrap();
        assert_eq!(mirror[..5], [-1.0, -1.0, -1.0, -1.0, to_unit(90)]);
    }

    #[test]
    fn retained_images_that_are_repeated_are_not_compared_with() {
        let shape = pixels(1).shape();
        let pixels = (0..100).flat_map(|value| [value, 7]).collect();
        let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
        let retain: Vec<usize> = (0..200).collect();
        let kept = kept(&data, &retain).unwrap();
        assert_eq!(kept.len(), 20);
        assert!(
            kept.iter().all(|row| row % 2 == 0 && *row != 14),
            "{kept:?}"
        );
        assert!(kept[0] < 10 && kept[19] > 180, "{kept:?}");
        assert!(super::kept(&data, &[1, 3]).unwrap().is_empty());
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
        let [level, stop, report] =
            purposes.map(|purpose| found.of(0, purpose, usize::MAX).unwrap().concat());
        assert_eq!([level.len(), stop.len(), report.len()], [32, 24, 24]);
        assert_eq!(count, 32 + 24 + 24 + 1);
        // Two of the hundred are images of the data set.
        assert!(level.iter().chain(&stop).all(|&value| value >= 2.0));
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
            let of = |found: &LookAlikes| found.of(image, Purpose::Report, usize::MAX).unwrap();
            assert_eq!(of(&few), of(&all));
        }
        assert!(all.of(REPORTED, Purpose::Report, 1).unwrap().is_empty());
    }
}
