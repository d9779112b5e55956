//! Where a message is broken: looked for only once it is known that it is.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::limits;

/// The first fault with its place as a JSON pointer; `None` when this reader finds none.
pub(super) fn of_fault(message: &MessageDescriptor, value: &[u8]) -> Option<String> {
    let mut pointer = String::new();
    let what = look(message, value, &mut pointer, 0).err()?;
    let place = if pointer.is_empty() { "/" } else { &pointer };
    Some(format!("{what} at {place}"))
}

type Looked = Result<(), String>;

fn look(message: &MessageDescriptor, mut value: &[u8], at: &mut String, depth: usize) -> Looked {
    if depth > limits::PROTOBUF_DEPTH_MAX {
        let most = limits::PROTOBUF_DEPTH_MAX;
        return Err(format!("more than {most} messages inside each other"));
    }
    let mut seen = std::collections::BTreeMap::<u32, usize>::new();
    while !value.is_empty() {
        let (key, rest) = varint(value).ok_or("a field's number is cut off")?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("there is no field {}", key >> 3))?;
        let wire = (key & 7) as u8;
        let field = message.get_field(number);
        let before = at.len();
        if let Some(field) = &field {
            at.push('/');
            at.push_str(field.json_name());
            let index = seen.entry(number).or_default();
            if field.is_list() {
                at.push_str(&format!("/{index}"));
            }
            *index += 1;
            fits(field, wire)?;
        }
        let (content, after) = content(wire, rest, number)?;
        match field.map(|field| field.kind()) {
            Some(Kind::Message(inner)) if wire == 2 => look(&inner, content, at, depth + 1)?,
            Some(Kind::String) => {
                std::str::from_utf8(content).map_err(|cause| {
                    format!("a text that is not UTF-8 (byte {})", cause.valid_up_to())
                })?;
            }
            _ => {}
        }
        at.truncate(before);
        value = after;
    }
    Ok(())
}

/// Whether a field may be written in this way; a list of numbers may be packed.
fn fits(field: &FieldDescriptor, wire: u8) -> Looked {
    let wanted = field.kind().wire_type() as u8;
    let packed = wire == 2 && field.is_list() && matches!(wanted, 0 | 1 | 5);
    if wire == wanted || packed || field.is_group() {
        return Ok(());
    }
    let kind = field.kind();
    Err(format!(
        "found {}, expected {} for {kind:?}",
        wire_name(wire),
        wire_name(wanted)
    ))
}

const fn wire_name(wire: u8) -> &'static str {
    match wire {
        0 => "a varint",
        1 => "eight bytes",
        2 => "a length and bytes",
        3 | 4 => "a group",
        5 => "four bytes",
        _ => "a way of writing that does not exist",
    }
}

/// What a field holds, and what follows it.
fn content(wire: u8, rest: &[u8], number: u32) -> Result<(&[u8], &[u8]), String> {
    let cut = |wanted: usize| format!("it ends after {} of {wanted} bytes", rest.len());
    match wire {
        0 => {
            let (_, after) = varint(rest).ok_or("a number is cut off")?;
            Ok((&rest[..rest.len() - after.len()], after))
        }
        1 => rest.split_at_checked(8).ok_or_else(|| cut(8)),
        5 => rest.split_at_checked(4).ok_or_else(|| cut(4)),
        2 => {
            let (length, after) = varint(rest).ok_or("a length is cut off")?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            after
                .split_at_checked(length)
                .ok_or_else(|| format!("it ends after {} of {length} bytes", after.len()))
        }
        3 => group(rest, number, 0).map(|after| (&rest[..0], after)),
        _ => Err(format!("field {number} is written as {}", wire_name(wire))),
    }
}

/// What follows a group.
fn group(mut rest: &[u8], number: u32, depth: usize) -> Result<&[u8], String> {
    if depth > limits::PROTOBUF_DEPTH_MAX {
        return Err("too many groups inside each other".to_owned());
    }
    loop {
        let (key, after) = varint(rest).ok_or("a group is cut off")?;
        let (inner, wire) = ((key >> 3) as u32, (key & 7) as u8);
        rest = match wire {
            4 if inner == number => return Ok(after),
            3 => group(after, inner, depth + 1)?,
            _ => content(wire, after, inner)?.1,
        };
    }
}

/// A number of at most 64 bits, and what follows it.
pub(super) fn varint(value: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in value.iter().enumerate().take(10) {
        if at == 9 && *byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, &value[at + 1..]));
        }
    }
    None
}
