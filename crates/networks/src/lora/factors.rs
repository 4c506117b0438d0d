//! What an adapter adds to a network's weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use retrack_checkpoint::folder::{FolderError, Weights};

/// Values with their shape, in the checkpoint's layout.
pub(super) type Factor = (Vec<f32>, Vec<usize>);

/// What becomes of one layer's weight W: W + scale B A, and with magnitudes each row of that, which is an output's,
/// brought to its magnitude (Liu et al. 2024, arXiv 2402.09353).
#[derive(Debug, Clone)]
pub(super) struct Factors {
    /// `[rank, in ..]` and its shape.
    pub a: Factor,
    /// `[out, rank ..]` and its shape.
    pub b: Factor,
    pub scale: f64,
    /// `[out]`
    pub magnitudes: Option<Vec<f32>>,
}

/// What an adapter adds to the weights of one network, by their names.
#[derive(Debug, Clone)]
pub struct Adapters {
    pub(super) layers: Arc<BTreeMap<String, Factors>>,
}

impl Adapters {
    /// How many layers are adapted.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether no layer is adapted.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Whether they add something to a parameter.
    pub fn adapt(&self, parameter: &str) -> bool {
        self.layers.contains_key(parameter)
    }

    /// Adds the adapters to the weights of a model folder: each is computed, in f32, when the folder is written.
    ///
    /// # Errors
    /// A weight that the folder lacks.
    ///
    /// # Panics
    /// When the folder is written: weights of another shape than those that the adapters were found to fit.
    pub fn merge_into(&self, weights: &mut Weights) -> Result<(), FolderError> {
        for name in self.layers.keys() {
            let Some(base) = weights.get(name).cloned() else {
                // Which says so.
                return weights.set_later(name, || Ok(Vec::new()));
            };
            let (adapters, key) = (self.clone(), name.clone());
            let merged = move || Ok(adapters.added_to(&key, base.read()?.to_f32()));
            weights.set_later(name, merged)?;
        }
        Ok(())
    }

    /// The values of a parameter, in the checkpoint's layout, with what its layer's adapter adds.
    ///
    /// # Panics
    /// Values of another shape than the adapter's.
    pub fn added_to(&self, parameter: &str, mut values: Vec<f32>) -> Vec<f32> {
        if let Some(factors) = self.layers.get(parameter) {
            factors.add_to(&mut values);
        }
        values
    }
}

impl Factors {
    /// With a scale of 1; `None` where the factors have no product.
    pub(super) fn new(a: Factor, b: Factor) -> Option<Self> {
        let (inner, outer) = (&a.1, &b.1);
        let product = inner.len() >= 2
            && inner.len() == outer.len()
            && outer[1] == inner[0]
            && inner[0] > 0
            && outer[2..].iter().all(|&side| side == 1);
        product.then_some(Self {
            a,
            b,
            scale: 1.0,
            magnitudes: None,
        })
    }

    pub(super) fn rank(&self) -> usize {
        self.a.1[0]
    }

    /// Of the weight that they add to.
    pub(super) fn shape(&self) -> Vec<usize> {
        let mut shape = self.a.1.clone();
        shape[0] = self.b.1[0];
        shape
    }

    fn add_to(&self, weight: &mut [f32]) {
        let (a, b) = (&self.a.0, &self.b.0);
        let rank = self.rank();
        let columns = a.len() / rank;
        assert_eq!(
            weight.len() * rank * rank,
            a.len() * b.len(),
            "a weight of another shape"
        );
        let rows = weight.chunks_exact_mut(columns.max(1));
        let mut delta = vec![0.0f32; columns];
        for (output, (row, b)) in rows.zip(b.chunks_exact(rank)).enumerate() {
            delta.fill(0.0);
            for (&b, a) in b.iter().zip(a.chunks_exact(columns)) {
                delta.iter_mut().zip(a).for_each(|(d, a)| *d += b * a);
            }
            let scale = self.scale as f32;
            row.iter_mut()
                .zip(&delta)
                .for_each(|(w, d)| *w += scale * d);
            if let Some(magnitudes) = &self.magnitudes {
                let length = row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
                let factor = (f64::from(magnitudes[output]) / length.sqrt()) as f32;
                row.iter_mut().for_each(|w| *w *= factor);
            }
        }
    }
}
