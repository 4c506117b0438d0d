//! A network's parameters by their checkpoint names, in PyTorch's layout on the outside and in the
//! layout of our operations on the inside.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use retrack_checkpoint::folder::{FolderError, RawTensor, Weights, current_name};

/// How a parameter lies in a checkpoint, relative to its tensor here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[out, in, kh, kw]` there, `[kh, kw, in, out]` here.
    Conv,
    /// `[out, in, 1, 1]` there, `[in, out]` here.
    Conv1x1,
    /// `[out, in]` there, `[in, out]` here.
    Linear,
    /// The same on both sides.
    Same,
}

/// One parameter of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The checkpoint's key, such as `down_blocks.0.resnets.1.conv1.weight`.
    pub name: String,
    /// The checkpoint's shape.
    pub shape: Vec<usize>,
    /// How PyTorch lays its values out.
    pub layout: Layout,
    /// Whether training changes it.
    pub trained: bool,
}

impl Parameter {
    fn new(name: String, dims: &[usize], layout: Layout, trained: bool) -> Self {
        let shape = match (layout, dims) {
            (Layout::Conv, &[kh, kw, i, o]) => vec![o, i, kh, kw],
            (Layout::Conv1x1, &[i, o]) => vec![o, i, 1, 1],
            (Layout::Linear, &[i, o]) => vec![o, i],
            _ => dims.to_vec(),
        };
        Self {
            name,
            shape,
            layout,
            trained,
        }
    }

    /// Rows and columns of the matrix whose transpose is the other side's layout.
    fn matrix(&self) -> Option<[usize; 2]> {
        match self.layout {
            Layout::Same => None,
            _ => Some([self.shape[0], self.shape[1..].iter().product()]),
        }
    }

    /// From the checkpoint's layout to ours.
    pub fn import(&self, values: Vec<f32>) -> Vec<f32> {
        match (self.layout, self.matrix()) {
            (Layout::Conv, Some([out, rest])) => {
                // [out][in][k] to [k][in][out]
                let inputs = self.shape[1];
                let taps = rest / inputs;
                let mut y = vec![0.0; values.len()];
                for first in (0..out).step_by(STRIP) {
                    let strip = first..out.min(first + STRIP);
                    for i in 0..inputs {
                        for k in 0..taps {
                            for o in strip.clone() {
                                y[(k * inputs + i) * out + o] = values[(o * inputs + i) * taps + k];
                            }
                        }
                    }
                }
                y
            }
            (_, Some([rows, columns])) => transposed(&values, rows, columns),
            _ => values,
        }
    }

    /// From our layout to the checkpoint's.
    pub fn export(&self, values: Vec<f32>) -> Vec<f32> {
        match (self.layout, self.matrix()) {
            (Layout::Conv, Some([out, rest])) => {
                let inputs = self.shape[1];
                let taps = rest / inputs;
                let mut y = vec![0.0; values.len()];
                for first in (0..out).step_by(STRIP) {
                    let strip = first..out.min(first + STRIP);
                    for i in 0..inputs {
                        for k in 0..taps {
                            for o in strip.clone() {
                                y[(o * inputs + i) * taps + k] = values[(k * inputs + i) * out + o];
                            }
                        }
                    }
                }
                y
            }
            (_, Some([rows, columns])) => transposed(&values, columns, rows),
            _ => values,
        }
    }
}

/// Outputs that a change of layout moves together: as many as fill a cache line.
const STRIP: usize = 16;

fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    for first in (0..rows).step_by(STRIP) {
        let strip = first..rows.min(first + STRIP);
        for c in 0..columns {
            for r in strip.clone() {
                y[c * rows + r] = x[r * columns + c];
            }
        }
    }
    y
}

/// Follows a traversal of the module tree and says what the parameter at hand is called.
#[derive(Default)]
struct Path {
    /// Name and container of each step from the root.
    steps: Vec<(String, String)>,
}

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        self.steps.push((name.into(), container.into()));
    }

    fn exit(&mut self) {
        self.steps.pop();
    }

    fn parameter<const D: usize>(&self, tensor: &Tensor<D>) -> Parameter {
        let dims = &tensor.dims();
        // A variant's name is no part of a checkpoint's key.
        let named = self
            .steps
            .iter()
            .filter(|(_, container)| !container.starts_with("Enum:"));
        let name: Vec<&str> = named.map(|(name, _)| name.as_str()).collect();
        let container = self.steps.last().map_or("", |(_, c)| c.as_str());
        let layout = match (container, dims.len()) {
            ("Struct:Conv3x3" | "Struct:ConvStride2" | "Struct:PatchEmbedding", 4) => Layout::Conv,
            ("Struct:Conv1x1", 2) => Layout::Conv1x1,
            ("Struct:Linear" | "Struct:Projection" | "Struct:LoraAdapter", 2) => Layout::Linear,
            _ => Layout::Same,
        };
        let trained = if tensor.is_autodiff() {
            // False for a network whose adapters are trained in its place.
            tensor.is_require_grad()
        } else {
            // The random frequencies of a Fourier embedding stay as they were drawn, and tables of places as computed.
            !["Struct:GaussianFourierProjection", "Struct:PatchEmbed"].contains(&container)
        };
        Parameter::new(name.join("."), dims, layout, trained)
    }
}

