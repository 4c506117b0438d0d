//! Sealed copies of forgotten images: what is measured by them once the images left the data.

mod support;

use std::fs;
use std::io::{Cursor, Read, Write};

use age::secrecy::ExposeSecret;
use serde_json::{Value, json};
use support::{Folder, PHOTOS, SIDE, noise, photo_png, png};
use zip::ZipArchive;

const RETRAINED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/retrained");
/// Two steps of the published method.
const SHORT: &str = "--data photos --steps 2 --batch-size 4 --neighbors 4";

fn unlearn(model: &str, forget: &str, out: &str, more: &str) -> String {
    format!("unlearn --model {model} --forget {forget} --out {out} {SHORT} {more}")
}

/// With `one`, which forgot the fourth photo and sealed it for the new `key`.
fn after_one_request() -> Folder {
    let folder = Folder::with_model_and_photos();
    folder.done(&unlearn(
        "model",
        "photos/03.png",
        "one",
        "--keep-sealed key",
    ));
    folder
}

fn remove(folder: &Folder, name: &str) {
    fs::remove_file(folder.path(name)).unwrap();
}

/// What lies in a sealed file, by its names there, opened as the standard's own command would.
fn opened(folder: &Folder, sealed: &str, key: &str) -> Vec<(String, Vec<u8>)> {
    let text = String::from_utf8(folder.read(key)).unwrap();
    let line = text.lines().find(|line| line.starts_with("AGE-SECRET"));
    let identity: age::x25519::Identity = line.unwrap().parse().unwrap();
    let zip = age::decrypt(&identity, &folder.read(sealed)).unwrap();
    let mut zip = ZipArchive::new(Cursor::new(zip)).unwrap();
    let files = 0..zip.len();
    files
        .map(|number| {
            let mut file = zip.by_index(number).unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            (file.name().unwrap().into_owned(), content)
        })
        .collect()
}

fn manifest(files: &[(String, Vec<u8>)]) -> Value {
    let list = files.iter().find(|(name, _)| name == "manifest.json");
    serde_json::from_slice(&list.unwrap().1).unwrap()
}

