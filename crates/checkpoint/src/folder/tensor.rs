//! One tensor as it lies in a file: element type, shape and little-endian bytes in C order.

use half::{bf16, f16};

/// Element types that model folders use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point, IEEE 754.
    F16,
    /// bfloat16: the upper half of an f32.
    BF16,
    /// 64-bit floating point.
    F64,
    /// 64-bit integers, which buffers such as `position_ids` hold.
    I64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// The name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
            Self::I64 => "I64",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::BF16, Self::F64, Self::I64]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What is wrong with the values given for a tensor.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// More or fewer values than the shape has.
    #[error("shape {shape:?} needs {expected} values, {found} given")]
    Count {
        /// The shape.
        shape: Vec<usize>,
        /// How many values it has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// The number of elements or bytes does not fit an address.
    #[error("shape {shape:?} is too large")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
    },
    /// NaN or infinity.
    #[error("value {index} is {value}, not a finite number")]
    NonFinite {
        /// Its place among the values.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value that would become infinite.
    #[error("value {index} is {value}, beyond what {dtype} can hold")]
    OutOfRange {
        /// Its place among the values.
        index: usize,
        /// The value.
        value: f32,
        /// The element type.
        dtype: Dtype,
    },
    /// New values for a tensor of integers.
    #[error("holds integers ({dtype}), not weights to be changed")]
    Integer {
        /// The element type.
        dtype: Dtype,
    },
    /// A name that no tensor has.
    #[error("no such tensor in the weights")]
    Unknown,
}

/// A tensor's bytes with their meaning: little-endian elements in C order, `product(shape) * dtype.size()` bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct RawTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for RawTensor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RawTensor({} {:?})", self.dtype, self.shape)
    }
}

impl RawTensor {
    /// A tensor over `bytes`, which must be exactly as long as `dtype` and `shape` say.
    ///
    /// # Errors
    /// Another length, or a shape beyond what an address can count.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self, TensorError> {
        let Some(needed) = byte_len(dtype, &shape) else {
            return Err(TensorError::TooLarge { shape });
        };
        if needed != bytes.len() {
            return Err(TensorError::Count {
                expected: needed / dtype.size(),
                found: bytes.len() / dtype.size(),
                shape,
            });
        }
        Ok(Self {
            dtype,
            shape,
            bytes,
        })
    }

    /// `values` in C order, rounded to the nearest `dtype` (ties to even). Refuses NaN, infinity, and values that
    /// `dtype` would turn into infinity.
    ///
    /// # Errors
    /// Such a value, another number of values than the shape has, or integers asked for.
    pub fn from_f32(values: &[f32], shape: Vec<usize>, dtype: Dtype) -> Result<Self, TensorError> {
        let mut bytes = Vec::with_capacity(values.len() * dtype.size());
        for (index, &value) in values.iter().enumerate() {
            if !value.is_finite() {
                return Err(TensorError::NonFinite { index, value });
            }
            let holds = match dtype {
                Dtype::F32 => {
                    bytes.extend(value.to_le_bytes());
                    true
                }
                Dtype::F16 => {
                    let half = f16::from_f32(value);
                    bytes.extend(half.to_le_bytes());
                    half.is_finite()
                }
                Dtype::BF16 => {
                    let half = bf16::from_f32(value);
                    bytes.extend(half.to_le_bytes());
                    half.is_finite()
                }
                Dtype::F64 => {
                    bytes.extend(f64::from(value).to_le_bytes());
                    true
                }
                Dtype::I64 => return Err(TensorError::Integer { dtype }),
            };
            if !holds {
                return Err(TensorError::OutOfRange {
                    index,
                    value,
                    dtype,
                });
            }
        }
        Self::new(dtype, shape, bytes)
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// In the order of its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Little-endian elements in C order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The values in C order. F16 and BF16 convert exactly; F64 and I64 round to the nearest f32.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => self.elements(f32::from_le_bytes),
            Dtype::F16 => self.elements(|bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => self.elements(|bytes| bf16::from_le_bytes(bytes).to_f32()),
            Dtype::F64 => self.elements(|bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::I64 => self.elements(|bytes| i64::from_le_bytes(bytes) as f32),
        }
    }

    /// The same of `count` rows from the row `first` on: parts of the tensor that have the same first index.
    ///
    /// # Panics
    /// It has no such rows.
    pub fn rows_f32(&self, first: usize, count: usize) -> Vec<f32> {
        let row = self.shape[1..].iter().product::<usize>() * self.dtype.size();
        let rows = Self {
            dtype: self.dtype,
            shape: Vec::new(),
            bytes: self.bytes[first * row..(first + count) * row].to_vec(),
        };
        rows.to_f32()
    }

    /// Whether every value is a finite f32 (an F64 value beyond f32's range is not).
    pub fn is_finite(&self) -> bool {
        fn all<const N: usize>(bytes: &[u8], finite: impl Fn([u8; N]) -> bool) -> bool {
            let (elements, _) = bytes.as_chunks::<N>();
            elements.iter().all(|&element| finite(element))
        }
        match self.dtype {
            Dtype::F32 => all(&self.bytes, |bytes| f32::from_le_bytes(bytes).is_finite()),
            Dtype::F16 => all(&self.bytes, |bytes| f16::from_le_bytes(bytes).is_finite()),
            Dtype::BF16 => all(&self.bytes, |bytes| bf16::from_le_bytes(bytes).is_finite()),
            Dtype::F64 => all(&self.bytes, |bytes| {
                (f64::from_le_bytes(bytes) as f32).is_finite()
            }),
            Dtype::I64 => true,
        }
    }

    fn elements<const N: usize>(&self, convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        let (elements, _) = self.bytes.as_chunks::<N>();
        elements.iter().map(|&element| convert(element)).collect()
    }
}

