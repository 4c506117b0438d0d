use std::fs;
use std::path::PathBuf;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::folder::tensor::Dtype;

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files")
}

fn read_made(name: &str) -> Result<Vec<(String, RawTensor)>, FolderError> {
    read(&Source::new(&files()).unwrap(), Path::new(name))
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<(String, RawTensor)>, FolderError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.bin"), bytes).unwrap();
    read(&Source::new(folder.path()).unwrap(), Path::new("x.bin"))
}

/// The message of the error, checked to name the file.
fn error_of(bytes: &[u8]) -> String {
    let message = read_bytes(bytes).unwrap_err().to_string();
    assert!(message.contains("x.bin: "), "{message}");
    message
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in entries {
        writer.start_file(*name, stored).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// The pickle of `{"x": tensor}` over float storage "0"; every number is below 256.
fn pickle(count: u8, offset: u8, shape: &[u8], stride: &[u8]) -> Vec<u8> {
    pickle_with(&[b'K', count], offset, &numbers(shape), &numbers(stride))
}

fn numbers(values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'('];
    bytes.extend(values.iter().flat_map(|&value| [b'K', value]));
    bytes.push(b't');
    bytes
}

fn pickle_with(count: &[u8], offset: u8, shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}X\x01\0\0\0xctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu".to_vec();
    bytes.extend(count);
    bytes.extend([b't', b'Q', b'K', offset]);
    bytes.extend(shape);
    bytes.extend(stride);
    bytes.extend(b"\x89NtRs.");
    bytes
}

fn model(pickle: &[u8], data: &[u8]) -> Vec<u8> {
    archive(&[("m/data.pkl", pickle), ("m/data/0", data)])
}

fn floats(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|value| (value as f32).to_le_bytes())
        .collect()
}

#[test]
fn strided_views_are_gathered_in_c_order() {
    let tensors: std::collections::HashMap<_, _> =
        read_made("strided.bin").unwrap().into_iter().collect();
    let get = |name: &str| &tensors[name];
    assert_eq!(get("transposed").shape(), [6, 4]);
    let transposed: Vec<f32> = (0..6)
        .flat_map(|column| (0..4).map(move |row| (row * 6 + column) as f32))
        .collect();
    assert_eq!(get("transposed").to_f32(), transposed);
    assert_eq!(
        get("columns").to_f32(),
        [1., 2., 3., 7., 8., 9., 13., 14., 15., 19., 20., 21.]
    );
    assert_eq!(
        get("every_second").to_f32(),
        (0..12)
            .map(|index| (2 * index + 1) as f32)
            .collect::<Vec<_>>()
    );
    assert_eq!(
        (get("scalar").shape(), get("scalar").to_f32()),
        (&[][..], vec![7.0])
    );
    assert_eq!(
        (get("empty").shape(), get("empty").count()),
        (&[0, 3][..], 0)
    );
    assert_eq!(get("parameter").to_f32(), [1.0, 1.0]);
    assert_eq!(get("channels_last").shape(), [1, 2, 3, 4]);
    assert_eq!(
        get("channels_last").to_f32(),
        (0..24).map(|value| value as f32).collect::<Vec<_>>()
    );
}

#[test]
fn every_element_type_is_read_in_the_order_of_the_file() {
    let tensors = read_made("types.bin").unwrap();
    let found: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.dtype()))
        .collect();
    assert_eq!(
        found,
        [
            ("f32", Dtype::F32),
            ("f16", Dtype::F16),
            ("bf16", Dtype::BF16),
            ("f64", Dtype::F64),
            ("i64", Dtype::I64)
        ]
    );
    for (name, tensor) in &tensors {
        assert_eq!(tensor.to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0], "{name}");
    }
}

#[test]
fn a_state_dict_with_metadata_and_tied_parameters_is_read() {
    let names: Vec<_> = read_made("tied.bin")
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["0.weight", "0.bias", "1.weight", "1.bias"]);
}

#[test]
fn what_is_not_a_state_dict_of_known_types_is_refused_by_name() {
    let message = |name: &str| {
        let error = read_made(name).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: ")), "{error}");
        error
    };
    assert!(message("legacy.bin").contains("before PyTorch 1.6"));
    assert!(message("legacy.bin").contains("save it again with torch.save"));
    assert!(message("int8.bin").contains("element type CharStorage is not supported"));
    assert!(message("checkpoint.bin").contains("\"state_dict\" is a dict, not a tensor"));
    assert!(message("module.bin").contains("asks for \"torch.nn.modules.linear.Linear\""));
}

