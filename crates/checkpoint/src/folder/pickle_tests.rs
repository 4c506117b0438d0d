use super::*;

fn text(value: &str) -> Vec<u8> {
    let mut bytes = vec![b'X'];
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(value.as_bytes());
    bytes
}

fn long(value: u64) -> Vec<u8> {
    let mut bytes = vec![0x8a, 8];
    bytes.extend(value.to_le_bytes());
    bytes
}

/// `_rebuild_tensor_v2` of a float storage with these numbers.
fn tensor(count: u64, offset: u64, shape: &[u64], stride: &[u64]) -> Vec<u8> {
    let numbers = |values: &[u64]| {
        let mut bytes = vec![b'('];
        bytes.extend(values.iter().flat_map(|&value| long(value)));
        bytes.push(b't');
        bytes
    };
    let mut bytes = b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    bytes.extend(text("storage"));
    bytes.extend(b"ctorch\nFloatStorage\n");
    bytes.extend(text("0"));
    bytes.extend(text("cpu"));
    bytes.extend(long(count));
    bytes.extend(b"tQ");
    bytes.extend(long(offset));
    bytes.extend(numbers(shape));
    bytes.extend(numbers(stride));
    bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    bytes
}

fn state_dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}(".to_vec();
    for (name, value) in entries {
        bytes.extend(text(name));
        bytes.extend(value);
    }
    bytes.extend(b"u.");
    bytes
}

fn error_of(pickle: &[u8]) -> String {
    read_state_dict(pickle).unwrap_err().to_string()
}

#[test]
fn a_state_dict_gives_its_views_in_order() {
    let pickle = state_dict(&[
        ("b", tensor(6, 1, &[2, 2], &[1, 2])),
        ("a", tensor(1, 0, &[], &[])),
    ]);
    let views = read_state_dict(&pickle).unwrap();
    assert_eq!(views[0].0, "b");
    assert_eq!(
        views[0].1,
        View {
            storage: Storage {
                dtype: Dtype::F32,
                key: "0".into(),
                count: 6
            },
            offset: 1,
            shape: vec![2, 2],
            stride: vec![1, 2],
        }
    );
    assert_eq!(views[1].0, "a");
    assert!(views[1].1.shape.is_empty());
}

