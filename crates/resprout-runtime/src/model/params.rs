//! The parameter table: every constant tensor of the graph, by name, in file order.

use crate::tensor::{Array, Tensor, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The numbers of one parameter, as far as they can be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ParamData {
    /// A value that the forward can use. Clones of a model share it.
    Value(Arc<Value>),
    /// The name of another stored type, such as `float16`, and its numbers as the forward computes with them. Nothing
    /// prunes or changes such a parameter.
    Narrow(&'static str, Arc<Value>),
    /// The name of a stored type whose numbers are not read. They stay in a written file.
    Opaque(&'static str),
}

/// A constant tensor.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its shape, even if the numbers are opaque.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub data: ParamData,
}

impl Param {
    /// A floating-point parameter.
    pub fn from_tensor(tensor: Tensor) -> Param {
        Param::from_value(Value::F32(tensor))
    }

    /// A parameter with these numbers.
    pub fn from_value(value: Value) -> Param {
        Param { shape: value.shape().to_vec(), data: ParamData::Value(Arc::new(value)) }
    }

    /// The tensor, if it is floating-point.
    pub fn f32(&self) -> Option<&Tensor> {
        self.value().and_then(|value| value.as_f32())
    }

    /// The name of its type, such as `float16`.
    pub fn type_name(&self) -> &'static str {
        match &self.data {
            ParamData::Value(value) if value.as_f32().is_some() => "float32",
            ParamData::Value(_) => "integers",
            ParamData::Narrow(name, _) | ParamData::Opaque(name) => name,
        }
    }

    /// The value, unless its type is another one.
    pub fn value(&self) -> Option<&Arc<Value>> {
        match &self.data {
            ParamData::Value(value) => Some(value),
            ParamData::Narrow(..) | ParamData::Opaque(_) => None,
        }
    }

    /// What the forward computes with, unless it is opaque.
    pub fn numbers(&self) -> Option<&Arc<Value>> {
        match &self.data {
            ParamData::Value(value) | ParamData::Narrow(_, value) => Some(value),
            ParamData::Opaque(_) => None,
        }
    }
}

/// Parameters by name, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct ParamTable {
    names: Vec<String>,
    by_name: HashMap<String, Param>,
}

impl ParamTable {
    /// Adds a parameter; returns false, and changes nothing, if the name is taken.
    pub fn insert(&mut self, name: String, param: Param) -> bool {
        if self.by_name.contains_key(&name) {
            return false;
        }
        self.names.push(name.clone());
        self.by_name.insert(name, param);
        true
    }

    /// Replaces the parameter of that name, if there is one.
    pub fn replace(&mut self, name: &str, param: Param) {
        if let Some(old) = self.by_name.get_mut(name) {
            *old = param;
        }
    }

    /// Removes a parameter.
    pub fn remove(&mut self, name: &str) {
        if self.by_name.remove(name).is_some() {
            self.names.retain(|other| other != name);
        }
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.by_name.get(name)
    }

    /// The floating-point tensor of that name.
    pub fn f32(&self, name: &str) -> Option<&Tensor> {
        self.get(name).and_then(Param::f32)
    }

    /// The integers of that name.
    pub fn i64(&self, name: &str) -> Option<&Array<i64>> {
        self.get(name).and_then(Param::value).and_then(|value| value.as_i64())
    }

    /// The floating-point tensor of that name, for changes. Its shape must stay.
    pub fn f32_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        match &mut self.by_name.get_mut(name)?.data {
            ParamData::Value(value) => match Arc::make_mut(value) {
                Value::F32(tensor) => Some(tensor),
                Value::I64(_) => None,
            },
            ParamData::Narrow(..) | ParamData::Opaque(_) => None,
        }
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.names.iter().map(|name| (name.as_str(), &self.by_name[name]))
    }

    /// The number of elements of all floating-point parameters.
    pub fn float_count(&self) -> usize {
        self.iter().filter_map(|(_, param)| param.f32()).map(Tensor::len).sum()
    }
}
