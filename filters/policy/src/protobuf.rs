//! The parts of Protobuf's wire format that the engine reads and writes:
//! <https://protobuf.dev/programming-guides/encoding>.

/// The fields of a serialised message, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageFields<'b>(pub(crate) &'b [u8]);

/// The value of a field, by its wire type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FieldValue<'b> {
    /// A varint.
    Number(u64),
    /// Eight bytes.
    Fixed(u64),
    /// Text, bytes or a message.
    Bytes(&'b [u8]),
    /// A wire type that no field read here has.
    Other,
}

impl<'b> MessageFields<'b> {
    /// The next field and its number. `None`: the message is malformed; `Some(None)`: its end.
    #[cold]
    pub(crate) fn next(&mut self) -> Option<Option<(u64, FieldValue<'b>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => FieldValue::Number(self.varint()?),
            1 => FieldValue::Fixed(u64::from_le_bytes(*self.take(8)?.first_chunk()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                FieldValue::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| FieldValue::Other)?,
            _ => return None,
        };
        Some(Some((tag >> 3, field)))
    }

    #[cold]
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let [byte] = self.take(1)? else { return None };
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cold]
fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

/// Writes a field that is a number; its own number is below 16.
pub(crate) fn put_number(message: &mut Vec<u8>, field: u8, number: u64) {
    message.push(field << 3);
    put_varint(message, number);
}

/// Writes a field of text, bytes or a message; its number is below 16.
#[cold]
pub(crate) fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}
