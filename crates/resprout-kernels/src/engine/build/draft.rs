//! A program before its values have places.

use crate::engine::layout::{Extent, VectorLayout};
use crate::engine::op::{Op, Value};

/// A channel has few vectors where its halo has more of them: around 4x4 there are 20.
const FEW: usize = 16;

/// Values and named operations on them.
pub(super) struct Draft {
    /// Threads that will share each operation.
    pub threads: usize,
    pub extents: Vec<Extent>,
    pub ops: Vec<(String, Op<Value>)>,
}

impl Draft {
    /// Adds a value.
    pub fn value(&mut self, layout: VectorLayout, channels: usize, size: [usize; 2]) -> Value {
        self.extents.push(Extent { layout, size, channels, halo: [0, 0], partition: 0, replicas: 1 });
        Value(self.extents.len() - 1)
    }

    /// Adds an operation.
    pub fn push(&mut self, name: &str, op: Op<Value>) {
        self.ops.push((name.into(), op));
    }

    pub fn extent(&self, value: Value) -> &Extent {
        &self.extents[value.0]
    }

    /// Whether an operation reads the value's halo.
    pub fn has_halo(&self, value: Value) -> bool {
        self.ops.iter().any(|(_, op)| op.halo_of() == Some(value))
    }

    /// Lets each thread fill the halo of its own row partition where much of a value is halo: then it reads less of what others
    /// have written. Where threads share the output channels and each reads the whole input, each makes a replica.
    pub fn insert_replicas(&mut self) {
        for value in (0..self.extents.len()).map(Value) {
            let extent = *self.extent(value);
            let few = extent.layout.vectors() <= FEW;
            let all_channels = |op: &Op<Value>| matches!(op, Op::Conv(conv) if conv.shape.groups == 1);
            let mut readers = self.ops.iter().filter(|(_, op)| op.halo_of() == Some(value));
            let wanted = self.threads > 1 && self.has_halo(value) && few && readers.all(|(_, op)| all_channels(op));
            let written = self.ops.iter().rposition(|(_, op)| op.writes() == Some(value));
            let Some(written) = written.filter(|_| wanted) else { continue };
            let to = self.value(extent.layout, extent.channels, extent.size);
            let replicas = if extent.layout.row_partitions > 1 { 1 } else { self.threads };
            self.extents[to.0] = Extent { replicas, ..extent };
            self.extents[value.0].halo = [0, 0];
            for (_, op) in self.ops.iter_mut().filter(|(_, op)| op.halo_of() == Some(value)) {
                if let Op::Conv(conv) = op {
                    conv.from = to;
                }
            }
            let copy = match replicas {
                1 => Op::FillHalo { from: value, to, copies: Vec::new() },
                _ => Op::Replicate { from: value, to, copies: Vec::new() },
            };
            self.ops.insert(written + 1, ("halo".into(), copy));
        }
    }

    /// Inserts operations that fill halos. They follow the last operation that writes the value, unless that one does it.
    pub fn insert_halos(&mut self) {
        let mut index = 0;
        while index < self.ops.len() {
            let written = self.ops[index].1.writes();
            let fills = matches!(
                self.ops[index].1,
                Op::Input { .. } | Op::Conv(_) | Op::FillHalo { .. } | Op::Replicate { .. } | Op::Move { .. }
            );
            if let Some(value) = written.filter(|value| !fills && self.has_halo(*value)) {
                let again = self.ops[index + 1..].iter().any(|(_, op)| op.writes() == Some(value));
                if !again {
                    let fill = Op::FillHalo { from: value, to: value, copies: Vec::new() };
                    self.ops.insert(index + 1, ("halo".into(), fill));
                }
            }
            index += 1;
        }
    }
}
