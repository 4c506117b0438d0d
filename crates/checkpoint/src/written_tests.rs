use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn list(files: &[(&str, &str)]) -> Written {
    let mut list = Written::default();
    for (name, content) in files {
        list.add(Path::new(name), digest(content.as_bytes()));
    }
    list
}

#[test]
fn only_a_listed_file_that_is_unchanged_is_ours() {
    let out = folder(&[("a/b", "1"), ("a/c", "2"), ("d", "3"), (".git/HEAD", "ref")]);
    let mut list = list(&[("a/b", "1"), ("a/c", "other"), ("gone", "1"), ("d/e", "3")]);
    let owner = |list: &Written, name: &str| list.owner(out.path(), Path::new(name)).unwrap();
    assert_eq!(owner(&list, "a/b"), Owner::Ours);
    assert_eq!(owner(&list, "a/c"), Owner::Other);
    assert_eq!(owner(&list, "d"), Owner::Other);
    assert_eq!(owner(&list, "gone"), Owner::Nobody);
    // A folder where a file would be, and a file where a folder would be.
    assert_eq!(owner(&list, "a"), Owner::Other);
    assert_eq!(owner(&list, "d/e"), Owner::Other);
    for name in ["a/b", "a/c", "d", "gone"] {
        list.remove(out.path(), Path::new(name)).unwrap();
    }
    assert_eq!(
        files_below(out.path()).unwrap(),
        [".git/HEAD", "a/c", "d"].map(PathBuf::from)
    );
}

#[test]
fn folders_go_when_they_are_empty_and_the_output_folder_stays() {
    let out = folder(&[("a/b/c", "1")]);
    list(&[("a/b/c", "1")])
        .remove(out.path(), Path::new("a/b/c"))
        .unwrap();
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn a_link_is_never_ours_and_never_followed() {
    let elsewhere = folder(&[("file", "1")]);
    let out = folder(&[]);
    std::os::unix::fs::symlink(elsewhere.path(), out.path().join("link")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("file"), out.path().join("file")).unwrap();
    let mut list = list(&[("link/file", "1"), ("file", "1")]);
    for name in ["link/file", "file"] {
        let path = Path::new(name);
        assert_eq!(list.owner(out.path(), path).unwrap(), Owner::Other);
        assert!(list.check(out.path(), [path]).is_err());
        list.remove(out.path(), path).unwrap();
    }
    assert_eq!(fs::read(elsewhere.path().join("file")).unwrap(), b"1");
    assert!(out.path().join("file").is_symlink());
}

#[test]
fn a_list_that_names_what_it_cannot_own_is_refused() {
    let out = folder(&[]);
    for name in [
        "../x",
        "/x",
        "a/../../x",
        ".git/HEAD",
        "a/.git/HEAD",
        "",
        "./x",
    ] {
        let text = format!("{{\"files\": {{\"{name}\": [\"00\"]}}}}");
        fs::write(out.path().join(NAME), text).unwrap();
        let error = Written::read(out.path()).unwrap_err().to_string();
        assert!(error.contains("no path in the folder"), "{name}: {error}");
    }
    for text in [
        "",
        "[]",
        "{}",
        "{\"files\": {\"a\": \"00\"}}",
        "{\"files\": {}, \"more\": 1}",
        "{\"command\": \"make\", \"files\": {}}",
    ] {
        fs::write(out.path().join(NAME), text).unwrap();
        assert!(Written::read(out.path()).is_err(), "{text}");
    }
    fs::remove_file(out.path().join(NAME)).unwrap();
    assert_eq!(Written::read(out.path()).unwrap(), None);
    let list = list(&[("a/b", "1")]);
    list.save(out.path()).unwrap();
    assert_eq!(Written::read(out.path()).unwrap(), Some(list));
}

fn all(path: &Path) -> bool {
    path != Path::new(NAME)
}

#[test]
fn an_output_replaces_its_own_files_and_refuses_before_it_writes_over_others() {
    let out = folder(&[("notes", "mine")]);
    let files = |names: &[(&str, &str)]| -> Vec<(PathBuf, Vec<u8>)> {
        let files = names.iter();
        files
            .map(|(name, content)| (name.into(), content.as_bytes().to_vec()))
            .collect()
    };
    let open = |replace| {
        Output::open(out.path(), Command::Evaluate, replace, |path| {
            all(path) && ![Path::new("notes"), Path::new("b")].contains(&path)
        })
    };
    let mut output = open(false).unwrap();
    output.put(&files(&[("a", "1"), ("b/c", "2")])).unwrap();
    assert!(matches!(open(false), Err(OutputError::Earlier { .. })));
    let mut output = open(true).unwrap();
    output.put(&files(&[("a", "3")])).unwrap();
    output.remove_earlier().unwrap();
    assert_eq!(
        files_below(out.path()).unwrap(),
        [NAME, "a", "notes"].map(PathBuf::from)
    );
    assert_eq!(fs::read(out.path().join("a")).unwrap(), b"3");
    // Somebody else's now.
    fs::write(out.path().join("a"), "changed").unwrap();
    assert!(matches!(
        open(true),
        Err(OutputError::Written(WrittenError::InTheWay { .. }))
    ));
    fs::remove_file(out.path().join("a")).unwrap();
    let mut output = open(true).unwrap();
    fs::write(out.path().join("b"), "came meanwhile").unwrap();
    assert!(output.put(&files(&[("a", "4"), ("b/c", "5")])).is_err());
    assert!(!out.path().join("a").exists());
    assert_eq!(fs::read(out.path().join("b")).unwrap(), b"came meanwhile");
}

#[test]
fn what_was_being_replaced_when_the_process_died_is_still_ours() {
    let out = folder(&[("a", "old")]);
    let mut list = list(&[("a", "old")]);
    list.add(Path::new("a"), digest(b"new"));
    list.save(out.path()).unwrap();
    let again = Written::read(out.path()).unwrap().unwrap();
    for content in ["old", "new"] {
        fs::write(out.path().join("a"), content).unwrap();
        assert_eq!(
            again.owner(out.path(), Path::new("a")).unwrap(),
            Owner::Ours
        );
    }
}

#[test]
fn a_folder_is_the_commands_that_wrote_it_while_one_of_its_files_is_there() {
    let out = folder(&[]);
    let open = |command| Output::open(out.path(), command, true, all);
    let put = |command| {
        let mut output = open(command).unwrap();
        output.put(&[("a".into(), b"1".to_vec())]).unwrap();
    };
    put(Command::Sample);
    let text = fs::read_to_string(out.path().join(NAME)).unwrap();
    assert!(text.contains("\"command\": \"sample\""), "{text}");
    let refused = open(Command::Evaluate).unwrap_err().to_string();
    assert!(refused.contains("`retrack sample`"), "{refused}");
    put(Command::Sample);
    fs::remove_file(out.path().join("a")).unwrap();
    put(Command::Evaluate);
    assert!(open(Command::Sample).is_err());
    // As an earlier version left it: anybody's, and it stays so.
    list(&[("a", "1")]).save(out.path()).unwrap();
    put(Command::Sample);
    put(Command::Evaluate);
}
