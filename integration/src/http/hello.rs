//! The first message of a TLS connection, for tests of listeners that route by it without decrypting.

/// A TLS 1.2 ClientHello with the given server name, if any.
pub fn client_hello(name: Option<&str>) -> Vec<u8> {
    fn sized(bytes: &[u8], width: usize) -> Vec<u8> {
        let length = bytes.len().to_be_bytes();
        [length.get(8 - width..).unwrap_or_default(), bytes].concat()
    }
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let entry = [&[0u8][..], &sized(name.as_bytes(), 2)].concat();
        extensions.extend([&[0u8, 0][..], &sized(&sized(&entry, 2), 2)].concat());
    }
    let body =
        [&[3u8, 3][..], &[7; 32], &[0], &sized(&[0xc0, 0x2f], 2), &sized(&[0], 1), &sized(&extensions, 2)].concat();
    let handshake = [&[1u8][..], &sized(&body, 3)].concat();
    [&[22u8, 3, 1][..], &sized(&handshake, 2)].concat()
}
