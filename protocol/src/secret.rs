//! An owner's secret: a password or token by a name. Wiped when dropped, blank when printed; it never travels in a frame.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes of one secret at most: a private key in PEM has 3 KiB, and nothing larger is a secret one types or pastes.
pub const SECRET: usize = 64 << 10;
/// Characters of a secret's name.
const NAME: usize = 63;

/// A secret's bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        SecretBytes(Zeroizing::new(bytes))
    }

    /// The bytes, for who needs them now.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

/// Whether a text names a secret: lower-case letters, digits, `_` and `-`, at most 63, a letter or digit first.
#[must_use]
pub fn valid_secret_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= NAME && text.bytes().next().is_some_and(plain) && text.bytes().all(|byte| plain(byte) || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing() {
        let secret = SecretBytes::new(b"hunter2".to_vec());
        assert_eq!((format!("{secret:?}").as_str(), secret.expose()), ("SecretBytes(…)", &b"hunter2"[..]));
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["api_token", "a", "0-x", &"a".repeat(63)] {
            assert!(valid_secret_name(name), "{name}");
        }
        for name in ["", "Api", "_a", "-a", "a.b", "../a", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert!(!valid_secret_name(name), "{name}");
        }
    }
}
