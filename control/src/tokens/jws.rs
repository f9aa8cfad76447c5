//! JSON Web Tokens (RFC 7519) as compact JWS (RFC 7515), signed by Ed25519 (`EdDSA`, RFC 8037) and by nothing else.
//! Pure: keys, clock and what is expected are arguments. Follows RFC 8725: the algorithm is not the token's to choose, a
//! header with anything that we do not write is refused, and nothing of the claims counts before the signature.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dwcp_api::Role;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// What a token says. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    /// Which node made it.
    pub(crate) iss: String,
    /// For whom: always [`AUDIENCE`].
    pub(crate) aud: String,
    /// Who uses it.
    pub(crate) sub: String,
    /// What it opens.
    pub(crate) role: Role,
    pub(crate) iat: u64,
    pub(crate) exp: u64,
    /// Its own number, for the audit log.
    pub(crate) jti: String,
}

/// Why a token counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("it is no token of this node")]
    Form,
    #[error("its algorithm is not EdDSA")]
    Algorithm,
    #[error("its signing key is not in use any more, or never was")]
    Key,
    #[error("its signature is wrong")]
    Signature,
    #[error("its claims are not those of this node's tokens")]
    Claims,
    #[error("another node made it")]
    Issuer,
    #[error("it is not meant for DWCP")]
    Audience,
    #[error("it says that it was made in the future: compare the clocks")]
    Early,
    #[error("it has expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// The token's text.
pub(crate) fn sign(claims: &Claims, kid: &str, pair: &Ed25519KeyPair) -> String {
    let header = Header { alg: ALGORITHM.into(), typ: TYPE.into(), kid: kid.into() };
    let signed = format!("{}.{}", encode(&header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// The claims of a token that counts now. `key` gives the public key of an id, while it is in use.
pub(crate) fn verify<'k>(
    text: &str,
    issuer: &str,
    now_s: u64,
    key: impl FnOnce(&str) -> Option<&'k [u8]>,
) -> Result<Claims, TokenError> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Form);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Form)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
    let header: Header = decode(header).ok_or(TokenError::Form)?;
    if header.alg != ALGORITHM {
        return Err(TokenError::Algorithm);
    }
    if header.typ != TYPE {
        return Err(TokenError::Form);
    }
    let key = key(&header.kid).ok_or(TokenError::Key)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Form)?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| TokenError::Signature)?;
    let claims: Claims = decode(claims).ok_or(TokenError::Claims)?;
    check(&claims, issuer, now_s)?;
    Ok(claims)
}

fn check(claims: &Claims, issuer: &str, now_s: u64) -> Result<(), TokenError> {
    if claims.aud != AUDIENCE {
        return Err(TokenError::Audience);
    }
    if claims.iss != issuer {
        return Err(TokenError::Issuer);
    }
    let lifetime = claims.exp.checked_sub(claims.iat).ok_or(TokenError::Claims)?;
    if lifetime == 0 || lifetime > LIFETIME_S_MAX {
        return Err(TokenError::Claims);
    }
    if claims.iat > now_s.saturating_add(SKEW_S) {
        return Err(TokenError::Early);
    }
    if now_s >= claims.exp.saturating_add(SKEW_S) {
        return Err(TokenError::Expired);
    }
    Ok(())
}

