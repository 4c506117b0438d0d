//! Grids of images for a report, with what may not be seen covered.

use retrack_checkpoint::words::counted;
use retrack_data::ImageShape;
use retrack_eval::pictures::Grid;
use retrack_eval::report::Report;

use super::forgotten::Sight;
use crate::failure::Failure;

/// Pixels on a side of an image in a report, at most.
const LARGEST: usize = 128;

/// Images with those that have to be hidden replaced by a crossed-out tile. Returns how many those are.
pub fn covered(
    images: &[u8],
    sights: &[Sight],
    shape: ImageShape,
    show_forgotten: bool,
) -> (Vec<u8>, usize) {
    let mut shown = images.to_vec();
    let mut count = 0;
    if !show_forgotten {
        let hidden = shown.chunks_exact_mut(shape.bytes()).zip(sights);
        for (image, _) in hidden.filter(|(_, sight)| sight.hidden) {
            image.copy_from_slice(&cover(shape));
            count += 1;
        }
    }
    (shown, count)
}

/// A gray tile with a cross: no image of anything.
pub fn cover(shape: ImageShape) -> Vec<u8> {
    let mut tile = vec![150; shape.bytes()];
    for y in 0..shape.height {
        for x in 0..shape.width {
            // Both diagonals, a twelfth of the width thick.
            let (down, along) = (y * shape.width, x * shape.height);
            let up = (shape.height - 1 - y) * shape.width;
            let thick = shape.width.max(shape.height) * shape.height / 24 + 1;
            if down.abs_diff(along) < thick || up.abs_diff(along) < thick {
                let at = (y * shape.width + x) * shape.channels;
                tile[at..at + shape.channels].fill(90);
            }
        }
    }
    tile
}

/// A grid as PNG, of images shrunk to a size that suits a page.
pub fn grid(images: &[u8], shape: ImageShape, columns: usize) -> Result<Vec<u8>, Failure> {
    let (images, shape) = shrunk(images, shape);
    let shape = [shape.height, shape.width, shape.channels];
    let grid = Grid {
        shape,
        columns,
        // A few small images are enlarged; of many, the page does that.
        zoom: (640 / (columns * shape[1]).max(1)).clamp(1, 4),
    };
    Ok(grid.png(&images)?)
}

/// Images whose blocks of pixels become one, their mean, until they fit.
pub fn shrunk(images: &[u8], shape: ImageShape) -> (Vec<u8>, ImageShape) {
    let factor = shape.height.max(shape.width).div_ceil(LARGEST).max(1);
    if factor == 1 {
        return (images.to_vec(), shape);
    }
    let small = ImageShape {
        height: shape.height.div_ceil(factor),
        width: shape.width.div_ceil(factor),
        channels: shape.channels,
    };
    let mut out = Vec::with_capacity(images.len() / factor / factor);
    for image in images.chunks_exact(shape.bytes()) {
        for y in 0..small.height {
            for x in 0..small.width {
                for channel in 0..shape.channels {
                    let rows = y * factor..((y + 1) * factor).min(shape.height);
                    let columns = x * factor..((x + 1) * factor).min(shape.width);
                    let count = rows.len() * columns.len();
                    let sum: usize = rows
                        .flat_map(|row| {
                            columns
                                .clone()
                                .map(move |column| row * shape.width + column)
                        })
                        .map(|at| usize::from(image[at * shape.channels + channel]))
                        .sum();
                    out.push((sum / count) as u8);
                }
            }
        }
    }
    (out, small)
}

/// Adds a picture of samples: the first `most`, covered as they have to be. Returns how many are covered. Images with
/// an alpha channel are not drawn.
///
/// # Errors
/// Images that make no picture.
pub fn show_samples(
    report: &mut Report,
    name: &str,
    title: &str,
    images: &[u8],
    sights: &[Sight],
    shape: ImageShape,
    show_forgotten: bool,
) -> Result<Option<usize>, Failure> {
    if images.is_empty() || !matches!(shape.channels, 1 | 3) {
        return Ok(None);
    }
    let count = images.len() / shape.bytes();
    let columns = (count as f64).sqrt().ceil() as usize;
    let (shown, hidden) = covered(images, sights, shape, show_forgotten);
    let copies = sights.iter().filter(|sight| sight.counts).count();
    let caption = format!(
        "{title}: {}, {copies} of which count as a forgotten image",
        counted(count, "sample")
    );
    let alt = format!(
        "{caption}. Place by place the same seeds as in the other grid.{}",
        if hidden > 0 {
            format!(" {hidden} are covered.")
        } else {
            String::new()
        }
    );
    report.add_picture(name, &caption, &alt, grid(&shown, shape, columns)?);
    Ok(Some(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_images_shrink_to_means_of_blocks() {
        let shape = ImageShape {
            height: 129,
            width: 200,
            channels: 3,
        };
        let image: Vec<u8> = (0..shape.bytes())
            .map(|i| if i % 3 == 0 { 200 } else { (i % 2) as u8 })
            .collect();
        let (small, found) = shrunk(&image, shape);
        assert_eq!((found.height, found.width, found.channels), (65, 100, 3));
        assert_eq!(small.len(), found.bytes());
        assert!(small.iter().step_by(3).all(|&red| red == 200));
    }

    #[test]
    fn hidden_images_are_covered_unless_they_may_be_shown() {
        let shape = ImageShape {
            height: 8,
            width: 8,
            channels: 1,
        };
        let images = [vec![7; 64], vec![9; 64]].concat();
        let sight = |hidden| Sight {
            distance: 1.0,
            counts: false,
            hidden,
        };
        let sights = [sight(true), sight(false)];
        let (shown, count) = covered(&images, &sights, shape, false);
        assert_eq!((count, &shown[64..]), (1, &images[64..]));
        assert!(shown[..64].iter().all(|&pixel| pixel != 7));
        assert_eq!(covered(&images, &sights, shape, true), (images, 0));
    }
}
