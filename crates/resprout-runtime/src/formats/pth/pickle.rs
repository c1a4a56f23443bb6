//! Reads Python's pickle as data: calls are recorded, and nothing is called.

use crate::error::{Error, Result};
use std::collections::HashMap;

/// The index of an object in [`Pickle::nodes`].
pub(super) type Id = usize;

/// The most objects of a pickle. No checkpoint has as many, and a hostile file must not take all memory.
const MOST_NODES: usize = 1 << 24;

/// An object of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i128),
    /// Numbers and bytes that nothing here reads.
    Other,
    Text(String),
    /// A tuple, list or set.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by its name, as `module.name`.
    Global(String),
    /// A recorded call: function and arguments, and the items and the state that the result is given.
    Call {
        function: Id,
        arguments: Id,
        items: Vec<(Id, Id)>,
        state: Option<Id>,
    },
    /// An object outside of the pickle.
    Persistent(Id),
}

/// All objects of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    /// Length of the pickle in bytes.
    pub(super) length: usize,
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Pickle> {
        let mut machine = Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        loop {
            let at = machine.at;
            let root = machine.step().map_err(|e| e.at(format!("pickle, byte {at}")))?;
            if let Some(root) = root {
                return Ok(Pickle { nodes: machine.nodes, root, length: machine.at });
            }
        }
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(super) fn global(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }
}

