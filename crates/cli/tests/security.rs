//! SECURITY.md names a test for each fault: each must exist.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

fn sources(folder: &Path, found: &mut HashMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Files of the same name, such as the many mod.rs, count as one.
            *found.entry(name).or_default() += &fs::read_to_string(&path).unwrap();
        }
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = HashMap::new();
    sources(&root.join("crates"), &mut files);
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut named = 0;
    for code in page.split('`').skip(1).step_by(2) {
        let Some((file, test)) = code.split_once(".rs::") else {
            continue;
        };
        let source = files.get(&format!("{file}.rs"));
        let source = source.unwrap_or_else(|| panic!("{code}: no such file"));
        let is_test =
            source.contains(&format!("fn {test}()")) || source.contains(&format!("    {test}: \""));
        assert!(is_test, "{code}: no such test");
        named += 1;
    }
    assert!(named > 50, "{named}");
    // All 25 faults, in order, each with a test.
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(".rs::"))
        .collect();
    let numbers: Vec<usize> = rows
        .iter()
        .filter_map(|row| row.split('|').nth(1)?.trim().parse().ok())
        .collect();
    assert_eq!(numbers, (1..=25).collect::<Vec<_>>());
}