fn encode(part: &impl Serialize) -> String {
    // Structures of texts and numbers always serialize.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).unwrap_or_default())
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Who tokens are for.
pub(crate) const AUDIENCE: &str = "dwcp";
/// RFC 8037, section 3.1.
const ALGORITHM: &str = "EdDSA";
const TYPE: &str = "JWT";
/// How far clocks may differ, or step, without harm.
pub(super) const SKEW_S: u64 = 60;
/// A day: the largest `security.jwt_ttl`.
pub(super) const LIFETIME_S_MAX: u64 = 24 * 3600;
/// Ours have a third of it.
const TOKEN_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair;

    use super::*;

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn claims() -> Claims {
        let [iss, aud, sub, jti] = ["node-1", AUDIENCE, "ci", "7"].map(str::to_owned);
        Claims { iss, aud, sub, role: Role::Operate, iat: 1000, exp: 4600, jti }
    }

    fn verified(text: &str, now_s: u64) -> Result<Claims, TokenError> {
        let key = pair(1);
        let public = key.public_key().as_ref();
        verify(text, "node-1", now_s, |kid| (kid == "k1").then_some(public))
    }

    fn with_header(header: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), encode(&claims()));
        let signature = URL_SAFE_NO_PAD.encode(pair(1).sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    #[test]
    fn a_token_counts_from_its_making_to_its_expiry_give_or_take_the_skew() {
        let text = sign(&claims(), "k1", &pair(1));
        assert_eq!(verified(&text, 1000), Ok(claims()));
        for (now_s, verdict) in [
            (0, Err(TokenError::Early)),
            (939, Err(TokenError::Early)),
            (940, Ok(claims())),
            (4659, Ok(claims())),
            (4660, Err(TokenError::Expired)),
            (u64::MAX, Err(TokenError::Expired)),
        ] {
            assert_eq!(verified(&text, now_s), verdict, "{now_s}");
        }
    }

    #[test]
    fn the_algorithm_is_not_the_tokens_to_choose() {
        for alg in ["none", "None", "HS256", "RS256", "ES256", "eddsa", ""] {
            let text = with_header(&format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"k1"}}"#));
            assert_eq!(verified(&text, 1000), Err(TokenError::Algorithm), "{alg}");
        }
        // The key that is public, taken for a secret: what makes confusion of algorithms an attack.
        let public = pair(1);
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.public_key().as_ref());
        for alg in ["HS256", "EdDSA"] {
            let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"k1"}}"#));
            let signed = format!("{header}.{}", encode(&claims()));
            let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, signed.as_bytes()));
            assert!(verified(&format!("{signed}.{tag}"), 1000).is_err(), "{alg}");
        }
    }

    #[test]
    fn headers_with_anything_else_are_refused() {
        for header in [
            r#"{"alg":"EdDSA","typ":"JWT"}"#,
            r#"{"alg":"EdDSA","typ":"JWE","kid":"k1"}"#,
            r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","crit":["exp"]}"#,
            r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","jwk":{}}"#,
            r#"{"alg":"EdDSA","alg":"none","typ":"JWT","kid":"k1"}"#,
            "[]",
            "",
        ] {
            assert_eq!(verified(&with_header(header), 1000), Err(TokenError::Form), "{header}");
        }
        let text = with_header(r#"{"alg":"EdDSA","typ":"JWT","kid":"k2"}"#);
        assert_eq!(verified(&text, 1000), Err(TokenError::Key));
    }

    #[test]
    fn claims_of_others_do_not_count() {
        let verdict = |change: fn(&mut Claims)| {
            let mut claims = claims();
            change(&mut claims);
            verified(&sign(&claims, "k1", &pair(1)), 1000).unwrap_err()
        };
        assert_eq!(verdict(|claims| claims.iss = "node-2".into()), TokenError::Issuer);
        assert_eq!(verdict(|claims| claims.aud = "other".into()), TokenError::Audience);
        assert_eq!(verdict(|claims| claims.exp = 999), TokenError::Claims);
        assert_eq!(verdict(|claims| claims.exp = claims.iat), TokenError::Claims);
        assert_eq!(verdict(|claims| claims.exp = claims.iat + LIFETIME_S_MAX + 1), TokenError::Claims);
        assert_eq!(verified(&sign(&claims(), "k1", &pair(2)), 1000), Err(TokenError::Signature));
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed() {
        let text = sign(&claims(), "k1", &pair(1));
        for at in 0..text.len() {
            for other in [b'A', b'_', b'.', b'=', b' ', 0x7F] {
                let mut bytes = text.clone().into_bytes();
                if bytes[at] == other {
                    continue;
                }
                bytes[at] = other;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(verified(&changed, 1000).is_err(), "{at}: {changed}");
            }
            assert!(verified(&text[..at], 1000).is_err(), "cut at {at}");
        }
        for more in [format!("{text}="), format!("{text}."), format!("{text}A"), "a".repeat(1 << 20)] {
            assert!(verified(&more, 1000).is_err());
        }
    }
}
