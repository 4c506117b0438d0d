//! Nearest neighbors against a plain loop, and their cache.

use std::fs;

use retrack_data::neighbors::{Neighbor, NeighborError, nearest, nearest_in, prepare};
use retrack_data::{Dataset, ImageShape, NearCopy, OpenOptions, Split};

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Sorted by distance in f64, then row.
fn brute_force(bytes: &[u8], row_len: usize, query: &[u8], k: usize) -> Vec<Neighbor> {
    let mut all: Vec<(f64, usize)> = bytes
        .chunks_exact(row_len)
        .enumerate()
        .map(|(row, image)| {
            let distance = image
                .iter()
                .zip(query)
                .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
                .sum();
            (distance, row)
        })
        .collect();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all.truncate(k);
    all.into_iter()
        .map(|(distance, row)| Neighbor {
            row,
            distance_squared: distance as u64,
        })
        .collect()
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
        .install(work)
}

#[test]
fn neighbors_equal_a_plain_loop_for_any_shape_and_number_of_threads() {
    let mut noise = Noise(1);
    for (rows, row_len, queries, k) in [
        (1, 1, 1, 1),
        (7, 1, 3, 7),
        (500, 3, 9, 20),
        (300, 31, 4, 5),
        (300, 784, 5, 10),
        (100, 3072, 8, 10),
        (60, 3073, 1, 60),
        (40, 32_768, 2, 3),
        (20, 100_001, 6, 4),
        (30, 64, 0, 3),
        (30, 64, 2, 0),
    ] {
        let bytes = noise.bytes(rows * row_len);
        let query_bytes = noise.bytes(queries * row_len);
        let query: Vec<&[u8]> = query_bytes.chunks_exact(row_len).collect();
        let expected: Vec<_> = query
            .iter()
            .map(|query| brute_force(&bytes, row_len, query, k))
            .collect();
        for threads in [1, 2, 5] {
            let found = with_threads(threads, || nearest(&bytes, row_len, &query, k)).unwrap();
            assert_eq!(
                found, expected,
                "{rows} x {row_len}, {queries} queries, {threads} threads"
            );
        }
    }
}

#[test]
fn the_largest_difference_does_not_overflow() {
    for row_len in [32_767, 32_768, 32_769, 200_000] {
        let (bytes, query) = (vec![255u8; 2 * row_len], vec![0u8; row_len]);
        for queries in [vec![query.as_slice()], vec![query.as_slice(); 4]] {
            for found in nearest(&bytes, row_len, &queries, 1).unwrap() {
                assert_eq!(
                    found,
                    [Neighbor {
                        row: 0,
                        distance_squared: 65_025 * row_len as u64
                    }]
                );
            }
        }
    }
}

#[test]
fn ties_go_to_the_lower_row() {
    let bytes = [5u8, 3, 7, 5, 3, 7].repeat(400);
    let found = with_threads(2, || nearest(&bytes, 1, &[&[5]], 1500)).unwrap();
    let rows: Vec<usize> = found[0].iter().map(|one| one.row).collect();
    let mut expected: Vec<usize> = (0..2400).filter(|row| row % 3 == 0).collect();
    expected.extend((0..2400).filter(|row| row % 3 != 0).take(700));
    assert_eq!(rows, expected);
}

#[test]
fn too_many_neighbors_and_wrong_lengths_are_errors() {
    let error = nearest(&[1, 2, 3], 1, &[&[1]], 4).unwrap_err();
    assert!(matches!(
        error,
        NeighborError::TooFew {
            wanted: 4,
            retained: 3
        }
    ));
    assert!(error.to_string().contains('4') && error.to_string().contains('3'));
    assert!(matches!(
        nearest(&[1, 2, 3], 2, &[], 1),
        Err(NeighborError::Length {
            row_len: 2,
            found: 3
        })
    ));
    assert!(matches!(
        nearest(&[1, 2], 2, &[&[1]], 1),
        Err(NeighborError::Length {
            row_len: 2,
            found: 1
        })
    ));
    assert!(matches!(
        nearest(&[], 0, &[], 0),
        Err(NeighborError::Length { .. })
    ));
}

/// Images of 6 x 5 x 3, in memory and as a folder that is decoded on demand.
fn pair(rows: usize) -> (Dataset, Dataset, tempfile::TempDir) {
    let shape = ImageShape {
        height: 5,
        width: 6,
        channels: 3,
    };
    let mut pixels = Noise(2).bytes(rows * shape.bytes());
    // Row 3 is forgotten twice over: its copies must not become its neighbors.
    pixels.copy_within(3 * 90..4 * 90, 11 * 90);
    let folder = tempfile::tempdir().unwrap();
    for (row, image) in pixels.chunks_exact(90).enumerate() {
        let image = image::RgbImage::from_raw(6, 5, image.to_vec()).unwrap();
        image
            .save(folder.path().join(format!("{row:03}.png")))
            .unwrap();
    }
    let on_demand = Dataset::open(
        folder.path(),
        &OpenOptions {
            memory_budget: 0,
            ..OpenOptions::default()
        },
    )
    .unwrap();
    (
        Dataset::from_pixels(shape, pixels, vec![]).unwrap(),
        on_demand,
        folder,
    )
}

