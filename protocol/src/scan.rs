//! Walks hostile CBOR before anything is built from it. Bounds nesting and item count, refuses what deterministic
//! encoders never write (indefinite lengths, tags, reserved values) and anything after the first item.
//! A megabyte of hostile CBOR decoded without this costs a hundred megabytes of values.

use crate::limits;

/// What a scan allows.
#[derive(Debug, Clone, Copy)]
pub struct Ceiling {
    /// Bytes in all.
    pub bytes: usize,
    /// Nesting of arrays, maps.
    pub depth: usize,
    /// Items in all, keys included.
    pub items: usize,
}

impl Ceiling {
    /// For signed objects and clear frames.
    pub const SIGNED: Ceiling = Ceiling { bytes: limits::SIGNED, depth: limits::DEPTH, items: limits::SIGNED_ITEMS };
    /// For calls, results and what else carries a pack's values.
    pub const VALUE: Ceiling = Ceiling { bytes: limits::INNER, depth: limits::DEPTH * 2, items: limits::VALUE_ITEMS };
    /// For link frames.
    pub const FRAME: Ceiling = Ceiling { bytes: limits::FRAME, depth: limits::DEPTH, items: limits::SIGNED_ITEMS };
}

/// Why bytes are not acceptable CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Longer than the ceiling.
    #[error("{found} bytes, at most {allowed} allowed")]
    TooLong {
        /// bytes found
        found: usize,
        /// bytes allowed
        allowed: usize,
    },
    /// Nested too deep.
    #[error("nested deeper than {0}")]
    TooDeep(usize),
    /// Too many items.
    #[error("more than {0} items")]
    TooMany(usize),
    /// Ends inside an item.
    #[error("ends inside an item")]
    Cut,
    /// Bytes after the item.
    #[error("{0} bytes after the item")]
    Trailing(usize),
    /// A form that is not accepted.
    #[error("initial byte {0:#04x} is not accepted")]
    Form(u8),
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
}

/// Checks that `bytes` are one acceptable item under `ceiling`.
pub fn scan(bytes: &[u8], ceiling: Ceiling) -> Result<(), ScanError> {
    if bytes.len() > ceiling.bytes {
        return Err(ScanError::TooLong { found: bytes.len(), allowed: ceiling.bytes });
    }
    let mut reader = Reader { bytes, at: 0 };
    // One counter of items still owed per open array or map: no recursion, so depth cannot exhaust the stack.
    let mut open: Vec<u64> = Vec::with_capacity(ceiling.depth);
    let mut items = 0usize;
    let mut owed = 1u64;
    loop {
        while owed == 0 {
            match open.pop() {
                Some(rest) => owed = rest,
                None => {
                    let rest = bytes.len() - reader.at;
                    return if rest == 0 { Ok(()) } else { Err(ScanError::Trailing(rest)) };
                }
            }
        }
        owed -= 1;
        items += 1;
        if items > ceiling.items {
            return Err(ScanError::TooMany(ceiling.items));
        }
        let (major, argument) = reader.head()?;
        match major {
            0 | 1 | 7 => {}
            2 => {
                reader.take(argument)?;
            }
            3 => {
                std::str::from_utf8(reader.take(argument)?).map_err(|_| ScanError::Utf8)?;
            }
            4 | 5 => {
                if open.len() >= ceiling.depth {
                    return Err(ScanError::TooDeep(ceiling.depth));
                }
                let children = if major == 5 { argument.checked_mul(2) } else { Some(argument) };
                let children = children.ok_or(ScanError::TooMany(ceiling.items))?;
                if children > (bytes.len() - reader.at) as u64 {
                    return Err(ScanError::Cut);
                }
                open.push(owed);
                owed = children;
            }
            _ => unreachable!("head refuses other majors"),
        }
    }
}

/// A cursor over CBOR bytes: heads and byte strings, nothing built.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Major type and argument of the next item.
    pub(crate) fn head(&mut self) -> Result<(u8, u64), ScanError> {
        let initial = *self.bytes.get(self.at).ok_or(ScanError::Cut)?;
        self.at += 1;
        let major = initial >> 5;
        let extra = match initial & 31 {
            small @ 0..=23 => {
                // Major 7: false, true, null; `undefined` and unassigned simple values have no meaning here.
                if major == 7 && !(20..=22).contains(&small) {
                    return Err(ScanError::Form(initial));
                }
                if major == 6 {
                    return Err(ScanError::Form(initial));
                }
                return Ok((major, u64::from(small)));
            }
            24 if major == 7 => return Err(ScanError::Form(initial)),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return Err(ScanError::Form(initial)),
        };
        if major == 6 {
            return Err(ScanError::Form(initial));
        }
        let raw = self.take(extra)?;
        Ok((major, raw.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))))
    }

    pub(crate) fn take(&mut self, len: u64) -> Result<&'a [u8], ScanError> {
        let rest = &self.bytes[self.at..];
        let len = usize::try_from(len).ok().filter(|len| *len <= rest.len()).ok_or(ScanError::Cut)?;
        self.at += len;
        Ok(&rest[..len])
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], ScanError> {
        match self.head()? {
            (2, len) => self.take(len),
            (major, _) => Err(ScanError::Form(major << 5)),
        }
    }

    /// An unsigned integer.
    pub(crate) fn uint(&mut self) -> Result<u64, ScanError> {
        match self.head()? {
            (0, value) => Ok(value),
            (major, _) => Err(ScanError::Form(major << 5)),
        }
    }

    /// An array's length.
    pub(crate) fn array(&mut self) -> Result<u64, ScanError> {
        match self.head()? {
            (4, len) => Ok(len),
            (major, _) => Err(ScanError::Form(major << 5)),
        }
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<(), ScanError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            rest => Err(ScanError::Trailing(rest)),
        }
    }
}

/// Appends a head in its shortest form (RFC 8949, section 4.2.1).
pub(crate) fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(argument.to_be_bytes());
        }
    }
}

/// Appends a byte string.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, 2, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nested_arrays_beyond_the_ceiling_are_refused() {
        let mut deep = vec![0x81; 17];
        deep.push(0);
        assert_eq!(scan(&deep, Ceiling::SIGNED), Err(ScanError::TooDeep(16)));
        assert_eq!(scan(&deep[1..], Ceiling::SIGNED), Ok(()));
    }

    #[test]
    fn a_length_that_promises_more_than_there_is_allocates_nothing() {
        assert_eq!(scan(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Ceiling::SIGNED), Err(ScanError::Cut));
        assert_eq!(scan(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Ceiling::SIGNED), Err(ScanError::Cut));
        assert!(scan(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Ceiling::SIGNED).is_err());
    }

    #[test]
    fn indefinite_lengths_tags_and_undefined_are_refused() {
        for bytes in [&[0x9f, 0xff][..], &[0x5f, 0xff], &[0xc0, 0x00], &[0xd8, 0x20, 0x00], &[0xf7], &[0xf8, 0x20]] {
            assert!(scan(bytes, Ceiling::SIGNED).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn nothing_may_follow() {
        assert_eq!(scan(&[0, 0], Ceiling::SIGNED), Err(ScanError::Trailing(1)));
    }

    #[test]
    fn too_many_items_are_refused() {
        let mut many = Vec::new();
        put_head(&mut many, 4, 5000);
        many.extend(vec![0; 5000]);
        assert_eq!(scan(&many, Ceiling::SIGNED), Err(ScanError::TooMany(4096)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan(&bytes, Ceiling::SIGNED);
        }
    }
}
