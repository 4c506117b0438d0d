//! A denoising network of any family as one type.
//!
//! Burn's [`Module`] is generic over its visitors and so cannot be a trait object. Here a parameter passes between a
//! caller's visitor and a network that nobody knows the type of, as [`Any`], and takes its type again on the other side.

use std::any::Any;
use std::ops::{Deref, DerefMut};

use burn::module::{Devices, Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::denoiser::Denoiser;

/// A denoising network: a module with its parameters under their checkpoint names, whatever its family.
///
/// What a visitor sees by path alone (`visit_float_with_path` and its like, which Burn's own stores call) does not reach
/// it; everything in this workspace visits parameters.
#[derive(Debug)]
pub struct Network(Box<dyn Erased>);

impl Network {
    /// `network`, whose type is not seen any more.
    pub fn new(network: impl Module + Denoiser + 'static) -> Self {
        Self(Box::new(network))
    }
}

impl Clone for Network {
    fn clone(&self) -> Self {
        Self(self.0.cloned())
    }
}

/// What a network computes needs no more of it than [`Denoiser`] says.
impl Deref for Network {
    type Target = dyn Denoiser;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl DerefMut for Network {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0
    }
}

impl Module for Network {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.devices_with(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.forked(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.moved(device))
    }

    fn train(self) -> Self {
        Self(self.0.training())
    }

    fn valid(&self) -> Self {
        Self(self.0.validating())
    }

    fn materialize(self) -> Self {
        Self(self.0.materialized())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visited(&mut Outer(visitor));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Self(self.0.mapped(&mut Outer(mapper)))
    }
}

/// [`Module`] and [`Denoiser`], as a trait object.
trait Erased: Denoiser + Send + std::fmt::Debug {
    fn cloned(&self) -> Box<dyn Erased>;
    fn devices_with(&self, devices: Devices) -> Devices;
    fn forked(self: Box<Self>, device: &Device) -> Box<dyn Erased>;
    fn moved(self: Box<Self>, device: &Device) -> Box<dyn Erased>;
    fn training(self: Box<Self>) -> Box<dyn Erased>;
    fn validating(&self) -> Box<dyn Erased>;
    fn materialized(self: Box<Self>) -> Box<dyn Erased>;
    fn visited(&self, visitor: &mut dyn Visitor);
    fn mapped(self: Box<Self>, mapper: &mut dyn Mapper) -> Box<dyn Erased>;
}

impl<N: Module + Denoiser + 'static> Erased for N {
    fn cloned(&self) -> Box<dyn Erased> {
        Box::new(self.clone())
    }

    fn devices_with(&self, devices: Devices) -> Devices {
        self.collect_devices(devices)
    }

    fn forked(self: Box<Self>, device: &Device) -> Box<dyn Erased> {
        Box::new(self.fork(device))
    }

    fn moved(self: Box<Self>, device: &Device) -> Box<dyn Erased> {
        Box::new(self.to_device(device))
    }

    fn training(self: Box<Self>) -> Box<dyn Erased> {
        Box::new(self.train())
    }

    fn validating(&self) -> Box<dyn Erased> {
        Box::new(self.valid())
    }

    fn materialized(self: Box<Self>) -> Box<dyn Erased> {
        Box::new(self.materialize())
    }

    fn visited(&self, visitor: &mut dyn Visitor) {
        self.visit(&mut Inner(visitor));
    }

    fn mapped(self: Box<Self>, mapper: &mut dyn Mapper) -> Box<dyn Erased> {
        Box::new(self.map(&mut Inner(mapper)))
    }
}

/// [`ModuleVisitor`], as a trait object. A parameter is a `&Param<Tensor<D>>` of floats, integers or truth values.
trait Visitor {
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
    fn parameter(&mut self, parameter: &dyn Any);
    fn flag(&mut self, flag: &Param<Flag>);
}

/// [`ModuleMapper`], as a trait object. A parameter is a `Param<Tensor<D>>`, and comes back as one of the same type.
trait Mapper {
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
    fn parameter(&mut self, parameter: Box<dyn Any>) -> Box<dyn Any>;
    fn flag(&mut self, flag: Param<Flag>) -> Param<Flag>;
}

/// On the network's side: gives parameters away.
struct Inner<T>(T);

/// On the caller's side: hands parameters to what is generic over their rank.
struct Outer<T>(T);

impl ModuleVisitor for Inner<&mut dyn Visitor> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit(name, container);
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.0.parameter(parameter);
    }

    fn visit_int<const D: usize>(&mut self, parameter: &Param<Tensor<D, Int>>) {
        self.0.parameter(parameter);
    }

    fn visit_bool<const D: usize>(&mut self, parameter: &Param<Tensor<D, Bool>>) {
        self.0.parameter(parameter);
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.flag(flag);
    }
}

