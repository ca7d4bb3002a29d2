//! Protocol buffers as they stand in the body, field by field: no message is built, strings stay where they are.
//!
//! In: a stretch of the body. Out: its fields in order. Groups, which nobody writes, are malformed.
//! Source: protobuf.dev, "Encoding".

use super::{Fault, Parsed};

/// A stretch of the body that holds one message, or one packed list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stretch {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(Stretch),
}

/// Reads a message's fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    body: &'a [u8],
    pub(super) at: usize,
    end: usize,
}

const WRONG: &str = "expected another type of field";

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8], stretch: Stretch) -> Self {
        Self { body, at: stretch.start, end: stretch.end }
    }

    /// The next field's number and value.
    pub(super) fn next(&mut self) -> Parsed<Option<(u64, Value)>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = self.at;
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed64()?),
            2 => Value::Bytes(self.delimited()?),
            5 if self.end - self.at >= 4 => {
                self.at += 4;
                Value::Fixed32
            }
            _ => return Fault::at(start, "expected a field"),
        };
        Ok(Some((key >> 3, value)))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Parsed<u64> {
        let start = self.at;
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            match self.body[..self.end].get(self.at) {
                Some(byte) => {
                    self.at += 1;
                    value |= u64::from(byte & 0x7f) << shift;
                    if byte & 0x80 == 0 {
                        return Ok(value);
                    }
                }
                None => break,
            }
        }
        Fault::at(start, "expected a whole number")
    }

    fn fixed64(&mut self) -> Parsed<u64> {
        match self.body[..self.end].get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Fault::at(self.at, "expected eight bytes"),
        }
    }

    /// A length and that many bytes.
    pub(super) fn delimited(&mut self) -> Parsed<Stretch> {
        let at = self.at;
        let length = self.varint()?;
        if length > (self.end - self.at) as u64 {
            return Fault::at(at, "expected as many bytes as the length says");
        }
        let start = self.at;
        self.at += length as usize;
        Ok(Stretch { start, end: self.at })
    }

    /// Numbers of a repeated field, packed or one by one.
    pub(super) fn list(self, value: Value, mut each: impl FnMut(u64) -> Parsed<()>) -> Parsed<()> {
        match value {
            Value::Varint(number) | Value::Fixed64(number) => each(number),
            Value::Bytes(stretch) => Fields::new(self.body, stretch).packed(each),
            Value::Fixed32 => Fault::at(self.at, WRONG),
        }
    }

    fn packed(mut self, mut each: impl FnMut(u64) -> Parsed<()>) -> Parsed<()> {
        while self.at < self.end {
            each(self.varint()?)?;
        }
        Ok(())
    }

    /// Floats of a repeated field, packed or one by one.
    pub(super) fn floats(self, value: Value, mut each: impl FnMut(f64) -> Parsed<()>) -> Parsed<()> {
        match value {
            Value::Fixed64(bits) => each(f64::from_bits(bits)),
            Value::Bytes(stretch) => {
                let mut inside = Fields::new(self.body, stretch);
                while inside.at < inside.end {
                    each(f64::from_bits(inside.fixed64()?))?;
                }
                Ok(())
            }
            _ => Fault::at(self.at, WRONG),
        }
    }

    pub(super) fn float(&self, value: Value) -> Parsed<f64> {
        match value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Fault::at(self.at, WRONG),
        }
    }

    pub(super) fn whole(&self, value: Value) -> Parsed<u64> {
        match value {
            Value::Varint(number) => Ok(number),
            _ => Fault::at(self.at, WRONG),
        }
    }

    pub(super) fn bytes(&self, value: Value) -> Parsed<Stretch> {
        match value {
            Value::Bytes(stretch) => Ok(stretch),
            _ => Fault::at(self.at, WRONG),
        }
    }
}

/// A number that was written in zigzag.
pub(super) fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}
