//! The real binary in a fresh folder, with tiny models and data sets.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use image::{GrayImage, ImageFormat};
use retrack_checkpoint::written::{Written, digest};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Pixels on a side of every tiny image.
pub const SIDE: usize = 8;
/// Photos in a folder of [`Folder::photos`].
pub const PHOTOS: usize = 16;

/// A fresh folder in which commands run, so that arguments are names in it.
pub struct Folder {
    folder: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

impl Folder {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// With the tiny `model` and `photos`.
    pub fn with_model_and_photos() -> Self {
        let folder = Self::new();
        folder.model("folder_pipeline_safetensors", "model");
        folder.photos("photos");
        folder
    }

    /// With `tiny.json` beside them, so that a model can be trained too.
    pub fn with_all_to_train() -> Self {
        let folder = Self::with_model_and_photos();
        folder.tiny_arch(json!({}));
        folder
    }

    /// Writes the list of the folder `out` as if these files in it were the tool's.
    pub fn claim(&self, out: &str, files: &[&str]) {
        let mut list = Written::default();
        for name in files {
            let content = self.read(&format!("{out}/{name}"));
            list.add(Path::new(name), digest(&content));
        }
        list.save(&self.path(out)).unwrap();
    }

    /// Has the list of the folder `out` be as earlier versions wrote it, which did not say whose it is.
    pub fn make_list_anybodys(&self, out: &str) {
        let mut list = Written::read(&self.path(out)).unwrap().unwrap();
        assert!(list.command.take().is_some(), "{out}");
        list.save(&self.path(out)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn read_json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// Copies the model of a case of `fixtures/parity`.
    pub fn model(&self, case: &str, name: &str) {
        let from = parity().join(case).join("model");
        for (path, content) in files_below(&from) {
            if path.ends_with('/') {
                continue;
            }
            self.write(&format!("{name}/{path}"), content);
        }
    }

    /// Gray photos `00.png`, `01.png`, ... of noise: no two rows of pixels are alike, so that each can be found
    /// again wherever it goes.
    pub fn photos(&self, name: &str) {
        for row in 0..PHOTOS {
            self.write(&format!("{name}/{row:02}.png"), photo_png(row));
        }
    }

    /// An IDX pair of noise images; row i has the label i modulo `labels`. Returns the images' path.
    pub fn idx(&self, rows: usize, side: usize, labels: usize) -> String {
        let header = |kind: u8, sizes: &[usize]| {
            let mut bytes = vec![0, 0, 8, kind];
            bytes.extend(sizes.iter().flat_map(|&size| (size as u32).to_be_bytes()));
            bytes
        };
        let mut images = header(3, &[rows, side, side]);
        images.extend((0..rows).flat_map(|row| noise(row, side * side)));
        let mut marks = header(1, &[rows]);
        marks.extend((0..rows).map(|row| (row % labels) as u8));
        self.write("digits/train-images-idx3-ubyte", images);
        self.write("digits/train-labels-idx1-ubyte", marks);
        "digits/train-images-idx3-ubyte".into()
    }

    /// Writes `tiny.json`, a network that a test build runs in a moment.
    pub fn tiny_arch(&self, more: Value) {
        let mut arch = json!({
            "_class_name": "UNet2DModel",
            "sample_size": SIDE,
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": [8, 8],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "norm_num_groups": 4,
        });
        let more = more.as_object().unwrap().clone();
        arch.as_object_mut().unwrap().extend(more);
        self.write("tiny.json", arch.to_string());
    }

    /// `retrack` with these words, to be run in the folder. Its cache is `cache/`.
    pub fn command(&self, line: &str) -> std::process::Command {
        self.command_of(line.split_whitespace())
    }

    fn command_of<'a>(&self, words: impl Iterator<Item = &'a str>) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_retrack"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            // Nothing that this machine's user has is found.
            .env("HOME", self.path("home"))
            .env_remove("TORCH_HOME");
        command
    }

    fn run(&self, line: &str) -> (Option<i32>, Said) {
        let (code, said) = self.outcome(line.split_whitespace());
        assert!(!said.stderr.contains("panicked"), "{line}: {}", said.stderr);
        (code, said)
    }

