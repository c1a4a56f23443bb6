//! Networks built from a name. Parameters have the names of torchvision, or of the repository that a row cites, so that its
//! weights can be read.

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

pub use build::{Architecture, Build, INITS, Init, redraw};
#[cfg(test)]
pub(crate) use build::{Net, Window};

/// The classes and images that a network is built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Classes; the architecture's default if `None`.
    pub classes: Option<usize>,
    /// Channels, height and width of an image; the architecture's default if `None`.
    pub image: Option<[usize; 3]>,
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

/// Builds an architecture, a row of [`ARCHITECTURES`], with fresh weights by `init`, a row of [`INITS`].
///
/// # Errors
/// Of kind `Option` for unknown names, and for images or classes that the architecture does not allow.
pub fn build(name: &str, shape: &Shape, init: &str, seed: u64) -> Result<Model> {
    let (entry, _) = table::find(ARCHITECTURES, "architecture", name)?;
    let (init, _) = table::find(INITS, "initialisation", init)?;
    let architecture = &entry.build;
    let image = shape.image.unwrap_or(architecture.image);
    let classes = shape.classes.unwrap_or(architecture.classes);
    if classes == 0 || image.contains(&0) {
        return Err(Error::option(format!("architecture {name}: {classes} classes and images of {image:?}: none may be 0")));
    }
    let mut net = build::Net::new(image, &init.build, seed);
    let output =
        (architecture.layers)(&mut net, classes).map_err(|e| e.at(format!("architecture {name}, images of {image:?}")))?;
    let mut model = net.finish(entry.name, &output, classes)?;
    if let Some(how) = init.build.repair {
        lipschitz::repair(&mut model, how)?;
    }
    Ok(model)
}
