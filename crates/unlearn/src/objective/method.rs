//! Which method a run uses, as configuration files and the command line name it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{EraseDiff, Finetune, NegGrad, Objective, ReTrack, Siss};

/// A method with its options. Options that a file leaves out have the paper's values for MNIST with a
/// T-shirt, the values of [`Method::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Method {
    /// See [`ReTrack`].
    Retrack {
        #[serde(default = "retrack_lambda")]
        lambda: f64,
    },
    /// See [`Finetune`].
    #[serde(deserialize_with = "no_options")]
    Finetune,
    /// See [`NegGrad`].
    #[serde(deserialize_with = "no_options")]
    Neggrad,
    /// See [`EraseDiff`].
    Erasediff {
        #[serde(default = "erasediff_eta")]
        eta: f64,
    },
    /// See [`Siss`].
    Siss {
        #[serde(default = "siss_lambda")]
        lambda: f64,
        #[serde(default = "siss_rescale")]
        rescale: f64,
    },
}

const fn retrack_lambda() -> f64 {
    0.005
}

const fn erasediff_eta() -> f64 {
    1e-3
}

const fn siss_lambda() -> f64 {
    0.5
}

const fn siss_rescale() -> f64 {
    5.0
}

/// serde lets any key pass beside the tag of a variant without fields.
fn no_options<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    Nothing::deserialize(deserializer).map(|Nothing {}| ())
}

/// Why a method cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MethodError {
    #[error("there is no method {name:?}; the methods are {}", Method::names())]
    Unknown { name: String },
    #[error("{method}: {option} is {value}, expected {expected}")]
    OutOfRange {
        method: &'static str,
        option: &'static str,
        value: f64,
        expected: &'static str,
    },
}

impl Method {
    /// Every method, with the paper's options.
    pub const ALL: [Self; 5] = [
        Self::Retrack {
            lambda: retrack_lambda(),
        },
        Self::Finetune,
        Self::Neggrad,
        Self::Erasediff {
            eta: erasediff_eta(),
        },
        Self::Siss {
            lambda: siss_lambda(),
            rescale: siss_rescale(),
        },
    ];

    /// What files and the command line call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Retrack { .. } => "retrack",
            Self::Finetune => "finetune",
            Self::Neggrad => "neggrad",
            Self::Erasediff { .. } => "erasediff",
            Self::Siss { .. } => "siss",
        }
    }

    fn names() -> String {
        Self::ALL.map(|method| method.name()).join(", ")
    }

    pub fn objective(&self) -> Box<dyn Objective> {
        match *self {
            Self::Retrack { lambda } => Box::new(ReTrack { lambda }),
            Self::Finetune => Box::new(Finetune),
            Self::Neggrad => Box::new(NegGrad),
            Self::Erasediff { eta } => Box::new(EraseDiff { eta }),
            Self::Siss { lambda, rescale } => Box::new(Siss { lambda, rescale }),
        }
    }

    /// Whether the options make sense.
    ///
    /// # Errors
    /// The first option that does not.
    pub fn check(&self) -> Result<(), MethodError> {
        let require = |holds: bool, option, value, expected| {
            if holds {
                return Ok(());
            }
            Err(MethodError::OutOfRange {
                method: self.name(),
                option,
                value,
                expected,
            })
        };
        // Written so that a NaN fails.
        let length = |x: f64| x >= 0.0 && x.is_finite();
        match *self {
            Self::Retrack { lambda } => require(
                (0.0..=1.0).contains(&lambda),
                "lambda",
                lambda,
                "a number from 0 to 1",
            ),
            Self::Finetune | Self::Neggrad => Ok(()),
            Self::Erasediff { eta } => {
                require(length(eta), "eta", eta, "a number that is 0 or more")
            }
            Self::Siss { lambda, rescale } => {
                // At 0 or 1 the weight of the side that is never drawn has no bound.
                require(
                    lambda > 0.0 && lambda < 1.0,
                    "lambda",
                    lambda,
                    "a number between 0 and 1",
                )?;
                require(
                    length(rescale),
                    "rescale",
                    rescale,
                    "a number that is 0 or more",
                )
            }
        }
    }
}

impl Default for Method {
    fn default() -> Self {
        Self::ALL[0]
    }
}

impl FromStr for Method {
    type Err = MethodError;

    /// A method by its name, with the paper's options.
    fn from_str(name: &str) -> Result<Self, MethodError> {
        let unknown = || MethodError::Unknown { name: name.into() };
        Self::ALL
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_alone_takes_the_options_of_the_paper() {
        for method in Method::ALL {
            let read: Method = serde_json::from_value(json!({"method": method.name()})).unwrap();
            assert_eq!(read, method);
            assert_eq!(method.name().parse(), Ok(method));
            assert_eq!(method.check(), Ok(()));
        }
        assert_eq!(Method::default().name(), "retrack");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let method = Method::Siss {
            lambda: 0.25,
            rescale: 500.0,
        };
        let json = serde_json::to_value(method).unwrap();
        assert_eq!(
            json,
            json!({"method": "siss", "lambda": 0.25, "rescale": 500.0})
        );
        assert_eq!(serde_json::from_value::<Method>(json).unwrap(), method);
        let json = serde_json::to_value(Method::Finetune).unwrap();
        assert_eq!(json, json!({"method": "finetune"}));
    }

    #[test]
    fn an_option_of_another_method_is_refused() {
        for json in [
            json!({"method": "retrack", "eta": 1.0}),
            json!({"method": "finetune", "lambda": 0.5}),
            json!({"method": "neggrad", "rescale": 5.0}),
        ] {
            let error = serde_json::from_value::<Method>(json.clone()).unwrap_err();
            assert!(
                error.to_string().contains("unknown field"),
                "{json}: {error}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_there_are() {
        let error = "retrak".parse::<Method>().unwrap_err().to_string();
        assert!(error.contains("\"retrak\""), "{error}");
        assert!(
            error.contains("retrack, finetune, neggrad, erasediff, siss"),
            "{error}"
        );
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let siss = |lambda, rescale| Method::Siss { lambda, rescale };
        for (method, option) in [
            (Method::Retrack { lambda: 1.5 }, "lambda is 1.5"),
            (Method::Retrack { lambda: f64::NAN }, "lambda is NaN"),
            (Method::Erasediff { eta: -1.0 }, "eta is -1"),
            (siss(0.0, 5.0), "lambda is 0"),
            (siss(1.0, 5.0), "lambda is 1"),
            (siss(0.5, f64::INFINITY), "rescale is inf"),
        ] {
            let error = method.check().unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
    }
}
