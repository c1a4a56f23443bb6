//! Residual networks: those for CIFAR have shortcuts without weights, those for ImageNet have their own stem or one for
//! small images.

use super::build::{Architecture, Net, Value, Window};
use crate::error::Result;
use crate::table::Entry;

const PAPER: &str = "He, Zhang, Ren, Sun, Deep residual learning for image recognition, CVPR 2016";
const CIFAR: [usize; 3] = [3, 32, 32];
const IMAGENET: [usize; 3] = [3, 224, 224];

/// A residual network for CIFAR with `$blocks` blocks per stage.
macro_rules! option_a {
    ($constant:ident, $name:literal, $blocks:literal) => {
        pub(super) const $constant: Entry<Architecture> = Entry {
            name: $name,
            about: "16, 32, 64 channels, shortcuts without weights (option A: conv1, bn1, layerS.B, linear); images of 3x32x32",
            paper: PAPER,
            options: &[],
            build: Architecture { image: CIFAR, classes: 10, layers: |net, classes| thin(net, $blocks, classes) },
        };
    };
}

option_a!(RESNET_20, "resnet-20", 3);
option_a!(RESNET_32, "resnet-32", 5);
option_a!(RESNET_44, "resnet-44", 7);
option_a!(RESNET_56, "resnet-56", 9);

/// A residual network for ImageNet.
macro_rules! wide {
    ($constant:ident, $name:literal, $blocks:expr, $bottleneck:literal, $image:expr, $classes:literal, $about:literal) => {
        pub(super) const $constant: Entry<Architecture> = Entry {
            name: $name,
            about: $about,
            paper: PAPER,
            options: &[],
            build: Architecture {
                image: $image,
                classes: $classes,
                layers: |net, classes| wide(net, $blocks, $bottleneck, $classes == 10, classes),
            },
        };
    };
}

wide!(RESNET_18, "resnet-18", [2, 2, 2, 2], false, IMAGENET, 1000, "torchvision's resnet18; images of 3x224x224");
wide!(RESNET_34, "resnet-34", [3, 4, 6, 3], false, IMAGENET, 1000, "torchvision's resnet34; images of 3x224x224");
wide!(RESNET_50, "resnet-50", [3, 4, 6, 3], true, IMAGENET, 1000, "torchvision's resnet50; images of 3x224x224");
wide!(RESNET_152, "resnet-152", [3, 8, 36, 3], true, IMAGENET, 1000, "torchvision's resnet152; images of 3x224x224");
wide!(
    RESNET_18_CIFAR,
    "resnet-18-cifar",
    [2, 2, 2, 2],
    false,
    CIFAR,
    10,
    "resnet18 with a 3x3 stem of stride 1 and no pooling behind it; images of 3x32x32"
);
wide!(
    RESNET_34_CIFAR,
    "resnet-34-cifar",
    [3, 4, 6, 3],
    false,
    CIFAR,
    10,
    "resnet34 with a 3x3 stem of stride 1 and no pooling behind it; images of 3x32x32"
);
wide!(
    RESNET_50_CIFAR,
    "resnet-50-cifar",
    [3, 4, 6, 3],
    true,
    CIFAR,
    10,
    "resnet50 with a 3x3 stem of stride 1 and no pooling behind it; images of 3x32x32"
);

fn thin(net: &mut Net, blocks: usize, classes: usize) -> Result<String> {
    let x = net.conv(&net.input(), "conv1", 16, Window::new(3, 1, 1), 1, false)?;
    let x = net.batch_norm(&x, "bn1");
    let mut x = net.relu(&x);
    for (stage, channels) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = basic(net, &x, &name, channels, stride)?;
            let shortcut = if stride == 2 { net.pad_shortcut(&x, &format!("{name}.shortcut"), channels) } else { x };
            let sum = net.add(&y, &shortcut, &format!("{name}.add"));
            x = net.relu(&sum);
        }
    }
    let x = net.global_average(&x, "avgpool");
    let x = net.flatten(&x, "flatten");
    Ok(net.linear(&x, "linear", classes).name)
}

/// Two convolutions of 3x3.
fn basic(net: &mut Net, x: &Value, name: &str, channels: usize, stride: usize) -> Result<Value> {
    let y = net.conv(x, &format!("{name}.conv1"), channels, Window::new(3, stride, 1), 1, false)?;
    let y = net.batch_norm(&y, &format!("{name}.bn1"));
    let y = net.relu(&y);
    let y = net.conv(&y, &format!("{name}.conv2"), channels, Window::new(3, 1, 1), 1, false)?;
    Ok(net.batch_norm(&y, &format!("{name}.bn2")))
}

/// Convolutions of 1x1, 3x3 (with the stride) and 1x1.
fn bottleneck(net: &mut Net, x: &Value, name: &str, channels: usize, stride: usize) -> Result<Value> {
    let y = net.conv(x, &format!("{name}.conv1"), channels, Window::new(1, 1, 0), 1, false)?;
    let y = net.batch_norm(&y, &format!("{name}.bn1"));
    let y = net.relu(&y);
    let y = net.conv(&y, &format!("{name}.conv2"), channels, Window::new(3, stride, 1), 1, false)?;
    let y = net.batch_norm(&y, &format!("{name}.bn2"));
    let y = net.relu(&y);
    let y = net.conv(&y, &format!("{name}.conv3"), channels * 4, Window::new(1, 1, 0), 1, false)?;
    Ok(net.batch_norm(&y, &format!("{name}.bn3")))
}

fn wide(net: &mut Net, blocks: [usize; 4], deep: bool, small: bool, classes: usize) -> Result<String> {
    let stem = if small { Window::new(3, 1, 1) } else { Window::new(7, 2, 3) };
    let x = net.conv(&net.input(), "conv1", 64, stem, 1, false)?;
    let x = net.batch_norm(&x, "bn1");
    let mut x = net.relu(&x);
    if !small {
        x = net.max_pool(&x, "maxpool", Window::new(3, 2, 1))?;
    }
    for (stage, count) in blocks.into_iter().enumerate() {
        let channels = 64 << stage;
        for block in 0..count {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = match deep {
                true => bottleneck(net, &x, &name, channels, stride)?,
                false => basic(net, &x, &name, channels, stride)?,
            };
            let shortcut = match stride != 1 || x.channels != y.channels {
                true => {
                    let window = Window::new(1, stride, 0);
                    let projected = net.conv(&x, &format!("{name}.downsample.0"), y.channels, window, 1, false)?;
                    net.batch_norm(&projected, &format!("{name}.downsample.1"))
                }
                false => x,
            };
            let sum = net.add(&y, &shortcut, &format!("{name}.add"));
            x = net.relu(&sum);
        }
    }
    let x = net.global_average(&x, "avgpool");
    let x = net.flatten(&x, "flatten");
    Ok(net.linear(&x, "fc", classes).name)
}
