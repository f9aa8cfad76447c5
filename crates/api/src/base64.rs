//! Base64 (RFC 4648 section 4, padded) for [`crate::PathText`]; sixty lines instead of a dependency.

/// Encodes with padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut word = 0_u32;
        for index in 0..3 {
            word = word << 8 | u32::from(group.get(index).copied().unwrap_or(0));
        }
        for index in 0..4 {
            if index > group.len() {
                text.push('=');
                continue;
            }
            let six = (word >> (18 - 6 * index)) & 63;
            text.push(char::from(ALPHABET[six as usize]));
        }
    }
    text
}

/// Decodes the canonical form only: padded, no spaces, no stray bits.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let padding = bytes.iter().rev().take_while(|&&byte| byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut plain = Vec::with_capacity(bytes.len() / 4 * 3);
    let symbols = &bytes[..bytes.len() - padding];
    for group in symbols.chunks(4) {
        let mut word = 0_u32;
        for index in 0..4 {
            let six = match group.get(index) {
                Some(&symbol) => value(symbol)?,
                None => 0,
            };
            word = word << 6 | six;
        }
        let kept = group.len() * 6 / 8;
        plain.extend_from_slice(&word.to_be_bytes()[1..=kept]);
    }
    (encode(&plain) == text).then_some(plain)
}

fn value(symbol: u8) -> Option<u32> {
    let six = match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(six))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, text) in vectors {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn every_byte_survives() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)), Some(bytes));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["Zg", "Zg=", "Z===", "====", "Zh==", "Zm9v Zm9v", "Zm_v", "Zg==Zg==", "é=="] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
