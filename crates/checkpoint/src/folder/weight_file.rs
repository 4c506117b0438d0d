//! A weight file that belongs to no model folder, such as a published feature extractor.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::FolderError;
use super::layout::{check_finite, is_torch};
use super::source::Source;
use super::tensor::RawTensor;
use super::{legacy_torch, safetensors_file, torch_file};

/// Reads every tensor of one file in the order of the file, under the names that it has there.
///
/// `.safetensors` by its ending; anything else must be a state dict that `torch.save` wrote (`.pth`, `.pt`, `.bin`),
/// as a zip archive or, before PyTorch 1.6, as a row of pickles. No code in the file is executed.
///
/// # Errors
/// No such file, damaged or foreign content, a pickle that asks for anything but tensors, NaN or infinity.
pub fn read_weight_file(path: impl AsRef<Path>) -> Result<Vec<(String, RawTensor)>, FolderError> {
    let path = path.as_ref();
    let (source, name) = find(path)?;
    let name = name.as_path();
    // The ending of the name that was given: a cache may keep the content under a digest.
    let tensors = if is_torch(path) {
        match torch_file::read(&source, name) {
            Err(FolderError::LegacyTorch { .. }) => legacy_torch::read(&source, name)?,
            result => result?,
        }
    } else {
        safetensors_file::read(&source, name)?
    };
    if tensors.is_empty() {
        return Err(FolderError::malformed(path, "holds no tensors"));
    }
    let values = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, Cow::Borrowed(tensor))));
    check_finite(path, values)?;
    Ok(tensors)
}

/// The text entries that a safetensors file holds beside its tensors; none for other files.
///
/// # Errors
/// As [`read_weight_file`].
pub fn read_weight_file_metadata(
    path: impl AsRef<Path>,
) -> Result<Vec<(String, String)>, FolderError> {
    let path = path.as_ref();
    if is_torch(path) {
        return Ok(Vec::new());
    }
    let (source, name) = find(path)?;
    safetensors_file::metadata(&source, &name)
}

/// The file's folder, without links, and its name there.
fn find(path: &Path) -> Result<(Source, PathBuf), FolderError> {
    let real = fs::canonicalize(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            FolderError::MissingFile {
                path: path.to_path_buf(),
                remedy: "give the path of a .safetensors or .pth file".into(),
            }
        } else {
            FolderError::io(path, "open")(error)
        }
    })?;
    match (real.parent(), real.file_name()) {
        (Some(folder), Some(name)) => Ok((Source::new(folder)?, name.into())),
        _ => Err(FolderError::NotRegular {
            path: path.to_path_buf(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/files")
            .join(name)
    }

    #[test]
    fn files_of_before_pytorch_1_6_hold_the_same_tensors() {
        let zip = read_weight_file(made("strided.bin")).unwrap();
        let legacy = read_weight_file(made("strided_legacy.bin")).unwrap();
        assert_eq!(legacy, zip);
    }

    #[test]
    fn a_damaged_legacy_file_is_refused_and_never_panics() {
        let whole = fs::read(made("strided_legacy.bin")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pth");
        for len in 1..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let error = read_weight_file(&path).unwrap_err().to_string();
            assert!(error.contains("x.pth: "), "{len}: {error}");
        }
        for position in 0..whole.len() {
            let mut changed = whole.clone();
            changed[position] ^= 0x10;
            fs::write(&path, &changed).unwrap();
            // Values may have changed unseen: these files carry no checksums.
            let _ = read_weight_file(&path);
        }
    }

    #[test]
    fn a_legacy_pickle_that_calls_a_function_is_refused_by_name() {
        let mut file = fs::read(made("strided_legacy.bin")).unwrap();
        let from = b"torch._utils\n_rebuild_tensor_v2";
        let to = b"os\nsystem\n#####################";
        let at = file.windows(from.len()).position(|w| w == from).unwrap();
        file[at..at + from.len()].copy_from_slice(to);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pth");
        fs::write(&path, &file).unwrap();
        let error = read_weight_file(&path).unwrap_err().to_string();
        assert!(error.contains("asks for \"os.system\""), "{error}");
    }

    #[test]
    fn a_missing_file_and_a_folder_are_named() {
        let error = read_weight_file(made("nothing.pth")).unwrap_err();
        assert!(error.to_string().contains("nothing.pth: no such file"));
        let error = read_weight_file(made("")).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_given_by_name_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("weights.pth");
        std::os::unix::fs::symlink(made("strided.bin"), &link).unwrap();
        assert!(!read_weight_file(&link).unwrap().is_empty());
    }
}