/// Calls `visit` with every parameter, in the network's own order.
pub fn visit<M: Module>(module: &M, visit: impl FnMut(Parameter, Tensor<1>)) {
    struct Visitor<F> {
        path: Path,
        visit: F,
    }
    impl<F: FnMut(Parameter, Tensor<1>)> ModuleVisitor for Visitor<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let parameter = self.path.parameter(&tensor);
            (self.visit)(parameter, tensor.inner().flatten(0, D - 1));
        }
    }
    module.visit(&mut Visitor {
        path: Path::default(),
        visit,
    });
}

/// Every parameter, in the network's own order.
pub fn list<M: Module>(module: &M) -> Vec<Parameter> {
    let mut all = Vec::new();
    visit(module, |parameter, _| all.push(parameter));
    all
}

/// Every parameter with its values in the checkpoint's layout.
pub fn export<M: Module>(module: &M) -> Vec<(Parameter, Vec<f32>)> {
    let mut all = Vec::new();
    visit(module, |parameter, tensor| {
        let values = parameter.export(to_host(tensor));
        all.push((parameter, values));
    });
    all
}

/// Replaces every parameter by what `source` returns for it, in the checkpoint's layout.
pub fn fill<M: Module>(module: M, mut source: impl FnMut(&Parameter) -> Vec<f32>) -> M {
    let Ok(module) = try_fill(module, |parameter| {
        Ok::<_, std::convert::Infallible>(source(parameter))
    });
    module
}

/// Replaces every parameter by what `source` returns for it, in the checkpoint's layout, one after another.
///
/// # Errors
/// The first of `source`.
pub fn try_fill<M: Module, E>(
    module: M,
    mut source: impl FnMut(&Parameter) -> Result<Vec<f32>, E>,
) -> Result<M, E> {
    let mut failed = None;
    let module = map(module, |parameter, tensor| {
        if failed.is_some() {
            return tensor;
        }
        match source(parameter) {
            Ok(values) => {
                let device = tensor.device();
                // Freed before its successor is made.
                drop(tensor);
                let values = parameter.import(values);
                let shape = [values.len()];
                Tensor::from_data(TensorData::new(values, shape), &device)
            }
            Err(error) => {
                failed = Some(error);
                tensor
            }
        }
    });
    failed.map_or(Ok(module), Err)
}

/// Has a folder written with the values of a network's trained parameters. They are converted one after another while
/// the folder is written; the network may go its way before.
///
/// # Errors
/// A parameter that the folder does not have.
pub fn set_weights<M: Module>(module: &M, weights: &mut Weights) -> Result<(), FolderError> {
    let mut result = Ok(());
    visit(module, |parameter, tensor| {
        if parameter.trained && result.is_ok() {
            let name = parameter.name.clone();
            let values = move || Ok(parameter.export(to_host(tensor.clone())));
            result = weights.set_later(&name, values);
        }
    });
    result
}

/// Replaces every parameter by the tensor of its name, as
/// [`read_weight_file`](retrack_checkpoint::folder::read_weight_file) returns them. Attention parameters may have the
/// names that they had before diffusers 0.14.
///
/// # Errors
/// All tensors that are missing, unexpected (a second one of the same name too) or of another shape.
pub fn load<M: Module>(
    module: M,
    tensors: impl IntoIterator<Item = (String, RawTensor)>,
) -> Result<M, Mismatch> {
    let mut by_name = std::collections::HashMap::new();
    let mut shapes = Vec::new();
    let mut twice = Vec::new();
    for (name, tensor) in tensors {
        let name = current_name(&name).unwrap_or(name);
        if by_name.contains_key(&name) {
            twice.push(name);
            continue;
        }
        shapes.push((name.clone(), tensor.shape().to_vec()));
        by_name.insert(name, tensor);
    }
    let checked = Mismatch::check(&module, &shapes);
    if checked.is_err() || !twice.is_empty() {
        let mut mismatch = checked.err().unwrap_or_default();
        mismatch.unexpected.extend(twice);
        return Err(mismatch);
    }
    Ok(fill(module, |parameter| by_name[&parameter.name].to_f32()))
}

