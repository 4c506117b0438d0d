//! How the kernels join Burn: a backend extension for the CPU backend, with and without autodiff.
//!
//! The gradients are computed by plain functions of [`crate::flex`], outside the dispatched trait: the
//! autodiff implementation exists for the CPU backend alone.

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{self, Backward, Ops, OpsKind, OpsPrep};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Flex, backend_extension};

use crate::attention::Attention;
use crate::conv::Window;
use crate::flex::{self, Floats};
use crate::norm::{Moments, Norm};
use crate::{AdamWStep, Padding};

/// The operations of the crate root on backend primitives.
#[backend_extension(Autodiff, Flex)]
pub(crate) trait DiffusionKernels: Backend {
    fn conv3x3(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    fn conv3x3_residual(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    fn conv3x3_stride2(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        padding: Padding,
    ) -> FloatTensor<Self>;
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
    fn linear_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    fn group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FloatTensor<Self>;
    fn upsample_nearest2x(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn concat_channels(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;
    fn silu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn geglu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn adamw_step(
        param: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        moment1: FloatTensor<Self>,
        moment2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl DiffusionKernels for Flex {
    fn conv3x3(x: Floats, weight: Floats, bias: Floats) -> Floats {
        flex::conv3x3(x, weight, bias, None)
    }

    fn conv3x3_residual(x: Floats, weight: Floats, bias: Floats, residual: Floats) -> Floats {
        flex::conv3x3(x, weight, bias, Some(residual))
    }

    fn conv3x3_stride2(x: Floats, weight: Floats, bias: Floats, padding: Padding) -> Floats {
        flex::conv3x3_stride2(x, weight, bias, padding)
    }

    fn linear(x: Floats, weight: Floats) -> Floats {
        flex::linear(x, weight, None)
    }

    fn linear_bias(x: Floats, weight: Floats, bias: Floats) -> Floats {
        flex::linear(x, weight, Some(bias))
    }

    fn group_norm(
        x: Floats,
        gamma: Floats,
        beta: Floats,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> Floats {
        let norm = flex::norm(&x, &gamma, &beta, groups, eps, silu);
        flex::group_norm(&norm, x, gamma, beta).0
    }

    fn upsample_nearest2x(x: Floats) -> Floats {
        flex::upsample(x)
    }

    fn concat_channels(a: Floats, b: Floats) -> Floats {
        flex::concat(a, b)
    }

    fn attention(q: Floats, k: Floats, v: Floats, scale: f64) -> Floats {
        flex::attention(&flex::attention_sizes(&q, &v, scale), q, k, v)
    }

    fn silu(x: Floats) -> Floats {
        flex::silu(x)
    }

    fn gelu(x: Floats) -> Floats {
        flex::gelu(x)
    }

    fn geglu(x: Floats) -> Floats {
        flex::geglu(x)
    }

    fn adamw_step(
        param: Floats,
        grad: Floats,
        moment1: Floats,
        moment2: Floats,
        step: AdamWStep,
    ) -> (Floats, Floats, Floats) {
        flex::adamw(&step, param, grad, moment1, moment2)
    }
}

/// The same type for every checkpointing strategy.
type Tracked = FloatTensor<Autodiff<Flex>>;

fn primitives<const N: usize>(parents: [&Tracked; N]) -> [Floats; N] {
    parents.map(|parent| parent.primitive().clone())
}

/// The gradient that reaches an operation's result, with nothing between its elements.
fn gradient<S, const N: usize>(ops: &Ops<S, N>, grads: &mut Gradients) -> Floats {
    flex::whole(grads.consume::<Flex>(&ops.node))
}

/// 3x3 convolution of stride 1; parents x, weight, bias and, if N is 4, the residual.
#[derive(Debug)]
struct Conv3x3;

#[derive(Debug, Clone, Copy)]
struct ConvState {
    x: NodeId,
    weight: NodeId,
    inputs: usize,
    bias_rows: usize,
}

impl ConvState {
    fn save<C: CheckpointStrategy, const N: usize>(
        prep: &mut OpsPrep<Conv3x3, Flex, Self, C, N, ops::Tracked>,
        x: &Tracked,
        weight: &Tracked,
        bias: &Tracked,
    ) -> Self
    where
        Conv3x3: Backward<Flex, N, State = Self>,
    {
        Self {
            x: prep.checkpoint(x),
            weight: prep.checkpoint(weight),
            inputs: flex::dims::<4>(x.primitive())[3],
            bias_rows: flex::dims::<2>(bias.primitive())[0],
        }
    }
}

impl Conv3x3 {
    fn gradients<const N: usize>(
        ops: Ops<ConvState, N>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = gradient(&ops, grads);
        // Both are retrieved whether needed or not: each retrieval counts down to the release of a saved value.
        let x: Floats = checkpointer.retrieve_node_output(ops.state.x);
        let weight: Floats = checkpointer.retrieve_node_output(ops.state.weight);
        let parent = |i: usize| {
            ops.parents
                .get(i)
                .and_then(Option::as_ref)
                .map(|node| node.id)
        };
        if let Some(id) = parent(0) {
            grads.register::<Flex>(id, flex::conv3x3_dx(weight, &dy, ops.state.inputs));
        }
        if let Some(id) = parent(1) {
            grads.register::<Flex>(id, flex::conv3x3_dw(x, &dy));
        }
        if let Some(id) = parent(2) {
            let rows = ops.state.bias_rows;
            let channels = flex::dims::<4>(&dy)[3];
            grads.register::<Flex>(
                id,
                flex::tensor(flex::bias_gradient(&dy, rows), [rows, channels]),
            );
        }
        if let Some(id) = parent(3) {
            grads.register::<Flex>(id, dy);
        }
    }
}

impl Backward<Flex, 3> for Conv3x3 {
    type State = ConvState;
    fn backward(
        self,
        ops: Ops<ConvState, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        Self::gradients(ops, grads, checkpointer);
    }
}

impl Backward<Flex, 4> for Conv3x3 {
    type State = ConvState;
    fn backward(
        self,
        ops: Ops<ConvState, 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        Self::gradients(ops, grads, checkpointer);
    }
}

/// 3x3 convolution of stride 2; parents x, weight, bias.
#[derive(Debug)]
struct Conv3x3Stride2;

impl Backward<Flex, 3> for Conv3x3Stride2 {
    type State = (NodeId, NodeId, Window);
    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = gradient(&ops, grads);
        let (x, weight, window) = ops.state;
        let x: Floats = checkpointer.retrieve_node_output(x);
        let weight: Floats = checkpointer.retrieve_node_output(weight);
        let [to_x, to_weight, to_bias] = ops.parents;
        if let Some(node) = to_x {
            grads.register::<Flex>(node.id, flex::conv3x3_stride2_dx(&window, weight, &dy));
        }
        if let Some(node) = to_weight {
            grads.register::<Flex>(node.id, flex::conv3x3_stride2_dw(&window, x, &dy));
        }
        if let Some(node) = to_bias {
            let db = flex::bias_gradient(&dy, 1);
            grads.register::<Flex>(node.id, flex::tensor(db, [window.outputs]));
        }
    }
}

/// Matrix product; parents x, weight and, if N is 3, the bias.
#[derive(Debug)]
struct Linear;

impl Linear {
    fn gradients<const N: usize>(
        ops: Ops<(NodeId, NodeId), N>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = gradient(&ops, grads);
        let x: Floats = checkpointer.retrieve_node_output(ops.state.0);
        let weight: Floats = checkpointer.retrieve_node_output(ops.state.1);
        let parent = |i: usize| {
            ops.parents
                .get(i)
                .and_then(Option::as_ref)
                .map(|node| node.id)
        };
        if let Some(id) = parent(0) {
            grads.register::<Flex>(id, flex::linear_dx(weight, &dy));
        }
        if let Some(id) = parent(1) {
            grads.register::<Flex>(id, flex::linear_dw(x, &dy));
        }
        if let Some(id) = parent(2) {
            let outputs = flex::dims::<2>(&dy)[1];
            grads.register::<Flex>(id, flex::tensor(flex::bias_gradient(&dy, 1), [outputs]));
        }
    }
}

impl Backward<Flex, 2> for Linear {
    type State = (NodeId, NodeId);
    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        Self::gradients(ops, grads, checkpointer);
    }
}

impl Backward<Flex, 3> for Linear {
    type State = (NodeId, NodeId);
    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        Self::gradients(ops, grads, checkpointer);
    }
}

/// Group normalisation; parents x, gamma, beta.
#[derive(Debug)]
struct GroupNorm;

#[derive(Debug, Clone)]
struct NormState {
    norm: Norm,
    moments: Arc<Moments>,
    parents: [NodeId; 3],
}

impl Backward<Flex, 3> for GroupNorm {
    type State = NormState;
    fn backward(
        self,
        ops: Ops<NormState, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = gradient(&ops, grads);
        let NormState {
            norm,
            moments,
            parents,
        } = ops.state;
        let [x, gamma, beta] = parents.map(|id| checkpointer.retrieve_node_output::<Floats>(id));
        let gradients = flex::group_norm_gradients(&norm, &moments, x, gamma, beta, &dy);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct UpsampleNearest2x;

impl Backward<Flex, 1> for UpsampleNearest2x {
    type State = ();
    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradient(&ops, grads);
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, flex::upsample_dx(&dy));
        }
    }
}

#[derive(Debug)]
struct ConcatChannels;

impl Backward<Flex, 2> for ConcatChannels {
    /// Channels of both parents.
    type State = (usize, usize);
    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradient(&ops, grads);
        let (m, n) = ops.state;
        let [a, b] = ops.parents;
        if let Some(node) = a {
            grads.register::<Flex>(node.id, flex::channels(&dy, 0, m));
        }
        if let Some(node) = b {
            grads.register::<Flex>(node.id, flex::channels(&dy, m, n));
        }
    }
}

/// Attention; parents q, k, v.
#[derive(Debug)]
struct AttentionOp;

impl Backward<Flex, 3> for AttentionOp {
    type State = (Attention, [NodeId; 3]);
    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = gradient(&ops, grads);
        let (sizes, parents) = ops.state;
        let [q, k, v] = parents.map(|id| checkpointer.retrieve_node_output::<Floats>(id));
        let gradients = flex::attention_gradients(&sizes, q, k, v, &dy);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// An activation; its state is its input.
#[derive(Debug)]
enum Activation {
    Silu,
    Gelu,
    Geglu,
}

impl Backward<Flex, 1> for Activation {
    type State = NodeId;
    fn backward(self, ops: Ops<NodeId, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = gradient(&ops, grads);
        let x: Floats = checkpointer.retrieve_node_output(ops.state);
        let dx = match self {
            Self::Silu => flex::silu_dx,
            Self::Gelu => flex::gelu_dx,
            Self::Geglu => flex::geglu_dx,
        };
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, dx(x, &dy));
        }
    }
}

/// Runs the kernel and, if some parent is tracked, records how its gradients are computed.
///
/// `$save` is evaluated with the preparation in hand, to check the parents out that the gradients need.
macro_rules! record {
    ($backward:expr, [$($parent:expr),+], $output:expr, |$prep:ident| $save:expr) => {{
        let output = $output;
        match $backward.prepare::<C>([$($parent.node()),+]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let $prep = &mut prep;
                let state = $save;
                prep.finish(state, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }};
}

impl<C: CheckpointStrategy> DiffusionKernels for Autodiff<Flex, C> {
    fn conv3x3(x: Tracked, weight: Tracked, bias: Tracked) -> Tracked {
        let [px, pw, pb] = primitives([&x, &weight, &bias]);
        record!(
            Conv3x3,
            [x, weight, bias],
            flex::conv3x3(px, pw, pb, None),
            |prep| { ConvState::save(prep, &x, &weight, &bias) }
        )
    }

    fn conv3x3_residual(x: Tracked, weight: Tracked, bias: Tracked, residual: Tracked) -> Tracked {
        let [px, pw, pb, pr] = primitives([&x, &weight, &bias, &residual]);
        record!(
            Conv3x3,
            [x, weight, bias, residual],
            flex::conv3x3(px, pw, pb, Some(pr)),
            |prep| { ConvState::save(prep, &x, &weight, &bias) }
        )
    }

    fn conv3x3_stride2(x: Tracked, weight: Tracked, bias: Tracked, padding: Padding) -> Tracked {
        let outputs = flex::dims::<4>(weight.primitive())[3];
        let window = Window::stride2(flex::dims(x.primitive()), outputs, padding);
        let [px, pw, pb] = primitives([&x, &weight, &bias]);
        record!(
            Conv3x3Stride2,
            [x, weight, bias],
            flex::conv3x3_stride2(px, pw, pb, padding),
            |prep| { (prep.checkpoint(&x), prep.checkpoint(&weight), window) }
        )
    }

    fn linear(x: Tracked, weight: Tracked) -> Tracked {
        let [px, pw] = primitives([&x, &weight]);
        record!(Linear, [x, weight], flex::linear(px, pw, None), |prep| (
            prep.checkpoint(&x),
            prep.checkpoint(&weight)
        ))
    }

    fn linear_bias(x: Tracked, weight: Tracked, bias: Tracked) -> Tracked {
        let [px, pw, pb] = primitives([&x, &weight, &bias]);
        record!(
            Linear,
            [x, weight, bias],
            flex::linear(px, pw, Some(pb)),
            |prep| (prep.checkpoint(&x), prep.checkpoint(&weight))
        )
    }

    fn group_norm(
        x: Tracked,
        gamma: Tracked,
        beta: Tracked,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> Tracked {
        let norm = flex::norm(
            x.primitive(),
            gamma.primitive(),
            beta.primitive(),
            groups,
            eps,
            silu,
        );
        let (y, moments) = flex::group_norm(
            &norm,
            x.primitive().clone(),
            gamma.primitive().clone(),
            beta.primitive().clone(),
        );
        record!(GroupNorm, [x, gamma, beta], y, |prep| NormState {
            norm,
            moments: Arc::new(moments),
            parents: [
                prep.checkpoint(&x),
                prep.checkpoint(&gamma),
                prep.checkpoint(&beta)
            ],
        })
    }

    fn upsample_nearest2x(x: Tracked) -> Tracked {
        record!(
            UpsampleNearest2x,
            [x],
            flex::upsample(x.primitive().clone()),
            |_prep| ()
        )
    }

    fn concat_channels(a: Tracked, b: Tracked) -> Tracked {
        let channels = (
            flex::dims::<4>(a.primitive())[3],
            flex::dims::<4>(b.primitive())[3],
        );
        let y = flex::concat(a.primitive().clone(), b.primitive().clone());
        record!(ConcatChannels, [a, b], y, |_prep| channels)
    }

    fn attention(q: Tracked, k: Tracked, v: Tracked, scale: f64) -> Tracked {
        let sizes = flex::attention_sizes(q.primitive(), v.primitive(), scale);
        let y = flex::attention(
            &sizes,
            q.primitive().clone(),
            k.primitive().clone(),
            v.primitive().clone(),
        );
        record!(AttentionOp, [q, k, v], y, |prep| {
            (
                sizes,
                [
                    prep.checkpoint(&q),
                    prep.checkpoint(&k),
                    prep.checkpoint(&v),
                ],
            )
        })
    }

    fn silu(x: Tracked) -> Tracked {
        let y = flex::silu(x.primitive().clone());
        record!(Activation::Silu, [x], y, |prep| prep.checkpoint(&x))
    }

    fn gelu(x: Tracked) -> Tracked {
        let y = flex::gelu(x.primitive().clone());
        record!(Activation::Gelu, [x], y, |prep| prep.checkpoint(&x))
    }

    fn geglu(x: Tracked) -> Tracked {
        let y = flex::geglu(x.primitive().clone());
        record!(Activation::Geglu, [x], y, |prep| prep.checkpoint(&x))
    }

    /// The results are new leaves: no gradient flows through an optimizer step.
    fn adamw_step(
        param: Tracked,
        grad: Tracked,
        moment1: Tracked,
        moment2: Tracked,
        step: AdamWStep,
    ) -> (Tracked, Tracked, Tracked) {
        let [param, grad, moment1, moment2] =
            [param, grad, moment1, moment2].map(|t| t.into_primitive());
        let (param, moment1, moment2) = flex::adamw(&step, param, grad, moment1, moment2);
        let leaf = <Self as AutodiffBackend>::from_inner;
        (leaf(param), leaf(moment1), leaf(moment2))
    }
}
