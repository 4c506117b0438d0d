//! A model folder written again with other weights.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::FolderError;
use super::layout::{Layout, is_network_weights, is_text_weights};
use super::output::Staging;
use super::part::{Library, Part};
use super::tensor::RawTensor;
use super::weights::Weights;
use super::wrapping::{self, Unwrapped};
use super::{FILES_LIST, ModelFolder, RECORD, Written, safetensors_file};

/// A part whose weights are written anew: other forms of the same network are then left out.
struct Renewed {
    folder: PathBuf,
    /// Those that are written.
    files: Vec<PathBuf>,
    /// Whether a file name is that of weights of such a network.
    is_of_kind: fn(&str) -> bool,
}

impl ModelFolder {
    /// Writes this folder to `out` with other weights: those of [`ModelFolder::weights`], changed by
    /// [`Weights::set_f32`] or [`Weights::set_later`].
    ///
    /// A weight file with changed tensors keeps its format, names (deprecated ones too), order, element types and
    /// metadata; all other files are copied byte for byte, those in nested folders too. Left out are a Git or
    /// download-cache folder (`.git`, `.cache/huggingface`), the record of the run that made the folder (`run`, the list
    /// of its files) and, once any tensor was changed, further weights of the
    /// same network (another format or variant): they would still be the old model, and `from_pretrained(...,
    /// variant=...)` would load it. What a wrapper put before every name is left out too, without which diffusers does
    /// not find the weights; a `.bin` then becomes a safetensors file.
    ///
    /// `out` must be absent or empty. It appears complete or not at all.
    ///
    /// # Errors
    /// An `out` that is neither absent nor empty or that overlaps this folder, weights of another folder, values that the element
    /// type cannot hold, files that cannot be read or written. Nothing is left at `out` then.
    pub fn write_with(&self, out: &Path, weights: &Weights) -> Result<Written, FolderError> {
        self.write(out, weights, &[], None, None)
    }

    /// The same with other weights of `parts` too, those of [`Part::weights`], and without the file `name` beside
    /// `model_index.json`, where there is one: an adapter that the weights now hold, and that would be added a second
    /// time.
    ///
    /// # Errors
    /// As [`ModelFolder::write_with`].
    pub fn write_merged(
        &self,
        out: &Path,
        weights: &Weights,
        parts: &[(Part, Weights)],
        name: &str,
    ) -> Result<Written, FolderError> {
        self.write(out, weights, parts, None, Some(Path::new(name)))
    }

    /// Writes this folder to `out` byte for byte, with one more safetensors file beside `model_index.json` (or
    /// `config.json`), in place of one of that name. See [`ModelFolder::write_with`] for `out`.
    ///
    /// # Errors
    /// As [`ModelFolder::write_with`].
    pub fn write_beside(
        &self,
        out: &Path,
        name: &str,
        tensors: &[(String, RawTensor)],
    ) -> Result<Written, FolderError> {
        let unchanged = Weights::new(&self.source, Vec::new())?;
        self.write(out, &unchanged, &[], Some((name, tensors)), None)
    }