#[test]
fn a_call_of_os_system_is_refused_by_name() {
    assert_eq!(
        read_state_dict(b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R."),
        Err(PickleError::Forbidden("posix.system".into()))
    );
    // The same through protocol 4's STACK_GLOBAL and protocol 0's INST.
    let mut pickle = b"\x80\x04".to_vec();
    pickle.extend(text("os"));
    pickle.extend(text("system"));
    pickle.extend(b"\x93X\x02\0\0\0id\x85R.");
    assert_eq!(
        read_state_dict(&pickle),
        Err(PickleError::Forbidden("os.system".into()))
    );
    assert_eq!(
        read_state_dict(b"(X\x02\0\0\0idios\nsystem\n."),
        Err(PickleError::Forbidden("os.system".into()))
    );
}

#[test]
fn functions_of_torch_that_are_not_needed_are_refused() {
    for (module, name) in [
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch", "load"),
        ("torch", "Storage"),
        ("torch", "os.Storage"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "Counter"),
        ("builtins", "eval"),
    ] {
        let pickle = format!("\u{2}c{module}\n{name}\n.").replace('\u{2}', "");
        assert_eq!(
            read_state_dict(pickle.as_bytes()),
            Err(PickleError::Forbidden(format!("{module}.{name}")))
        );
    }
    assert!(
        error_of(b"ctorch\nCharStorage\n.").contains("element type CharStorage is not supported")
    );
}

#[test]
fn whole_files_of_something_else_are_not_called_damaged_and_have_a_way_out() {
    const TENSORS: &str = "}X\x01\0\0\0wNs";
    let dict = state_dict;
    let inner = |entries: &[(&str, Vec<u8>)]| {
        // Without the protocol before it and the end.
        let pickle = state_dict(entries);
        pickle[2..pickle.len() - 1].to_vec()
    };
    let view = || tensor(6, 0, &[6], &[1]);
    let list = b"](K\x01K\x02eK\x03a".to_vec();
    let nested = |name: &str| {
        dict(&[
            ("epoch", b"K\x07".to_vec()),
            (name, inner(&[("w", view())])),
            (
                "optimizer",
                [b"}X\x06\0\0\0groups".as_slice(), &list, b"s"].concat(),
            ),
        ])
    };
    for (pickle, content, way) in [
        (
            nested("model"),
            "\"epoch\" is an integer",
            "torch.load(FILE)[\"model\"]",
        ),
        (
            nested("state_dict"),
            "not a tensor",
            "torch.load(FILE)[\"state_dict\"]",
        ),
        (
            dict(&[("w", view()), ("step", b"K\x01".to_vec())]),
            "\"step\" is an integer",
            "torch.is_tensor(value)",
        ),
        (
            dict(&[("opt", TENSORS.as_bytes().to_vec())]),
            "\"opt\" is a dict",
            "model.state_dict()",
        ),
        (
            [b"\x80\x02".as_slice(), &list, b"."].concat(),
            "it holds a list",
            "model.state_dict()",
        ),
        (
            [b"\x80\x02".as_slice(), &view(), b"."].concat(),
            "it holds a tensor",
            "model.state_dict()",
        ),
        (
            b"\x80\x04\x95\0\0\0\0\0\0\0\0}.".to_vec(),
            "FRAME of protocol 4",
            "pickle_protocol",
        ),
    ] {
        let error = error_of(&pickle);
        let all = error.contains(content) && error.contains(way);
        assert!(all && !error.contains("damaged"), "{error}");
    }
    // Damage is called so.
    for pickle in [
        &b"\x80\x02K\x01a."[..],
        b"\x80\x02(K\x01e.",
        b"\x80\x02](K\x01",
        b"\x80\x02\xff.",
    ] {
        let error = error_of(pickle);
        assert!(error.contains("damaged pickle"), "{error}");
    }
}

#[test]
fn an_integer_of_nine_bytes_is_refused() {
    let error = error_of(b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\0\x01.");
    assert!(error.contains("an integer of 9 bytes"), "{error}");
}

#[test]
fn two_hundred_thousand_nested_tuples_neither_overflow_nor_hang() {
    let mut pickle = b"\x80\x02)".to_vec();
    pickle.extend(std::iter::repeat_n(0x85, 200_000));
    pickle.push(b'.');
    assert!(error_of(&pickle).contains("it holds a tuple"));
    // As the value of an entry, and as nested dicts.
    let mut value = b")".to_vec();
    value.extend(std::iter::repeat_n(0x85, 200_000));
    assert!(error_of(&state_dict(&[("x", value)])).contains("\"x\" is a tuple"));
    let mut dicts = b"\x80\x02".to_vec();
    for _ in 0..200_000 {
        dicts.extend(b"}K\x01");
    }
    dicts.extend(b"N");
    dicts.extend(std::iter::repeat_n(b's', 200_000));
    dicts.push(b'.');
    assert!(error_of(&dicts).contains("not a string"));
}

#[test]
fn doubling_through_the_memo_stays_small() {
    let mut pickle = b"\x80\x02)".to_vec();
    for index in 0..40 {
        // Each turn is a tuple of the last one twice: 2^40 leaves were it ever unfolded.
        pickle.extend([b'q', index, b'h', index, 0x86]);
    }
    pickle.push(b'.');
    assert!(error_of(&pickle).contains("it holds a tuple"));
}

#[test]
fn a_dict_that_holds_itself_is_no_endless_loop() {
    let error = error_of(b"\x80\x02}q\x00X\x01\0\0\0xh\x00s.");
    assert!(error.contains("\"x\" is a dict"), "{error}");
}

#[test]
fn more_opcodes_than_any_state_dict_has_are_refused() {
    let mut pickle = b"\x80\x02".to_vec();
    pickle.extend(std::iter::repeat_n(b'N', MOST_OPCODES));
    assert!(error_of(&pickle).contains("opcodes"));
}

#[test]
fn negative_sizes_and_uneven_strides_are_refused() {
    let negative = (-3i64) as u64;
    for view in [
        tensor(negative, 0, &[1], &[1]),
        tensor(6, negative, &[1], &[1]),
        tensor(6, 0, &[negative], &[1]),
        tensor(6, 0, &[2], &[negative]),
        tensor(6, 0, &[2], &[1, 1]),
        tensor(6, 0, &[1; 9], &[1; 9]),
    ] {
        assert!(read_state_dict(&state_dict(&[("x", view)])).is_err());
    }
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let view = tensor(1, 0, &[1], &[1]);
    let error = error_of(&state_dict(&[("x", view.clone()), ("x", view)]));
    assert!(error.contains("\"x\" is there twice"), "{error}");
}

#[test]
fn every_cut_of_a_pickle_is_an_error_and_no_panic() {
    let pickle = state_dict(&[
        ("b", tensor(6, 1, &[2, 2], &[1, 2])),
        ("a", tensor(1, 0, &[], &[])),
    ]);
    for len in 0..pickle.len() {
        assert!(read_state_dict(&pickle[..len]).is_err(), "{len}");
    }
}

#[test]
fn any_single_changed_byte_is_read_without_panic() {
    let pickle = state_dict(&[("b", tensor(6, 1, &[2, 2], &[1, 2]))]);
    for position in 0..pickle.len() {
        for value in 0..=255 {
            let mut changed = pickle.clone();
            changed[position] = value;
            let _ = read_state_dict(&changed);
        }
    }
}

#[test]
fn values_below_a_mark_are_out_of_reach() {
    // The mark is open: the dict below it must not be popped as the argument of the call.
    assert!(error_of(b"\x80\x02ccollections\nOrderedDict\n)(R.").contains("missing on its stack"));
    assert!(error_of(b"\x80\x02}(K\x01s.").contains("missing on its stack"));
    assert!(error_of(b"\x80\x02t.").contains("a mark is missing"));
}