    /// Exit code and text of a command of these words.
    pub fn outcome<'a>(&self, words: impl Iterator<Item = &'a str>) -> (Option<i32>, Said) {
        let output = assert_cmd::Command::from_std(self.command_of(words))
            .timeout(std::time::Duration::from_secs(600))
            .output()
            .unwrap();
        let said = Said {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        (output.status.code(), said)
    }

    /// Runs a command that must succeed.
    pub fn done(&self, line: &str) -> Said {
        let (code, said) = self.run(line);
        assert_eq!(code, Some(0), "{line}\n{}{}", said.stdout, said.stderr);
        said
    }

    /// Runs a command that must exit with this code.
    pub fn ends(&self, line: &str, expected: i32) -> Said {
        let (code, said) = self.run(line);
        assert_eq!(
            code,
            Some(expected),
            "{line}\n{}{}",
            said.stdout,
            said.stderr
        );
        said
    }

    /// Runs a command that must exit with 2, print each of `says` in one error, and leave every file as it was; the
    /// cache may grow.
    pub fn refused(&self, line: &str, says: &[&str]) {
        let files = || {
            let mut files = files_below(self.folder.path());
            files.retain(|name, _| !name.starts_with("cache/"));
            files
        };
        let before = files();
        self.refused_anyhow(line, says);
        assert_same_files(&before, &files(), line);
    }

    /// The same where other processes change files meanwhile.
    pub fn refused_anyhow(&self, line: &str, says: &[&str]) {
        let (code, said) = self.run(line);
        let message = &said.stderr;
        assert_eq!(code, Some(2), "{line}\n{}{message}", said.stdout);
        assert_eq!(message.matches("error: ").count(), 1, "{line}\n{message}");
        assert_eq!(said.stdout, "", "{line}");
        for part in says {
            assert!(
                message.contains(part),
                "{line}\nwithout \"{part}\":\n{message}"
            );
        }
    }

    /// Starts a run and kills it, as a power cut would, once it has written its second checkpoint.
    pub fn kill_after_two_checkpoints(&self, line: &str, out: &str) {
        let run = self.path(out).join("run");
        let child = self.command(line).stderr(Stdio::null()).spawn().unwrap();
        let mut child = Guard(child);
        let two_checkpoints = || {
            fs::read_dir(&run).is_ok_and(|entries| {
                let names = entries.flatten().map(|entry| entry.file_name());
                names
                    .filter(|name| {
                        let name = name.to_string_lossy();
                        name.starts_with("checkpoint-") && name.ends_with(".safetensors")
                    })
                    .count()
                    >= 2
            })
        };
        while !two_checkpoints() {
            let ended = child.0.try_wait().unwrap();
            assert!(ended.is_none(), "{line}\nended before it could be killed");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        assert!(run.join("unfinished").exists(), "{line}\nended by itself");
    }

    /// Every file of a folder, by path.
    pub fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        files_below(&self.path(name))
    }
}

/// A child that does not outlive a failed test.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn parity() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity")
}

/// Files below `root` by path with `/`; folders appear with a `/` at the end. Without the lock that a killed run leaves:
/// whoever looks at the folder next takes it away.
pub fn files_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if name.ends_with("run/lock") {
                continue;
            }
            if kind.is_dir() {
                found.insert(format!("{name}/"), Vec::new());
                folders.push(path);
            } else if kind.is_file() {
                found.insert(name.to_string(), fs::read(&path).unwrap());
            } else {
                // A link may lead in a circle, and a pipe has no content.
                found.insert(name.to_string(), format!("{kind:?}").into_bytes());
            }
        }
    }
    found
}

/// Takes out what holds seconds, dates or a random key, files of events, of which a resumed run has several, and the
/// digests of them all.
pub fn drop_timed(files: &mut BTreeMap<String, Vec<u8>>) {
    let timed = [
        "run/events.",
        "run/report.",
        retrack_checkpoint::written::NAME,
        retrack_checkpoint::chain::NAME,
    ];
    files.retain(|name, _| !timed.iter().any(|start| name.starts_with(start)));
}

pub fn assert_same_files(
    before: &BTreeMap<String, Vec<u8>>,
    after: &BTreeMap<String, Vec<u8>>,
    what: &str,
) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after), "{what}");
    for (name, content) in before {
        assert!(after[name] == *content, "{what}\n{name} changed");
    }
}

/// Bytes that belong to `row`.
pub fn noise(row: usize, count: usize) -> Vec<u8> {
    let mut state = row as u64 + 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

pub fn photo_png(row: usize) -> Vec<u8> {
    png(noise(row, SIDE * SIDE))
}

pub fn png(pixels: Vec<u8>) -> Vec<u8> {
    let side = (pixels.len() as f64).sqrt() as u32;
    let image = GrayImage::from_raw(side, side, pixels).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Bytes from Base64, as a report holds its pictures.
pub fn decode_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = alphabet.iter().position(|known| *known == letter).unwrap() as u32;
        bits = (bits << 6 | value) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// The lines of `events.jsonl`.
pub fn events(folder: &Folder, out: &str) -> Vec<Value> {
    let text = String::from_utf8(folder.read(&format!("{out}/run/events.jsonl"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