/// `product(shape) * dtype.size()`, or `None` when it overflows.
pub(super) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &side| product.checked_mul(side))?
        .checked_mul(dtype.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_and_bf16_round_to_nearest_even_and_come_back() {
        let values = [0.1f32, -3.0, 65504.0, 1.0 + 1.0 / 2048.0];
        let half = RawTensor::from_f32(&values, vec![4], Dtype::F16).unwrap();
        assert_eq!(half.to_f32(), [0.099975586, -3.0, 65504.0, 1.0]);
        let brain = RawTensor::from_f32(&values, vec![2, 2], Dtype::BF16).unwrap();
        assert_eq!(brain.rows_f32(1, 1), [65536.0, 1.0]);
        assert_eq!(brain.to_f32(), [0.100097656, -3.0, 65536.0, 1.0]);
        assert_eq!(brain.bytes().len(), 8);
    }

    #[test]
    fn values_beyond_the_element_type_are_refused() {
        let error = RawTensor::from_f32(&[1.0, 1e6], vec![2], Dtype::F16).unwrap_err();
        assert_eq!(
            error,
            TensorError::OutOfRange {
                index: 1,
                value: 1e6,
                dtype: Dtype::F16
            }
        );
        let error = RawTensor::from_f32(&[1.0, f32::INFINITY], vec![2], Dtype::F32).unwrap_err();
        assert!(matches!(error, TensorError::NonFinite { index: 1, .. }));
    }

    #[test]
    fn bytes_must_fill_the_shape_exactly() {
        assert!(RawTensor::new(Dtype::F32, vec![2, 2], vec![0; 12]).is_err());
        assert!(RawTensor::new(Dtype::F32, vec![usize::MAX, 2], vec![]).is_err());
        assert!(RawTensor::new(Dtype::F32, vec![0, 3], vec![]).is_ok());
        assert!(RawTensor::from_f32(&[1.0; 3], vec![2, 2], Dtype::F32).is_err());
    }

    #[test]
    fn non_finite_values_are_seen_in_every_type() {
        for (dtype, bytes) in [
            (Dtype::F32, f32::NAN.to_le_bytes().to_vec()),
            (Dtype::F16, f16::INFINITY.to_le_bytes().to_vec()),
            (Dtype::BF16, bf16::NAN.to_le_bytes().to_vec()),
            (Dtype::F64, 1e300f64.to_le_bytes().to_vec()),
        ] {
            assert!(
                !RawTensor::new(dtype, vec![1], bytes).unwrap().is_finite(),
                "{dtype}"
            );
        }
        assert!(
            RawTensor::from_f32(&[1.0], vec![1], Dtype::F64)
                .unwrap()
                .is_finite()
        );
    }
}
