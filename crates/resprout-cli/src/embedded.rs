//! What the program carries: a small network, and the digits that it was trained and is tested on.

use resprout::Result;
use resprout::data::layouts::Splits;
use resprout::data::{ImageSet, Preprocess};

/// A residual BatchNorm network; made by testdata/gen/digits.py.
pub const MODEL: &[u8] = include_bytes!("../assets/digits.onnx");
/// What is studied where no recipe is given.
pub const STUDY: &str = include_str!("../assets/study-digits.yaml");
/// UCI handwritten digits, CC BY 4.0; see assets/NOTICE.
const IMAGES: &[u8] = include_bytes!("../assets/digits-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../assets/digits-labels-idx1-ubyte.gz");

/// Images before this one trained the network; the ones behind are for testing.
const TRAINED: usize = 1000;

/// Training and test images.
pub fn splits() -> Result<Splits> {
    let open = || ImageSet::from_idx("embedded digits", IMAGES, LABELS);
    let (mut train, mut test) = (open()?, open()?);
    train.truncate(TRAINED);
    test.skip(TRAINED);
    Ok(Splits { layout: "digits", train, test: Some(test) })
}

/// Mean and deviation of the pixels, 0 to 16, as in training.
pub fn preprocess() -> Preprocess {
    Preprocess { mean: vec![4.884], std: vec![6.017], ..Preprocess::default() }
}