/// Replaces every parameter by what `change` makes of its flat values, in our layout and without
/// autodiff. A network that nobody else holds hands its tensors over unshared, to be changed in place.
pub fn map<M: Module>(module: M, change: impl FnMut(&Parameter, Tensor<1>) -> Tensor<1>) -> M {
    struct Mapper<F> {
        path: Path,
        change: F,
    }
    impl<F: FnMut(&Parameter, Tensor<1>) -> Tensor<1>> ModuleMapper for Mapper<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let parameter = self.path.parameter(&tensor);
            let (autodiff, trained, dims) = (
                tensor.is_autodiff(),
                tensor.is_require_grad(),
                tensor.dims(),
            );
            let flat = (self.change)(&parameter, tensor.inner().flatten(0, D - 1));
            let tensor = flat.reshape(dims);
            let tensor = if autodiff {
                tensor.autodiff().set_require_grad(trained)
            } else {
                tensor
            };
            Param::from_mapped_value(id, tensor, mapper)
        }
    }
    module.map(&mut Mapper {
        path: Path::default(),
        change,
    })
}

/// A tensor's values as f32 on the host.
pub fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec::<f32>()
        .expect("converted to f32")
}

/// What stands between a checkpoint and a network.
#[derive(Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.list())]
pub struct Mismatch {
    /// Names that the network needs.
    pub missing: Vec<String>,
    /// Names that the network does not know.
    pub unexpected: Vec<String>,
    /// Name, shape found, shape expected.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// One line for each. Of more than two screens, as where all names are others, the first of each kind.
    fn list(&self) -> String {
        let all = self.missing.len() + self.unexpected.len() + self.misshapen.len();
        let most = if all > 64 { 8 } else { all };
        let missing = self
            .missing
            .iter()
            .map(|name| format!("missing tensor {name}"));
        let unexpected = self.unexpected.iter();
        let unexpected = unexpected.map(|name| format!("unexpected tensor {name}"));
        let misshapen = self.misshapen.iter().map(|(name, found, expected)| {
            format!("tensor {name} has shape {found:?}, the configuration needs {expected:?}")
        });
        let mut lines: Vec<String> = Vec::new();
        let mut add = |kind: &str, count: usize, all: &mut dyn Iterator<Item = String>| {
            lines.extend(all.take(most));
            if count > most {
                lines.push(format!("and {} more {kind}, {count} in all", count - most));
            }
        };
        add("missing tensors", self.missing.len(), &mut { missing });
        add("unexpected tensors", self.unexpected.len(), &mut {
            unexpected
        });
        add("tensors of another shape", self.misshapen.len(), &mut {
            misshapen
        });
        lines.join("\n")
    }

    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    /// Compares a network's parameters with a checkpoint's names and shapes.
    ///
    /// # Errors
    /// Everything that does not fit, at once.
    pub fn check<M: Module>(
        module: &M,
        checkpoint: &[(String, Vec<usize>)],
    ) -> Result<(), Mismatch> {
        let found: std::collections::HashMap<&str, &[usize]> = checkpoint
            .iter()
            .map(|(name, shape)| (name.as_str(), shape.as_slice()))
            .collect();
        let expected = list(module);
        let known: std::collections::HashSet<&str> =
            expected.iter().map(|p| p.name.as_str()).collect();
        let mut mismatch = Mismatch::default();
        for parameter in &expected {
            match found.get(parameter.name.as_str()) {
                None => mismatch.missing.push(parameter.name.clone()),
                Some(shape) if *shape != parameter.shape => mismatch.misshapen.push((
                    parameter.name.clone(),
                    shape.to_vec(),
                    parameter.shape.clone(),
                )),
                Some(_) => {}
            }
        }
        for (name, _) in checkpoint {
            if !known.contains(name.as_str()) {
                mismatch.unexpected.push(name.clone());
            }
        }
        if mismatch.is_empty() {
            Ok(())
        } else {
            Err(mismatch)
        }
    }
}

/// Fills a new network as PyTorch initializes its layers: weights and biases uniform within
/// 1/sqrt(fan-in), normalizations 1 and 0, embeddings standard normal, Fourier frequencies normal
/// with standard deviation 16.
pub fn initialize<M: Module>(module: M, random: &crate::random::Random) -> M {
    use crate::random::Stream;
    let mut fan_in = 1;
    let mut index = 0;
    fill(module, |parameter| {
        let count = parameter.shape.iter().product();
        let mut draw = random.stream(Stream::Init, index);
        index += 1;
        let bias = parameter.name.ends_with(".bias");
        if parameter.name == "time_proj.weight" {
            return draw.normal(count).into_iter().map(|z| 16.0 * z).collect();
        }
        if parameter.name == "class_embedding.weight" {
            return draw.normal(count);
        }
        if parameter.shape.len() == 1 && !bias {
            fan_in = 0; // a normalization: its bias follows
            return vec![1.0; count];
        }
        if !bias {
            fan_in = parameter.shape[1..].iter().product();
        }
        if fan_in == 0 {
            return vec![0.0; count];
        }
        let bound = 1.0 / (fan_in as f32).sqrt();
        let uniform = draw.uniform(count).into_iter();
        uniform.map(|u| (2.0 * u - 1.0) * bound).collect()
    })
}