#[test]
fn a_tensor_that_repeats_elements_is_not_said_to_be_too_long_but_how_to_save_it() {
    let expanded = read_made("expanded.bin").unwrap_err().to_string();
    let in_part = error_of(&model(&pickle(6, 0, &[2, 4], &[0, 1]), &floats(6)));
    for message in [expanded, in_part] {
        assert!(
            message.contains("repeats elements of its storage of")
                && message.contains(".contiguous()")
                && !message.contains("beyond"),
            "{message}"
        );
    }
}

#[test]
fn a_hand_made_file_is_read() {
    let tensors = read_bytes(&model(&pickle(6, 1, &[2, 2], &[1, 2]), &floats(6))).unwrap();
    assert_eq!(tensors[0].1.to_f32(), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn a_pickle_that_calls_os_system_is_refused_by_name() {
    let message = error_of(&model(b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R.", &[]));
    assert!(
        message.contains("\"posix.system\"") && message.contains("malicious"),
        "{message}"
    );
}

#[test]
fn views_beyond_their_storage_are_refused() {
    for (offset, shape, stride) in [
        (0, &[7][..], &[1][..]),
        (1, &[6], &[1]),
        (6, &[1], &[1]),
        (0, &[2, 2], &[5, 1]),
        (0, &[2, 4], &[0, 1]),
        (0, &[255; 8], &[0; 8]),
    ] {
        let message = error_of(&model(&pickle(6, offset, shape, stride), &floats(6)));
        assert!(message.contains("tensor \"x\": shape"), "{message}");
    }
    // 2^32 x 2^32 elements.
    let huge = b"(\x8a\x05\0\0\0\0\x01\x8a\x05\0\0\0\0\x01t";
    let message = error_of(&model(
        &pickle_with(b"K\x06", 0, huge, &numbers(&[1, 1])),
        &floats(6),
    ));
    assert!(message.contains("too large"), "{message}");
    let far = b"(\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7ft";
    let message = error_of(&model(
        &pickle_with(b"K\x06", 0, &numbers(&[2]), far),
        &floats(6),
    ));
    assert!(message.contains("beyond its storage"), "{message}");
    // A side of one may have any stride.
    assert!(
        read_bytes(&model(
            &pickle_with(b"K\x06", 0, &numbers(&[1]), far),
            &floats(6)
        ))
        .is_ok()
    );
}

#[test]
fn storages_that_differ_from_their_entry_are_refused() {
    for count in [5, 7, 0] {
        let message = error_of(&model(&pickle(count, 0, &[0], &[1]), &floats(6)));
        assert!(message.contains("has 24 bytes where"), "{message}");
    }
    let petabytes = b"\x8a\x08\0\0\0\0\0\0\x04\0";
    let message = error_of(&model(
        &pickle_with(petabytes, 0, &numbers(&[1]), &numbers(&[1])),
        &floats(6),
    ));
    assert!(message.contains("has 24 bytes where"), "{message}");
    let message = error_of(&archive(&[("m/data.pkl", &pickle(6, 0, &[6], &[1]))]));
    assert!(message.contains("no entry \"data/0\""), "{message}");
}

#[test]
fn many_names_for_one_storage_cannot_fill_memory() {
    let one = pickle(250, 0, &[250], &[1]);
    let view = &one[3 + 6..one.len() - 2];
    let mut pickle = b"\x80\x02}(".to_vec();
    for index in 0..200u32 {
        pickle.extend(b"X\x04\0\0\0");
        pickle.extend(format!("{index:04}").as_bytes());
        pickle.extend(view);
    }
    pickle.extend(b"u.");
    // 200 x 1000 bytes in a file of about 25,000.
    let message = error_of(&model(&pickle, &floats(250)));
    assert!(message.contains("200000 bytes"), "{message}");
}

#[test]
fn a_storage_declared_in_two_ways_is_refused() {
    let (small, large) = (pickle(6, 0, &[1], &[1]), pickle(200, 0, &[200], &[1]));
    let mut both = b"\x80\x02}(X\x01\0\0\0a".to_vec();
    both.extend(&small[9..small.len() - 2]);
    both.extend(b"X\x01\0\0\0b");
    both.extend(&large[9..large.len() - 2]);
    both.extend(b"u.");
    let message = error_of(&model(&both, &floats(6)));
    assert!(message.contains("declared in two ways"), "{message}");
}

#[test]
fn archives_that_torch_does_not_write_are_refused() {
    let good = pickle(6, 0, &[6], &[1]);
    let refuses = |bytes: &[u8], problem: &str| {
        let message = error_of(bytes);
        assert!(message.contains(problem), "{message}");
    };
    refuses(b"not a model", "not a PyTorch file");
    refuses(b"PK", "too short");
    refuses(b"PK\x03\x04 and nothing more", "damaged zip archive");
    refuses(&archive(&[("m/other", b"")]), "exactly one NAME/data.pkl");
    refuses(
        &archive(&[("data.pkl", &good)]),
        "exactly one NAME/data.pkl",
    );
    refuses(
        &archive(&[("m/data.pkl", &good), ("n/data.pkl", &good)]),
        "exactly one NAME/data.pkl",
    );
    refuses(
        &archive(&[
            ("m/data.pkl", &good),
            ("m/byteorder", b"big"),
            ("m/data/0", &floats(6)),
        ]),
        "big-endian",
    );
    let bytes = model(&good, &floats(6));
    refuses(&bytes[..bytes.len() - 10], "damaged zip archive");
    let mut prefixed = b"PK\x03\x04".to_vec();
    prefixed.extend(&bytes);
    assert!(read_bytes(&prefixed).is_err());
}

#[test]
fn a_flipped_bit_in_a_storage_is_seen() {
    let mut bytes = model(&pickle(6, 0, &[6], &[1]), &floats(6));
    let data = floats(6);
    let at = bytes.windows(24).position(|window| window == data).unwrap();
    bytes[at + 5] ^= 1;
    let message = error_of(&bytes);
    assert!(
        message.contains("archive entry \"data/0\"") && message.to_lowercase().contains("checksum"),
        "{message}"
    );
}

#[test]
fn checksums_that_contradict_each_other_are_refused() {
    let mut bytes = model(&pickle(6, 0, &[6], &[1]), &floats(6));
    let local = bytes
        .windows(4)
        .rposition(|window| window == ZIP_START)
        .unwrap();
    bytes[local + 14] ^= 1;
    assert!(read_bytes(&bytes).is_err());
    let mut bytes = fs::read(files().join("types.bin")).unwrap();
    let descriptor = bytes
        .windows(4)
        .position(|window| window == b"PK\x07\x08")
        .unwrap();
    bytes[descriptor + 4] ^= 1;
    assert!(error_of(&bytes).contains("its checksums contradict each other"));
}

#[test]
fn compressed_entries_are_refused_without_unpacking() {
    let bytes = model(&pickle(6, 0, &[6], &[1]), &floats(6));
    // Deflate (8) in the local and the central header of each entry.
    let mut changed = bytes.clone();
    for start in 0..bytes.len() - 4 {
        match &bytes[start..start + 4] {
            b"PK\x03\x04" => changed[start + 8] = 8,
            b"PK\x01\x02" => changed[start + 10] = 8,
            _ => {}
        }
    }
    let message = error_of(&changed);
    assert!(message.contains("data.pkl"), "{message}");
}

#[test]
fn an_entry_that_claims_to_be_larger_than_the_file_is_refused() {
    let bytes = model(&pickle(6, 0, &[6], &[1]), &floats(6));
    let mut changed = bytes.clone();
    for start in 0..bytes.len() - 4 {
        let sizes = match &bytes[start..start + 4] {
            b"PK\x03\x04" => start + 18,
            b"PK\x01\x02" => start + 20,
            _ => continue,
        };
        // Both sizes, of the storage only: it is the one of 24 bytes.
        if changed[sizes] == 24 {
            changed[sizes + 3] = 0x7f;
            changed[sizes + 7] = 0x7f;
        }
    }
    assert_ne!(bytes, changed);
    assert!(read_bytes(&changed).is_err());
}

#[test]
fn any_single_changed_byte_is_read_without_panic() {
    let good = model(&pickle(6, 1, &[2, 2], &[1, 2]), &floats(6));
    let folder = tempfile::tempdir().unwrap();
    let source = Source::new(folder.path()).unwrap();
    for position in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, good[position] ^ 4] {
            let mut changed = good.clone();
            changed[position] = value;
            fs::write(folder.path().join("x"), changed).unwrap();
            let _ = read(&source, Path::new("x"));
        }
    }
}

#[test]
fn every_cut_of_a_file_is_an_error_and_no_panic() {
    let good = fs::read(files().join("strided.bin")).unwrap();
    for len in (0..good.len()).step_by(7) {
        assert!(read_bytes(&good[..len]).is_err(), "{len}");
    }
}

/// The bytes of a file and the tensors in it.
type Rewritten = (Vec<u8>, Vec<(String, RawTensor)>);

fn rewritten(
    name: &str,
    change: impl Fn(&str, Vec<f32>) -> Vec<f32>,
) -> Result<Rewritten, FolderError> {
    let tensors: Vec<_> = read_made(name)
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            if tensor.dtype() == Dtype::I64 {
                return (name, tensor);
            }
            let values = change(&name, tensor.to_f32());
            let new =
                RawTensor::from_f32(&values, tensor.shape().to_vec(), tensor.dtype()).unwrap();
            (name, new)
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.bin");
    let get = |wanted: &str| {
        let found = tensors.iter().find(|(name, _)| name == wanted);
        Ok(found.map(|(_, tensor)| Cow::Borrowed(tensor)))
    };
    rewrite(&Source::new(&files()).unwrap(), Path::new(name), &out, get)?;
    let back = read(&Source::new(folder.path()).unwrap(), Path::new("out.bin")).unwrap();
    assert_eq!(back, tensors);
    Ok((fs::read(&out).unwrap(), back))
}

#[test]
fn a_file_rewritten_with_its_own_values_is_the_same_byte_for_byte() {
    for name in ["types.bin", "tied.bin", "strided.bin"] {
        let (bytes, _) = rewritten(name, |_, values| values).unwrap();
        assert!(bytes == fs::read(files().join(name)).unwrap(), "{name}");
    }
}

#[test]
fn new_values_go_through_the_strides_and_the_checksums_follow() {
    // All views of `grid` overlap; negating keeps them in agreement.
    let (bytes, tensors) = rewritten("strided.bin", |_, values| {
        values.iter().map(|value| -value).collect()
    })
    .unwrap();
    assert_eq!(
        bytes.len(),
        fs::read(files().join("strided.bin")).unwrap().len()
    );
    // The zip reader has compared the checksums in the central directory; those behind the data must agree.
    let mut zip = ZipArchive::new(std::io::Cursor::new(&bytes)).unwrap();
    let mut behind = 0;
    for index in 0..zip.len() {
        let entry = zip.by_index(index).unwrap();
        let end = (entry.data_start().unwrap() + entry.size()) as usize;
        let local = entry.header_start() as usize;
        if bytes[local + 6] & 8 != 0 {
            assert_eq!(&bytes[end..end + 4], b"PK\x07\x08");
            assert_eq!(bytes[end + 4..end + 8], entry.crc32().to_le_bytes());
            behind += 1;
        }
    }
    assert_eq!(behind, 10);
    assert!(tensors.iter().any(|(name, _)| name == "transposed"));
    rewritten("types.bin", |_, values| {
        values.iter().map(|value| value * 2.0).collect()
    })
    .unwrap();
}

#[test]
fn tied_parameters_cannot_be_given_different_values() {
    let error = rewritten("tied.bin", |name, values| {
        if name == "1.weight" {
            values.iter().map(|value| value + 1.0).collect()
        } else {
            values
        }
    })
    .unwrap_err();
    assert!(
        error.to_string().contains("shares memory with another one"),
        "{error}"
    );
    rewritten("tied.bin", |_, values| {
        values.iter().map(|value| value + 1.0).collect()
    })
    .unwrap();
}

#[test]
fn a_file_without_checksums_behind_its_data_gets_them_in_front() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = model(&pickle(6, 0, &[6], &[1]), &floats(6));
    fs::write(folder.path().join("x"), &bytes).unwrap();
    let source = Source::new(folder.path()).unwrap();
    let new = RawTensor::from_f32(&[9.0; 6], vec![6], Dtype::F32).unwrap();
    let out = folder.path().join("y");
    rewrite(&source, Path::new("x"), &out, |_| {
        Ok(Some(Cow::Borrowed(&new)))
    })
    .unwrap();
    assert_eq!(read(&source, Path::new("y")).unwrap()[0].1, new);
    let stored = fs::read(&out).unwrap();
    let local = stored
        .windows(4)
        .rposition(|window| window == ZIP_START)
        .unwrap();
    assert_eq!(
        stored[local + 14..local + 18],
        crc32fast::hash(new.bytes()).to_le_bytes()
    );
}
