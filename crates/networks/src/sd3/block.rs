//! A block of Stable Diffusion 3's transformer (MMDiT).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use retrack_kernels as kernels;

use super::SD3Config;
use crate::adaptive::{AdaLayerNorm, RmsNorm, gated, modulated, normalized};
use crate::attention::{merge_heads, split_heads};
use crate::feed_forward::FeedForward;
use crate::layers::Linear;

const NORM_EPS: f64 = 1e-6;

/// Attention over one sequence, and in most cases a second one, which has projections of its own (diffusers' `Attention` with
/// `JointAttnProcessor2_0`).
#[derive(Module, Debug)]
pub(crate) struct JointAttention {
    pub to_q: Linear,
    pub to_k: Linear,
    pub to_v: Linear,
    /// One layer; the checkpoint's name is `to_out.0`.
    pub to_out: Vec<Linear>,
    pub add_q_proj: Option<Linear>,
    pub add_k_proj: Option<Linear>,
    pub add_v_proj: Option<Linear>,
    /// Absent where nobody looks at the second sequence any more.
    pub to_add_out: Option<Linear>,
    pub norm_q: Option<RmsNorm>,
    pub norm_k: Option<RmsNorm>,
    pub norm_added_q: Option<RmsNorm>,
    pub norm_added_k: Option<RmsNorm>,
    heads: usize,
}

/// Which sequences a [`JointAttention`] looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sequences {
    Image,
    Both,
    /// Both, of which the second one ends there.
    BothLast,
}

impl JointAttention {
    fn new(config: &SD3Config, sequences: Sequences, device: &Device) -> Self {
        let width = config.width();
        let linear = || Linear::new(width, width, device);
        let norm = || RmsNorm::new(config.attention_head_dim, NORM_EPS, device);
        let both = sequences != Sequences::Image;
        let (added, goes_on) = (|| both.then(linear), sequences == Sequences::Both);
        let normed = || config.qk_norm.then(norm);
        let added_normed = || (config.qk_norm && both).then(norm);
        Self {
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            to_out: vec![linear()],
            add_q_proj: added(),
            add_k_proj: added(),
            add_v_proj: added(),
            to_add_out: goes_on.then(linear),
            norm_q: normed(),
            norm_k: normed(),
            norm_added_q: added_normed(),
            norm_added_k: added_normed(),
            heads: config.num_attention_heads,
        }
    }

    /// # Shapes
    /// `image`, `text`: `[batch * tokens, width]`, of as many tokens as they have; so are the results. There is none for `text`
    /// where it is not given or ends here.
    fn forward(
        &self,
        image: Tensor<2>,
        text: Option<Tensor<2>>,
        batch: usize,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let tokens = image.dims()[0] / batch;
        let project = |x: &Tensor<2>, layer: &Linear, norm: &Option<RmsNorm>| {
            let x = split_heads(layer.forward(x.clone()), batch, self.heads);
            match norm {
                Some(norm) => norm.forward(x),
                None => x,
            }
        };
        let mut q = project(&image, &self.to_q, &self.norm_q);
        let mut k = project(&image, &self.to_k, &self.norm_k);
        let mut v = project(&image, &self.to_v, &None);
        if let (Some(text), Some(to_q), Some(to_k), Some(to_v)) =
            (&text, &self.add_q_proj, &self.add_k_proj, &self.add_v_proj)
        {
            q = Tensor::cat(vec![q, project(text, to_q, &self.norm_added_q)], 1);
            k = Tensor::cat(vec![k, project(text, to_k, &self.norm_added_k)], 1);
            v = Tensor::cat(vec![v, project(text, to_v, &None)], 1);
        }
        let scale = 1.0 / (q.dims()[2] as f64).sqrt();
        let attended = kernels::attention(q, k, v, scale);
        let all = attended.dims()[1];
        let part = |first, count| {
            let part = attended.clone().narrow(1, first, count);
            merge_heads(part, batch, self.heads)
        };
        let text = self.to_add_out.as_ref().filter(|_| all > tokens);
        let text = text.map(|layer| layer.forward(part(tokens, all - tokens)));
        (self.to_out[0].forward(part(0, tokens)), text)
    }
}

/// Attention of image and text over one another, then a feed-forward layer of each (diffusers' `JointTransformerBlock`).
#[derive(Module, Debug)]
pub(crate) struct JointTransformerBlock {
    pub norm1: AdaLayerNorm,
    pub norm1_context: AdaLayerNorm,
    pub attn: JointAttention,
    pub attn2: Option<JointAttention>,
    pub ff: FeedForward,
    /// Absent in the last block, after which nobody looks at the text.
    pub ff_context: Option<FeedForward>,
}

impl JointTransformerBlock {
    pub(super) fn new(config: &SD3Config, number: usize, device: &Device) -> Self {
        let width = config.width();
        let last = number + 1 == config.num_layers;
        let dual = config.dual_attention_layers.contains(&number);
        let sequences = match last {
            true => Sequences::BothLast,
            false => Sequences::Both,
        };
        let alone = || JointAttention::new(config, Sequences::Image, device);
        Self {
            norm1: AdaLayerNorm::new(width, if dual { 9 } else { 6 }, device),
            norm1_context: AdaLayerNorm::new(width, if last { 2 } else { 6 }, device),
            attn: JointAttention::new(config, sequences, device),
            attn2: dual.then(alone),
            ff: FeedForward::tanh_gelu(width, device),
            ff_context: (!last).then(|| FeedForward::tanh_gelu(width, device)),
        }
    }

    /// # Shapes
    /// `image`, `text`: `[batch * tokens, width]`, unchanged; `vector`: `[batch, width]`, after its SiLU. The last block gives no
    /// text back.
    pub(super) fn forward(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        vector: &Tensor<2>,
        batch: usize,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let normed = normalized(image.clone());
        let (own, second) = match &self.attn2 {
            None => (self.norm1.parts::<6>(vector), None),
            Some(attention) => {
                let [a, b, c, d, e, f, shift, scale, gate] = self.norm1.parts::<9>(vector);
                let x = modulated(normed.clone(), scale, shift);
                let (attended, _) = attention.forward(x, None, batch);
                ([a, b, c, d, e, f], Some(gated(attended, gate)))
            }
        };
        let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate] = own;
        let normed = modulated(normed, scale, shift);

        let normed_text = normalized(text.clone());
        let (normed_text, of_text) = match self.ff_context {
            None => {
                let [scale, shift] = self.norm1_context.parts::<2>(vector);
                (modulated(normed_text, scale, shift), None)
            }
            Some(_) => {
                let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate] =
                    self.norm1_context.parts::<6>(vector);
                let rest = (gate, mlp_shift, mlp_scale, mlp_gate);
                (modulated(normed_text, scale, shift), Some(rest))
            }
        };
        let (attended, attended_text) = self.attn.forward(normed, Some(normed_text), batch);

        let mut image = image + gated(attended, gate);
        if let Some(second) = second {
            image = image + second;
        }
        let normed = modulated(normalized(image.clone()), mlp_scale, mlp_shift);
        let image = image + gated(self.ff.forward(normed), mlp_gate);

        let text = match (&self.ff_context, of_text, attended_text) {
            (Some(feed_forward), Some((gate, shift, scale, mlp_gate)), Some(attended)) => {
                let text = text + gated(attended, gate);
                let normed = modulated(normalized(text.clone()), scale, shift);
                Some(text + gated(feed_forward.forward(normed), mlp_gate))
            }
            _ => None,
        };
        (image, text)
    }
}
