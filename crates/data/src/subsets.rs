//! Splits of a data set, by the names that people give them: `train`, `validation`, `test`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::{DataError, Found};

/// All splits together, unless one has this very name.
pub(crate) const ALL: &str = "all";

/// What stands for a split in the name of a file or folder, as in Hugging Face's `datasets`, and MNIST's `t10k`.
const KEYWORDS: [(&str, &str); 12] = [
    // Both together, to train on, as PASCAL VOC has it.
    ("trainval", "train"),
    ("training", "train"),
    ("train", "train"),
    ("validation", "validation"),
    ("valid", "validation"),
    ("val", "validation"),
    ("dev", "validation"),
    ("testing", "test"),
    ("test", "test"),
    ("evaluation", "test"),
    ("eval", "test"),
    ("t10k", "test"),
];

/// The keyword in `name` that comes first, and the split that it stands for. A keyword begins a word and no letter
/// follows it, but for `set` and a single capital: `train2017`, `my-test_set`, `testset` and `trainA` have one, `latest`
/// and `valley` have none.
pub(crate) fn keyword(name: &str) -> Option<(&'static str, &'static str)> {
    let lower = name.to_ascii_lowercase();
    let places = KEYWORDS.iter().filter_map(|&(word, split)| {
        let place = lower.match_indices(word).map(|(at, _)| at).find(|&at| {
            let before = lower[..at].chars().next_back();
            !before.is_some_and(char::is_alphanumeric) && ends_a_word(name, at + word.len())
        });
        place.map(|at| (at, word, split))
    });
    let first = places.min_by_key(|&(at, ..)| at);
    first.map(|(_, word, split)| (word, split))
}

/// Whether a keyword that ends at `end` of `name` is a word, or one with `set` or a single capital behind it, as in
/// `trainset` and in CycleGAN's `trainA`.
fn ends_a_word(name: &str, end: usize) -> bool {
    let (keyword, rest) = name.split_at(end);
    let no_letter = |rest: &str| !rest.starts_with(char::is_alphabetic);
    let set = rest
        .get(..3)
        .is_some_and(|set| set.eq_ignore_ascii_case("set"));
    let capital = keyword.ends_with(|letter: char| letter.is_ascii_lowercase())
        && rest.starts_with(|letter: char| letter.is_ascii_uppercase());
    no_letter(rest) || (set && no_letter(&rest[3..])) || (capital && no_letter(&rest[1..]))
}

/// The splits that names beside each other stand for: by a keyword of their own, or because they differ in nothing else
/// than one, as `imagestrain` and `imagestest` do.
pub(crate) fn among<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<&'a str, &'static str> {
    let mut meant = BTreeMap::new();
    let mut alike: BTreeMap<(String, String), BTreeMap<&str, &'static str>> = BTreeMap::new();
    for name in names {
        if let Some((_, split)) = keyword(name) {
            meant.insert(name, split);
            continue;
        }
        let lower = name.to_ascii_lowercase();
        for (word, split) in KEYWORDS {
            for (at, _) in lower.match_indices(word) {
                let around = (lower[..at].to_owned(), lower[at + word.len()..].to_owned());
                alike.entry(around).or_default().insert(name, split);
            }
        }
    }
    for names in alike.into_values() {
        let splits: BTreeSet<&str> = names.values().copied().collect();
        if splits.len() > 1 {
            meant.extend(names);
        }
    }
    meant
}

/// Files of one split, by their paths below the data set's folder.
#[derive(Debug, PartialEq)]
pub(crate) struct Subset {
    /// As it is called there; empty where nothing says.
    pub name: String,
    pub files: Vec<String>,
}

impl Subset {
    /// Groups files by split, in the order of the splits' first files.
    pub(crate) fn group(files: Vec<String>, split: impl Fn(&str) -> Option<String>) -> Vec<Self> {
        let mut subsets: Vec<Self> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for file in files {
            let name = split(&file).unwrap_or_default();
            let place = *places.entry(name.clone()).or_insert_with(|| {
                subsets.push(Self {
                    name,
                    files: Vec::new(),
                });
                subsets.len() - 1
            });
            subsets[place].files.push(file);
        }
        subsets
    }
}

