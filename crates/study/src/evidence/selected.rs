//! What was selected, in words that name no file of the data: they stay in folders that are passed on.

use retrack_data::Selection;

/// Rows that are listed one by one, at most.
const LISTED: usize = 8;

/// Whether a selection says more than numbers: a file's name, or a label's.
pub fn names_files(typed: &[String]) -> bool {
    let numbers = |text: &String| {
        let parsed = Selection::parse(text);
        matches!(parsed, Ok(Selection::Rows { .. } | Selection::Label(_)))
    };
    !typed.iter().all(numbers)
}

/// Selections as they were typed, where they say no more than numbers; else the rows that they stand for.
pub fn selected(typed: &[String], rows: &[usize]) -> String {
    if !names_files(typed) {
        let typed: Vec<&str> = typed.iter().map(|text| text.trim()).collect();
        return typed.join(", ");
    }
    match rows {
        [row] => format!("row:{row}"),
        rows if rows.len() <= LISTED => {
            let rows: Vec<String> = rows.iter().map(usize::to_string).collect();
            format!("rows {}", rows.join(", "))
        }
        rows => format!("{} rows, the first {}", rows.len(), rows[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_rows() {
        let selected = |typed: &str, rows: &[usize]| selected(&[typed.to_string()], rows);
        for typed in ["row:3", "rows:1-4", "label:10", "cluster:1"] {
            assert_eq!(selected(typed, &[3]), typed);
        }
        assert_eq!(selected("photos/jane.png", &[3]), "row:3");
        assert_eq!(selected("@jane.txt", &[3, 5]), "rows 3, 5");
        let many: Vec<usize> = (7..20).collect();
        assert_eq!(selected("@jane.txt", &many), "13 rows, the first 7");
        assert_eq!(selected("label:jane", &[3, 5]), "rows 3, 5");
        let several = ["row:3", "label:1"].map(String::from);
        assert_eq!(super::selected(&several, &[3, 7]), "row:3, label:1");
        let named = ["row:3", "jane.png"].map(String::from);
        assert_eq!(super::selected(&named, &[3, 7]), "rows 3, 7");
    }
}
