//! Pairing codes: what a person reads from one screen and types at another; and the count of who tried.

use super::PairingError;
use crate::keys::random;
use crate::limits;
use std::fmt;
use zeroize::Zeroizing;

/// Crockford's base 32: no I, L, O or U, so that nothing is read as something else.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SHORT: usize = 6;
const LONG: usize = 10;
/// Digits of a slot; keeps every length of typed text unambiguous (6–9 short, 10–13 long).
const SLOT: usize = 3;

/// What was typed is not a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that is no pairing code: it has six digits, or a number before them as in `2-482913`; a long one has ten characters")]
pub struct CodeError;

/// A pairing code: six digits or ten characters, with a slot when several are outstanding. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    slot: u16,
    secret: Zeroizing<String>,
}

impl Code {
    /// A new code of six digits, each of the million as likely. Slot 0 is not shown.
    #[must_use]
    pub fn generate(slot: u16) -> Self {
        // The largest multiple of a million that fits: above it a remainder would favour small codes.
        const FAIR: u32 = u32::MAX - u32::MAX % 1_000_000;
        let number = loop {
            let number = u32::from_le_bytes(random());
            if number < FAIR {
                break number % 1_000_000;
            }
        };
        Code { slot: checked(slot), secret: Zeroizing::new(format!("{number:06}")) }
    }

    /// A new code of ten characters, 50 bits.
    #[must_use]
    pub fn generate_long(slot: u16) -> Self {
        let bytes = Zeroizing::new(random::<LONG>());
        let secret = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
        Code { slot: checked(slot), secret: Zeroizing::new(secret) }
    }

    /// Reads what a person typed: spaces and dashes anywhere, either case, O for 0, I and L for 1.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let mut plain = Zeroizing::new(String::with_capacity(LONG + SLOT));
        for character in text.chars().filter(|character| !matches!(character, ' ' | '-' | '\t')) {
            if plain.len() == LONG + SLOT {
                return Err(CodeError);
            }
            plain.push(match character.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other if other.is_ascii() && ALPHABET.contains(&(other as u8)) => other,
                _ => return Err(CodeError),
            });
        }
        let length = match plain.len() {
            SHORT..LONG => SHORT,
            LONG..=13 => LONG,
            _ => return Err(CodeError),
        };
        let (slot, secret) = plain.split_at(plain.len() - length);
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(slot) || (length == SHORT && !digits(secret)) {
            return Err(CodeError);
        }
        let slot = if slot.is_empty() { 0 } else { slot.parse().map_err(|_| CodeError)? };
        Ok(Code { slot, secret: Zeroizing::new(secret.to_owned()) })
    }

    /// Which of the codes outstanding at a relay; 0 is the first, which shows no slot. Not secret.
    #[must_use]
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// The code as it is shown to a person.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let slot = if self.slot == 0 { String::new() } else { format!("{}-", self.slot) };
        Zeroizing::new(match self.secret.len() {
            LONG => format!("{slot}{}-{}", &self.secret[..LONG / 2], &self.secret[LONG / 2..]),
            _ => format!("{slot}{}", *self.secret),
        })
    }

    pub(super) fn password(&self) -> &[u8] {
        self.secret.as_bytes()
    }
}

fn checked(slot: u16) -> u16 {
    assert!(slot < 1000, "a slot has at most {SLOT} digits");
    slot
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code(slot {}, …)", self.slot)
    }
}

/// Runs left for one code. A run is one guess for whoever sits in between, and the relay decides how many runs there
/// are: so the ends count. The operator's side counts when a wrong confirmation arrives (before, nothing that depends
/// on the code has left it). The agent's side counts when it sends its own, which can be tested against a guess by
/// whoever receives it and then drops the line. All runs of one code share one count, also those under way at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    left: u32,
}

impl Attempts {
    /// For the side that shows the code: three failures, then it makes a new one.
    #[must_use]
    pub fn shown() -> Self {
        Attempts { left: limits::CODE_FAILURES }
    }

    /// For the side where a person types it: one run per typing.
    #[must_use]
    pub fn typed() -> Self {
        Attempts { left: 1 }
    }

    /// Whether the code is worth nothing any more.
    #[must_use]
    pub fn used_up(&self) -> bool {
        self.left == 0
    }

    /// Runs left.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Ends the code: it was used, withdrawn or ran out of time.
    pub fn end(&mut self) {
        self.left = 0;
    }

    pub(super) fn spend(&mut self) -> Result<(), PairingError> {
        self.left = self.left.checked_sub(1).ok_or(PairingError::UsedUp)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_back_however_it_is_typed() {
        for text in ["482913", "482 913", "482-913", " 4 8 2 9 1 3 ", "48291E"] {
            let code = Code::parse(text);
            if text.ends_with('E') {
                assert_eq!(code, Err(CodeError));
                continue;
            }
            assert_eq!((code.clone().unwrap().slot(), code.unwrap().reveal().as_str()), (0, "482913"));
        }
        assert_eq!(Code::parse("2-482913").unwrap().reveal().as_str(), "2-482913");
        assert_eq!(Code::parse("12 482 913").unwrap().slot(), 12);
        assert_eq!(Code::parse("abcde-fghoi").unwrap().reveal().as_str(), "ABCDE-FGH01");
        for bad in ["", "48291", "A-482913", "48291304829130", "48291é", "ABCDEFGHJU"] {
            assert_eq!(Code::parse(bad), Err(CodeError), "{bad}");
        }
    }

    #[test]
    fn what_is_made_can_be_read_and_prints_blank() {
        for slot in [0, 2, 999] {
            for code in [Code::generate(slot), Code::generate_long(slot)] {
                assert_eq!(Code::parse(&code.reveal()).unwrap(), code);
                assert_eq!(format!("{code:?}"), format!("Code(slot {slot}, …)"));
            }
        }
    }

    #[test]
    fn codes_are_spread_over_the_whole_million() {
        let mut tens = [0u32; 10];
        for _ in 0..2000 {
            let code = Code::generate(0);
            tens[usize::from(code.password()[0] - b'0')] += 1;
        }
        assert!(tens.iter().all(|count| (100..320).contains(count)), "{tens:?}");
    }

    #[test]
    fn the_third_failure_burns_the_code() {
        let mut attempts = Attempts::shown();
        for _ in 0..3 {
            assert!(!attempts.used_up());
            attempts.spend().unwrap();
        }
        assert!(attempts.used_up());
        assert_eq!(attempts.spend(), Err(PairingError::UsedUp));
    }
}