/// The files to read of `subsets`, in their order: the wanted split's, or all where there is but one and no other is wanted.
///
/// `together`: several can be read as one.
///
/// # Errors
/// [`DataError::Splits`], with what `count` says of each split's images: several and none asked for, or another one.
pub(crate) fn choose(
    path: &Path,
    mut subsets: Vec<Subset>,
    wanted: Option<&str>,
    together: bool,
    count: impl Fn(&[String]) -> Result<usize, DataError>,
) -> Result<Vec<String>, DataError> {
    let place = match wanted {
        None if subsets.len() == 1 => Some(0),
        None => None,
        Some(wanted) => find(&subsets, wanted),
    };
    if let Some(place) = place {
        return Ok(subsets.swap_remove(place).files);
    }
    let beside = beside(&subsets);
    let is_wanted = |folder: &str| wanted.is_some_and(|name| folder.eq_ignore_ascii_case(name));
    if let Some((_, files)) = beside.iter().find(|(folder, _)| is_wanted(folder)) {
        return Ok(files.clone());
    }
    if wanted == Some(ALL) && (together || subsets.len() == 1) {
        let mut files: Vec<String> = subsets.into_iter().flat_map(|one| one.files).collect();
        files.sort_unstable();
        return Ok(files);
    }
    // Files of no split that all lie in one folder are called like it.
    let alone = match beside.as_slice() {
        [(folder, files)] => Some((folder.clone(), files.len())),
        _ => None,
    };
    let names = subsets.iter().map(|subset| subset.name.as_str());
    let means = among(names);
    let found = subsets.iter().map(|subset| {
        let alone = alone
            .as_ref()
            .filter(|(_, count)| subset.name.is_empty() && *count == subset.files.len());
        Ok(Found {
            name: alone.map_or(&subset.name, |(folder, _)| folder).clone(),
            means: means.get(subset.name.as_str()).copied(),
            images: count(&subset.files)?,
            first: subset.files[0].clone(),
        })
    });
    Err(DataError::Splits {
        path: path.to_owned(),
        wanted: wanted.map(str::to_owned),
        found: found.collect::<Result<_, DataError>>()?,
        together,
    })
}

/// The split of this name, else the only one that stands for the same.
fn find(subsets: &[Subset], wanted: &str) -> Option<usize> {
    let exact = subsets
        .iter()
        .position(|one| one.name.eq_ignore_ascii_case(wanted));
    if exact.is_some() {
        return exact;
    }
    let (_, meant) = keyword(wanted)?;
    let means = among(subsets.iter().map(|subset| subset.name.as_str()));
    let stands = |one: &Subset| means.get(one.name.as_str()) == Some(&meant);
    let mut places = (0..subsets.len()).filter(|&place| stands(&subsets[place]));
    places.next().filter(|_| places.next().is_none())
}

/// Files of no split in folders that lie beside those of splits, by folder.
fn beside(subsets: &[Subset]) -> Vec<(String, Vec<String>)> {
    let mut parents: BTreeSet<&str> = BTreeSet::new();
    for subset in subsets.iter().filter(|subset| !subset.name.is_empty()) {
        let all = subset.files.iter().flat_map(|file| folders(file));
        let own = all.filter(|(_, child)| *child == subset.name);
        parents.extend(own.map(|(parent, _)| parent));
    }
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for subset in subsets.iter().filter(|subset| subset.name.is_empty()) {
        for file in &subset.files {
            if let Some((_, child)) = folders(file).find(|(parent, _)| parents.contains(parent)) {
                found
                    .entry(child.to_owned())
                    .or_default()
                    .push(file.clone());
            }
        }
    }
    found.into_iter().collect()
}

/// Images of a folder by split: the folders that are called like splits. One such folder alone, or among folders of
/// other names, is a folder like the others, unless a split is asked for; beside images, or where another one lies
/// anywhere else, it is a split. Without such folders the names of the files count, where all begin like splits.
pub(crate) fn of_folders(names: Vec<String>, asked: bool) -> Vec<Subset> {
    let mut children: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut parents_of_images: BTreeSet<&str> = BTreeSet::new();
    for name in &names {
        parents_of_images.insert(name.rsplit_once('/').map_or("", |(parent, _)| parent));
        for (parent, child) in folders(name) {
            children.entry(parent).or_default().insert(child);
        }
    }
    // The folders that are splits, by the one above them.
    let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (parent, children) in children {
        let meant = among(children);
        let splits: BTreeSet<&str> = meant.values().copied().collect();
        let beside_images = !splits.is_empty() && parents_of_images.contains(parent);
        if splits.len() > 1 || beside_images {
            let called = meant.into_keys().map(str::to_owned).collect();
            parents.insert(parent.to_owned(), called);
        }
    }
    // Also `2019/test` and `2020/train`.
    let outermost = names
        .iter()
        .filter_map(|name| folders(name).find_map(|(_, child)| Some(keyword(child)?.1)));
    let all: BTreeSet<&str> = outermost.collect();
    let anywhere = all.len() > 1 || (asked && parents.is_empty());
    if parents.is_empty() && all.is_empty() && of_files(&names) {
        return Subset::group(names, |name| Some(starts(name)?.0.to_owned()));
    }
    if parents.is_empty() && !anywhere {
        return vec![Subset {
            name: String::new(),
            files: names,
        }];
    }
    Subset::group(names, |name| {
        let split = |(parent, child): &(&str, &str)| {
            let called = parents.get(*parent);
            called.is_some_and(|called| called.contains(*child))
                || (anywhere && keyword(child).is_some())
        };
        folders(name).find(split).map(|(_, child)| child.to_owned())
    })
}

