//! All images of a run in a table, those that the model knew best first.

use super::course::Record;
use super::standing::Place;

/// The table's name in a run's folder.
pub const TABLE: &str = "images.csv";

impl Record {
    /// The table. An image has the row at which it lies first; an error is a multiple of its look-alikes' error before the run;
    /// the rank is how often an image that is one of them is denoised so well. What lies behind the run is there for images that
    /// were led.
    pub fn table(&self) -> String {
        let mut table = String::from("row,error_before,rank_before,before,error_after,after\n");
        for image in self.worst_first() {
            let before = &self.before[image];
            let (ratio, [rank, _]) = (before.ratio(), before.ranks());
            let place = before.place().name();
            let after = match self.after.get(&image) {
                Some(after) => format!("{:.4},{}", after.ratio, after.place.name()),
                None => ",".into(),
            };
            let row = self.rows[image];
            table += &format!("{row},{ratio:.4},{rank:.4},{place},{after}\n");
        }
        table
    }

    /// The numbers of all distinct images, those that the model knew best first.
    pub fn worst_first(&self) -> Vec<usize> {
        let mut images: Vec<usize> = (0..self.before.len()).collect();
        let depth = |image: &usize| {
            let standing = &self.before[*image];
            let known = standing.place() == Place::Known;
            (known, standing.left())
        };
        images.sort_by(|a, b| {
            let ((known_a, a), (known_b, b)) = (depth(a), depth(b));
            known_b.cmp(&known_a).then(b.total_cmp(&a))
        });
        images
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::course::Reached;
    use super::super::standing::Standing;
    use super::*;

    #[test]
    fn images_that_were_known_best_come_first_with_what_became_of_them() {
        let errors = [0.1, 0.001, 0.3, 0.01];
        let reached = Reached {
            ratio: 0.95,
            own: 0.0,
            place: Place::Unknown,
        };
        let record = Record {
            rows: vec![5, 8, 11, 40],
            before: errors.map(|own| Standing::even(own, 0.1)).into(),
            after: BTreeMap::from([(1, reached)]),
            ..Record::default()
        };
        let expected = "\
row,error_before,rank_before,before,error_after,after
8,0.0100,0.0400,known,0.9500,unknown
40,0.1000,0.0400,known,,
5,1.0000,1.0000,unknown,,
11,3.0000,1.0000,avoided,,
";
        assert_eq!(record.table(), expected);
    }
}
