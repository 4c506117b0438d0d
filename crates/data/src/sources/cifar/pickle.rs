//! The part of Python's pickle language in which CIFAR's batches are written, and nothing more.
//!
//! A pickle is a program. This evaluator knows how a dict of lists, numbers, texts and arrays of NumPy is written, calls
//! nothing, and ends at any other function by its name. Values are small copies that point into flat tables; every opcode makes
//! at most one, and their number is bounded.
//!
//! Opcodes: CPython's `Lib/pickletools.py`. Arrays: NumPy's `array_reduce`.

use std::collections::HashMap;

/// The labels and names of 50,000 images in two opcodes each, with room.
const MOST_OPCODES: usize = 2_000_000;
const LONGEST_NAME: usize = 256;
/// Bytes of an image.
const PIXELS: i64 = 3072;

/// What a batch holds.
#[derive(Debug, PartialEq)]
pub(super) struct Batch {
    /// Where the pixels begin in the file; the images follow each other.
    pub offset: usize,
    /// One an image; at least one.
    pub labels: Vec<i64>,
    /// They are CIFAR-100's fine labels.
    pub fine: bool,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a [u8]),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    /// Of a dtype its name, as `u1`.
    Dtype(&'a [u8]),
    Array(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Global {
    Reconstruct,
    Ndarray,
    Dtype,
}

#[derive(Debug, Clone, Default)]
struct Array<'a> {
    shape: Vec<i64>,
    dtype: &'a [u8],
    data: &'a [u8],
}

/// Reads a batch from its whole file.
///
/// # Errors
/// What is wrong, as a clause.
pub(super) fn read_batch(pickle: &[u8]) -> Result<Batch, String> {
    let mut machine = Machine {
        rest: pickle,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        lists: Vec::new(),
        arrays: Vec::new(),
    };
    let Value::Dict(top) = machine.run()? else {
        return Err("it is a pickle of something else than a batch of CIFAR, a dict".into());
    };
    let get = |wanted: &str| {
        let mut pairs = machine.lists[top].chunks_exact(2);
        pairs.find_map(|pair| match pair[0] {
            Value::Text(key) if key == wanted.as_bytes() => Some(pair[1]),
            _ => None,
        })
    };
    let Some(Value::Array(array)) = get("data") else {
        return Err("it is a pickle without the array `data` of a batch of CIFAR".into());
    };
    let Array { shape, dtype, data } = &machine.arrays[array];
    let [rows, PIXELS] = shape[..] else {
        return Err(format!(
            "its array `data` has the shape {shape:?}, not [images, {PIXELS}]"
        ));
    };
    if *dtype != b"u1" {
        let dtype = String::from_utf8_lossy(dtype);
        return Err(format!(
            "its array `data` is of type {dtype}, not of bytes (u1)"
        ));
    }
    let fine = get("fine_labels");
    let Some(Value::List(labels)) = fine.or_else(|| get("labels")) else {
        return Err(
            "it is a pickle without the list `labels` or `fine_labels` of a batch of CIFAR".into(),
        );
    };
    let label = |value: &Value| match value {
        Value::Int(label @ 0..) => Some(*label),
        _ => None,
    };
    let labels: Option<Vec<i64>> = machine.lists[labels].iter().map(label).collect();
    let labels = labels.ok_or("its labels are not all whole numbers from 0 on")?;
    if rows < 1 || labels.len() as i64 != rows || data.len() as i64 != rows.saturating_mul(PIXELS) {
        return Err(format!(
            "it has {} labels and {} bytes of pixels for {rows} images",
            labels.len(),
            data.len()
        ));
    }
    Ok(Batch {
        offset: data.as_ptr().addr() - pickle.as_ptr().addr(),
        labels,
        fine: fine.is_some(),
    })
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    /// The elements of tuples and lists, and keys and values of dicts.
    lists: Vec<Vec<Value<'a>>>,
    arrays: Vec<Array<'a>>,
}

fn damaged<T>(problem: &str) -> Result<T, String> {
    Err(format!("damaged pickle: {problem}"))
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>, String> {
        for _ in 0..MOST_OPCODES {
            let opcode = self.take(1)?[0];
            let value = match opcode {
                // PROTO
                0x80 => {
                    self.take(1)?;
                    continue;
                }
                // FRAME
                0x95 => {
                    self.take(8)?;
                    continue;
                }
                b'.' => return self.pop(),
                b'(' => {
                    self.marks.push(self.stack.len());
                    continue;
                }
                b'N' => Value::None,
                0x88 | 0x89 => Value::Bool(opcode == 0x88),
                b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
                b'K' => Value::Int(self.array::<1>()?[0].into()),
                b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
                // SHORT_BINSTRING, SHORT_BINBYTES, SHORT_BINUNICODE
                b'U' | b'C' | 0x8c => {
                    let [length] = self.array()?;
                    Value::Text(self.take(length.into())?)
                }
                // BINSTRING, BINBYTES, BINUNICODE
                b'T' | b'B' | b'X' => {
                    let length = u32::from_le_bytes(self.array()?);
                    Value::Text(self.take(length as usize)?)
                }
                // BINBYTES8, BINUNICODE8
                0x8e | 0x8d => {
                    let length = usize::try_from(u64::from_le_bytes(self.array()?));
                    Value::Text(self.take(length.unwrap_or(usize::MAX))?)
                }
                b')' => self.tuple(0)?,
                // TUPLE1, TUPLE2, TUPLE3
                0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
                b't' => {
                    let length = self.above_mark()?;
                    self.tuple(length)?
                }
                b'}' => Value::Dict(self.list(Vec::new())),
                b']' => Value::List(self.list(Vec::new())),
                // APPEND, APPENDS, SETITEM, SETITEMS
                b'a' | b'e' | b's' | b'u' => {
                    let length = match opcode {
                        b'a' => 1,
                        b's' => 2,
                        _ => self.above_mark()?,
                    };
                    self.extend(length, matches!(opcode, b's' | b'u'))?;
                    continue;
                }
                // BINPUT, LONG_BINPUT, MEMOIZE
                b'q' | b'r' | 0x94 => {
                    let place = match opcode {
                        b'q' => u32::from(self.array::<1>()?[0]),
                        b'r' => u32::from_le_bytes(self.array()?),
                        _ => self.memo.len() as u32,
                    };
                    let value = self.top()?;
                    self.memo.insert(place, value);
                    continue;
                }
                // BINGET, LONG_BINGET
                b'h' | b'j' => {
                    let place = match opcode {
                        b'h' => u32::from(self.array::<1>()?[0]),
                        _ => u32::from_le_bytes(self.array()?),
                    };
                    match self.memo.get(&place) {
                        Some(value) => *value,
                        None => return damaged("a value is recalled that was never kept"),
                    }
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    global(module, name)?
                }
                // STACK_GLOBAL
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return damaged("a function without a name");
                    };
                    global(module, name)?
                }
                b'R' => self.call()?,
                b'b' => {
                    self.build()?;
                    continue;
                }
                _ => {
                    return Err(format!(
                        "its opcode 0x{opcode:02x} is none that a batch of CIFAR is pickled with"
                    ));
                }
            };
            self.stack.push(value);
        }
        damaged("more opcodes than a batch has")
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return damaged("it ends too early");
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        bytes.try_into().or_else(|_| damaged("it ends too early"))
    }

    fn line(&mut self) -> Result<&'a [u8], String> {
        let mut start = self.rest.iter().take(LONGEST_NAME);
        match start.position(|&byte| byte == b'\n') {
            Some(end) => Ok(&self.take(end + 1)?[..end]),
            None => damaged("a name has no end"),
        }
    }

    /// Values below an open mark belong to what is outside of it.
    fn pop(&mut self) -> Result<Value<'a>, String> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn top(&self) -> Result<Value<'a>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&value) if self.stack.len() > floor => Ok(value),
            _ => damaged("a value is missing on its stack"),
        }
    }

    fn above_mark(&mut self) -> Result<usize, String> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.len() - height),
            None => damaged("a mark is missing on its stack"),
        }
    }

    fn split_off(&mut self, count: usize) -> Result<Vec<Value<'a>>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() < floor + count {
            return damaged("a value is missing on its stack");
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn list(&mut self, values: Vec<Value<'a>>) -> usize {
        self.lists.push(values);
        self.lists.len() - 1
    }

    fn tuple(&mut self, count: usize) -> Result<Value<'a>, String> {
        let values = self.split_off(count)?;
        Ok(Value::Tuple(self.list(values)))
    }

    /// Moves `count` values into the list or dict below them.
    fn extend(&mut self, count: usize, pairs: bool) -> Result<(), String> {
        let values = self.split_off(count)?;
        match (self.top()?, pairs) {
            (Value::List(list), false) => self.lists[list].extend(values),
            (Value::Dict(dict), true) if count.is_multiple_of(2) => self.lists[dict].extend(values),
            _ => return damaged("elements of something that is no list or dict"),
        }
        Ok(())
    }

    /// What the three functions make of their arguments.
    fn call(&mut self) -> Result<Value<'a>, String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = arguments else {
            return damaged("arguments that are no tuple");
        };
        match (function, &self.lists[arguments][..]) {
            (Value::Global(Global::Reconstruct), [Value::Global(Global::Ndarray), ..]) => {
                self.arrays.push(Array::default());
                Ok(Value::Array(self.arrays.len() - 1))
            }
            (Value::Global(Global::Dtype), [Value::Text(name), ..]) => Ok(Value::Dtype(name)),
            _ => damaged("a call of something that is no function here"),
        }
    }

    /// Gives an array its `(version, shape, dtype, is_fortran, data)`. What a dtype is given says how bytes lie in numbers of
    /// several.
    fn build(&mut self) -> Result<(), String> {
        let (state, of) = (self.pop()?, self.top()?);
        let Value::Tuple(state) = state else {
            return damaged("a state that is no tuple");
        };
        match (of, &self.lists[state][..]) {
            (Value::Dtype(_), _) => Ok(()),
            (
                Value::Array(array),
                [
                    Value::Int(_),
                    Value::Tuple(shape),
                    Value::Dtype(dtype),
                    Value::Bool(fortran),
                    Value::Text(data),
                ],
            ) => {
                let size = |value: &Value| match value {
                    Value::Int(size @ 0..) => Some(*size),
                    _ => None,
                };
                let shape: Option<Vec<i64>> = self.lists[*shape].iter().take(8).map(size).collect();
                let Some(shape) = shape else {
                    return damaged("a shape of other things than whole numbers");
                };
                if *fortran {
                    return Err("its array lies column by column, as no batch of CIFAR does".into());
                }
                self.arrays[array] = Array { shape, dtype, data };
                Ok(())
            }
            _ => Err("it holds an array in a form that no batch of CIFAR has".into()),
        }
    }
}

fn global<'a>(module: &[u8], name: &[u8]) -> Result<Value<'a>, String> {
    let known = match (module, name) {
        (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => {
            Global::Reconstruct
        }
        (b"numpy", b"ndarray") => Global::Ndarray,
        (b"numpy", b"dtype") => Global::Dtype,
        _ => {
            let [module, name] =
                [module, name].map(|text| String::from_utf8_lossy(text).escape_debug().to_string());
            return Err(format!(
                "it asks for {module}.{name}, as no batch of CIFAR does; nothing of it was run"
            ));
        }
    };
    Ok(Value::Global(known))
}
