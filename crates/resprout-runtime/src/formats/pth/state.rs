//! Finds the tensors that a pickle of `torch.save` describes: names, storages, shapes and strides.

use super::pickle::{Id, Node, Pickle};
use crate::error::{Error, Result};
use crate::formats::state_dict::Number;

/// The deepest nesting of dicts. No checkpoint is as deep, and a dict may hold itself.
const DEEPEST: usize = 16;
/// The most names of tensors. No checkpoint has as many, and dicts may hold others many times.
const MOST_NAMES: usize = 1 << 20;

/// A tensor that a pickle describes.
#[derive(Debug)]
pub(super) struct TensorRef {
    /// The storage, or why it cannot be read.
    pub(super) storage: Result<Storage, String>,
    pub(super) shape: Vec<usize>,
    pub(super) offset: usize,
    pub(super) strides: Vec<usize>,
}

/// The storage of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) type_name: String,
    pub(super) number: Number,
}

/// The contents of a pickle, by names joined with dots.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tensors: Vec<(String, TensorRef)>,
    /// Networks that were saved as Python objects: name in the file and class.
    pub(super) modules: Vec<(String, String)>,
    /// The rest of the outermost dict.
    pub(super) others: Vec<String>,
}

impl State {
    /// Collects the contents of all dicts.
    pub(super) fn of(pickle: &Pickle) -> Result<State> {
        let mut state = State::default();
        if let Some(class) = module(pickle, pickle.root) {
            state.modules.push((String::new(), class));
            return Ok(state);
        }
        let Some(items) = dict(pickle, pickle.root) else {
            let what = match pickle.node(pickle.root) {
                Node::Call { function, .. } => format!("an object of {}", pickle.global(*function).unwrap_or("an unknown class")),
                Node::Sequence(_) => "a list".into(),
                _ => "a single value".into(),
            };
            return Err(Error::format(format!("holds {what}, not a dict of tensors; save a state dict: {ADVICE}")));
        };
        state.walk(pickle, &items, "", 0)?;
        Ok(state)
    }

    fn walk(&mut self, pickle: &Pickle, items: &[(Id, Id)], prefix: &str, depth: usize) -> Result<()> {
        for &(key, value) in items {
            let key = match pickle.node(key) {
                Node::Text(text) => text.clone(),
                Node::Int(number) => number.to_string(),
                _ => continue,
            };
            let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            if self.tensors.len() > MOST_NAMES {
                return Err(Error::format(format!("more than {MOST_NAMES} tensors")));
            }
            if let Some(tensor) = tensor(pickle, value, 0) {
                self.tensors.push((name, tensor?));
            } else if let Some(class) = module(pickle, value) {
                self.modules.push((name, class));
            } else {
                let inner = dict(pickle, value).filter(|items| depth < DEEPEST && !items.is_empty());
                let before = self.tensors.len();
                inner.map_or(Ok(()), |items| self.walk(pickle, &items, &name, depth + 1))?;
                if depth == 0 && self.tensors.len() == before {
                    self.others.push(name);
                }
            }
        }
        Ok(())
    }
}

/// How to save a file that can be read.
pub(super) const ADVICE: &str = "torch.save(model.state_dict(), FILE)";

/// The items of a dict, or of an object that is one.
fn dict(pickle: &Pickle, id: Id) -> Option<Vec<(Id, Id)>> {
    match pickle.node(id) {
        Node::Dict(items) => Some(items.clone()),
        Node::Call { function, arguments, items, .. } => {
            let name = pickle.global(*function)?;
            if !matches!(name, "collections.OrderedDict" | "collections.defaultdict" | "__builtin__.dict" | "builtins.dict") {
                return None;
            }
            // Python 2 writes the items as a list of pairs.
            let pairs = pickle.sequence(*arguments)?.first().and_then(|&first| pickle.sequence(first)).unwrap_or_default();
            let pair = |&id: &Id| <[Id; 2]>::try_from(pickle.sequence(id)?).ok().map(|[key, value]| (key, value));
            Some(pairs.iter().filter_map(pair).chain(items.iter().copied()).collect())
        }
        _ => None,
    }
}

/// The class of an object with modules and parameters.
fn module(pickle: &Pickle, id: Id) -> Option<String> {
    let Node::Call { function, arguments, state: Some(state), .. } = pickle.node(id) else { return None };
    let has = |wanted: &str| dict(pickle, *state)?.iter().find(|(key, _)| pickle.text(*key) == Some(wanted)).map(drop);
    has("_modules")?;
    // A function makes older classes and takes them as its argument.
    let class = match pickle.global(*function) {
        Some("copyreg._reconstructor" | "copy_reg._reconstructor") => pickle.global(*pickle.sequence(*arguments)?.first()?),
        name => name,
    };
    Some(class.unwrap_or("an unknown class").to_string())
}

