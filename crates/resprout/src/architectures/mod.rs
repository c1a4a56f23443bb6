//! Networks built from a name: parameters are called as in torchvision, or in the repository that a
//! row cites, so that their weights can be read.

mod build;
mod densenet;
mod lenet;
mod mobilenet;
mod resnet;
mod vgg;

use crate::error::{Error, Result};
use crate::lipschitz;
use crate::model::Model;
use crate::table::{self, Entry};

pub use build::{INITS, Init, redraw};
#[cfg(test)]
pub(crate) use build::{Net, Window};

/// What a network is built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Classes, or the architecture's usual number.
    pub classes: Option<usize>,
    /// Channels, height and width of an image, or the architecture's usual ones.
    pub image: Option<[usize; 3]>,
}

/// Builds a network.
pub type Build = fn(&mut build::Net, classes: usize) -> Result<String>;

/// How a row builds: the usual image and number of classes, and the layers.
pub struct Architecture {
    /// Channels, height and width.
    pub image: [usize; 3],
    /// Classes.
    pub classes: usize,
    /// Adds the layers and returns the name of the output.
    pub layers: Build,
}

/// All architectures.
pub static ARCHITECTURES: &[Entry<Architecture>] = &[
    lenet::LENET_300_100,
    lenet::LENET_5,
    vgg::VGG_16_BN_CIFAR,
    vgg::VGG_19_BN_CIFAR,
    vgg::VGG_LIKE,
    resnet::RESNET_20,
    resnet::RESNET_32,
    resnet::RESNET_44,
    resnet::RESNET_56,
    resnet::RESNET_18_CIFAR,
    resnet::RESNET_34_CIFAR,
    resnet::RESNET_50_CIFAR,
    resnet::RESNET_18,
    resnet::RESNET_34,
    resnet::RESNET_50,
    resnet::RESNET_152,
    densenet::DENSENET_121_CIFAR,
    densenet::DENSENET_121,
    mobilenet::MOBILENET_V2,
];

/// Builds the architecture of that name with fresh weights.
pub fn build(name: &str, shape: &Shape, init: &str, seed: u64) -> Result<Model> {
    let (entry, _) = table::find(ARCHITECTURES, "--arch", name)?;
    let (init, _) = table::find(INITS, "--init", init)?;
    let recipe = &entry.build;
    let image = shape.image.unwrap_or(recipe.image);
    let classes = shape.classes.unwrap_or(recipe.classes);
    if classes == 0 || image.contains(&0) {
        return Err(Error::option(format!("--arch {name}: {classes} classes and images of {image:?}: none may be 0")));
    }
    let mut net = build::Net::new(image, &init.build, seed);
    let output = (recipe.layers)(&mut net, classes).map_err(|e| e.at(format!("--arch {name}, images of {image:?}")))?;
    let mut model = net.finish(entry.name, &output, classes)?;
    if let Some(how) = init.build.repair {
        lipschitz::repair(&mut model, how)?;
    }
    Ok(model)
}
