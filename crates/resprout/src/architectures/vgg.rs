//! VGG for images of 32x32: convolutions with batch normalisation and one linear layer.

use super::build::{Architecture, Net, Value, Window};
use crate::error::Result;
use crate::table::Entry;

const PAPER: &str = "Simonyan, Zisserman, Very deep convolutional networks, ICLR 2015";

/// Channels of each convolution; 0 is a max pooling.
const VGG_16: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0];
const VGG_19: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0];

pub(super) const VGG_16_BN_CIFAR: Entry<Architecture> = Entry {
    name: "vgg-16-bn-cifar",
    about: "13 convolutions without bias, mean, one linear layer (features.N, classifier); images of 3x32x32",
    paper: PAPER,
    options: &[],
    build: Architecture { image: [3, 32, 32], classes: 10, layers: |net, classes| mean_head(net, VGG_16, classes) },
};

pub(super) const VGG_19_BN_CIFAR: Entry<Architecture> = Entry {
    name: "vgg-19-bn-cifar",
    about: "16 convolutions without bias, mean, one linear layer (features.N, classifier); images of 3x32x32",
    paper: PAPER,
    options: &[],
    build: Architecture { image: [3, 32, 32], classes: 10, layers: |net, classes| mean_head(net, VGG_19, classes) },
};

pub(super) const VGG_LIKE: Entry<Architecture> = Entry {
    name: "vgg-like",
    about: "VGG-D of SNIP: 13 convolutions, linear layers of 512 and 512 units, batch normalisation everywhere; images of 3x32x32",
    paper: "Lee, Ajanthan, Torr, SNIP, ICLR 2019",
    options: &[],
    build: Architecture { image: [3, 32, 32], classes: 10, layers: snip },
};

/// Numbers `features.N` as a torch Sequential of Conv, BatchNorm, ReLU and MaxPool.
fn features(net: &mut Net, channels: &[usize], bias: bool) -> Result<Value> {
    let (mut x, mut index) = (net.input(), 0);
    for &channels in channels {
        if channels == 0 {
            x = net.max_pool(&x, &format!("features.{index}"), Window::new(2, 2, 0))?;
            index += 1;
            continue;
        }
        x = net.conv(&x, &format!("features.{index}"), channels, Window::new(3, 1, 1), 1, bias)?;
        x = net.batch_norm(&x, &format!("features.{}", index + 1));
        x = net.relu(&x);
        index += 3;
    }
    Ok(x)
}

fn mean_head(net: &mut Net, channels: &[usize], classes: usize) -> Result<String> {
    let x = features(net, channels, false)?;
    let x = net.global_average(&x, "avgpool");
    let x = net.flatten(&x, "flatten");
    Ok(net.linear(&x, "classifier", classes).name)
}

/// Numbers `classifier.N` as a torch Sequential of Linear, BatchNorm and ReLU.
fn snip(net: &mut Net, classes: usize) -> Result<String> {
    let x = features(net, VGG_16, true)?;
    let mut x = net.flatten(&x, "flatten");
    for index in [0, 3] {
        x = net.linear(&x, &format!("classifier.{index}"), 512);
        x = net.batch_norm(&x, &format!("classifier.{}", index + 1));
        x = net.relu(&x);
    }
    Ok(net.linear(&x, "classifier.6", classes).name)
}
