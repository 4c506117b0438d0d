//! Images that show the same picture, but are not the same: saved as JPEG, made smaller and larger again, mirrored,
//! brightened, cropped or moved a little.
//!
//! Every image becomes an 8 x 8 thumb, which is compared with the thumbs of what is looked for, as it is, mirrored, and moved or
//! scaled a little: a perceptual hash that is not rounded to bits. What is alike there is laid over each other, as near
//! as it goes, and compared pixel by pixel. The work for an image that is like nothing is a few microseconds.
//!
//! `benchmarks/near-copies/README.md` has what is found and what is not.

mod compare;
mod thumb;
mod view;

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use self::compare::difference;
use self::thumb::Thumb;
use self::view::{Place, View};
use crate::{DataError, Dataset, ImageShape};

/// Root-mean-square difference a value, of 255, below which two images are nearly copies however they look. Saving an
/// image again as JPEG of quality 90 moves it by 1 to 3; the nearest two different images of CIFAR-10 or MNIST are
/// some 10 apart.
pub const NEAR_COPY_RMS: f64 = 4.0;

/// [`Likeness::difference`] from which on two images show different pictures.
const DIFFERENT: f32 = 0.3;

/// Pictures with a shorter side are too small to be told from others by more than their distance.
const SMALLEST: usize = 12;

/// Thumbs whose correlation is below this have nothing to do with each other, wherever they are moved.
const LOOSE: f32 = 0.6;
/// What the correlation is at least once the thumb is moved or scaled.
const TIGHT: f32 = 0.9;

/// How alike two images are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likeness {
    /// 0 for the same picture: the largest mean squared difference in any sixth of it, in both directions, as a share of the picture's
    /// variance.
    pub difference: f32,
    /// One is the other's mirror image.
    pub mirrored: bool,
    /// Root-mean-square difference a value, 0 to 255, of the images as they are.
    pub distance: f64,
}

/// A retained image that shows the same picture as a forgotten one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearCopy {
    /// The retained row.
    pub row: usize,
    /// The forgotten row that it is most like.
    pub of: usize,
    /// Root-mean-square difference a value, 0 to 255.
    pub distance: f64,
    /// It is the forgotten image's mirror image.
    pub mirrored: bool,
}

/// What is looked for.
struct Query {
    image: Vec<u8>,
    view: View,
    thumb: Thumb,
    /// As it is and mirrored: normalized, first where it is, then moved and scaled.
    thumbs: [Vec<Thumb>; 2],
}

/// Looks for some pictures among others.
pub struct Finder {
    shape: ImageShape,
    queries: Vec<Query>,
}

impl Finder {
    /// Of pictures of this shape, bytes as a [`Dataset`] has them. A picture takes about 12 KB beside its own bytes and,
    /// of 64 pixels and more, up to 64 KB.
    ///
    /// # Panics
    /// One has another length.
    pub fn new<'a>(shape: ImageShape, pictures: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let query = |image: &'a [u8]| {
            assert_eq!(image.len(), shape.bytes());
            let view = View::of(shape, image);
            let mirrored = view.mirrored();
            let places = places(&view);
            let thumbs = [&view, &mirrored].map(|view| {
                let places = places.iter();
                places
                    .map(|&place| Thumb::of(view, place).normalized())
                    .collect()
            });
            Query {
                image: image.to_vec(),
                thumb: Thumb::of(&view, Place::SAME),
                view,
                thumbs,
            }
        };
        Self {
            shape,
            queries: pictures.into_iter().map(query).collect(),
        }
    }

    /// The pictures that an image may show, each by its number. Whether it does also depends on how many others are as much
    /// like it: see [`near_copies`].
    ///
    /// # Panics
    /// The image has another length than the pictures.
    pub fn look(&self, image: &[u8]) -> Vec<(usize, Likeness)> {
        assert_eq!(image.len(), self.shape.bytes());
        let view = View::of(self.shape, image);
        let thumb = Thumb::of(&view, Place::SAME);
        let normalized = thumb.normalized();
        let mut mirrored = None;
        let found = self
            .queries
            .iter()
            .enumerate()
            .filter_map(|(number, query)| {
                // Thumbs are at most 1.33 times as far apart as images, whose colors count alike.
                let is_close = f64::from(query.thumb.distance(&thumb)) < 2.0 * NEAR_COPY_RMS;
                let near = [0, 1].map(|way| self.may_be(&query.thumbs[way], &normalized));
                if !is_close && near == [false; 2] {
                    return None;
                }
                let distance = || root_mean_square(&query.image, image);
                if is_close && distance() < NEAR_COPY_RMS {
                    let (difference, distance) = (0.0, distance());
                    let mirrored = false;
                    return Some((
                        number,
                        Likeness {
                            difference,
                            mirrored,
                            distance,
                        },
                    ));
                }
                let as_it_is = near[0].then(|| difference(&query.view, &view)).flatten();
                let mirrored = near[1].then(|| {
                    let mirrored = mirrored.get_or_insert_with(|| view.mirrored());
                    difference(&query.view, mirrored)
                });
                let ways = [(as_it_is, false), (mirrored.flatten(), true)];
                let ways = ways
                    .into_iter()
                    .filter_map(|(found, mirrored)| Some((found?, mirrored)));
                let (difference, mirrored) = ways.min_by(|a, b| a.0.total_cmp(&b.0))?;
                (difference < 2.0 * DIFFERENT).then(|| {
                    (
                        number,
                        Likeness {
                            difference,
                            mirrored,
                            distance: distance(),
                        },
                    )
                })
            });
        found.collect()
    }

    /// Whether a thumb may be that of a picture with these thumbs.
    fn may_be(&self, thumbs: &[Thumb], of: &Thumb) -> bool {
        self.shape.height.min(self.shape.width) >= SMALLEST
            && thumbs[0].correlation(of) > LOOSE
            && thumbs.iter().any(|thumb| thumb.correlation(of) > TIGHT)
    }
}

