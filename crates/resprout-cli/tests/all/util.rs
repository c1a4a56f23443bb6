//! Running the program in a scratch folder, and small models made by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const DIGITS: &[u8] = include_bytes!("../../assets/digits.onnx");
pub const DIGIT_IMAGES: &[u8] = include_bytes!("../../assets/digits-images-idx3-ubyte.gz");
pub const DIGIT_LABELS: &[u8] = include_bytes!("../../assets/digits-labels-idx1-ubyte.gz");
/// How the digits were normalised in training.
pub const DIGITS_NORM: [&str; 6] = ["--scale", "1", "--mean", "4.884", "--std", "6.017"];

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file's text.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A folder of its own for one test, with the digits in it.
pub struct Scratch {
    pub folder: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Scratch {
        let scratch = Scratch { folder: tempfile::tempdir().unwrap() };
        scratch.file("digits.onnx", DIGITS);
        scratch.file("digits-images-idx3-ubyte.gz", DIGIT_IMAGES);
        scratch.file("digits-labels-idx1-ubyte.gz", DIGIT_LABELS);
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_resprout"));
        command.args(args).current_dir(self.folder.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs and returns standard output; panics with the error if it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs, expects failure with this exit code and no new file, and returns the message.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let before = files(self.folder.path());
        let output = self.run(args);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
        assert_eq!(files(self.folder.path()), before, "{args:?} left something behind");
        assert!(!message.contains("panicked"), "{args:?}: {message}");
        message
    }
}

/// Says that a test did not run, where the test harness does not hide it.
pub fn skipped(test: &str, needs: &str) {
    use std::io::Write;
    // One write, so that the lines of tests that run at once do not mix.
    let _ = std::io::stderr().write_all(format!("skipped: {test} needs {needs}\n").as_bytes());
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A protobuf field of bytes.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number) << 3 | 2);
    out.extend(varint(content.len() as u64));
    out.extend_from_slice(content);
    out
}

/// A protobuf field of an integer.
pub fn number(number: u8, value: u64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// An f32 tensor with raw data; `dims` need not fit.
pub fn tensor(name: &str, dims: &[u64], values: &[f32]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&dim| number(1, dim)).collect();
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    [dims, number(2, 1), field(8, name.as_bytes()), field(9, &raw)].concat()
}

/// A node named like its operation.
pub fn node(op: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
    [inputs, field(2, output.as_bytes()), field(3, op.to_lowercase().as_bytes()), field(4, op.as_bytes())].concat()
}

/// A model with the input `x` (its shape left open) and the output `y`, opset 13.
pub fn model(nodes: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let all = |tag: u8, parts: &[Vec<u8>]| parts.iter().flat_map(|part| field(tag, part)).collect::<Vec<u8>>();
    let graph = [all(1, nodes), all(5, tensors), field(11, &field(1, b"x")), field(12, &field(1, b"y"))].concat();
    [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
}

/// The embedded digits as files: the first images to calibrate with, images behind the first 1000 to measure on, and
/// the labels of these.
pub fn digits_split(scratch: &Scratch, calibration: usize, test: usize) -> [String; 3] {
    let [images, labels] = [DIGIT_IMAGES, DIGIT_LABELS].map(|packed| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut bytes).unwrap();
        bytes
    });
    // The header of an IDX file: 4 bytes of kind, the count, and the sizes of the other axes.
    let part = |bytes: &[u8], header: usize, each: usize, from: usize, count: usize| {
        let count_bytes = u32::try_from(count).unwrap().to_be_bytes();
        [&bytes[..4], &count_bytes, &bytes[8..header], &bytes[header + from * each..][..count * each]].concat()
    };
    let write = |name: &str, bytes: Vec<u8>| scratch.file(name, &bytes).display().to_string();
    [
        write("calibration-images-idx3-ubyte", part(&images, 16, 64, 0, calibration)),
        write("test-images-idx3-ubyte", part(&images, 16, 64, 1000, test)),
        write("test-labels-idx1-ubyte", part(&labels, 8, 1, 1000, test)),
    ]
}
