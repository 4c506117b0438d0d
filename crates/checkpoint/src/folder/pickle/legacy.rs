//! What `torch.save` wrote before PyTorch 1.6: a row of pickles (a magic number, a version, facts about the machine,
//! the state dict, the keys of the storages), then the storages themselves.
//!
//! Source: `_legacy_save` and `_legacy_load` in `torch/serialization.py`.

use super::{Machine, PickleError, Value, View, malformed};

/// The magic number and version 1001, each a pickle of protocol 2.
const START: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";

/// The pickles of such a file.
#[derive(Debug)]
pub(in crate::folder) struct Legacy {
    pub state_dict: Vec<(String, View)>,
    /// Of the storages, in the order in which they follow.
    pub keys: Vec<String>,
    /// Bytes that the pickles take; the first storage begins there.
    pub len: usize,
}

/// Runs the pickles at the start of a file.
pub(in crate::folder) fn read_legacy(file: &[u8]) -> Result<Legacy, PickleError> {
    let Some(rest) = file.strip_prefix(START) else {
        return malformed(
            "it does not begin as torch.save's files do (magic number and version 1001)",
        );
    };
    let mut machine = Machine::new(rest);
    let facts = machine.run()?;
    if !machine.says_little_endian(facts) {
        return malformed("it was not written on a little-endian machine");
    }
    let mut machine = Machine::new(machine.rest);
    let top = machine.run()?;
    let state_dict = machine.state_dict(top)?;
    let mut machine = Machine::new(machine.rest);
    let keys = machine.keys()?;
    Ok(Legacy {
        state_dict,
        keys,
        len: file.len() - machine.rest.len(),
    })
}

impl<'a> Machine<'a> {
    fn says_little_endian(&self, facts: Value<'a>) -> bool {
        let Value::Dict(dict) = facts else {
            return false;
        };
        self.dicts[dict].iter().any(|entry| {
            matches!(
                entry,
                (Value::Text("little_endian"), Value::Bool(little)) if *little
            )
        })
    }

    /// A pickle of one list of strings. Nothing but strings is made, so that its other opcodes need not be followed.
    fn keys(&mut self) -> Result<Vec<String>, PickleError> {
        let mut keys = Vec::new();
        loop {
            match self.take(1)?[0] {
                0x80 | b'q' => drop(self.take(1)?),
                b'r' => drop(self.take(4)?),
                b']' | b'(' | b'e' | b'a' => {}
                b'X' => keys.push(self.text()?.to_string()),
                b'.' => return Ok(keys),
                opcode => return Err(self.refuse(opcode)),
            }
        }
    }
}
