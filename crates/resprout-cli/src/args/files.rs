//! Options of the files that are written, and `convert`.

use super::network::SourceArgs;
use clap::Args;
use std::path::PathBuf;

/// How a network is written.
#[derive(Args, Debug, Clone, Default)]
pub struct WriteArgs {
    /// How it is written [default: by the file's name]
    #[arg(long, value_name = "NAME")]
    pub format: Option<Format>,
    /// Put the numbers of an ONNX file into a file beside it, NAME.data; done by itself above 2 GiB
    #[arg(long)]
    pub external_data: bool,
    /// Fuse every BatchNormalization into the layer in front of it before writing, as quantisers need it
    #[arg(long)]
    pub fold_bn: bool,
}

/// A format of files.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ONNX
    Onnx,
    /// ONNX with sparse initializers: for ONNX Runtime, which fills the zeros in again; most other tools do not read it
    OnnxSparse,
    /// ONNX with the numbers in a file beside it (NAME.data), as needed above 2 GiB
    OnnxExternal,
    /// Weights and masks alone
    Safetensors,
    /// The whole network, of pruned tensors a bitmask and the values left: the smallest file
    SafetensorsSparse,
    /// A state dict for PyTorch
    Pth,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        clap::ValueEnum::to_possible_value(self).map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// Where to write: .onnx, .safetensors or .pth
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub how: WriteArgs,
    #[command(flatten)]
    pub source: SourceArgs,
}
