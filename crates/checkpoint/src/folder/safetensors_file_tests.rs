use std::fs;

use safetensors::SafeTensors;

use super::*;

/// A file with this header, and `data` bytes behind it.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<(String, RawTensor)>, FolderError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.safetensors"), bytes).unwrap();
    read(
        &Source::new(folder.path()).unwrap(),
        Path::new("x.safetensors"),
    )
}

/// The message of the error, checked to name the file.
fn error_of(bytes: &[u8]) -> String {
    let message = read_bytes(bytes).unwrap_err().to_string();
    assert!(message.contains("x.safetensors: "), "{message}");
    message
}

fn refuses(header: &str, data: &[u8], problem: &str) {
    let message = error_of(&file(header, data));
    assert!(message.contains(problem), "{message}");
}

const TWO: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[],"data_offsets":[8,12]}}"#;

#[test]
fn tensors_come_in_the_order_of_their_data() {
    let header = r#"{"z":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}  "#;
    let mut data = vec![0, 0x3c, 0, 0xc0];
    data.extend(2.5f32.to_le_bytes());
    let tensors = read_bytes(&file(header, &data)).unwrap();
    assert_eq!(tensors[0].0, "z");
    assert_eq!(tensors[0].1.shape(), [1, 2]);
    assert_eq!(tensors[0].1.to_f32(), [1.0, -2.0]);
    assert_eq!(
        (tensors[1].0.as_str(), tensors[1].1.to_f32()),
        ("a", vec![2.5])
    );
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    refuses(header, &[0; 8], r#""a" is there twice"#);
    // Written with an escape, it is the same name.
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    refuses(header, &[0; 8], r#""a" is there twice"#);
    refuses(
        r#"{"__metadata__":{"format":"pt","format":"np"}}"#,
        &[],
        r#""format" is there twice"#,
    );
    refuses(
        r#"{"__metadata__":{},"__metadata__":{}}"#,
        &[],
        "is there twice",
    );
}

#[test]
fn data_that_overlaps_leaves_gaps_or_is_left_over_is_refused() {
    let with_b_at = |range: &str| TWO.replace("[8,12]", range);
    refuses(
        &with_b_at("[4,8]"),
        &[0; 8],
        r#"tensor "b": its data (bytes 4 to 8) overlap"#,
    );
    refuses(&with_b_at("[0,4]"), &[0; 8], "overlap");
    refuses(&with_b_at("[10,14]"), &[0; 14], "leave a gap");
    refuses(TWO, &[0; 13], "1 bytes at its end belong to no tensor");
    refuses(TWO, &[0; 11], "cut off, download it again");
    refuses(TWO, &[], "cut off, download it again");
    refuses("{}", &[0; 1], "1 bytes at its end belong to no tensor");
}

#[test]
fn shapes_that_do_not_fit_their_data_are_refused() {
    refuses(
        &TWO.replace("[2]", "[3]"),
        &[0; 12],
        r#"tensor "a": shape [3] of F32 needs 12 bytes"#,
    );
    refuses(&TWO.replace("[8,12]", "[8,4]"), &[0; 12], "needs 4 bytes");
    // Overflows to 8 bytes in 64 bits.
    refuses(
        &TWO.replace("[2]", "[4611686018427387905,2]"),
        &[0; 12],
        "too large",
    );
    refuses(
        &TWO.replace("[2]", "[9223372036854775807,9223372036854775807,0]"),
        &[0; 12],
        "too large",
    );
    refuses(&TWO.replace("[2]", "[-2]"), &[0; 12], "header is not valid");
    refuses(
        &TWO.replace("[2]", "[2.0]"),
        &[0; 12],
        "header is not valid",
    );
    refuses(
        &TWO.replace("[8,12]", "[8,99999999999999999999]"),
        &[0; 12],
        "header is not valid",
    );
    refuses(
        &TWO.replace("[8,12]", "[8,18446744073709551615]"),
        &[0; 12],
        "cut off",
    );
}

#[test]
fn unknown_header_fields_and_types_are_refused() {
    refuses(
        &TWO.replacen(r#""shape""#, r#""stride":[1],"shape""#, 1),
        &[0; 12],
        "unknown field `stride`",
    );
    refuses(
        &TWO.replacen("F32", "F33", 1),
        &[0; 12],
        r#"element type "F33" is not supported"#,
    );
    refuses(
        &TWO.replacen("F32", "I8", 1),
        &[0; 12],
        r#"tensor "a": element type "I8" is not supported"#,
    );
    refuses(
        r#"{"__metadata__":{"format":3}}"#,
        &[],
        "header is not valid",
    );
    refuses(r#"{"a":3}"#, &[], "header is not valid");
}

#[test]
fn a_header_must_be_one_object_from_its_first_byte() {
    refuses(" {}", &[], "does not start with `{`");
    refuses("[]", &[], "does not start with `{`");
    refuses("", &[], "does not start with `{`");
    refuses("{} {}", &[], "header is not valid");
    refuses("{\"a\u{1}", &[], "header is not valid");
    assert!(error_of(&file("{", &[])).contains("header is not valid"));
    let mut not_text = file(r#"{"__metadata__":{"a":"bb"}}"#, &[]);
    let at = not_text.len() - 4;
    not_text[at] = 0xff;
    assert!(error_of(&not_text).contains("header is not valid"));
}

#[test]
fn a_header_length_beyond_the_limit_or_the_file_is_refused_before_it_is_allocated() {
    assert!(error_of(&[0xff; 8]).contains("at most 16777216 are read"));
    let mut bytes = (1u64 << 40).to_le_bytes().to_vec();
    bytes.extend(b"{}");
    assert!(error_of(&bytes).contains("header would be 1099511627776 bytes"));
    let mut bytes = 100u64.to_le_bytes().to_vec();
    bytes.extend(b"{}");
    assert!(error_of(&bytes).contains("cut off within the header"));
    assert!(error_of(b"{}").contains("too short"));
}

#[test]
fn names_cannot_send_control_characters_to_the_terminal() {
    let message = error_of(&file(
        r#"{"\u001b[2Ja":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        &[0; 8],
    ));
    assert!(
        !message.contains('\u{1b}') && message.contains(r"\u{1b}[2Ja"),
        "{message}"
    );
}

#[test]
fn deep_nesting_in_the_header_is_an_error() {
    let header = format!("{{\"a\":{}", "[".repeat(100_000));
    assert!(error_of(&file(&header, &[])).contains("header is not valid"));
}

#[test]
fn any_single_changed_byte_of_a_header_is_read_without_panic() {
    let good = file(TWO, &[0; 12]);
    let folder = tempfile::tempdir().unwrap();
    let source = Source::new(folder.path()).unwrap();
    for position in 0..8 + TWO.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[position] ^= 1 << bit;
            fs::write(folder.path().join("x"), changed).unwrap();
            let _ = read(&source, Path::new("x"));
        }
    }
}

#[test]
fn a_created_file_is_byte_for_byte_what_the_safetensors_library_writes() {
    let folder = tempfile::tempdir().unwrap();
    let tensor =
        |dtype, count: usize| RawTensor::from_f32(&vec![0.5; count], vec![count], dtype).unwrap();
    let tensors = [
        ("b.weight", tensor(Dtype::F32, 3)),
        ("a.weight", tensor(Dtype::F16, 2)),
        ("a.bias", tensor(Dtype::F32, 1)),
        ("c", tensor(Dtype::F64, 1)),
    ];
    let out = folder.path().join("x.safetensors");
    create(&out, tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    let bytes = fs::read(&out).unwrap();

    let views = tensors.iter().map(|(name, tensor)| {
        let dtype = match tensor.dtype() {
            Dtype::F32 => HeaderDtype::F32,
            Dtype::F16 => HeaderDtype::F16,
            _ => HeaderDtype::F64,
        };
        let view =
            safetensors::tensor::TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes());
        (*name, view.unwrap())
    });
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    assert_eq!(
        bytes,
        safetensors::serialize(views, Some(metadata)).unwrap()
    );

    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(parsed.names().len(), 4);
    let read = read(
        &Source::new(folder.path()).unwrap(),
        Path::new("x.safetensors"),
    )
    .unwrap();
    let names: Vec<_> = read.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["c", "a.bias", "b.weight", "a.weight"]);
}

#[test]
fn a_rewritten_file_keeps_its_header_byte_for_byte() {
    // An order, a metadata entry and a padding that no writer of ours would choose.
    let header = r#"{ "z":{"shape":[1],"dtype":"F32","data_offsets":[4,8]},"__metadata__":{"made":"by hand","format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}     "#;
    let mut data = 1f32.to_le_bytes().to_vec();
    data.extend(2f32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let original = file(header, &data);
    fs::write(folder.path().join("x"), &original).unwrap();
    let source = Source::new(folder.path()).unwrap();
    let tensor = |value: f32| RawTensor::from_f32(&[value], vec![1], Dtype::F32).unwrap();
    let (a, z) = (tensor(1.0), tensor(-3.0));
    let out = folder.path().join("y");
    rewrite(
        &source,
        Path::new("x"),
        &out,
        |own| own,
        "",
        |name| Ok(Some(Cow::Borrowed(if name == "a" { &a } else { &z }))),
    )
    .unwrap();
    let written = fs::read(&out).unwrap();
    let mut expected = original.clone();
    let at = expected.len() - 4;
    expected[at..].copy_from_slice(&(-3f32).to_le_bytes());
    assert_eq!(written, expected);

    let wrong = RawTensor::from_f32(&[1.0], vec![1, 1], Dtype::F32).unwrap();
    let error = rewrite(
        &source,
        Path::new("x"),
        &folder.path().join("w"),
        |own| own,
        "",
        |_| Ok(Some(Cow::Borrowed(&wrong))),
    )
    .unwrap_err();
    assert!(matches!(error, FolderError::ChangedSince { .. }), "{error}");
}

#[test]
fn another_element_type_changes_the_header_and_keeps_names_order_and_metadata() {
    let header = r#"{"__metadata__":{"format":"pt","by":"me"},"z":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"a":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}}"#;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x"), file(header, &[0; 12])).unwrap();
    let source = Source::new(folder.path()).unwrap();
    let (z, a) = (
        RawTensor::from_f32(&[1.5, -3.0], vec![2], Dtype::F32).unwrap(),
        RawTensor::new(Dtype::I64, vec![1], vec![7; 8]).unwrap(),
    );
    let wider = |own| match own {
        Dtype::BF16 => Dtype::F32,
        own => own,
    };
    rewrite(
        &source,
        Path::new("x"),
        &folder.path().join("y"),
        wider,
        "",
        |name| Ok(Some(Cow::Borrowed(if name == "a" { &a } else { &z }))),
    )
    .unwrap();
    let found = read(&source, Path::new("y")).unwrap();
    assert_eq!(found, [("z".to_string(), z), ("a".to_string(), a)]);
    let metadata = metadata(&source, Path::new("y")).unwrap();
    assert_eq!(metadata.len(), 2);
    assert!(metadata.contains(&("by".into(), "me".into())));
}