#[test]
fn streamed_neighbors_equal_those_in_memory_whatever_the_budget() {
    let (memory, on_demand, _folder) = pair(60);
    let forget = [3, 20, 40, 41, 59];
    let retain: Vec<usize> = (0..60)
        .filter(|row| !forget.contains(row) && *row != 11)
        .collect();
    let pixels = memory.pixels().unwrap();
    let kept: Vec<u8> = retain
        .iter()
        .flat_map(|&row| pixels[row * 90..][..90].to_vec())
        .collect();
    let expected: Vec<Vec<Neighbor>> = forget
        .iter()
        .map(|&row| {
            let mut found = brute_force(&kept, 90, &pixels[row * 90..][..90], 10);
            found.iter_mut().for_each(|one| one.row = retain[one.row]);
            found
        })
        .collect();
    for budget in [0, 90, 500, 1 << 20] {
        for data in [&memory, &on_demand] {
            for threads in [1, 2] {
                let found =
                    with_threads(threads, || nearest_in(data, &retain, &forget, 10, budget))
                        .unwrap();
                assert_eq!(found, expected, "budget {budget}");
            }
        }
    }
    assert!(matches!(
        nearest_in(&memory, &retain, &forget, 55, 1 << 20),
        Err(NeighborError::TooFew {
            wanted: 55,
            retained: 54
        })
    ));
}

#[test]
fn the_cache_gives_the_same_and_is_rewritten_when_damaged() {
    let (memory, on_demand, _folder) = pair(30);
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("neighbors");
    let run = |data: &Dataset, forget: &[usize], k| {
        let split = Split::new(data, forget, 1 << 20).unwrap();
        prepare(data, split, k, 1 << 20, Some(&folder)).unwrap()
    };
    let first = run(&on_demand, &[20, 3], 5);
    assert!(!first.from_cache && first.cache_error.is_none());
    assert_eq!(
        (first.split.forget.clone(), first.split.duplicates.clone()),
        (vec![3, 20], vec![11])
    );
    let again = run(&on_demand, &[3, 20, 3], 5);
    assert!(again.from_cache);
    assert_eq!(
        (&again.split, &again.neighbors),
        (&first.split, &first.neighbors)
    );
    // Other neighbors, other rows and other data are other files.
    assert!(!run(&on_demand, &[3, 20], 4).from_cache);
    assert!(!run(&on_demand, &[3, 21], 5).from_cache);
    assert!(!run(&memory, &[3, 20], 5).from_cache);
    let files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 4);
    let good: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    for damage in ["", "{}", "[1, 2", "null"] {
        files
            .iter()
            .for_each(|path| fs::write(path, damage).unwrap());
        let found = run(&on_demand, &[3, 20], 5);
        assert!(!found.from_cache);
        assert_eq!(found.neighbors, first.neighbors);
        assert!(run(&on_demand, &[3, 20], 5).from_cache);
    }
    for (path, good) in files.iter().zip(&good) {
        // A forgotten row among the neighbors would teach the image back.
        let mut content: serde_json::Value = serde_json::from_slice(good).unwrap();
        content["neighbors"][0][0][0] = content["duplicates"][0].clone();
        fs::write(path, content.to_string()).unwrap();
    }
    assert!(!run(&on_demand, &[3, 20], 5).from_cache);
}

#[test]
fn neighbors_without_what_was_set_aside_have_a_cache_of_their_own() {
    let (_, on_demand, _folder) = pair(30);
    let cache = tempfile::tempdir().unwrap();
    let split = Split::new(&on_demand, &[3], 1 << 20).unwrap();
    let run =
        |split: &Split| prepare(&on_demand, split.clone(), 5, 1 << 20, Some(cache.path())).unwrap();
    let all = run(&split);
    let nearest = NearCopy {
        row: all.neighbors[0][0].row,
        of: 3,
        distance: 1.0,
        mirrored: false,
    };
    let aside = split.clone().with_near(vec![nearest], false);
    let without = run(&aside);
    assert!(!without.from_cache);
    assert_eq!(without.neighbors[0][..4], all.neighbors[0][1..]);
    assert!(run(&aside).from_cache && run(&split).from_cache);
    // Those that stay are neighbors like others.
    assert!(run(&split.with_near(vec![nearest], true)).from_cache);
}

#[test]
fn the_cache_holds_rows_and_distances_only() {
    let (_, on_demand, _folder) = pair(30);
    let cache = tempfile::tempdir().unwrap();
    let split = Split::new(&on_demand, &[3], 1 << 20).unwrap();
    prepare(&on_demand, split, 5, 1 << 20, Some(cache.path())).unwrap();
    let files: Vec<_> = fs::read_dir(cache.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let content: serde_json::Value = serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap();
    let keys: Vec<&String> = content.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["version", "key", "duplicates", "neighbors"]);
    assert_eq!(content["neighbors"].as_array().unwrap().len(), 1);
    assert_eq!(files.len(), 1);
}

#[test]
fn a_cache_that_cannot_be_written_does_not_stop_the_run() {
    let (memory, ..) = pair(30);
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("a file");
    fs::write(&file, "x").unwrap();
    let split = Split::new(&memory, &[3], 1 << 20).unwrap();
    let found = prepare(&memory, split, 5, 1 << 20, Some(&file)).unwrap();
    assert!(found.cache_error.is_some());
    assert_eq!(found.neighbors[0].len(), 5);
}
