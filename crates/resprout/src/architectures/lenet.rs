//! LeNet-300-100 and LeNet-5 in the form of the pruning literature.

use super::build::{Architecture, Net, Window};
use crate::error::Result;
use crate::table::Entry;

pub(super) const LENET_300_100: Entry<Architecture> = Entry {
    name: "lenet-300-100",
    about: "two hidden layers of 300 and 100 units (fc1, fc2, fc3); images of 1x28x28",
    paper: "LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998",
    options: &[],
    build: Architecture { image: [1, 28, 28], classes: 10, layers: mlp },
};

pub(super) const LENET_5: Entry<Architecture> = Entry {
    name: "lenet-5",
    about: "the form that pruning papers use, Caffe's 431,080 parameters and ReLU: 20 and 50 channels, 500 units (conv1, conv2, fc1, fc2)",
    paper: "Lee, Ajanthan, Torr, SNIP, ICLR 2019, LeNet-5-Caffe",
    options: &[],
    build: Architecture { image: [1, 28, 28], classes: 10, layers: caffe },
};

fn mlp(net: &mut Net, classes: usize) -> Result<String> {
    let mut x = net.flatten(&net.input(), "flatten");
    for (name, units) in [("fc1", 300), ("fc2", 100)] {
        x = net.linear(&x, name, units);
        x = net.relu(&x);
    }
    Ok(net.linear(&x, "fc3", classes).name)
}

fn caffe(net: &mut Net, classes: usize) -> Result<String> {
    let x = net.conv(&net.input(), "conv1", 20, Window::new(5, 1, 0), 1, true)?;
    let x = net.relu(&x);
    let x = net.max_pool(&x, "pool1", Window::new(2, 2, 0))?;
    let x = net.conv(&x, "conv2", 50, Window::new(5, 1, 0), 1, true)?;
    let x = net.relu(&x);
    let x = net.max_pool(&x, "pool2", Window::new(2, 2, 0))?;
    let x = net.flatten(&x, "flatten");
    let x = net.linear(&x, "fc1", 500);
    let x = net.relu(&x);
    Ok(net.linear(&x, "fc2", classes).name)
}