impl ModuleMapper for Inner<&mut dyn Mapper> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit(name, container);
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        returned(self.0.parameter(Box::new(parameter)))
    }

    fn map_int<const D: usize>(
        &mut self,
        parameter: Param<Tensor<D, Int>>,
    ) -> Param<Tensor<D, Int>> {
        returned(self.0.parameter(Box::new(parameter)))
    }

    fn map_bool<const D: usize>(
        &mut self,
        parameter: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        returned(self.0.parameter(Box::new(parameter)))
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.0.flag(flag)
    }
}

fn returned<T: 'static>(parameter: Box<dyn Any>) -> T {
    *parameter.downcast().expect("a mapper keeps the type")
}

/// Tries each rank that a parameter may have.
macro_rules! for_each_rank {
    ($try:ident) => {
        $try!(1);
        $try!(2);
        $try!(3);
        $try!(4);
        $try!(5);
        $try!(6);
    };
}

impl<V: ModuleVisitor> Visitor for Outer<&mut V> {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }

    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }

    fn parameter(&mut self, parameter: &dyn Any) {
        macro_rules! visit {
            ($rank:literal) => {
                if let Some(parameter) = parameter.downcast_ref::<Param<Tensor<$rank>>>() {
                    return self.0.visit_float(parameter);
                }
                if let Some(parameter) = parameter.downcast_ref::<Param<Tensor<$rank, Int>>>() {
                    return self.0.visit_int(parameter);
                }
                if let Some(parameter) = parameter.downcast_ref::<Param<Tensor<$rank, Bool>>>() {
                    return self.0.visit_bool(parameter);
                }
            };
        }
        for_each_rank!(visit);
        unreachable!("no parameter has more dimensions");
    }

    fn flag(&mut self, flag: &Param<Flag>) {
        self.0.visit_flag(flag);
    }
}

impl<M: ModuleMapper> Mapper for Outer<&mut M> {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }

    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }

    fn parameter(&mut self, mut parameter: Box<dyn Any>) -> Box<dyn Any> {
        macro_rules! map {
            ($rank:literal) => {
                match parameter.downcast::<Param<Tensor<$rank>>>() {
                    Ok(own) => return Box::new(self.0.map_float(*own)),
                    Err(other) => parameter = other,
                }
                match parameter.downcast::<Param<Tensor<$rank, Int>>>() {
                    Ok(own) => return Box::new(self.0.map_int(*own)),
                    Err(other) => parameter = other,
                }
                match parameter.downcast::<Param<Tensor<$rank, Bool>>>() {
                    Ok(own) => return Box::new(self.0.map_bool(*own)),
                    Err(other) => parameter = other,
                }
            };
        }
        for_each_rank!(map);
        drop(parameter);
        unreachable!("no parameter has more dimensions");
    }

    fn flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.0.map_flag(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UNet2DConfig;
    use crate::parameters;
    use crate::process::Time;
    use crate::random::Random;
    use burn::tensor::Device;
    use serde_json::json;

    /// With parameters of one, two and four dimensions.
    fn network(device: &Device) -> crate::unet2d::UNet2DModel {
        let config = UNet2DConfig::from_json(&json!({
            "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [8, 8],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "layers_per_block": 1,
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4,
            "num_class_embeds": 3
        }));
        parameters::initialize(config.unwrap().init(device), &Random::new(1))
    }

    #[test]
    fn a_network_whose_type_is_not_seen_computes_and_changes_as_it_did() {
        let device = Device::flex().autodiff();
        let seen = network(&device);
        let unseen = Network::new(seen.clone());
        assert_eq!(parameters::export(&unseen), parameters::export(&seen));
        let x = Tensor::<4>::ones([1, 8, 8, 1], &device);
        let gradients = |network: &dyn Denoiser| -> Vec<Vec<f32>> {
            let prediction = network.predict(x.clone(), &[Time::timestep(7)], Some(&[2]), None);
            let gradients = network.gradients(prediction.unwrap().square().sum());
            gradients.0.into_iter().map(parameters::to_host).collect()
        };
        assert_eq!(gradients(&*unseen), gradients(&seen));
        let doubled = |values: Tensor<1>| values.mul_scalar(2.0);
        let unseen = parameters::map(unseen, |_, values| doubled(values));
        let seen = parameters::map(seen, |_, values| doubled(values));
        assert_eq!(
            parameters::export(&unseen.valid()),
            parameters::export(&seen.valid())
        );
        assert!(!unseen.valid().devices()[0].is_autodiff());
        assert_eq!(unseen.no_grad().num_params(), seen.num_params());
    }
}
