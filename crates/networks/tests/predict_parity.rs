//! Networks against those of diffusers 0.42.1 on PyTorch 2.15: `fixtures/parity/predict_*`, each made by the script in
//! its folder from weights that both sides compute.

mod support;

use burn::tensor::Device;
use retrack_networks::config::UNet2DConfig;
use retrack_networks::denoiser::Denoiser;
use retrack_networks::parameters::to_host;
use retrack_networks::process::Time;
use support::{Case, channel_last, formula, hash, splitmix, worst};

/// Largest difference allowed, as a share of the image's largest expected magnitude. PyTorch's own f32 is up to 1e-6
/// away from the expected numbers, which were computed in f64.
const TOLERANCE: f32 = 1e-5;

/// One test for each case: what is computed, and what is refused with the name of the key that is to blame.
macro_rules! predictions {
    (agree { $($agree:ident)* } refused { $($refused:ident: $key:literal)* }) => {
        /// The case's network, given the case's input, predicts what diffusers' does.
        mod the_prediction_equals_that_of_diffusers {
            $(#[test]
            fn $agree() {
                super::assert_agrees(concat!("predict_", stringify!($agree)));
            })*
        }

        mod the_configuration_is_refused_by_name {
            $(#[test]
            fn $refused() {
                super::assert_refused(concat!("predict_", stringify!($refused)), $key);
            })*
        }

        #[test]
        fn every_case_has_a_test() {
            let mut tested = vec![
                $(concat!("predict_", stringify!($agree)),)*
                $(concat!("predict_", stringify!($refused)),)*
            ];
            tested.sort_unstable();
            // Those of conditional networks are tested in a file of their own.
            let mut cases = support::cases("predict_");
            cases.retain(|name| !name.starts_with("predict_sd"));
            assert_eq!(cases, tested);
        }
    };
}

predictions! {
    agree {
        attention_everywhere
        celebahq_narrow
        center_input
        cifar10
        class_table
        demo
        downsample_resnet
        fourier
        fourier_scale_shift_sqrt2
        groups_8_of_24
        head_dim_null
        head_dim_uneven
        layers_3
        legacy_block_names
        mid_scale_sqrt2
        mnist_tshirt
        no_mid_attention
        no_mid_block
        one_block
        out_channels_6
        padding_0
        rectangle
        scale_shift
        scale_shift_attn_groups
        sin_cos_shift_1
        time_embedding_dim
        upsample_resnet
    }
    refused {
        act_gelu: "act_fn"
        class_identity: "class_embed_type"
        class_timestep: "class_embed_type"
        learned_time: "time_embedding_type"
        resnet_blocks: "down_block_types"
    }
}

fn assert_agrees(name: &str) {
    let case = Case::read(name);
    let device = Device::flex();
    let network = case.network(&device);
    let timesteps: Vec<Time> = case
        .integers("timestep")
        .into_iter()
        .map(|t| Time::new(t as f64))
        .collect();
    let labels = case
        .has("class_labels")
        .then(|| case.integers("class_labels"));
    let sample = case.image_tensor("sample", &device);
    let prediction = network
        .predict(sample, &timesteps, labels.as_deref(), None)
        .unwrap();

    let (shape, expected) = case.images("prediction");
    assert_eq!(prediction.dims(), shape);
    let worst = worst(&to_host(prediction), &expected, shape[0]);
    println!("{name}: {:.1e}", worst.error);
    assert!(
        worst.error <= TOLERANCE,
        "{name}, timesteps {timesteps:?}: {worst:?}"
    );
}

fn assert_refused(name: &str, key: &str) {
    let config = Case::read(name).json("config.json");
    let error = UNet2DConfig::from_json(&config).unwrap_err().to_string();
    assert!(error.contains(&format!("`{key}`")), "{error}");
}

#[test]
fn weights_by_formula_are_those_of_the_readme() {
    let seed = hash("conv_in.weight");
    assert_eq!(seed, 0x1CE6_9906_BDC5_74A7);
    assert_eq!(splitmix(seed, 0), 0x923D_71E7_A6B0_8CA4);
    assert_eq!(splitmix(seed, 1), 0xE21D_A0BC_5C16_9230);
    for (name, shape, expected) in [
        (
            "conv_in.weight",
            &[64, 1, 3, 3][..],
            &[0x3D86_CB90u32, 0x3EB5_4556, 0xBEC1_E6EE][..],
        ),
        ("conv_norm_out.weight", &[64], &[0x3F72_599C, 0x3F82_3C40]),
        ("conv_in.bias", &[64], &[0xBCD3_569D, 0x3D2E_8467]),
    ] {
        let values = formula(name, shape);
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits[..expected.len()], *expected, "{name}");
    }
}

#[test]
fn channels_move_from_first_to_last() {
    // Two images of two channels and three pixels.
    let first = [1., 2., 3., 10., 20., 30., 4., 5., 6., 40., 50., 60.];
    let last = [1., 10., 2., 20., 3., 30., 4., 40., 5., 50., 6., 60.];
    assert_eq!(channel_last(&first, 2, 3), last);
}
