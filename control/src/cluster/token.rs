//! What a node needs to be admitted: a secret, and the fingerprint of the member that made it, so that the node knows
//! whom it asks. As text: `dwcp1-`, then 96 hexadecimal digits.
use std::fmt;
use std::str::FromStr;

use dwcp_sys::identity::Fingerprint;

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) secret: [u8; 16],
    pub(crate) fingerprint: Fingerprint,
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(PREFIX)?;
        self.secret.iter().chain(&self.fingerprint.0).try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Never whole: it would get into logs.
impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "token of {}", self.fingerprint)
    }
}

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NO_TOKEN: &str =
            "a token is `dwcp1-` and 96 hexadecimal digits, as `dwcp cluster token` prints it";
        let digits = text.trim().strip_prefix(PREFIX).ok_or(NO_TOKEN)?.as_bytes();
        if digits.len() != 2 * (16 + 32) {
            return Err(NO_TOKEN);
        }
        let mut bytes = [0; 48];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |character: u8| char::from(character).to_digit(16).ok_or(NO_TOKEN);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        let (mut secret, mut fingerprint) = ([0; 16], [0; 32]);
        secret.copy_from_slice(&bytes[..16]);
        fingerprint.copy_from_slice(&bytes[16..]);
        Ok(Self { secret, fingerprint: Fingerprint(fingerprint) })
    }
}

const PREFIX: &str = "dwcp1-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_from_text() {
        let token = Token { secret: [0xab; 16], fingerprint: Fingerprint([7; 32]) };
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token));
        for wrong in
            ["", "dwcp1-", &text[6..], &text[..101], &text.replace('a', "g"), &text.replace("ab", "+b")]
        {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }
}