/// The stack machine that runs a pickle.
struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'b> Machine<'b> {
    /// Runs one instruction. The last one returns the root.
    fn step(&mut self) -> Result<Option<Id>> {
        let code = self.take(1)?[0];
        match code {
            b'.' => return self.pop().map(Some),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => match self.marks.last() {
                Some(&mark) if mark == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.remember(code)?,
            b'N' | 0x88 | 0x89 | b'I' | b'K' | b'M' | b'J' | b'L' | 0x8a | 0x8b | b'F' | b'G' => self.number(code)?,
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => self.string(code)?,
            b')' | b']' | 0x8f | b't' | b'l' | 0x91 | 0x85..=0x87 => self.sequence(code)?,
            b'}' | b'd' | b's' | b'u' | b'a' | b'e' | 0x90 => self.fill(code)?,
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'o' | b'i' | b'b' => self.call(code)?,
            b'P' => {
                let name = self.text_line()?.to_string();
                let name = self.add(Node::Text(name))?;
                self.push(Node::Persistent(name))?;
            }
            b'Q' => {
                let of = self.pop()?;
                self.push(Node::Persistent(of))?;
            }
            _ => return Err(Error::format(format!("no instruction of a pickle: 0x{code:02x}"))),
        }
        Ok(None)
    }

    fn remember(&mut self, code: u8) -> Result<()> {
        let slot = match code {
            b'p' | b'g' => self.text_line()?.parse().map_err(|_| Error::format("no number"))?,
            b'q' | b'h' => self.unsigned(1)?,
            b'r' | b'j' => self.unsigned(4)?,
            _ => self.memo.len() as u64,
        };
        if matches!(code, b'g' | b'h' | b'j') {
            let known = self.memo.get(&slot).copied();
            self.stack.push(known.ok_or_else(|| Error::format(format!("nothing was kept as {slot}")))?);
            return Ok(());
        }
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn number(&mut self, code: u8) -> Result<()> {
        let node = match code {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b'I' => match self.text_line()? {
                "00" => Node::Bool(false),
                "01" => Node::Bool(true),
                text => text.parse().map_or(Node::Other, Node::Int),
            },
            b'L' => self.text_line()?.trim_end_matches('L').parse().map_or(Node::Other, Node::Int),
            b'K' => Node::Int(self.unsigned(1)?.into()),
            b'M' => Node::Int(self.unsigned(2)?.into()),
            b'J' => Node::Int((self.unsigned(4)? as u32 as i32).into()),
            b'F' => {
                self.text_line()?;
                Node::Other
            }
            b'G' => {
                self.take(8)?;
                Node::Other
            }
            _ => {
                let length = self.unsigned(if code == 0x8a { 1 } else { 4 })?;
                long(self.take(length)?)
            }
        };
        self.push(node)
    }

    fn string(&mut self, code: u8) -> Result<()> {
        let length = match code {
            b'S' | b'V' => {
                let text = self.text_line()?;
                let text = if code == b'S' { text.trim_matches(['\'', '"']) } else { text };
                return self.push(Node::Text(text.to_string()));
            }
            b'U' | 0x8c | b'C' => self.unsigned(1)?,
            b'T' | b'X' | b'B' => self.unsigned(4)?,
            _ => self.unsigned(8)?,
        };
        let bytes = self.take(length)?;
        match code {
            b'B' | b'C' | 0x8e | 0x96 => self.push(Node::Other),
            _ => self.push(Node::Text(String::from_utf8_lossy(bytes).into_owned())),
        }
    }

    fn sequence(&mut self, code: u8) -> Result<()> {
        let items = match code {
            b')' | b']' | 0x8f => Vec::new(),
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let start =
                    self.stack.len().checked_sub(count).filter(|&start| self.marks.last().is_none_or(|&mark| mark <= start));
                self.stack.split_off(start.ok_or_else(underflow)?)
            }
            _ => self.pop_to_mark()?,
        };
        self.push(Node::Sequence(items))
    }

    /// Makes dicts, and puts items into dicts, lists and results of calls.
    fn fill(&mut self, code: u8) -> Result<()> {
        let items = match code {
            b'}' => return self.push(Node::Dict(Vec::new())),
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            b'a' => vec![self.pop()?],
            _ => self.pop_to_mark()?,
        };
        let pairs = || items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value));
        if code == b'd' {
            let pairs = pairs().collect();
            return self.push(Node::Dict(pairs));
        }
        let top = self.top()?;
        match (&mut self.nodes[top], code) {
            (Node::Dict(all) | Node::Call { items: all, .. }, b's' | b'u') => all.extend(pairs()),
            (Node::Sequence(all), b'a' | b'e' | 0x90) => all.extend(&items),
            // A list of another class.
            (Node::Call { .. }, _) => {}
            _ => return Err(Error::format("puts an item into something that holds none")),
        }
        Ok(())
    }

    fn call(&mut self, code: u8) -> Result<()> {
        match code {
            b'c' => {
                let name = format!("{}.{}", self.text_line()?, self.text_line()?);
                return self.push(Node::Global(name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Text(module), Node::Text(name)) = (&self.nodes[module], &self.nodes[name]) else {
                    return Err(Error::format("a name that is no text"));
                };
                let name = format!("{module}.{name}");
                return self.push(Node::Global(name));
            }
            b'b' => {
                let (new, top) = (self.pop()?, self.top()?);
                // A dict may carry a state too: the versions of a state dict's modules.
                if let Node::Call { state, .. } = &mut self.nodes[top] {
                    *state = Some(new);
                }
                return Ok(());
            }
            _ => {}
        }
        let (function, arguments) = match code {
            b'i' => {
                let name = format!("{}.{}", self.text_line()?, self.text_line()?);
                let function = self.add(Node::Global(name))?;
                let arguments = self.pop_to_mark()?;
                (function, self.add(Node::Sequence(arguments))?)
            }
            b'o' => {
                let mut arguments = self.pop_to_mark()?;
                if arguments.is_empty() {
                    return Err(underflow());
                }
                let function = arguments.remove(0);
                (function, self.add(Node::Sequence(arguments))?)
            }
            _ => {
                if code == 0x92 {
                    self.pop()?;
                }
                let arguments = self.pop()?;
                (self.pop()?, arguments)
            }
        };
        self.push(Node::Call { function, arguments, items: Vec::new(), state: None })
    }

    fn add(&mut self, node: Node) -> Result<Id> {
        if self.nodes.len() == MOST_NODES {
            return Err(Error::format(format!("more than {MOST_NODES} objects")));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn push(&mut self, node: Node) -> Result<()> {
        let id = self.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(underflow)
    }

    fn pop(&mut self) -> Result<Id> {
        self.stack.pop().ok_or_else(underflow)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, length: impl TryInto<usize>) -> Result<&'b [u8]> {
        let truncated = || Error::format("the file ends in the middle of it");
        let end = length.try_into().ok().and_then(|length| self.at.checked_add(length)).ok_or_else(truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn unsigned(&mut self, length: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(self.take(length)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// The text up to the next line break.
    fn text_line(&mut self) -> Result<&'b str> {
        let rest = &self.bytes[self.at..];
        let length =
            rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| Error::format("the file ends in the middle of it"))?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| Error::format("a name that is no text"))
    }
}

/// An integer of any length in two's complement.
fn long(bytes: &[u8]) -> Node {
    if bytes.len() > 16 {
        return Node::Other;
    }
    let negative = bytes.last().is_some_and(|&last| last >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i128::from_le_bytes(wide))
}

fn underflow() -> Error {
    Error::format("asks for an object that is not there")
}
