//! How much of a model differs from the one that it was made of, counted on the values in the files.
//!
//! Training moves weights by little; where a folder holds them in 16 bits, many round back to what they were.

use burn::module::Module;

use crate::lora::Adapters;
use crate::parameters::{self, to_host};
use retrack_checkpoint::folder::{FolderError, RawTensor, Weights};

/// Weights of a written model, compared with its base's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// All that the base has.
    pub weights: u64,
    /// Those whose written value, as f32, is another.
    pub changed: u64,
    /// Those that training moved.
    pub moved: u64,
    /// Those of them that hold what the base's value is in the type in which they are written.
    pub rounded_back: u64,
}

impl Changes {
    /// Compares two folders' weights. `moved` and `rounded_back` are not known without the trained network, and 0.
    ///
    /// # Errors
    /// Files that cannot be read any more.
    pub fn between(base: &Weights, written: &Weights) -> Result<Self, FolderError> {
        let mut changes = Self::default();
        for (name, tensor) in base.iter() {
            let old = tensor.read()?;
            match written.get(name) {
                Some(tensor) => changes.add(&old, &*tensor.read()?, None),
                None => changes.missing(&old),
            }
        }
        Ok(changes)
    }

    /// The same with the network whose values were to be written.
    ///
    /// # Errors
    /// As [`between`](Self::between).
    pub fn of<M: Module>(
        network: &M,
        base: &Weights,
        written: &Weights,
    ) -> Result<Self, FolderError> {
        let mut changes = Self::default();
        let mut result = Ok(());
        parameters::visit(network, |parameter, tensor| {
            let (Ok(()), Some(old)) = (&result, base.get(&parameter.name)) else {
                return;
            };
            let trained = parameter.trained.then(|| parameter.export(to_host(tensor)));
            result = old.read().and_then(|old| {
                match written.get(&parameter.name) {
                    Some(new) => changes.add(&old, &*new.read()?, trained.as_deref()),
                    None => changes.missing(&old),
                }
                Ok(())
            });
        });
        result.map(|()| changes)
    }

    /// What adapters change of the weights that they are added to, in f32.
    ///
    /// # Errors
    /// As [`between`](Self::between).
    pub fn by_adapters(base: &Weights, adapters: &Adapters) -> Result<Self, FolderError> {
        let mut changes = Self::default();
        for (name, tensor) in base.iter() {
            let old = tensor.read()?.to_f32();
            let new = adapters.added_to(name, old.clone());
            changes.weights += old.len() as u64;
            changes.changed += differing(&old, &new);
        }
        Ok(changes)
    }

    /// What of adapters' changes a written model holds, counted on the weights that they are added to.
    ///
    /// # Errors
    /// As [`between`](Self::between).
    pub fn by_merging(
        base: &Weights,
        adapters: &Adapters,
        written: &Weights,
    ) -> Result<Self, FolderError> {
        let mut changes = Self::default();
        for (name, tensor) in base.iter().filter(|(name, _)| adapters.adapt(name)) {
            let old = tensor.read()?;
            let merged = adapters.added_to(name, old.to_f32());
            match written.get(name) {
                Some(new) => changes.add(&old, &*new.read()?, Some(&merged)),
                None => changes.missing(&old),
            }
        }
        Ok(changes)
    }

    fn add(&mut self, base: &RawTensor, written: &RawTensor, trained: Option<&[f32]>) {
        let (old, new) = (base.to_f32(), written.to_f32());
        self.weights += old.len() as u64;
        self.changed += differing(&old, &new);
        let Some(trained) = trained else {
            return;
        };
        // What the base's own values become in this type.
        let rounded = match base.dtype() == written.dtype() {
            true => None,
            false => RawTensor::from_f32(&old, base.shape().to_vec(), written.dtype()).ok(),
        };
        let rounded = rounded.map_or_else(|| old.clone(), |rounded| rounded.to_f32());
        let pairs = old.iter().zip(trained).zip(rounded.iter().zip(&new));
        for ((old, trained), (rounded, new)) in pairs {
            let moved = old != trained;
            self.moved += u64::from(moved);
            self.rounded_back += u64::from(moved && rounded == new);
        }
    }

    fn missing(&mut self, base: &RawTensor) {
        self.weights += base.count() as u64;
        self.changed += base.count() as u64;
    }
}

impl std::ops::AddAssign for Changes {
    fn add_assign(&mut self, other: Self) {
        self.weights += other.weights;
        self.changed += other.changed;
        self.moved += other.moved;
        self.rounded_back += other.rounded_back;
    }
}

fn differing(old: &[f32], new: &[f32]) -> u64 {
    let beyond = old.len().abs_diff(new.len());
    let within = old.iter().zip(new).filter(|(old, new)| old != new).count();
    (within + beyond) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_checkpoint::folder::Dtype;

    fn counted(base: &[f32], dtype: Dtype, trained: &[f32], written: Dtype) -> Changes {
        let shape = vec![base.len()];
        let base = RawTensor::from_f32(base, shape.clone(), dtype).unwrap();
        let written = RawTensor::from_f32(trained, shape, written).unwrap();
        let mut changes = Changes::default();
        changes.add(&base, &written, Some(trained));
        changes
    }

    #[test]
    fn weights_that_round_back_are_told_from_those_that_did_not_move() {
        // The third moves by more than half a step of bf16 at 1, 2^-7; the second by less; the first not at all.
        let trained = [1.0, 1.001, 1.006, -2.5];
        let found = counted(&[1.0, 1.0, 1.0, -2.5], Dtype::BF16, &trained, Dtype::BF16);
        let expected = Changes {
            weights: 4,
            changed: 1,
            moved: 2,
            rounded_back: 1,
        };
        assert_eq!(found, expected);
        // In f32 nothing rounds back.
        let found = counted(&[1.0, 1.0, 1.0, -2.5], Dtype::BF16, &trained, Dtype::F32);
        assert_eq!((found.changed, found.rounded_back), (2, 0));
    }

    #[test]
    fn a_narrower_type_than_the_base_changes_weights_that_did_not_move() {
        let base = [1.001, 1.001, 1.0];
        let found = counted(&base, Dtype::F32, &[1.001, 1.0011, 1.0], Dtype::BF16);
        let expected = Changes {
            weights: 3,
            changed: 2,
            moved: 1,
            rounded_back: 1,
        };
        assert_eq!(found, expected);
    }
}
