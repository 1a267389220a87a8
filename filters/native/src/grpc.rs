//! One gRPC message over HTTP: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. The ABI has no gRPC
//! calls.

/// The largest reply in bytes; those of rate-limit services have a few hundred.
pub(crate) const MOST: usize = 1 << 20;

/// Frames a message as the body of a request.
pub(crate) fn frame(message: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(message.len()).ok()?;
    let mut body = Vec::with_capacity(message.len() + 5);
    body.push(0);
    body.extend(length.to_be_bytes());
    body.extend_from_slice(message);
    Some(body)
}

/// The only message of a body. A message that is compressed (which was not requested), truncated, or followed by data
/// is invalid.
pub(crate) fn unframe(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_first_chunk::<5>()?;
    let [0, a, b, c, d] = *prefix else { return None };
    (message.len() == u32::from_be_bytes([a, b, c, d]) as usize).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for message in [&b""[..], b"x", &[7; 70_000]] {
            assert_eq!(unframe(&frame(message).unwrap()), Some(message));
        }
        assert_eq!(frame(b"abc").unwrap(), b"\0\0\0\0\x03abc");
    }

    #[test]
    fn what_is_not_one_whole_plain_message_is_none() {
        for body in
            [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x01", b"\0\0\0\0\x01ab", b"\x01\0\0\0\x01a", b"\0\xff\xff\xff\xffa"]
        {
            assert_eq!(unframe(body), None, "{body:?}");
        }
    }
}
