//! The part of Python's pickle language that `torch.save` uses for a state dict, and nothing more.
//!
//! A pickle is a program. This evaluator knows the opcodes that torch writes, three functions and the storage classes;
//! anything else ends it by name. Values are small copies that point into flat tables, so that nesting costs no stack,
//! neither while building nor while dropping, and a memo that doubles a tuple again and again stays a few entries long.
//! Every opcode makes at most one value and their number is bounded, and so are memory and time.
//!
//! Opcodes: CPython's `Lib/pickletools.py`. Layout of the state dict: `torch/serialization.py`, `torch/_utils.py`.

mod legacy;

use std::collections::{HashMap, HashSet};

use super::error::shown;
use super::tensor::Dtype;

pub(super) use legacy::{Legacy, read_legacy};

/// A state dict of 60,000 tensors stays below this; Stable Diffusion's UNet needs 30,000.
const MOST_OPCODES: usize = 2_000_000;
const LONGEST_GLOBAL: usize = 256;
/// How a state dict is saved in Python.
const SAVE: &str = "torch.save(model.state_dict(), FILE)";
const MOST_DIMENSIONS: usize = 8;

/// A tensor as the pickle describes it: a strided view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub storage: Storage,
    /// In elements, as are the strides.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
}

/// A block of elements in the archive entry `data/KEY`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    pub dtype: Dtype,
    pub key: String,
    /// Elements.
    pub count: usize,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum PickleError {
    #[error("{0}")]
    Forbidden(String),
    #[error("damaged pickle: {0}")]
    Malformed(String),
    /// A whole pickle of something that is not read here.
    #[error("{0}")]
    Other(String),
}

fn other<T>(content: impl Into<String>) -> Result<T, PickleError> {
    Err(PickleError::Other(content.into()))
}

