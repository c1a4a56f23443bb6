//! DenseNet-121 with torchvision's names.

use super::build::{Architecture, Net, Value, Window};
use crate::error::Result;
use crate::table::Entry;

const PAPER: &str = "Huang, Liu, van der Maaten, Weinberger, Densely connected convolutional networks, CVPR 2017";

pub(super) const DENSENET_121: Entry<Architecture> = Entry {
    name: "densenet-121",
    about: "torchvision's densenet121; images of 3x224x224",
    paper: PAPER,
    options: &[],
    build: Architecture { image: [3, 224, 224], classes: 1000, layers: |net, classes| layers(net, false, classes) },
};

pub(super) const DENSENET_121_CIFAR: Entry<Architecture> = Entry {
    name: "densenet-121-cifar",
    about: "densenet121 with a 3x3 stem of stride 1 and no pooling behind it; images of 3x32x32",
    paper: PAPER,
    options: &[],
    build: Architecture { image: [3, 32, 32], classes: 10, layers: |net, classes| layers(net, true, classes) },
};

const GROWTH: usize = 32;
/// Channels of a layer's first convolution, in units of `GROWTH`.
const WIDTH: usize = 4;

fn layers(net: &mut Net, small: bool, classes: usize) -> Result<String> {
    let stem = if small { Window::new(3, 1, 1) } else { Window::new(7, 2, 3) };
    let x = net.conv(&net.input(), "features.conv0", 64, stem, 1, false)?;
    let x = net.batch_norm(&x, "features.norm0");
    let mut x = net.relu(&x);
    if !small {
        x = net.max_pool(&x, "features.pool0", Window::new(3, 2, 1))?;
    }
    for (block, count) in [6, 12, 24, 16].into_iter().enumerate() {
        x = dense_block(net, x, &format!("features.denseblock{}", block + 1), count)?;
        if block < 3 {
            let name = format!("features.transition{}", block + 1);
            let y = net.batch_norm(&x, &format!("{name}.norm"));
            let y = net.relu(&y);
            let y = net.conv(&y, &format!("{name}.conv"), x.channels / 2, Window::new(1, 1, 0), 1, false)?;
            x = net.average_pool(&y, &format!("{name}.pool"), Window::new(2, 2, 0))?;
        }
    }
    let x = net.batch_norm(&x, "features.norm5");
    let x = net.relu(&x);
    let x = net.global_average(&x, "avgpool");
    let x = net.flatten(&x, "flatten");
    Ok(net.linear(&x, "classifier", classes).name)
}

/// A block in which every layer reads the outputs of all earlier ones.
fn dense_block(net: &mut Net, x: Value, name: &str, count: usize) -> Result<Value> {
    let mut outputs = vec![x];
    for layer in 1..=count {
        let name = format!("{name}.denselayer{layer}");
        let all = if outputs.len() == 1 { outputs[0].clone() } else { net.concat(&outputs, &format!("{name}.concat")) };
        let y = net.batch_norm(&all, &format!("{name}.norm1"));
        let y = net.relu(&y);
        let y = net.conv(&y, &format!("{name}.conv1"), WIDTH * GROWTH, Window::new(1, 1, 0), 1, false)?;
        let y = net.batch_norm(&y, &format!("{name}.norm2"));
        let y = net.relu(&y);
        outputs.push(net.conv(&y, &format!("{name}.conv2"), GROWTH, Window::new(3, 1, 1), 1, false)?);
    }
    Ok(net.concat(&outputs, &format!("{name}.concat")))
}
