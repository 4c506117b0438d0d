//! What was selected, in words that name no file of the data: they stay in folders that are passed on.

use retrack_unlearn::data::Selection;

/// Rows that are listed one by one, at most.
const LISTED: usize = 8;

/// A selection as it was typed, where that says no more than numbers; else the rows that it stands for.
pub fn selected(typed: &str, rows: &[usize]) -> String {
    match Selection::parse(typed) {
        Ok(Selection::Rows { .. } | Selection::Label(_)) => typed.trim().into(),
        _ => match rows {
            [row] => format!("row:{row}"),
            rows if rows.len() <= LISTED => {
                let rows: Vec<String> = rows.iter().map(usize::to_string).collect();
                format!("rows {}", rows.join(", "))
            }
            rows => format!("{} rows, the first {}", rows.len(), rows[0]),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_rows() {
        for typed in ["row:3", "rows:1-4", "label:10", "cluster:1"] {
            assert_eq!(selected(typed, &[3]), typed);
        }
        assert_eq!(selected("photos/jane.png", &[3]), "row:3");
        assert_eq!(selected("@jane.txt", &[3, 5]), "rows 3, 5");
        let many: Vec<usize> = (7..20).collect();
        assert_eq!(selected("@jane.txt", &many), "13 rows, the first 7");
    }
}