fn malformed<T>(problem: impl Into<String>) -> Result<T, PickleError> {
    Err(PickleError::Malformed(problem.into()))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

/// Strings are slices of the pickle; tuples are ranges of one table; the others are indices.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(&'a str),
    Tuple {
        start: usize,
        len: usize,
    },
    Dict(usize),
    /// Its elements are not kept: no state dict has one.
    List,
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an integer",
            Self::Float => "a float",
            Self::Text(_) => "a string",
            Self::Tuple { .. } => "a tuple",
            Self::Dict(_) => "a dict",
            Self::List => "a list",
            Self::Global(_) => "a function or class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// Runs the pickle of a state dict: the names and views in the order of the file.
pub(super) fn read_state_dict(pickle: &[u8]) -> Result<Vec<(String, View)>, PickleError> {
    let mut machine = Machine::new(pickle);
    let top = machine.run()?;
    machine.state_dict(top)
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    /// The elements of all tuples.
    items: Vec<Value<'a>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage>,
    tensors: Vec<View>,
}

impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Self {
            rest: pickle,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            items: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<Value<'a>, PickleError> {
        for _ in 0..MOST_OPCODES {
            let opcode = self.take(1)?[0];
            match opcode {
                // PROTO
                0x80 => {
                    let version = self.take(1)?[0];
                    if !(2..=5).contains(&version) {
                        return malformed(format!("protocol {version}"));
                    }
                }
                b'.' => {
                    let top = self.pop()?;
                    if !self.stack.is_empty() || !self.marks.is_empty() {
                        return malformed("values are left over at its end");
                    }
                    return Ok(top);
                }
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.stack.push(Value::None),
                // NEWTRUE, NEWFALSE
                0x88 | 0x89 => self.stack.push(Value::Bool(opcode == 0x88)),
                // BININT, BININT1, BININT2
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(value.into()));
                }
                b'K' => {
                    let [value] = self.array()?;
                    self.stack.push(Value::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(value.into()));
                }
                // LONG1
                0x8a => {
                    let [len] = self.array()?;
                    let value = self.long(len.into())?;
                    self.stack.push(Value::Int(value));
                }
                // BINFLOAT
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Float);
                }
                // BINUNICODE
                b'X' => {
                    let text = self.text()?;
                    self.stack.push(Value::Text(text));
                }
                b')' => self.push_tuple(0)?,
                // TUPLE1, TUPLE2, TUPLE3
                0x85..=0x87 => self.push_tuple(usize::from(opcode - 0x84))?,
                b't' => {
                    let len = self.above_mark()?;
                    self.push_tuple(len)?;
                }
                b'}' => {
                    let dict = self.new_dict(Vec::new());
                    self.stack.push(dict);
                }
                b']' => self.stack.push(Value::List),
                b'a' => self.append(1)?,
                b'e' => {
                    let len = self.above_mark()?;
                    self.append(len)?;
                }
                b's' => self.set_items(2)?,
                b'u' => {
                    let len = self.above_mark()?;
                    self.set_items(len)?;
                }
                // BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
                b'q' => {
                    let [index] = self.array()?;
                    self.remember(index.into())?;
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.remember(index)?;
                }
                b'h' => {
                    let [index] = self.array()?;
                    self.recall(index.into())?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.recall(index)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.stack.push(Value::Global(global(module, name)?));
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b'Q' => self.persistent()?,
                _ => return Err(self.refuse(opcode)),
            }
        }
        malformed(format!("more than {MOST_OPCODES} opcodes"))
    }

    /// The error for an opcode that torch does not write for a state dict; those that name a function name it.
    fn refuse(&mut self, opcode: u8) -> PickleError {
        let asks_for =
            |module: &str, name: &str| PickleError::Forbidden(format!("{module}.{name}"));
        match opcode {
            // INST names a class as GLOBAL does.
            b'i' => {
                let names = self.line().and_then(|module| Ok((module, self.line()?)));
                match names {
                    Ok((module, name)) => asks_for(module, name),
                    Err(error) => error,
                }
            }
            // STACK_GLOBAL takes the two names from the stack.
            0x93 => match self.stack[..] {
                [.., Value::Text(module), Value::Text(name)] => asks_for(module, name),
                _ => PickleError::Malformed("STACK_GLOBAL without names".into()),
            },
            _ => match opcode_name(opcode) {
                Some(name) => PickleError::Other(format!(
                    "opcode 0x{opcode:02x} ({name}) is not one that torch.save writes for a state dict; save it again \
                     with {SAVE} and no other `pickle_protocol`"
                )),
                None => PickleError::Malformed(format!(
                    "opcode 0x{opcode:02x} is not one that torch.save writes for a state dict"
                )),
            },
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return malformed("it ends too early");
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let bytes = self.take(N)?;
        bytes.try_into().or_else(|_| malformed("it ends too early"))
    }

    /// The string of a BINUNICODE.
    fn text(&mut self) -> Result<&'a str, PickleError> {
        let len = u32::from_le_bytes(self.array()?);
        let bytes = self.take(len as usize)?;
        std::str::from_utf8(bytes).or_else(|_| malformed("a string is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let end = self
            .rest
            .iter()
            .take(LONGEST_GLOBAL)
            .position(|&byte| byte == b'\n');
        let Some(end) = end else {
            return malformed(format!(
                "a name without end, or longer than {LONGEST_GLOBAL} bytes"
            ));
        };
        let line = &self.take(end + 1)?[..end];
        std::str::from_utf8(line).or_else(|_| malformed("a name is not UTF-8"))
    }

    /// A little-endian two's complement integer of `len` bytes.
    fn long(&mut self, len: usize) -> Result<i64, PickleError> {
        if len > 8 {
            return malformed(format!("an integer of {len} bytes"));
        }
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        extended[..len].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(extended))
    }

    /// The lowest height that may be popped: values below an open mark belong to what is outside it.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        if self.stack.len() <= self.floor() {
            return malformed("a value is missing on its stack");
        }
        self.stack
            .pop()
            .map_or_else(|| malformed("its stack is empty"), Ok)
    }

    fn top(&self) -> Result<Value<'a>, PickleError> {
        match self.stack.last() {
            Some(&value) if self.stack.len() > self.floor() => Ok(value),
            _ => malformed("a value is missing on its stack"),
        }
    }

    /// Closes the last mark and says how many values are above it.
    fn above_mark(&mut self) -> Result<usize, PickleError> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.len() - height),
            None => malformed("a mark is missing on its stack"),
        }
    }

    fn push_tuple(&mut self, len: usize) -> Result<(), PickleError> {
        if self.stack.len() < self.floor() + len {
            return malformed("a value is missing on its stack");
        }
        let start = self.items.len();
        self.items
            .extend(self.stack.drain(self.stack.len() - len..));
        self.stack.push(Value::Tuple { start, len });
        Ok(())
    }

    fn new_dict(&mut self, entries: Vec<(Value<'a>, Value<'a>)>) -> Value<'a> {
        self.dicts.push(entries);
        Value::Dict(self.dicts.len() - 1)
    }

    /// Moves `len` values, alternately key and value, into the dict below them.
    fn set_items(&mut self, len: usize) -> Result<(), PickleError> {
        if len % 2 == 1 || self.stack.len() < self.floor() + len + 1 {
            return malformed("a dict entry is missing on its stack");
        }
        let added = self.stack.split_off(self.stack.len() - len);
        let Value::Dict(dict) = self.top()? else {
            return malformed("entries for something that is not a dict");
        };
        let (pairs, _) = added.as_chunks::<2>();
        self.dicts[dict].extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    /// Moves `len` values into the list below them.
    fn append(&mut self, len: usize) -> Result<(), PickleError> {
        if self.stack.len() < self.floor() + len + 1 {
            return malformed("a value is missing on its stack");
        }
        self.stack.truncate(self.stack.len() - len);
        match self.top()? {
            Value::List => Ok(()),
            _ => malformed("an element of something that is not a list"),
        }
    }

    fn remember(&mut self, index: u32) -> Result<(), PickleError> {
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), PickleError> {
        let Some(&value) = self.memo.get(&index) else {
            return malformed(format!("memo {index} was never set"));
        };
        self.stack.push(value);
        Ok(())
    }

    fn tuple(&self, value: Value<'a>, what: &str) -> Result<&[Value<'a>], PickleError> {
        match value {
            Value::Tuple { start, len } => Ok(&self.items[start..start + len]),
            other => malformed(format!("{what} is {}, not a tuple", other.kind())),
        }
    }

    /// Calls one of the three functions.
    fn reduce(&mut self) -> Result<(), PickleError> {
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let arguments = self.tuple(arguments, "an argument list")?;
        let value = match callable {
            Value::Global(Global::OrderedDict) if arguments.is_empty() => self.new_dict(Vec::new()),
            Value::Global(Global::RebuildTensor) => {
                let view = self.rebuild_tensor(arguments)?;
                self.tensors.push(view);
                Value::Tensor(self.tensors.len() - 1)
            }
            Value::Global(Global::RebuildParameter) => match arguments {
                [tensor @ Value::Tensor(_), Value::Bool(_), _hooks] => *tensor,
                _ => return malformed("_rebuild_parameter with unknown arguments"),
            },
            other => {
                return malformed(format!(
                    "a call of {} with {} arguments",
                    other.kind(),
                    arguments.len()
                ));
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, backward_hooks[, metadata])`.
    fn rebuild_tensor(&self, arguments: &[Value<'a>]) -> Result<View, PickleError> {
        let (storage, offset, shape, stride) = match *arguments {
            [
                Value::Storage(storage),
                Value::Int(offset),
                shape,
                stride,
                Value::Bool(_),
                _hooks,
            ]
            | [
                Value::Storage(storage),
                Value::Int(offset),
                shape,
                stride,
                Value::Bool(_),
                _hooks,
                _,
            ] => (storage, offset, shape, stride),
            _ => return malformed("_rebuild_tensor_v2 with unknown arguments"),
        };
        let sizes = |value, what: &str| {
            let values = self.tuple(value, what)?;
            if values.len() > MOST_DIMENSIONS {
                return malformed(format!("{what} has {} dimensions", values.len()));
            }
            values
                .iter()
                .map(|&value| size(value, what))
                .collect::<Result<Vec<_>, _>>()
        };
        let view = View {
            storage: self.storages[storage].clone(),
            offset: size(Value::Int(offset), "an offset")?,
            shape: sizes(shape, "a shape")?,
            stride: sizes(stride, "a stride list")?,
        };
        if view.shape.len() != view.stride.len() {
            return malformed(format!(
                "shape {:?} with strides {:?}",
                view.shape, view.stride
            ));
        }
        Ok(view)
    }

    /// `('storage', torch.FloatStorage, key, location, count[, None])`; before PyTorch 1.6, the last is the part of a
    /// larger storage, which it has not been since PyTorch 0.4.
    fn persistent(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let storage = match *self.tuple(id, "a storage reference")? {
            [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                Value::Text(_location),
                count,
                ref view @ ..,
            ] if matches!(view, [] | [Value::None]) => Storage {
                dtype,
                key: key.to_string(),
                count: size(count, "a storage length")?,
            },
            _ => return malformed("a storage reference of unknown form"),
        };
        self.storages.push(storage);
        self.stack.push(Value::Storage(self.storages.len() - 1));
        Ok(())
    }

    /// Attributes of an object. A state dict carries `_metadata` (the version of each module), which diffusers does
    /// not need to load it; nothing else may have attributes.
    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        match (self.top()?, state) {
            (Value::Dict(_), Value::Dict(_)) => Ok(()),
            (object, _) => malformed(format!("attributes for {}", object.kind())),
        }
    }

    fn state_dict(&self, top: Value<'a>) -> Result<Vec<(String, View)>, PickleError> {
        let Value::Dict(dict) = top else {
            return other(format!(
                "it holds {}, not a dict of tensors; save the model's in Python with {SAVE}",
                top.kind()
            ));
        };
        let mut seen = HashSet::new();
        let mut tensors = Vec::new();
        for &(key, value) in &self.dicts[dict] {
            let Value::Text(name) = key else {
                return other(format!(
                    "a key of its dict is {}, not a string; save the model's state dict in Python with {SAVE}",
                    key.kind()
                ));
            };
            let Value::Tensor(index) = value else {
                return other(format!(
                    "{} is {}, not a tensor{}",
                    shown(name),
                    value.kind(),
                    self.way_to_tensors(dict)
                ));
            };
            if !seen.insert(name) {
                return malformed(format!("{} is there twice", shown(name)));
            }
            tensors.push((name.to_string(), self.tensors[index].clone()));
        }
        Ok(tensors)
    }
}

impl Machine<'_> {
    /// How to save the tensors alone of a dict that holds more.
    fn way_to_tensors(&self, dict: usize) -> String {
        let is_tensor = |value: &Value<'_>| matches!(value, Value::Tensor(_));
        let entries = &self.dicts[dict];
        let within = entries.iter().find_map(|&(key, value)| match (key, value) {
            (Value::Text(key), Value::Dict(inner)) => {
                let inner = &self.dicts[inner];
                let all = !inner.is_empty() && inner.iter().all(|(_, value)| is_tensor(value));
                all.then_some(key)
            }
            _ => None,
        });
        match within {
            Some(key) => format!(
                "; {} holds the tensors: save them alone in Python with torch.save(torch.load(FILE)[{}], NEW_FILE)",
                shown(key),
                shown(key)
            ),
            None if entries.iter().any(|(_, value)| is_tensor(value)) => {
                "; save its tensors alone in Python with torch.save({name: value for name, value in \
                 torch.load(FILE).items() if torch.is_tensor(value)}, NEW_FILE)"
                    .into()
            }
            None => format!("; save the model's state dict in Python with {SAVE}"),
        }
    }
}

fn size(value: Value<'_>, what: &str) -> Result<usize, PickleError> {
    match value {
        Value::Int(value) => {
            usize::try_from(value).or_else(|_| malformed(format!("{what} of {value}")))
        }
        other => malformed(format!("{what} holds {}", other.kind())),
    }
}

fn global(module: &str, name: &str) -> Result<Global, PickleError> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
        ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
        ("torch", "LongStorage") => Global::Storage(Dtype::I64),
        ("torch", storage) if is_storage_class(storage) => {
            return other(format!(
                "element type {storage} is not supported (Float, Half, BFloat16, Double and Long are)"
            ));
        }
        _ => return Err(PickleError::Forbidden(format!("{module}.{name}"))),
    })
}

fn is_storage_class(name: &str) -> bool {
    name.strip_suffix("Storage").is_some_and(|kind| {
        !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn opcode_name(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        0x8b => "LONG4",
        0x8c..=0x8e => "UNICODE or BINBYTES of protocol 4",
        0x8f => "EMPTY_SET",
        0x95 => "FRAME of protocol 4",
        b'o' => "OBJ",
        b'P' => "PERSID",
        b'l' => "LIST",
        b'd' => "DICT",
        b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' => "of protocol 0",
        b'T' | b'U' => "BINSTRING",
        b'0' | b'1' | b'2' => "POP or DUP",
        _ => return None,
    })
}

#[cfg(test)]
#[path = "pickle_tests.rs"]
mod tests;