/// Whether every file is called by a split first, and not all by one: `train_0.png`, `test_0.png`.
fn of_files(names: &[String]) -> bool {
    let meant: Option<BTreeSet<&str>> = names.iter().map(|name| Some(starts(name)?.1)).collect();
    meant.is_some_and(|meant| meant.len() > 1)
}

/// The keyword that a file's name begins with, and what it means.
fn starts(name: &str) -> Option<(&'static str, &'static str)> {
    let name = name.rsplit('/').next().unwrap_or(name);
    keyword(name).filter(|(word, _)| {
        name.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    })
}

/// The folders that a path leads through, each with the path of the one above it.
pub(crate) fn folders(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut start = 0;
    name.match_indices('/').map(move |(end, _)| {
        let parent = name[..start].trim_end_matches('/');
        let child = &name[start..end];
        start = end + 1;
        (parent, child)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_names_are_known_as_hugging_face_knows_them() {
        for (name, split) in [
            ("train", Some("train")),
            ("Training", Some("train")),
            ("train2017", Some("train")),
            ("trainval", Some("train")),
            ("my-test_set", Some("test")),
            ("t10k", Some("test")),
            ("emnist-letters-train", Some("train")),
            ("val", Some("validation")),
            ("dev_1", Some("validation")),
            ("test.train", Some("test")),
            ("trainA", Some("train")),
            ("testB", Some("test")),
            ("trainset", Some("train")),
            ("valSet", Some("validation")),
            ("TESTSET_2", Some("test")),
            ("testimonials", None),
            ("trainAll", None),
            ("testsets", None),
            ("latest", None),
            ("valley", None),
            ("trainers", None),
            ("contest", None),
            ("", None),
        ] {
            assert_eq!(keyword(name).map(|(_, split)| split), split, "{name}");
        }
    }

    #[test]
    fn names_that_differ_in_a_keyword_alone_are_splits_and_other_words_are_not() {
        let known = |names: &[&'static str]| among(names.iter().copied()).into_keys().count();
        for names in [
            ["imagestrain", "imagestest"],
            ["imagesTrain", "imagesVal"],
            ["trainHR", "testHR"],
            ["trainA", "testB"],
        ] {
            assert_eq!(known(&names), 2, "{names:?}");
        }
        for names in [
            ["testimonials", "trainers"],
            ["latest", "contest"],
            ["valley", "device"],
            ["imagestrain", "labelstest"],
        ] {
            assert_eq!(known(&names), 0, "{names:?}");
        }
    }

    fn of(names: &[&str], asked: bool) -> Vec<(String, usize)> {
        let names = names.iter().map(|name| name.to_string()).collect();
        let subsets = of_folders(names, asked);
        let mut found: Vec<_> = subsets
            .into_iter()
            .map(|subset| (subset.name, subset.files.len()))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn folders_called_like_splits_are_splits_at_any_depth_and_one_alone_only_beside_images() {
        let two = |a: &str, b: &str| vec![(a.to_string(), 1), (b.to_string(), 1)];
        assert_eq!(
            of(&["test/a.png", "train/a.png"], false),
            two("test", "train")
        );
        assert_eq!(
            of(&["x/y/train/cat/a.png", "x/y/val/cat/a.png"], false),
            two("train", "val")
        );
        assert_eq!(
            of(&["cat/dev/a.png", "cat/train/a.png"], false),
            two("dev", "train")
        );
        assert_eq!(
            of(&["imagestest/a.png", "imagestrain/a.png"], false),
            two("imagestest", "imagestrain")
        );
        for ordinary in ["training-shoes/a.png", "testimonials/a.png"] {
            assert_eq!(of(&[ordinary, "hats/a.png"], false), [(String::new(), 2)]);
        }
        let vehicles = ["car/a.png", "train/a.png"];
        assert_eq!(of(&vehicles, false), [(String::new(), 2)]);
        assert_eq!(of(&vehicles, true), two("", "train"));
        assert_eq!(of(&["a.png", "car/b.png", "test/c.png"], false), {
            let mut all = two("", "test");
            all[0].1 = 2;
            all
        });
        assert_eq!(of(&["cat/a.png", "cat/val/b.png"], false), two("", "val"));
        assert_eq!(of(&["a.png", "tests/b.png"], false), [(String::new(), 2)]);
        // Two years of one split are two folders of one kind.
        assert_eq!(
            of(&["train2014/a.png", "train2017/a.png"], false),
            [(String::new(), 2)]
        );
        assert_eq!(
            of(&["a.png", "test/a.png", "train/a.png"], false),
            [(String::new(), 1), ("test".into(), 1), ("train".into(), 1)]
        );
    }

    #[test]
    fn splits_are_told_apart_wherever_their_folders_lie_and_by_the_names_of_files() {
        for (names, splits) in [
            (["2019/test/a.png", "2020/train/a.png"], ["test", "train"]),
            (
                ["a/test_images/a.png", "b/train_images/a.png"],
                ["test_images", "train_images"],
            ),
            (["x/trainval/a.png", "test/a.png"], ["test", "trainval"]),
            (["test_0.png", "train_0.png"], ["test", "train"]),
            (["x/Val1.png", "y/train-1.png"], ["train", "val"]),
        ] {
            let splits = splits.map(|name| (name.to_string(), 1));
            assert_eq!(of(&names, false), splits, "{names:?}");
        }
        // One split alone, a file that is called otherwise, and what lies within a split.
        for names in [
            ["2019/test/a.png", "2020/test/a.png"],
            ["2019/test/a.png", "2020/cats/a.png"],
            ["test_0.png", "test_1.png"],
            ["test_0.png", "a_train_0.png"],
            ["cats/test-tube/a.png", "cats/test-tube/train.png"],
        ] {
            assert_eq!(of(&names, false), [(String::new(), 2)], "{names:?}");
        }
        assert_eq!(
            of(&["val/training-shoes/a.png", "val/hats/a.png"], true),
            [("val".to_string(), 2)]
        );
    }

    #[test]
    fn what_lies_beside_the_splits_is_chosen_by_its_folder_or_by_no_name() {
        let files = ["test/a.png", "train/a.png", "unsup/a.png", "unsup/b.png"];
        let chosen = |files: &[&str], wanted| {
            let names = files.iter().map(|name| name.to_string()).collect();
            let subsets = of_folders(names, true);
            let chosen = choose(Path::new("x"), subsets, Some(wanted), true, |files| {
                Ok(files.len())
            });
            chosen
                .map(|files| files.join(" "))
                .map_err(|error| error.to_string())
        };
        assert_eq!(chosen(&files, "unsup").unwrap(), "unsup/a.png unsup/b.png");
        assert_eq!(chosen(&files, "").unwrap(), "unsup/a.png unsup/b.png");
        let error = chosen(&files, "extra").unwrap_err();
        assert!(error.contains("unsup (2 images"), "{error}");
        assert!(!error.contains("without a name"), "{error}");
        let several = [&files[..], &["extra/a.png", "b.png"]].concat();
        assert_eq!(chosen(&several, "extra").unwrap(), "extra/a.png");
        let error = chosen(&several, "no").unwrap_err();
        assert!(
            error
                .contains("one without a name (4 images, the first file unsup/a.png), called \"\""),
            "{error}"
        );
        assert_eq!(chosen(&["a.png", "test/a.png"], "").unwrap(), "a.png");
        // Without splits nothing lies beside one.
        assert!(chosen(&["cats/a.png", "dogs/a.png"], "cats").is_err());
    }

    #[test]
    fn a_split_is_chosen_by_its_name_or_by_what_it_stands_for() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| Subset {
                    name: name.to_string(),
                    files: vec![format!("{name}/a.png")],
                })
                .collect::<Vec<_>>()
        };
        let chosen = |of: &[&str], wanted| {
            let chosen = choose(Path::new("x"), names(of), wanted, true, |files| {
                Ok(files.len())
            });
            chosen
                .map(|files| files.join(" "))
                .map_err(|error| error.to_string())
        };
        let two = ["train2017", "val2017"];
        assert_eq!(chosen(&two, Some("validation")).unwrap(), "val2017/a.png");
        assert_eq!(chosen(&two, Some("TRAIN2017")).unwrap(), "train2017/a.png");
        assert_eq!(
            chosen(&two, Some("all")).unwrap(),
            "train2017/a.png val2017/a.png"
        );
        for wanted in [None, Some("test"), Some("tran")] {
            let error = chosen(&two, wanted).unwrap_err();
            assert!(
                error.contains("train2017 (1 image") && error.contains("val2017 (1 image"),
                "{error}"
            );
        }
        assert!(chosen(&["train2014", "train2017"], Some("train")).is_err());
        assert_eq!(chosen(&["train"], None).unwrap(), "train/a.png");
        assert!(chosen(&[""], Some("train")).is_err());
    }
}
