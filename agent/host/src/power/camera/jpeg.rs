//! What a camera calls a JPEG, made into one that everybody can open. Motion JPEG leaves out the Huffman tables (they are always the
//! same) and pads frames; a cut frame must not be taken for a whole one.

use jpeg_encoder::{ColorType, Encoder};

use super::Size;

const START: [u8; 2] = [0xFF, 0xD8];
const END: [u8; 2] = [0xFF, 0xD9];
const TABLES: u8 = 0xC4;
const SCAN: u8 = 0xDA;

/// A whole JPEG and its size, or nothing when the frame is damaged.
pub(super) fn complete(frame: &[u8]) -> Option<(Size, Vec<u8>)> {
    let end = frame.windows(2).rposition(|pair| pair == END)? + 2;
    let frame = frame.get(..end).filter(|frame| frame.starts_with(&START))?;
    let (mut at, mut size, mut has_tables) = (2, None, false);
    loop {
        let segment = Segment::at(frame, at)?;
        match segment.marker {
            SCAN => break,
            TABLES => has_tables = true,
            // Baseline, extended and progressive frames; the others no camera makes.
            0xC0..=0xC2 => size = Some(frame_size(segment.body)?),
            _ => {}
        }
        at = segment.end;
    }
    let (head, scan) = frame.split_at_checked(at)?;
    let tables = if has_tables { Vec::new() } else { standard_tables() };
    Some((size?, [head, &tables, scan].concat()))
}

struct Segment<'a> {
    marker: u8,
    body: &'a [u8],
    end: usize,
}

impl<'a> Segment<'a> {
    fn at(frame: &'a [u8], at: usize) -> Option<Self> {
        let &[0xFF, marker, high, low] = frame.get(at..at + 4)? else {
            return None;
        };
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        Some(Self { marker, body: frame.get(at + 4..end)?, end })
    }
}

fn frame_size(body: &[u8]) -> Option<Size> {
    let &[_, h1, h2, w1, w2, ..] = body else {
        return None;
    };
    let size = Size { width: u16::from_be_bytes([w1, w2]).into(), height: u16::from_be_bytes([h1, h2]).into() };
    (size.area() > 0).then_some(size)
}

/// The tables Motion JPEG means when it has none. Our encoder uses the same, so one small picture of its holds them.
fn standard_tables() -> Vec<u8> {
    let mut sample = Vec::new();
    if Encoder::new(&mut sample, 50).encode(&[0; 8 * 8 * 3], 8, 8, ColorType::Rgb).is_err() {
        return Vec::new();
    }
    let (mut at, mut tables) = (2, Vec::new());
    while let Some(segment) = Segment::at(&sample, at).filter(|segment| segment.marker != SCAN) {
        if segment.marker == TABLES {
            tables.extend_from_slice(&sample[at..segment.end]);
        }
        at = segment.end;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Vec<u8> {
        let (mut out, pixels) = (Vec::new(), vec![90; 32 * 16 * 3]);
        Encoder::new(&mut out, 80).encode(&pixels, 32, 16, ColorType::Rgb).expect("encode");
        out
    }

    fn without_tables(picture: &[u8]) -> Vec<u8> {
        let (mut out, mut at) = (START.to_vec(), 2);
        while let Some(segment) = Segment::at(picture, at).filter(|segment| segment.marker != SCAN) {
            if segment.marker != TABLES {
                out.extend_from_slice(&picture[at..segment.end]);
            }
            at = segment.end;
        }
        out.extend_from_slice(&picture[at..]);
        out
    }

    #[test]
    fn a_whole_picture_passes_as_it_is() {
        let size = Size { width: 32, height: 16 };
        assert_eq!(complete(&picture()), Some((size, picture())));
        assert_eq!(complete(&[picture(), vec![0; 300]].concat()), Some((size, picture())), "padding goes");
    }

    #[test]
    fn left_out_tables_come_back() {
        let bare = without_tables(&picture());
        assert!(bare.len() + 400 < picture().len());
        let (_, whole) = complete(&bare).expect("whole");
        assert_eq!(whole.len(), picture().len());
        assert_eq!(without_tables(&whole), bare);
    }

    #[test]
    fn the_standard_tables_are_the_standards() {
        let tables = standard_tables();
        // Two DC tables of 12 symbols, two AC tables of 162; 17 bytes of head for each, 4 of marker and length where they stand alone.
        assert_eq!(tables.len(), 2 * (12 + 17) + 2 * (162 + 17) + 4 * 4);
        let luma_dc = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let luma_ac = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D, 1, 2, 3, 0, 4, 0x11];
        let chroma_ac = [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77, 0, 1, 2, 3, 0x11, 4];
        for wanted in [&luma_dc[..], &luma_ac, &chroma_ac] {
            assert!(tables.windows(wanted.len()).any(|part| part == wanted));
        }
    }

    #[test]
    fn damage_is_never_a_picture() {
        let whole = picture();
        for cut in 0..whole.len() {
            assert_eq!(complete(&whole[..cut]), None, "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xFF;
            let _ = complete(&flipped);
        }
        assert_eq!(complete(&[START, END].concat()), None);
    }
}