/// The tensor that a call makes; `None` if it makes something else.
fn tensor(pickle: &Pickle, id: Id, depth: usize) -> Option<Result<TensorRef>> {
    let Node::Call { function, arguments, .. } = pickle.node(id) else { return None };
    made(pickle, *function, *arguments, depth)
}

fn made(pickle: &Pickle, function: Id, arguments: Id, depth: usize) -> Option<Result<TensorRef>> {
    let (name, arguments) = (pickle.global(function)?, pickle.sequence(arguments)?);
    let first = || arguments.first().copied().filter(|_| depth < DEEPEST);
    match name {
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => Some(strided(pickle, arguments, None)),
        "torch._utils._rebuild_tensor_v3" => Some(strided(pickle, arguments, arguments.get(6).and_then(|&id| pickle.global(id)))),
        "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => tensor(pickle, first()?, depth + 1),
        "torch._tensor._rebuild_from_type_v2" => made(pickle, first()?, *arguments.get(2)?, depth + 1),
        _ if name.starts_with("torch._utils._rebuild_") => {
            let why = format!("a tensor of a kind that cannot be read ({name})");
            Some(Ok(TensorRef { storage: Err(why), shape: Vec::new(), offset: 0, strides: Vec::new() }))
        }
        _ => None,
    }
}

/// Reads storage, offset, shape and strides. The type may be given beside the storage.
fn strided(pickle: &Pickle, arguments: &[Id], type_name: Option<&str>) -> Result<TensorRef> {
    let broken = || Error::format("a tensor whose description is broken");
    let &[storage, offset, shape, strides, ..] = arguments else { return Err(broken()) };
    let sizes = |id: Id| pickle.sequence(id)?.iter().map(|&id| pickle.size(id)).collect::<Option<Vec<usize>>>();
    let (shape, strides) = (sizes(shape).ok_or_else(broken)?, sizes(strides).ok_or_else(broken)?);
    if shape.len() != strides.len() {
        return Err(broken());
    }
    let storage = stored(pickle, storage, type_name).ok_or_else(broken)?;
    Ok(TensorRef { storage, shape, offset: pickle.size(offset).ok_or_else(broken)?, strides })
}

/// Reads `("storage", type, key, device, length)` and, in old files, a view of another storage.
fn stored(pickle: &Pickle, id: Id, type_name: Option<&str>) -> Option<Result<Storage, String>> {
    let Node::Persistent(id) = pickle.node(id) else { return None };
    let &[what, kind, key, _, _, ref view @ ..] = pickle.sequence(*id)? else { return None };
    if pickle.text(what) != Some("storage") {
        return None;
    }
    if view.first().is_some_and(|&view| *pickle.node(view) != Node::None) {
        return Some(Err("a view of another storage, as old versions of PyTorch wrote them; load and save it again".into()));
    }
    let (type_name, number) = number(type_name.or_else(|| pickle.global(kind))?);
    let key = match pickle.node(key) {
        Node::Text(key) => key.clone(),
        Node::Int(key) => key.to_string(),
        _ => return None,
    };
    Some(Ok(Storage { key, type_name, number }))
}

/// Every storage that a pickle names.
pub(super) fn storages(pickle: &Pickle) -> Vec<Storage> {
    (0..pickle.nodes.len()).filter_map(|id| stored(pickle, id, None)?.ok()).collect()
}

/// The type of numbers by the name of a class of storages or of a type.
fn number(name: &str) -> (String, Number) {
    let name = name.rsplit('.').next().unwrap_or_default();
    let number = match name {
        "FloatStorage" | "float32" => Number::F32,
        "DoubleStorage" | "float64" => Number::F64,
        "HalfStorage" | "float16" => Number::F16,
        "BFloat16Storage" | "bfloat16" => Number::Bf16,
        "BoolStorage" | "bool" => Number::Bool,
        "CharStorage" | "ByteStorage" | "int8" | "uint8" => Number::Integer(1),
        "ShortStorage" | "int16" | "uint16" => Number::Integer(2),
        "IntStorage" | "int32" | "uint32" => Number::Integer(4),
        "LongStorage" | "int64" | "uint64" => Number::Integer(8),
        "ComplexFloatStorage" | "complex64" => Number::Other(8),
        "ComplexDoubleStorage" | "complex128" => Number::Other(16),
        "QInt32Storage" => Number::Other(4),
        "complex32" => Number::Other(4),
        // Quantized numbers and floats of 8 bits.
        _ => Number::Other(1),
    };
    (name.to_string(), number)
}
