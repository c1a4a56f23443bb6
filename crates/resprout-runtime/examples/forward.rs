//! Runs every model of a folder in every mode, for comparisons with other engines.
//!
//! `forward DIR [MODE,..]` reads each `NAME.onnx` and its input `NAME.npy` (32-bit floats). It writes the outputs as
//! `NAME.MODE.OUTPUT.npy` and prints a line `NAME MODE ok` or `NAME MODE refused REASON`, separated by tabs. Modes that end in
//! `1` run the first image only.

use resprout_kernels::Isa;
use resprout_runtime::forward::{Network, Plan, PlanOptions, Slots};
use resprout_runtime::model::Model;
use resprout_runtime::session::{Session, SessionOptions};
use resprout_runtime::tensor::Tensor;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

type Mode = fn(&Model, &Tensor) -> resprout_runtime::Result<Vec<Tensor>>;

const MODES: &[(&str, Mode)] = &[
    ("plan", |model, images| planned(model, images, &PlanOptions::default())),
    ("plain", |model, images| {
        planned(model, images, &PlanOptions { fold_batch_norm: false, fuse_activation: false, ..PlanOptions::default() })
    }),
    ("network", network),
    ("network1", |model, images| network(model, &images.first(1))),
    ("session", session),
    ("session1", |model, images| session(model, &images.first(1))),
];

fn planned(model: &Model, images: &Tensor, options: &PlanOptions) -> resprout_runtime::Result<Vec<Tensor>> {
    let plan = Plan::new(model, &images.shape, options)?;
    Ok(plan.run(images.clone(), &mut Slots::default(), Isa::best(), false))
}

fn network(model: &Model, images: &Tensor) -> resprout_runtime::Result<Vec<Tensor>> {
    Network::new(model, &images.shape[1..], &PlanOptions::default())?.run(images)
}

fn session(model: &Model, images: &Tensor) -> resprout_runtime::Result<Vec<Tensor>> {
    let options = SessionOptions { threads: 2, batch: images.shape[0], ..SessionOptions::default() };
    Session::new(model, &images.shape[1..], &options)?.run(images)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("forward DIR")?);
    let wanted = std::env::args().nth(2);
    let is_wanted = |mode: &str| wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|name| name == mode));
    let mut names: Vec<PathBuf> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    names.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    names.sort();
    for path in names {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let images = read_npy(&path.with_extension("npy"))?;
        let model = resprout_runtime::formats::onnx::read(&path);
        for (mode, run) in MODES.iter().filter(|(mode, _)| is_wanted(mode)) {
            let all =
                || model.as_ref().map_err(|e| e.to_string()).and_then(|model| run(model, &images).map_err(|e| e.to_string()));
            match catch_unwind(AssertUnwindSafe(all)) {
                Err(_) => println!("{name}\t{mode}\tpanic"),
                Ok(Err(reason)) => println!("{name}\t{mode}\trefused\t{}", reason.replace('\n', " ")),
                Ok(Ok(outputs)) => {
                    for (index, output) in outputs.iter().enumerate() {
                        write_npy(&folder.join(format!("{name}.{mode}.{index}.npy")), output)?;
                    }
                    println!("{name}\t{mode}\tok");
                }
            }
        }
    }
    Ok(())
}

/// Reads version 1: magic, two bytes of version, two of the header's length, a header with the shape, and the numbers.
fn read_npy(path: &Path) -> Result<Tensor, Box<dyn std::error::Error>> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]);
    let shape = text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).ok_or("a header without a shape")?.0;
    let shape = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Tensor::new(shape, bytes[header..].as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()))
}

fn write_npy(path: &Path, tensor: &Tensor) -> std::io::Result<()> {
    let dims: String = tensor.shape.iter().map(|dim| format!("{dim},")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(tensor.to_le_bytes());
    fs::write(path, bytes)
}
