//! MobileNetV2 with torchvision's names.

use super::build::{Architecture, Net, Value, Window};
use crate::error::Result;
use crate::table::Entry;

pub(super) const MOBILENET_V2: Entry<Architecture> = Entry {
    name: "mobilenet-v2",
    about: "torchvision's mobilenet_v2, without its dropout; images of 3x224x224",
    paper: "Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2, CVPR 2018",
    options: &[],
    build: Architecture { image: [3, 224, 224], classes: 1000, layers },
};

/// Expansion, channels, blocks and stride of each stage.
const STAGES: [[usize; 4]; 7] =
    [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]];

fn layers(net: &mut Net, classes: usize) -> Result<String> {
    let mut x = unit(net, &net.input(), "features.0", 32, Window::new(3, 2, 1), 1)?;
    let mut index = 1;
    for [expansion, channels, blocks, stride] in STAGES {
        for block in 0..blocks {
            let stride = if block == 0 { stride } else { 1 };
            x = inverted(net, &x, &format!("features.{index}"), expansion, channels, stride)?;
            index += 1;
        }
    }
    let x = unit(net, &x, &format!("features.{index}"), 1280, Window::new(1, 1, 0), 1)?;
    let x = net.global_average(&x, "avgpool");
    let x = net.flatten(&x, "flatten");
    Ok(net.linear(&x, "classifier.1", classes).name)
}

/// Convolution, batch normalisation, ReLU6: `NAME.0`, `NAME.1`.
fn unit(net: &mut Net, x: &Value, name: &str, channels: usize, window: Window, groups: usize) -> Result<Value> {
    let y = net.conv(x, &format!("{name}.0"), channels, window, groups, false)?;
    let y = net.batch_norm(&y, &format!("{name}.1"));
    Ok(net.relu6(&y))
}

fn inverted(net: &mut Net, x: &Value, name: &str, expansion: usize, channels: usize, stride: usize) -> Result<Value> {
    let hidden = x.channels * expansion;
    let (mut y, mut part) = (x.clone(), 0);
    if expansion != 1 {
        y = unit(net, &y, &format!("{name}.conv.0"), hidden, Window::new(1, 1, 0), 1)?;
        part = 1;
    }
    y = unit(net, &y, &format!("{name}.conv.{part}"), hidden, Window::new(3, stride, 1), hidden)?;
    y = net.conv(&y, &format!("{name}.conv.{}", part + 1), channels, Window::new(1, 1, 0), 1, false)?;
    y = net.batch_norm(&y, &format!("{name}.conv.{}", part + 2));
    if stride == 1 && x.channels == channels {
        y = net.add(&y, x, &format!("{name}.add"));
    }
    Ok(y)
}
