//! Is an ONNX file what it must be for rten to read it?
//!
//! ONNX is Protocol Buffers: fields with a number, each a number or that many bytes, which may be a message of fields.
//! rten 0.24 and 0.27 never return from a number of eleven bytes, and go as deep as messages are nested. What they
//! read is walked here first.

/// Messages inside each other, at most. A network without loops and branches has seven.
const DEEPEST: usize = 64;
/// Bytes of a number, at most.
const LONGEST_NUMBER: usize = 10;

/// The messages that are read, as `onnx.proto` names them.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Sequence,
    Shape,
    /// Of dimensions and pairs of strings: no messages in it.
    Leaf,
}

/// What the bytes of a field are.
enum Content {
    Message(Message),
    Numbers,
    Bytes,
}

impl Message {
    fn content(self, field: u64) -> Content {
        use Message::*;
        let inner = match (self, field) {
            (Model, 7) | (Attribute, 6) => Graph,
            (Graph, 1) => Node,
            (Graph, 5) | (Attribute, 5) => Tensor,
            (Graph, 11..=13) => ValueInfo,
            (Node, 5) => Attribute,
            (ValueInfo, 2) | (Sequence, 1) => Type,
            (Type, 1) => TensorType,
            (Type, 4) => Sequence,
            (TensorType, 2) => Shape,
            (Model, 14) | (Tensor, 13) | (Shape, 1) => Leaf,
            // Of 32 and 64 bits; floating-point numbers have a fixed length.
            (Tensor, 5 | 7) => return Content::Numbers,
            _ => return Content::Bytes,
        };
        Content::Message(inner)
    }
}

/// Walks a model's messages.
///
/// # Errors
/// Where it is no such file: for people.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    walk(bytes, Message::Model, 0)
}

fn walk(mut rest: &[u8], message: Message, depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("more than {DEEPEST} parts inside each other"));
    }
    while !rest.is_empty() {
        let key = number(&mut rest)?;
        match key & 7 {
            0 => drop(number(&mut rest)?),
            1 => drop(take(&mut rest, 8)?),
            5 => drop(take(&mut rest, 4)?),
            2 => {
                let length = number(&mut rest)?;
                let mut content = take(&mut rest, length)?;
                match message.content(key >> 3) {
                    Content::Message(inner) => walk(content, inner, depth + 1)?,
                    Content::Numbers => {
                        while !content.is_empty() {
                            number(&mut content)?;
                        }
                    }
                    Content::Bytes => {}
                }
            }
            _ => return Err("fields of an unknown kind".into()),
        }
    }
    Ok(())
}

/// Takes a number: seven bits a byte, the lowest first, in all but the last byte with the highest bit set.
fn number(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for (place, &byte) in rest.iter().take(LONGEST_NUMBER).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            *rest = &rest[place + 1..];
            return Ok(value);
        }
    }
    Err("a number has no end".into())
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let split = usize::try_from(length)
        .ok()
        .and_then(|at| rest.split_at_checked(at));
    let (taken, left) = split.ok_or("a part is longer than what holds it")?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length > 0x7f {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(content);
        bytes
    }

    #[test]
    fn numbers_without_an_end_are_found_where_numbers_are_and_only_there() {
        let endless = [0x80; 12];
        assert!(check(&endless).is_err());
        let model = |tensor: &[u8]| field(7, &field(5, tensor));
        assert!(check(&model(&field(7, &endless))).is_err());
        let raw_data = 9;
        assert_eq!(check(&model(&field(raw_data, &endless))), Ok(()));
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn what_is_longer_than_what_holds_it_is_refused() {
        let mut model = field(7, &field(1, b""));
        model[3] = 4;
        assert!(check(&model).unwrap_err().contains("longer"));
        assert!(check(&[8]).is_err());
        assert!(check(&[9, 0, 0]).is_err());
        assert!(check(&[11]).unwrap_err().contains("unknown kind"));
    }

    #[test]
    fn graphs_inside_each_other_are_refused_before_they_fill_the_stack() {
        let mut graph = Vec::new();
        for _ in 0..DEEPEST {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        assert!(check(&field(7, &graph)).unwrap_err().contains("inside"));
    }
}