    fn write(
        &self,
        out: &Path,
        own: &Weights,
        parts: &[(Part, Weights)],
        beside: Option<(&str, &[(String, RawTensor)])>,
        without: Option<&Path>,
    ) -> Result<Written, FolderError> {
        let others = || parts.iter().map(|(_, weights)| weights);
        if let Some(foreign) = others().chain([own]).find(|one| one.root() != self.root()) {
            return Err(FolderError::ForeignWeights {
                path: self.root().to_path_buf(),
                weights: foreign.root().to_path_buf(),
            });
        }
        self.check_types(own)?;
        for (part, weights) in parts {
            self.check_part_types(part, weights)?;
        }
        let changed = parts.iter().filter(|(_, weights)| weights.changed());
        let renewed = self.renewed(own.changed(), changed.map(|(part, _)| part))?;
        let staging = Staging::begin(out, Some(&self.source))?;
        let unwrapped = Unwrapped::find(&self.source, &self.layout)?;
        let mut written = Written::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            staging.create_folder(&folder)?;
            for (relative, is_folder) in self.list(&folder)? {
                if beside.is_some_and(|(name, _)| relative == Path::new(name)) {
                    continue;
                }
                let unwanted = without == Some(relative.as_path());
                let weights = others().find(|one| one.has_file(&relative)).unwrap_or(own);
                if unwanted || is_left_out(&relative, is_folder, &renewed) {
                    written.left_out.push(relative);
                } else if is_folder {
                    folders.push(relative);
                } else if let Some(file) = unwrapped.get(&relative) {
                    let tensors = weights.of_file(&relative);
                    match file.write(&self.source, &relative, &staging, weights, tensors)? {
                        Some(new) => written.changed.push(new),
                        None => written.left_out.push(relative),
                    }
                } else if weights.changed_in(&relative) {
                    let path = staging.path(&relative);
                    let tensors = weights.of_file(&relative);
                    let dtype = |own| weights.written_dtype(own);
                    Layout::rewrite(&self.source, &relative, &path, dtype, tensors)?;
                    written.changed.push(relative);
                } else {
                    staging.copy(&self.source, &relative)?;
                    written.copied.push(relative);
                }
            }
        }
        if let Some((name, tensors)) = beside {
            let tensors = tensors.iter().map(|(key, tensor)| (key.as_str(), tensor));
            safetensors_file::create(&staging.path(Path::new(name)), tensors)?;
            written.changed.push(name.into());
        }
        staging.finish()?;
        Ok(written)
    }

    /// Whether the weights can be written in another element type than they have.
    pub fn can_convert(&self) -> bool {
        self.layout.can_convert()
    }

    /// What is written anew, if the network is and of these parts.
    fn renewed<'a>(
        &self,
        network: bool,
        parts: impl Iterator<Item = &'a Part>,
    ) -> Result<Vec<Renewed>, FolderError> {
        let own = network.then(|| Renewed {
            folder: self.unet.clone(),
            files: self.layout.all_files().map(Path::to_path_buf).collect(),
            is_of_kind: is_network_weights,
        });
        let parts = parts.map(|part| {
            let layout = part.layout(Library::Transformers)?;
            Ok(Renewed {
                folder: part.folder.clone(),
                files: layout.all_files().map(Path::to_path_buf).collect(),
                is_of_kind: is_text_weights,
            })
        });
        own.map(Ok).into_iter().chain(parts).collect()
    }

    /// The same as [`check_types`](Self::check_types) for a text encoder's.
    ///
    /// # Errors
    /// As there.
    pub fn check_part_types(&self, part: &Part, weights: &Weights) -> Result<(), FolderError> {
        let layout = part.layout(Library::Transformers)?;
        self.check_layout(&layout, weights)
    }

    fn check_layout(&self, layout: &Layout, weights: &Weights) -> Result<(), FolderError> {
        if weights.converts() && !layout.can_convert() {
            let path = layout.all_files().last().unwrap_or(&self.unet);
            return Err(FolderError::FixedTypes {
                path: self.source.path(path),
            });
        }
        Ok(())
    }

    /// Refuses weights that would be written in another element type where the files' form does not allow it.
    ///
    /// # Errors
    /// Weights in a `.bin` file or in shards, with [`Weights::write_as`] another type.
    pub fn check_types(&self, weights: &Weights) -> Result<(), FolderError> {
        self.check_layout(&self.layout, weights)
    }

    /// Bytes that [`ModelFolder::write_with`] would write, after looking at every file that it would copy: what it
    /// would stumble over is found before the work and not after it.
    ///
    /// # Errors
    /// A file that cannot be copied.
    pub fn check_copy(&self) -> Result<u64, FolderError> {
        let files = self.copied_files(true, &[])?;
        let lengths = files.iter().map(|file| Ok(self.source.open(file)?.len));
        lengths.sum()
    }

    /// The files that [`ModelFolder::write_with`] would write, by their path in the folder; `changed`: with other weights,
    /// and with others of these `parts`.
    ///
    /// # Errors
    /// A folder that cannot be listed, weights whose names cannot be read.
    pub fn output_files(
        &self,
        changed: bool,
        parts: &[&Part],
    ) -> Result<Vec<PathBuf>, FolderError> {
        let unwrapped = Unwrapped::find(&self.source, &self.layout)?;
        let mut files = self.copied_files(changed, parts)?;
        for file in &mut files {
            if let Some(written) = unwrapped.get(file).and_then(wrapping::File::becomes) {
                *file = written.to_path_buf();
            }
        }
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// The files of this folder that are written or written again.
    fn copied_files(&self, changed: bool, parts: &[&Part]) -> Result<Vec<PathBuf>, FolderError> {
        let renewed = self.renewed(changed, parts.iter().copied())?;
        let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(folder) = folders.pop() {
            for (relative, is_folder) in self.list(&folder)? {
                if is_left_out(&relative, is_folder, &renewed) {
                    continue;
                } else if is_folder {
                    folders.push(relative);
                } else {
                    files.push(relative);
                }
            }
        }
        Ok(files)
    }

    /// The entries of one folder by name, and whether each is a folder.
    fn list(&self, folder: &Path) -> Result<Vec<(PathBuf, bool)>, FolderError> {
        let shown = self.source.path(folder);
        let cannot = || FolderError::io(&shown, "list the folder");
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.source.canonical.join(folder)).map_err(cannot())? {
            let entry = entry.map_err(cannot())?;
            // A link to a folder counts as a file here, and is refused when it is opened: it could lead in a circle.
            let is_folder = entry.file_type().map_err(cannot())?.is_dir();
            entries.push((folder.join(entry.file_name()), is_folder));
        }
        entries.sort();
        Ok(entries)
    }
}

fn is_left_out(relative: &Path, is_folder: bool, renewed: &[Renewed]) -> bool {
    if is_folder {
        let unwanted = [".git", ".cache/huggingface", RECORD];
        return unwanted.iter().any(|name| relative == Path::new(name));
    }
    if relative == Path::new(FILES_LIST) {
        return true;
    }
    let name = relative.file_name().unwrap_or_default().to_string_lossy();
    renewed.iter().any(|one| {
        relative.parent() == Some(one.folder.as_path())
            && (one.is_of_kind)(&name)
            && one.files.iter().all(|file| file != relative)
    })
}
