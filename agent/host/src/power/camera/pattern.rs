//! A picture that needs no camera: colour bars, the word TEST, the time of day in UTC and a running number. It exists for trying things
//! out, and only where the configuration asks for it by name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{CameraError, Device, Facing, Size, TEST_PATTERN};
use crate::power::picture::pixels::{Frame, Layout};

const SIZES: [Size; 3] = [Size { width: 640, height: 480 }, Size { width: 1280, height: 720 }, Size { width: 1920, height: 1080 }];
const BARS: [[u8; 3]; 8] = [[255, 255, 255], [191, 191, 0], [0, 191, 191], [0, 191, 0], [191, 0, 191], [191, 0, 0], [0, 0, 191], [0, 0, 0]];
const LAYOUT: Layout = Layout::Colours { red: 0, green: 1, blue: 2, step: 3 };

pub(super) fn device() -> Device {
    Device { id: TEST_PATTERN.into(), name: "Test pattern (not a camera)".into(), facing: Facing::Unknown, sizes: SIZES.to_vec() }
}

pub(super) fn shoot(size: Size, quality: u8) -> Result<Vec<u8>, CameraError> {
    static SHOTS: AtomicU64 = AtomicU64::new(1);
    let shot = SHOTS.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let pixels = draw(size, &caption(since.as_millis(), shot));
    let frame = Frame::new(LAYOUT, size, 0, &pixels).ok_or_else(|| CameraError::Failed("the test pattern has no such size".into()))?;
    frame.encode(quality).map_err(CameraError::Failed)
}

fn caption(unix_ms: u128, shot: u64) -> String {
    let (ms, seconds) = (unix_ms % 1000, unix_ms / 1000 % 86_400);
    format!("TEST {:02}:{:02}:{:02}.{ms:03} #{shot}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Bars above, white letters on black below.
fn draw(size: Size, caption: &str) -> Vec<u8> {
    let (width, height) = (size.width as usize, size.height as usize);
    let letters: Vec<u16> = caption.chars().map(glyph).collect();
    // Four columns for each letter, and a margin of one letter on each side.
    let dot = (width / (4 * (letters.len() + 2))).max(1);
    let top = height * 3 / 4;
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let colour = if y < top {
                BARS[x * BARS.len() / width]
            } else {
                let lit = is_lit(&letters, (x / dot).checked_sub(4), ((y - top) / dot).checked_sub(1));
                if lit { [255; 3] } else { [0; 3] }
            };
            pixels.extend_from_slice(&colour);
        }
    }
    pixels
}

fn is_lit(letters: &[u16], column: Option<usize>, row: Option<usize>) -> bool {
    let (Some(column), Some(row @ 0..5)) = (column, row) else {
        return false;
    };
    let lit = |letter: &u16| column % 4 < 3 && letter >> (14 - row * 3 - column % 4) & 1 == 1;
    letters.get(column / 4).is_some_and(lit)
}

/// Five rows of three dots, from the top left.
#[rustfmt::skip]
fn glyph(letter: char) -> u16 {
    match letter {
        '0' => 0b111_101_101_101_111, '1' => 0b010_110_010_010_111, '2' => 0b111_001_111_100_111, '3' => 0b111_001_111_001_111,
        '4' => 0b101_101_111_001_001, '5' => 0b111_100_111_001_111, '6' => 0b111_100_111_101_111, '7' => 0b111_001_010_010_010,
        '8' => 0b111_101_111_101_111, '9' => 0b111_101_111_001_111, ':' => 0b000_010_000_010_000, '.' => 0b000_000_000_000_010,
        '#' => 0b101_111_101_111_101, 'T' => 0b111_010_010_010_010, 'E' => 0b111_100_110_100_111, 'S' => 0b111_100_111_001_111,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_are_where_they_belong() {
        let size = Size { width: 80, height: 40 };
        let pixels = draw(size, "TEST");
        assert_eq!(pixels.len(), 80 * 40 * 3);
        for (bar, colour) in BARS.iter().enumerate() {
            let at = (bar * 10 + 5) * 3;
            assert_eq!(&pixels[at..at + 3], colour);
        }
    }

    #[test]
    fn the_caption_is_drawn_and_changes_with_time_and_number() {
        assert_eq!(caption(86_400_000 + 3_723_004, 12), "TEST 01:02:03.004 #12");
        let size = SIZES[0];
        let below = |text: &str| draw(size, text).split_off(640 * 480 * 3 * 3 / 4);
        assert!(below(&caption(0, 1)).contains(&255));
        assert_ne!(below(&caption(0, 1)), below(&caption(0, 2)));
        assert_ne!(below(&caption(0, 1)), below(&caption(1, 1)));
        assert!("TEST 0123456789:.#".chars().all(|letter| letter == ' ' || glyph(letter) != 0));
    }

    #[test]
    fn a_letter_looks_as_drawn() {
        let lit: Vec<String> = (0..5)
            .map(|row| (0..3).map(|column| if is_lit(&[glyph('4')], Some(column), Some(row)) { '#' } else { '.' }).collect())
            .collect();
        assert_eq!(lit, ["#.#", "#.#", "###", "..#", "..#"]);
    }
}
