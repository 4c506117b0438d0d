//! Look-alikes of the forgotten images, as the network takes them.

use std::collections::HashMap;

use retrack_data::look_alikes::Change;
use retrack_data::pixels::to_unit;
use retrack_data::{DataError, Dataset};
use retrack_networks::random::{Random, Stream};

/// What a set of look-alikes is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// How badly the model denoises what it does not know.
    Level,
    /// Whether the run is at its end.
    Stop,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::Level, Self::Stop];

    /// What tells the random numbers of one purpose from those of another.
    pub(super) fn random(self, seed: u64) -> Random {
        let far = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(1 + self as u64);
        Random::new(seed.wrapping_add(far))
    }

    /// How many look-alikes each of `images` forgotten images has. Ranks need 19.
    fn count(self, images: usize) -> usize {
        match self {
            Self::Level => (512 / images).clamp(12, 32),
            Self::Stop => (256 / images).clamp(19, 24),
        }
    }
}

/// Look-alikes of each distinct forgotten image, a set for each purpose: pixels in [-1, 1].
#[derive(Debug, Clone, Default)]
pub struct LookAlikes {
    /// The first row of each forgotten image.
    pub rows: Vec<usize>,
    /// Which of them each forgotten row holds.
    pub of_row: HashMap<usize, usize>,
    sets: Vec<[Vec<f32>; 2]>,
}

impl LookAlikes {
    /// Look-alikes of the images in these rows.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn make(data: &Dataset, forget: &[usize], seed: u64) -> Result<Self, DataError> {
        let mut found = Self::default();
        let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
        for &row in forget {
            let mut image = vec![0; data.shape().bytes()];
            data.read(row, &mut image)?;
            let number = *known.entry(image).or_insert_with(|| {
                found.rows.push(row);
                found.rows.len() - 1
            });
            found.of_row.insert(row, number);
        }
        found.sets = vec![[const { Vec::new() }; 2]; known.len()];
        for (image, number) in known {
            for purpose in Purpose::ALL {
                let random = purpose.random(seed);
                for place in 0..purpose.count(found.rows.len()) {
                    let mut draw = random.at(Stream::LookAlike, number as u64, place as u64);
                    let numbers = draw.uniform(Change::NUMBERS);
                    let change = Change::drawn(std::array::from_fn(|at| numbers[at].into()));
                    let changed = change.apply(data.shape(), &image);
                    let values = changed.into_iter().map(to_unit);
                    found.sets[number][purpose as usize].extend(values);
                }
            }
        }
        Ok(found)
    }

    /// Those of one forgotten image.
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
        let found = LookAlikes::make(&data, &[0, 1], 5).unwrap();
        assert_eq!(found.rows, [0]);
        assert_eq!(found.of_row[&1], 0);
        let mut all: Vec<&[f32]> = Purpose::ALL
            .iter()
            .flat_map(|&purpose| found.of(0, purpose).chunks_exact(64))
            .collect();
        assert_eq!(all.len(), 32 + 24);
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let made = all.len();
        all.dedup();
        assert_eq!(all.len(), made);
    }
}
