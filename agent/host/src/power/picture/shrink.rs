//! A smaller picture of the same: each new pixel is the mean of those it stands for, so that text on a screen stays legible longer than
//! with pixels that are merely left out.

use super::Size;

/// Bytes of a pixel: red, green, blue.
pub(in crate::power) const RGB: usize = 3;

/// The size of a picture that may be only so wide, in its proportions; its own when that is narrower.
pub(in crate::power) fn fitting(size: Size, max_width: u32) -> Size {
    if size.width <= max_width {
        return size;
    }
    let height = u64::from(size.height) * u64::from(max_width) / u64::from(size.width.max(1));
    Size { width: max_width, height: u32::try_from(height).unwrap_or(u32::MAX).max(1) }
}

/// Pixels of one size as pixels of a smaller one. Wants as many bytes as the size says; nothing else does.
pub(in crate::power) fn shrink(pixels: &[u8], from: Size, to: Size) -> Option<Vec<u8>> {
    let (width, height) = (from.width as usize, from.height as usize);
    let (columns, rows) = (to.width as usize, to.height as usize);
    if pixels.len() != width * height * RGB || columns == 0 || rows == 0 || columns > width || rows > height {
        return None;
    }
    let part = |n: usize, of: usize, whole: usize| n * whole / of..(n + 1) * whole / of;
    let mut out = Vec::with_capacity(columns * rows * RGB);
    for row in 0..rows {
        for column in 0..columns {
            let (across, mut sum, mut count) = (part(column, columns, width), [0_u64; RGB], 0);
            for line in part(row, rows, height) {
                let line = &pixels[line * width * RGB..][..width * RGB];
                for pixel in line[across.start * RGB..across.end * RGB].chunks_exact(RGB) {
                    sum.iter_mut().zip(pixel).for_each(|(sum, part)| *sum += u64::from(*part));
                    count += 1;
                }
            }
            out.extend(sum.map(|sum| u8::try_from((sum + count / 2) / count).unwrap_or(u8::MAX)));
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn proportions_stay_and_nothing_grows() {
        assert_eq!(fitting(size(1920, 1080), 640), size(640, 360));
        assert_eq!(fitting(size(800, 600), 800), size(800, 600));
        assert_eq!(fitting(size(800, 600), u32::MAX), size(800, 600));
        assert_eq!(fitting(size(16_000, 2), 1), size(1, 1));
    }

    #[test]
    fn a_pixel_is_the_mean_of_those_it_stands_for() {
        let (black, white, red) = ([0; 3], [255; 3], [255, 0, 0]);
        let pixels = [black, white, red, red, white, black, red, red].concat();
        assert_eq!(shrink(&pixels, size(4, 2), size(2, 1)), Some([[128; 3], red].concat()));
        assert_eq!(shrink(&pixels, size(4, 2), size(4, 2)), Some(pixels));
    }

    #[test]
    fn odd_sizes_cover_every_pixel_once() {
        let from = size(7, 5);
        let pixels = vec![9; 7 * 5 * RGB];
        for (width, height) in (1..=7).flat_map(|width| (1..=5).map(move |height| (width, height))) {
            let small = shrink(&pixels, from, size(width, height)).expect("smaller");
            assert_eq!((small.len(), small.iter().all(|byte| *byte == 9)), ((width * height) as usize * RGB, true));
        }
        assert_eq!(shrink(&pixels[1..], from, size(2, 2)), None);
        assert_eq!(shrink(&pixels, from, size(8, 5)), None);
        assert_eq!(shrink(&pixels, from, size(0, 0)), None);
    }
}