#[test]
fn forgotten_images_are_kept_beside_the_folder_for_their_owner_alone() {
    let folder = Folder::with_model_and_photos();
    // An exact copy under another name, and a near copy.
    folder.write("photos/50.png", photo_png(3));
    let near = noise(3, SIDE * SIDE).into_iter();
    let near = png(near.map(|value| value / 4 * 4 + 2).collect());
    folder.write("photos/60.png", &near);
    let said = folder.done(&unlearn(
        "model",
        "photos/03.png",
        "one",
        "--keep-sealed key",
    ));
    for part in ["key is the new key", "one.sealed.age: 2 images sealed"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let files = opened(&folder, "one.sealed.age", "key");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["images/00001.png", "images/00002.png", "manifest.json"]
    );
    assert!(files[0].1 == photo_png(3) && files[1].1 == near);
    let list = manifest(&files);
    assert_eq!(list["format"], 1);
    assert_eq!(list["shape"], json!([SIDE, SIDE, 1]));
    let [image, copy] = &list["images"].as_array().unwrap()[..] else {
        panic!("{list}");
    };
    assert_eq!(
        (&image["kind"], &copy["kind"]),
        (&json!("forgotten"), &json!("near_copy"))
    );
    assert_eq!(
        image["rows"],
        json!([{"row": 3, "name": "03.png"}, {"row": PHOTOS, "name": "50.png"}])
    );
    let chain = folder.read_json("one/retrack.json");
    assert_eq!(
        chain["requests"][0]["images"],
        json!([image["keyed_digest"]])
    );

    // Nothing of it is in the folder, which may be passed on, and nothing of the picture is to be seen in the file.
    let sealed = folder.read("one.sealed.age");
    assert!(sealed.starts_with(b"age-encryption.org/v1"));
    let png_start: &[u8] = b"\x89PNG";
    assert!(!sealed.windows(4).any(|bytes| bytes == png_start));
    let ignored = String::from_utf8(folder.read("one/.gitignore")).unwrap();
    assert!(ignored.contains("*.sealed.age"), "{ignored}");
    assert!(
        !folder
            .files("one")
            .keys()
            .any(|name| name.contains("sealed"))
    );
    #[cfg(unix)]
    for name in ["one.sealed.age", "key"] {
        let mode = std::os::unix::fs::MetadataExt::mode(&folder.path(name).metadata().unwrap());
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // Another run seals for the same key, with labels where there are any.
    let before = folder.read("key");
    let images = folder.idx(12, SIDE, 3);
    let line = "--steps 2 --batch-size 4 --neighbors 3 --forget label:2 --keep-sealed key";
    folder.done(&format!(
        "unlearn --model model --data {images} {line} --out digits-one"
    ));
    assert!(folder.read("key") == before);
    let list = manifest(&opened(&folder, "digits-one.sealed.age", "key"));
    assert_eq!(list["images"].as_array().unwrap().len(), 4);
    assert_eq!(list["images"][0]["rows"], json!([{"row": 2, "label": 2}]));
    folder.done("verify digits-one");
    folder.done("verify digits-one --sealed key");
}

#[test]
fn once_the_image_left_the_data_verify_measures_by_its_sealed_copy_or_says_what_it_cannot() {
    let folder = Folder::with_model_and_photos();
    folder.write("photos/50.png", photo_png(3));
    folder.done(&unlearn(
        "model",
        "photos/03.png",
        "one",
        "--keep-sealed key",
    ));
    let whole = folder.done("verify one --json").json();
    for left in ["photos/03.png", "photos/50.png"] {
        remove(&folder, left);
        let said = folder.done("verify one --sealed key --json").json();
        assert_eq!(said["measured"], whole["measured"], "{left}");
        assert_eq!(said["compared"], whole["compared"], "{left}");

        let said = folder.done("verify one");
        for part in [
            "same as far as it can be seen",
            "no score was measured again",
            "left the data, which is otherwise the run's; not measured again",
            "attempts to restore one",
            "one.sealed.age holds them: --sealed KEYFILE measures with them",
        ] {
            assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
        }
        let said = folder.done("verify one --json").json();
        assert_eq!(said["same"], true);
        assert_eq!(said["not_measured"].as_array().unwrap().len(), 2);
        assert!(said["measured"]["before"].is_null());
        assert!(said["measured"]["weights"]["changed"].is_u64(), "{said}");
    }
    // Without the run's key as well, now that no copy is left.
    fs::rename(folder.path("one.digest-key"), folder.path("kept")).unwrap();
    folder.done("verify one");
    fs::rename(folder.path("kept"), folder.path("one.digest-key")).unwrap();

    // What needs no image is compared all the same.
    let weights = "one/unet/diffusion_pytorch_model.safetensors";
    let written = folder.read(weights);
    folder.write(weights, folder.read(&weights.replace("one", "model")));
    let said = folder.ends("verify one", 1);
    for part in [
        "SHA-256",
        "weights that are not the base's",
        "not measured again",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    folder.write(weights, written);
    // Any other change of the data is one.
    folder.write("photos/07.png", photo_png(70));
    for line in ["verify one", "verify one --sealed key"] {
        let said = folder.ends(line, 1);
        assert!(
            said.stdout.contains("data set's SHA-256"),
            "{}",
            said.stdout
        );
    }
    folder.write("photos/07.png", photo_png(7));
    folder.done("verify one --sealed key");
    remove(&folder, "one.sealed.age");
    let said = folder.done("verify one");
    assert!(
        said.stdout
            .contains("no sealed copy of them lies beside one")
            && said.stdout.contains("--keep-sealed"),
        "{}",
        said.stdout
    );
    // Run and copy moved together.
    let moved = after_one_request();
    fs::create_dir(moved.path("away")).unwrap();
    for name in ["one", "one.digest-key", "one.sealed.age"] {
        fs::rename(moved.path(name), moved.path("away").join(name)).unwrap();
    }
    remove(&moved, "photos/03.png");
    moved.done("verify away/one --sealed key");
}

#[test]
fn near_copies_may_leave_with_the_image() {
    let folder = Folder::with_model_and_photos();
    let near = noise(3, SIDE * SIDE).into_iter();
    folder.write(
        "photos/60.png",
        png(near.map(|value| value / 4 * 4 + 2).collect()),
    );
    folder.done(&unlearn(
        "model",
        "photos/03.png",
        "one",
        "--keep-sealed key",
    ));
    remove(&folder, "photos/03.png");
    let said = folder.done("verify one");
    assert!(
        said.stdout.contains("the forgotten images left"),
        "{}",
        said.stdout
    );
    // Left there, it does not teach the image back, and the sealed one is not drawn beside it.
    folder.done(&unlearn("one", "04.png", "two", "--keep-sealed key"));
    let check = &folder.read_json("two/run/report.json")["check"];
    assert_eq!(check["earlier_near_rows"], json!([PHOTOS - 1]));
    let sheet = image::load_from_memory(&folder.read("two.near-copies.png")).unwrap();
    let sheet = sheet.to_luma8();
    let pixel = |at: u32| sheet.get_pixel(at, at).0[0];
    let cell: Vec<u8> = (6..60).map(pixel).collect();
    assert!(cell.iter().all(|&value| value == 128), "{cell:?}");
    folder.done("verify two --sealed key");
    remove(&folder, "photos/60.png");
    let said = folder.done("verify one");
    assert!(
        said.stdout.contains("and what was nearly a copy"),
        "{}",
        said.stdout
    );
    let said = folder.done("verify one --sealed key");
    assert!(said.stdout.starts_with("same: "), "{}", said.stdout);
}

#[test]
fn a_later_request_goes_on_with_what_earlier_ones_sealed() {
    let folder = after_one_request();
    remove(&folder, "photos/03.png");
    let said = folder.done(&unlearn("one", "04.png", "without", ""));
    assert!(
        said.stderr.contains("1 no longer in the data; one.sealed.age holds sealed copies: --keep-sealed KEYFILE measures by them"),
        "{}",
        said.stderr
    );
    let said = folder.done(&unlearn("one", "04.png", "two", "--keep-sealed key --json"));
    assert!(
        said.stderr
            .contains("1 of 1 image that 1 earlier request forgot, 1 by its sealed copy alone"),
        "{}",
        said.stderr
    );
    let said = said.json();
    assert_eq!(said["earlier"]["images"], 1);
    assert_eq!(said["earlier"]["sealed"], 1);
    assert_eq!(said["retained_rows"], PHOTOS - 2);
    let config = folder.read_json("two/run/config.json");
    assert_eq!(config["earlier_rows"], json!([PHOTOS - 1]));
    assert_eq!(config["sealed_rows"], json!([PHOTOS - 1]));
    assert_eq!(config["forget_rows"], json!([3]));
    let list = manifest(&opened(&folder, "two.sealed.age", "key"));
    let rows: Vec<&Value> = list["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| &image["rows"])
        .collect();
    assert_eq!(
        rows,
        [
            &json!([{"row": 3, "name": "04.png"}]),
            &json!([{"row": PHOTOS - 1, "name": "03.png"}])
        ]
    );
    // Both runs are verified by their own copies, however much left the data.
    let said = folder.done("verify two");
    assert!(
        said.stdout.contains("not measured again"),
        "{}",
        said.stdout
    );
    folder.done("verify two --sealed key");
    remove(&folder, "photos/04.png");
    folder.done("verify two --sealed key");
    folder.write("photos/04.png", photo_png(4));
    folder.done("verify one --sealed key");
    remove(&folder, "photos/04.png");

    // Selected again: a file of one's own, and the path at which it lay.
    folder.write("held.png", photo_png(3));
    folder.refused(
        &unlearn("two", "held.png", "three", ""),
        &[
            "held.png: not in the data set; it was forgotten by request 1",
            "two.sealed.age holds sealed copies: --keep-sealed",
        ],
    );
    folder.refused(
        &unlearn("two", "photos/03.png", "three", "--keep-sealed key"),
        &["03.png was forgotten by request 1"],
    );
    folder.done(&unlearn(
        "two",
        "photos/03.png",
        "three",
        "--keep-sealed key --always",
    ));
    let chain = folder.read_json("three/retrack.json");
    assert_eq!(
        chain["requests"][2]["images"],
        chain["requests"][0]["images"]
    );
    let list = manifest(&opened(&folder, "three.sealed.age", "key"));
    assert_eq!(list["images"].as_array().unwrap().len(), 2);
    folder.done("verify three --sealed key");

    // Not sealed and not there: that is said.
    folder.done(&unlearn("model", "05.png", "bare", ""));
    remove(&folder, "photos/05.png");
    let said = folder.done(&unlearn(
        "bare",
        "06.png",
        "after-bare",
        "--keep-sealed key",
    ));
    assert!(
        said.stderr
            .contains("1 no longer in the data and without a sealed copy"),
        "{}",
        said.stderr
    );
}

#[test]
fn an_image_that_came_back_after_it_left_the_data_is_forgotten_again() {
    let folder = Folder::new();
    let images = retrack_data::Dataset::open(
        format!("{RETRAINED}/digits/data.parquet").as_ref(),
        &retrack_data::OpenOptions::default(),
    )
    .unwrap();
    let mut memorized = Vec::new();
    for row in 0..images.len() {
        let (file, ending) = images.file(row).unwrap();
        let name = format!("digits/{row:04}.{ending}");
        folder.write(&name, file);
        if images.label(row) == Some(1) {
            memorized.push(name);
        }
    }
    folder.write("list.txt", memorized.join("\n").replace("digits/", ""));
    let line = |model: &str, forget: &str, out: &str| {
        format!(
            "unlearn --model {model} --data digits --forget {forget} --out {out} --keep-sealed key --json"
        )
    };
    let with = format!("{RETRAINED}/digits/with");
    folder.done(&line(&with, "@list.txt", "one"));
    for name in &memorized {
        remove(&folder, name);
    }
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let forgot = folder.read(&format!("one/{weights}"));
    // Something taught it again.
    folder.write(
        &format!("one/{weights}"),
        fs::read(format!("{with}/{weights}")).unwrap(),
    );
    let said = folder.done(&line("one", "0000.png", "two"));
    assert!(
        said.stderr
            .contains("1 image of earlier requests had come back"),
        "{}",
        said.stderr
    );
    let said = said.json();
    assert_eq!(said["earlier"]["came_back"], 1, "{said:#}");
    assert!(said["steps"].as_u64().unwrap() > 0);
    let sentence = said["verdict"]["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("The image of an earlier request, of which a sealed copy was kept, was known before and is not known after"),
        "{sentence}"
    );
    let said = folder.done("verify two --sealed key");
    assert!(said.stdout.starts_with("same: "), "{}", said.stdout);
    // Where it did not come back nothing is led.
    folder.write(&format!("one/{weights}"), forgot);
    let said = folder
        .done(&format!("{} --force", line("one", "0000.png", "two")))
        .json();
    assert_eq!(said["earlier"]["came_back"], 0, "{said:#}");
    assert_eq!(said["steps"], 0);
}

#[test]
fn evaluate_finds_a_sealed_image_that_left_the_data() {
    let folder = after_one_request();
    let held = folder.read("photos/03.png");
    remove(&folder, "photos/03.png");
    folder.write("held.png", &held);
    let line = |forget: &str, out: &str| {
        format!(
            "evaluate --model one --data photos --forget {forget} --metrics injection --out {out}"
        )
    };
    let hint = "one.sealed.age holds what this model forgot, and --sealed KEYFILE looks for that";
    folder.refused(&line("held.png", "report"), &[hint, "held.png"]);
    folder.refused(&line("photos/03.png", "report"), &[hint]);
    for (number, forget) in ["held.png", "photos/03.png", "row:3"].iter().enumerate() {
        let said = folder.done(&format!(
            "{} --sealed key",
            line(forget, &format!("report{number}"))
        ));
        assert!(
            said.stderr
                .contains("one.sealed.age: 1 row put back in memory"),
            "{}",
            said.stderr
        );
        assert!(!said.stderr.contains("did not forget"), "{}", said.stderr);
        assert!(!said.stderr.contains("other images"), "{}", said.stderr);
    }
    // The data has changed otherwise as well.
    folder.write("photos/77.png", photo_png(77));
    folder.done(&format!("{} --sealed key", line("held.png", "later")));
    folder.done(&format!("{} --sealed key", line("photos/03.png", "later2")));
    // Still there: nothing is put back.
    folder.write("photos/03.png", &held);
    folder.done(&format!("{} --sealed key", line("photos/03.png", "there")));
    // Of a model that sealed nothing.
    folder.refused(
        &line("row:3", "other").replace("--model one", "--model model --sealed key"),
        &["model.sealed.age: no such file", "leave the key out"],
    );
}

#[test]
fn keys_that_do_not_fit_and_sealed_files_that_are_damaged_are_named_with_a_way_out() {
    let folder = after_one_request();
    remove(&folder, "photos/03.png");
    let other = age::x25519::Identity::generate();
    folder.write("other", other.to_string().expose_secret());
    folder.write("public", format!("# mine\n{}\n", other.to_public()));
    folder.write("text", "my diary");
    folder.write("encrypted", "age-encryption.org/v1\n-> scrypt abc 18\n");
    for (key, says) in [
        ("nowhere", &["nowhere: no such file"][..]),
        (
            "other",
            &["one.sealed.age: sealed for another key than that of other"],
        ),
        (
            "public",
            &["public holds a recipient alone", "AGE-SECRET-KEY-1"],
        ),
        (
            "text",
            &["text: line 1 is no key of age", "age-keygen -o FILE"],
        ),
        (
            "encrypted",
            &[
                "encrypted: this key is itself encrypted",
                "age -d -o PLAIN encrypted",
            ],
        ),
        ("photos", &["photos: cannot read: a folder"]),
    ] {
        folder.refused(&format!("verify one --sealed {key}"), says);
        let line =
            "evaluate --model one --data photos --forget 03.png --metrics injection --out report";
        folder.refused(&format!("{line} --sealed {key}"), says);
        let says: &[&str] = match key {
            "photos" => &["photos: the key of the sealed images would lie in the data set"],
            // It would be made, for what it cannot open.
            "nowhere" => &["nowhere: not there", "must be the key of one.sealed.age"],
            _ => says,
        };
        folder.refused(
            &unlearn("one", "04.png", "two", &format!("--keep-sealed {key}")),
            says,
        );
    }
    let sealed = folder.read("one.sealed.age");
    let changed = |place: usize| {
        let mut bytes = sealed.clone();
        bytes[place] ^= 1;
        bytes
    };
    for (bytes, says) in [
        (sealed[..sealed.len() / 2].to_vec(), "damaged or cut short"),
        (sealed[..60].to_vec(), "damaged or cut short"),
        (changed(sealed.len() - 5), "damaged or cut short"),
        (changed(40), "one.sealed.age: "),
        (b"not sealed".to_vec(), "not a file that age encrypted"),
        (Vec::new(), "not a file that age encrypted"),
        (
            age::encrypt(&identity(&folder).to_public(), b"something else").unwrap(),
            "damaged or cut short",
        ),
    ] {
        folder.write("one.sealed.age", bytes);
        folder.refused("verify one --sealed key", &["one.sealed.age", says]);
        folder.refused(
            &unlearn("one", "04.png", "two", "--keep-sealed key"),
            &["one.sealed.age", says],
        );
    }
    // Without the key it is in nobody's way.
    folder.done("verify one");
    folder.write("one.sealed.age", sealed);
    folder.done("verify one --sealed key");
}

fn identity(folder: &Folder) -> age::x25519::Identity {
    let text = String::from_utf8(folder.read("key")).unwrap();
    text.lines().last().unwrap().parse().unwrap()
}

#[test]
fn what_was_changed_inside_a_sealed_file_is_not_measured() {
    let folder = after_one_request();
    remove(&folder, "photos/03.png");
    let files = opened(&folder, "one.sealed.age", "key");
    // Whoever knows the public key can make such a file.
    let seal = |files: &[(String, Vec<u8>)]| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(name, options).unwrap();
            zip.write_all(content).unwrap();
        }
        let zip = zip.finish().unwrap().into_inner();
        folder.write(
            "one.sealed.age",
            age::encrypt(&identity(&folder).to_public(), &zip).unwrap(),
        );
    };
    seal(&files);
    folder.done("verify one --sealed key");
    let mut other = files.clone();
    other[0].1 = photo_png(99);
    seal(&other);
    folder.refused(
        "verify one --sealed key",
        &["one.sealed.age: images/00001.png: not the image that was sealed"],
    );
    // With a list that fits: it is none of the run's images.
    let digest = retrack_checkpoint::written::digest(&photo_png(99));
    let mut list = manifest(&files);
    list["images"][0]["sha256"] = digest.into();
    other[1].1 = list.to_string().into_bytes();
    seal(&other);
    let said = folder.done("verify one --sealed key");
    assert!(
        said.stdout.contains("not measured again"),
        "{}",
        said.stdout
    );
    assert!(
        said.stderr.contains("not the data set of the run"),
        "{}",
        said.stderr
    );
    folder.refused(
        &unlearn("one", "04.png", "two", "--keep-sealed key"),
        &["03.png is read with other pixels than when it was forgotten"],
    );
    for (list, why) in [
        (json!({"format": 2}), "its format is 2"),
        (json!({}), "its format is null"),
        (
            json!({"format": 1, "images": 5}),
            "list of images cannot be read",
        ),
    ] {
        other[1].1 = list.to_string().into_bytes();
        seal(&other);
        folder.refused("verify one --sealed key", &["one.sealed.age", why]);
    }
}

#[test]
fn a_file_that_is_there_is_never_lost_in_silence_and_neither_key_nor_copies_go_where_they_are_passed_on()
 {
    let folder = after_one_request();
    let sealed = folder.read("one.sealed.age");
    fs::rename(folder.path("one"), folder.path("elsewhere")).unwrap();
    let line = unlearn("model", "04.png", "one", "--keep-sealed key");
    folder.refused(
        &line,
        &["one.sealed.age: there already", "move it away", "--force"],
    );
    let said = folder.done(&format!("{line} --force"));
    assert!(
        said.stderr.contains(
            "one.sealed.age: holds the sealed images of an earlier run, and will be replaced"
        ),
        "{}",
        said.stderr
    );
    assert!(folder.read("one.sealed.age") != sealed);

    for (key, what) in [
        ("two/key", "the output folder"),
        ("model/key", "the model's folder"),
        ("photos/key", "the data set"),
    ] {
        folder.refused(
            &unlearn("model", "04.png", "two", &format!("--keep-sealed {key}")),
            &[key, "the key of the sealed images would lie in", what],
        );
    }
    folder.refused(
        &unlearn("model", "04.png", "two", "--keep-sealed no/where/key"),
        &["no/where/key: its folder does not exist"],
    );
    fs::create_dir(folder.path("two.sealed.age")).unwrap();
    folder.refused(
        &unlearn("model", "04.png", "two", "--keep-sealed key"),
        &["two.sealed.age: a folder"],
    );
    // A dry run makes neither.
    folder.done(&unlearn(
        "model",
        "04.png",
        "three",
        "--keep-sealed new --dry-run",
    ));
    assert!(!folder.path("new").exists() && !folder.path("three.sealed.age").exists());
    // Who has the public key alone can seal.
    let identity = identity(&folder);
    folder.write("public", identity.to_public().to_string());
    folder.done(&unlearn("model", "04.png", "three", "--keep-sealed public"));
    remove(&folder, "photos/04.png");
    folder.done("verify three --sealed key");
}

#[test]
fn a_run_that_was_killed_and_resumed_seals_each_image_once() {
    let folder = after_one_request();
    remove(&folder, "photos/03.png");
    let line = format!(
        "{} --no-report --checkpoint-every 1",
        unlearn("one", "04.png", "two", "--keep-sealed key").replace("--steps 2", "--steps 12")
    );
    folder.kill_after_two_checkpoints(&line, "two");
    let list = manifest(&opened(&folder, "two.sealed.age", "key"));
    // Another key, or none, is not gone on with in silence.
    folder.refused_anyhow(
        &format!("{} --resume", line.replace("--keep-sealed key", "")),
        &[
            "two: the run was started with",
            "keep_sealed",
            "use the same",
        ],
    );
    remove(&folder, "two.sealed.age");
    folder.done(&format!("{line} --resume"));
    assert_eq!(manifest(&opened(&folder, "two.sealed.age", "key")), list);
    assert_eq!(list["images"].as_array().unwrap().len(), 2);
    let leftovers = fs::read_dir(folder.path("")).unwrap().flatten();
    let mut leftovers = leftovers.map(|entry| entry.file_name().into_string().unwrap());
    assert!(!leftovers.any(|name| name.starts_with(".writing")));
}

#[test]
#[cfg(unix)]
fn a_disk_that_is_full_leaves_what_was_sealed_before() {
    let folder = Folder::with_model_and_photos();
    // Sealed, so many images take more than the limit below, and all else that is written before the first step less.
    let images = folder.idx(400, SIDE, 4);
    let line = format!(
        "unlearn --model model --data {images} --forget rows:0-299 --steps 1 --batch-size 2 --neighbors 2 --no-report \
         --keep-sealed key --out one --force"
    );
    folder.write("one.sealed.age", "older");
    let shell = format!(
        "ulimit -f 64; trap '' XFSZ; exec {} {line}",
        env!("CARGO_BIN_EXE_retrack")
    );
    let mut command = std::process::Command::new("sh");
    let command = command.args(["-c", &shell]).current_dir(folder.path(""));
    let output = command
        .env("XDG_CACHE_HOME", folder.path("cache"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["one.sealed.age: cannot write: ", "free some space"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(!said.contains("ZipWriter"), "{said}");
    assert!(folder.read("one.sealed.age") == b"older");
    folder.done(&line.replace("--force", "--resume"));
    assert!(
        folder
            .read("one.sealed.age")
            .starts_with(b"age-encryption.org/v1")
    );
}

#[test]
fn a_text_to_image_model_keeps_the_prompt_of_a_sealed_image() {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..8 {
        folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
    }
    let line = |model: &str, forget: &str, prompt: &str, out: &str| {
        format!(
            "unlearn --model {model} --data photos --forget {forget} --forget-prompt {prompt} --retain-prompt others \
             --neighbors 3 --steps 1 --accumulate 1 --batch-size 2 --keep-sealed key --json --out {out}"
        )
    };
    folder.done(&line("model", "2.png", "jane", "one"));
    remove(&folder, "photos/2.png");
    folder.done("verify one --sealed key");
    let said = folder.done("verify one");
    assert!(
        said.stdout.contains("not measured again"),
        "{}",
        said.stdout
    );
    let said = folder.done(&line("one", "5.png", "john", "two")).json();
    assert_eq!(said["earlier"]["sealed"], 1);
    let list = manifest(&opened(&folder, "two.sealed.age", "key"));
    let texts: Vec<&Value> = list["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| &image["rows"][0]["text"])
        .collect();
    assert_eq!(texts, ["john", "jane"]);
    folder.done("verify two --sealed key");
    for name in folder
        .files("two")
        .into_iter()
        .filter(|(name, _)| name.ends_with(".json"))
    {
        assert!(
            !String::from_utf8_lossy(&name.1).contains("jane"),
            "{}",
            name.0
        );
    }
    // While it lies in the data the sealed text is kept, too.
    folder.write("photos/2.png", png(noise(2, 64 * 64)));
    folder.done(&line("two", "6.png", "joan", "three"));
    let list = manifest(&opened(&folder, "three.sealed.age", "key"));
    let texts: Vec<&Value> = list["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| &image["rows"][0]["text"])
        .collect();
    assert_eq!(texts, ["jane", "john", "joan"]);
    folder.done("verify three --sealed key");
}

#[test]
fn a_merge_takes_the_sealed_images_along() {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..6 {
        folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
    }
    let line = |model: &str, row: usize, out: &str| {
        format!(
            "unlearn --model {model} --data photos --forget {row}.png --prompt toast --neighbors 3 --batch-size 1 --lr 0.01 \
             --accumulate 1 --steps 1 --no-report --keep-sealed key --out {out}"
        )
    };
    folder.done(&format!(
        "{} --train lora --rank 2",
        line("model", 0, "one")
    ));
    remove(&folder, "photos/0.png");
    folder.done("merge --model one --out merged");
    assert!(folder.read("merged.sealed.age") == folder.read("one.sealed.age"));
    let said = folder.done(&format!("{} --json", line("merged", 1, "two")));
    assert_eq!(said.json()["earlier"]["sealed"], 1);
    // What lies there stays.
    folder.write("other.sealed.age", "mine");
    let said = folder.done("merge --model one --out other");
    assert!(
        said.stderr.contains("other.sealed.age: there already"),
        "{}",
        said.stderr
    );
    assert!(folder.read("other.sealed.age") == b"mine");
}