/// Where a copy's picture may lie: moved by a pixel or so, or cropped.
fn places(view: &View) -> Vec<Place> {
    let step = (view.height.max(view.width) as f32 / 32.0).max(1.0);
    let sizes = [1.0 / 1.05, 1.05].map(|scale| Place {
        scale,
        ..Place::SAME
    });
    let moves = [-step, 0.0, step];
    let moved = moves.into_iter().flat_map(|down| {
        moves.map(|along| Place {
            shift: [down, along],
            ..Place::SAME
        })
    });
    let moved = moved.filter(|place| *place != Place::SAME);
    [Place::SAME]
        .into_iter()
        .chain(sizes)
        .chain(moved)
        .collect()
}

fn root_mean_square(a: &[u8], b: &[u8]) -> f64 {
    let squares = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2));
    crate::neighbors::root_mean_square(squares.sum(), a.len())
}

/// The rows among `rows` that show the same picture as one of the rows `of`, ascending, each with the one that it is
/// most like. Images that have to be decoded, and what is looked for at one time, take about `budget` bytes; more pictures are
/// looked for in several passes.
///
/// Where images of one kind are many, trousers for example, some are more like each other than a poor copy is like its original. So a
/// row counts only where few others are nearly as much like the picture.
///
/// # Errors
/// A row that does not exist or an image that cannot be read.
pub fn near_copies(
    data: &Dataset,
    rows: &[usize],
    of: &[usize],
    budget: usize,
) -> Result<Vec<NearCopy>, DataError> {
    /// Bytes of a picture that is looked for, beside its own.
    const OVERHEAD: usize = 40 << 10;
    let shape = data.shape();
    let at_once = (budget / 2 / (shape.bytes() + OVERHEAD)).max(1);
    let mut seen = HashSet::new();
    let mut best: BTreeMap<usize, (f32, NearCopy)> = BTreeMap::new();
    let mut image = vec![0; shape.bytes()];
    let mut left = of.iter();
    loop {
        let mut pictures: Vec<(usize, Vec<u8>)> = Vec::new();
        for &row in left.by_ref() {
            data.read(row, &mut image)?;
            // 101 copies of a T-shirt are one picture.
            if seen.insert(crate::digest::sha256(&image)) {
                pictures.push((row, image.clone()));
            }
            if pictures.len() == at_once {
                break;
            }
        }
        if pictures.is_empty() {
            break;
        }
        let finder = Finder::new(shape, pictures.iter().map(|(_, image)| image.as_slice()));
        let mut like: Vec<Vec<(usize, Likeness)>> = vec![Vec::new(); pictures.len()];
        data.blocks::<DataError>(rows, budget / 2, |block| {
            let found: Vec<(usize, usize, Likeness)> = (0..block.rows.len())
                .into_par_iter()
                .flat_map_iter(|index| {
                    let found = finder.look(block.image(index)).into_iter();
                    found.map(move |(picture, likeness)| (block.rows[index], picture, likeness))
                })
                .collect();
            for (row, picture, likeness) in found {
                like[picture].push((row, likeness));
            }
            Ok(())
        })?;
        for ((of, _), mut like) in pictures.into_iter().zip(like) {
            like.sort_by(|(_, a), (_, b)| a.difference.total_cmp(&b.difference));
            let differences: Vec<f32> = like.iter().map(|(_, one)| one.difference).collect();
            for (row, likeness) in like.drain(..outstanding(&differences)) {
                let copy = NearCopy {
                    row,
                    of,
                    distance: likeness.distance,
                    mirrored: likeness.mirrored,
                };
                let known = best.entry(row).or_insert((likeness.difference, copy));
                if likeness.difference < known.0 {
                    *known = (likeness.difference, copy);
                }
            }
        }
    }
    Ok(best.into_values().map(|(_, copy)| copy).collect())
}

/// How many of ascending differences are those of copies: the most that at most half as many follow within twice the last of them.
fn outstanding(differences: &[f32]) -> usize {
    let below = |limit: f32| differences.partition_point(|difference| *difference <= limit);
    let are_copies = |count: &usize| {
        let last = differences[count - 1];
        last < DIFFERENT && 2 * (below(2.0 * last) - below(last)) <= below(last)
    };
    (1..=differences.len()).rev().find(are_copies).unwrap_or(0)
}
