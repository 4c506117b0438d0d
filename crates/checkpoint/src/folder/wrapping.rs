//! What wrappers of PyTorch put before every parameter's name: `module.` (data parallel) and `_orig_mod.` (compiled).
//! diffusers does not find weights under such names, so they are left out where a folder is read and written.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::FolderError;
use super::layout::{DIFFUSERS, LARGEST_INDEX, Layout, Names, PARTS, is_torch};
use super::output::Staging;
use super::source::Source;
use super::tensor::RawTensor;
use super::weights::Weights;
use super::{safetensors_file, torch_file};

const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// What stands before all of these names, of several wrappers too; empty where nothing does.
pub(super) fn wrapping<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut found = String::new();
    if names.clone().next().is_none() {
        return found;
    }
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| {
        let longer = format!("{found}{wrapper}");
        // A name is left of each.
        let is_within = |name: &str| name.len() > longer.len() && name.starts_with(&longer);
        names.clone().all(is_within)
    }) {
        found += wrapper;
    }
    found
}

/// The files of a folder that are to be written under other names of their tensors.
pub(super) struct Unwrapped(HashMap<PathBuf, File>);

/// One of them.
pub(super) struct File {
    prefix: String,
    form: Form,
}

enum Form {
    Safetensors,
    Index,
    /// A `.bin` whose tensors, with those of `files` (itself among them), go into one safetensors file; the first of
    /// them becomes that file, the others none.
    Torch {
        files: Vec<PathBuf>,
        into: PathBuf,
    },
}

impl Unwrapped {
    /// Looks at the names of the network `own`, and of the pipeline's other parts.
    pub(super) fn find(source: &Source, own: &Layout) -> Result<Self, FolderError> {
        let mut found = HashMap::new();
        add(&mut found, source, own, &DIFFUSERS)?;
        let others = PARTS.iter();
        let others = others.filter(|(part, _)| source.has_folder(Path::new(part)));
        for &(part, names) in others {
            // A part that cannot be read is copied as it is.
            if let Ok(layout) = Layout::find(source, Path::new(part), names) {
                let _ = add(&mut found, source, &layout, names);
            }
        }
        Ok(Self(found))
    }

    pub(super) fn get(&self, file: &Path) -> Option<&File> {
        self.0.get(file)
    }
}

fn add(
    found: &mut HashMap<PathBuf, File>,
    source: &Source,
    layout: &Layout,
    names: &Names,
) -> Result<(), FolderError> {
    let all = layout.names(source)?;
    let prefix = wrapping(all.iter().map(String::as_str));
    if prefix.is_empty() {
        return Ok(());
    }
    for file in layout.all_files() {
        let torch = layout.files.iter().any(|file| is_torch(file));
        let form = if torch {
            Form::Torch {
                files: layout.files.clone(),
                into: file.with_file_name(names.single()),
            }
        } else if layout.files.iter().any(|own| own == file) {
            Form::Safetensors
        } else {
            Form::Index
        };
        let prefix = prefix.clone();
        found.insert(file.to_path_buf(), File { prefix, form });
    }
    Ok(())
}

impl File {
    /// The file that it becomes, where that is another one.
    pub(super) fn becomes(&self) -> Option<&Path> {
        match &self.form {
            Form::Torch { into, .. } => Some(into),
            Form::Safetensors | Form::Index => None,
        }
    }

    /// Writes `relative` under the names without the prefix: with the values of `tensors` where `weights` are of this
    /// file, else with its own. Gives the file that was written.
    pub(super) fn write<'a>(
        &self,
        source: &Source,
        relative: &Path,
        staging: &Staging,
        weights: &'a Weights,
        tensors: impl Fn(&str) -> Result<Option<Cow<'a, RawTensor>>, FolderError>,
    ) -> Result<Option<PathBuf>, FolderError> {
        match &self.form {
            Form::Safetensors => {
                let path = staging.path(relative);
                if weights.has_file(relative) {
                    let dtype = |own| weights.written_dtype(own);
                    safetensors_file::rewrite(
                        source,
                        relative,
                        &path,
                        dtype,
                        &self.prefix,
                        tensors,
                    )?;
                } else {
                    let stored = safetensors_file::find(source, relative)?;
                    let stored: HashMap<_, _> = stored.into_iter().collect();
                    let own = |name: &str| stored.get(name).map(|t| t.read()).transpose();
                    safetensors_file::rewrite(
                        source,
                        relative,
                        &path,
                        |dtype| dtype,
                        &self.prefix,
                        own,
                    )?;
                }
                Ok(Some(relative.to_path_buf()))
            }
            Form::Index => {
                let mut index = source.read_json(relative, LARGEST_INDEX)?;
                if let Some(Value::Object(map)) = index.get_mut("weight_map") {
                    let entries = std::mem::take(map).into_iter();
                    *map = entries
                        .map(|(name, shard)| match name.strip_prefix(&self.prefix) {
                            Some(name) => (name.to_owned(), shard),
                            None => (name, shard),
                        })
                        .collect();
                }
                staging.write(relative, format!("{index:#}\n").as_bytes())?;
                Ok(Some(relative.to_path_buf()))
            }
            Form::Torch { files, into } => {
                if files.first().is_none_or(|first| first != relative) {
                    return Ok(None);
                }
                let mut all = Vec::new();
                for file in files {
                    let changed = weights.of_file(file);
                    for (name, tensor) in torch_file::read(source, file)? {
                        let tensor = match changed(&name)? {
                            Some(tensor) => tensor.into_owned(),
                            None => tensor,
                        };
                        let name = name.strip_prefix(&self.prefix).unwrap_or(&name).to_owned();
                        all.push((name, tensor));
                    }
                }
                let tensors = all.iter().map(|(name, tensor)| (name.as_str(), tensor));
                safetensors_file::create(&staging.path(into), tensors)?;
                Ok(Some(into.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::wrapping;

    #[test]
    fn only_what_stands_before_every_name_is_a_wrapper() {
        for (names, expected) in [
            (&["module.a.weight", "module.b"][..], "module."),
            (&["_orig_mod.a", "_orig_mod.module"], "_orig_mod."),
            (
                &["module._orig_mod.a", "module._orig_mod.b"],
                "module._orig_mod.",
            ),
            (
                &["_orig_mod.module.a", "_orig_mod.module.b"],
                "_orig_mod.module.",
            ),
            (&["module.a", "b"], ""),
            (&["a.module.b"], ""),
            (&["module."], ""),
            (&["module.module."], "module."),
            (&["model.a"], ""),
            (&[], ""),
        ] {
            assert_eq!(wrapping(names.iter().copied()), expected, "{names:?}");
        }
    }
}
