//! The byte encoding of row bodies: little building blocks, no reflection, no surprises.
//!
//! Integers are LEB128 varints (as in DWARF and Protobuf), byte strings carry their length, and
//! every body starts with a format number. Layouts are frozen in `docs/spec/rows.md`.

use bytes::{Buf, Bytes};

/// A body that does not decode: the store is damaged, or newer than this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row body of {what} does not decode at byte {at}: {why}")]
pub struct DecodeError {
    /// What was being decoded.
    pub what: &'static str,
    /// Offset in the body.
    pub at: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// Builds a body.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Starts a body of this format.
    pub(crate) fn new(format: u8) -> Self {
        // Room for most bodies: growing byte by byte costs more than what stays unused.
        let mut out = Vec::with_capacity(64);
        out.push(format);
        Self { out }
    }

    pub(crate) fn byte(&mut self, value: u8) -> &mut Self {
        self.out.push(value);
        self
    }

    pub(crate) fn flag(&mut self, value: bool) -> &mut Self {
        self.byte(u8::from(value))
    }

    pub(crate) fn int(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
        self
    }

    /// Zigzag, so that small negative numbers stay short.
    pub(crate) fn signed(&mut self, value: i64) -> &mut Self {
        self.int((value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned())
    }

    pub(crate) fn wide(&mut self, value: u128) -> &mut Self {
        self.int(value as u64).int((value >> 64) as u64)
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.int(value.len() as u64);
        self.out.extend_from_slice(value);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// 0 for none, else the value plus one.
    pub(crate) fn option(&mut self, value: Option<u64>) -> &mut Self {
        self.int(value.map_or(0, |v| v.saturating_add(1)))
    }

    pub(crate) fn option_bytes(&mut self, value: Option<&Bytes>) -> &mut Self {
        match value {
            None => self.byte(0),
            Some(bytes) => self.byte(1).bytes(bytes),
        }
    }

    pub(crate) fn finish(self) -> Bytes {
        Bytes::from(self.out)
    }
}

/// Reads a body back.
#[derive(Debug)]
pub(crate) struct Reader {
    what: &'static str,
    rest: Bytes,
    total: usize,
}

impl Reader {
    /// Opens a body and checks its format number.
    pub(crate) fn new(what: &'static str, body: Bytes, format: u8) -> Result<Self, DecodeError> {
        Self::of_any(what, body, format..=format).map(|(reader, _)| reader)
    }

    /// Opens a body of any of these formats, and says which it is of.
    pub(crate) fn of_any(
        what: &'static str,
        body: Bytes,
        formats: std::ops::RangeInclusive<u8>,
    ) -> Result<(Self, u8), DecodeError> {
        let total = body.len();
        let mut reader = Self {
            what,
            rest: body,
            total,
        };
        let format = reader.byte()?;
        if formats.contains(&format) {
            Ok((reader, format))
        } else {
            Err(reader.error("unknown format number"))
        }
    }

    pub(crate) fn error(&self, why: &'static str) -> DecodeError {
        DecodeError {
            what: self.what,
            at: self.total - self.rest.len(),
            why,
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        if self.rest.is_empty() {
            return Err(self.error("ends too early"));
        }
        Ok(self.rest.get_u8())
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error("a flag is neither 0 nor 1")),
        }
    }

    pub(crate) fn int(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("an integer is too long"))
    }

    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        let value = self.int()?;
        T::try_from(value).map_err(|_| self.error("an integer is out of range"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.int()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    pub(crate) fn wide(&mut self) -> Result<u128, DecodeError> {
        Ok(u128::from(self.int()?) | u128::from(self.int()?) << 64)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len: usize = self.small()?;
        if len > self.rest.len() {
            return Err(self.error("a byte string is longer than the body"));
        }
        Ok(self.rest.split_to(len))
    }

    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.error("a text is not UTF-8"))
    }

    pub(crate) fn option(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(self.int()?.checked_sub(1))
    }

    pub(crate) fn option_small<T: TryFrom<u64>>(&mut self) -> Result<Option<T>, DecodeError> {
        let value = self.option()?.map(T::try_from).transpose();
        value.map_err(|_| self.error("an integer is out of range"))
    }

    pub(crate) fn option_bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        Ok(if self.flag()? {
            Some(self.bytes()?)
        } else {
            None
        })
    }

    /// A count of things that take at least one byte each: bounded by what is left.
    pub(crate) fn length(&mut self) -> Result<usize, DecodeError> {
        let count: usize = self.small()?;
        if count > self.rest.len() {
            return Err(self.error("a list is longer than the body"));
        }
        Ok(count)
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.error("bytes are left over"))
        }
    }
}
