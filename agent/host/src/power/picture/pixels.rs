//! Raw frames to JPEG, without a copy in between: the encoder asks for one row at a time.
//!
//! Video numbers luma from 16 to 235 and chroma from 16 to 240 around 128; JPEG uses all 256. Grey is taken as it is, since sensors that
//! give only grey use the whole range.

use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, rgb_to_ycbcr};

use super::Size;

/// A picture's longest side. Larger than any sensor, and small enough that no product below overflows.
const LONGEST: u32 = 16_384;

/// How the pixels of a format lie in memory. Offsets are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::power) enum Layout {
    /// Two pixels in four bytes, chroma shared.
    Packed { luma: [usize; 2], cb: usize, cr: usize },
    /// A plane of luma, then one of chroma pairs, each for four pixels.
    Pairs { cb: usize },
    /// A plane of luma, then two of chroma at half the width and height.
    Planes { cb_first: bool },
    /// Luma only.
    Grey,
    /// Colours by themselves.
    Colours { red: usize, green: usize, blue: usize, step: usize },
}

/// The layouts this agent reads, by the format's four letters.
pub(in crate::power) fn layout(fourcc: [u8; 4]) -> Option<Layout> {
    let colours = |red, green, blue, step| Layout::Colours { red, green, blue, step };
    Some(match &fourcc {
        b"YUYV" => Layout::Packed { luma: [0, 2], cb: 1, cr: 3 },
        b"UYVY" => Layout::Packed { luma: [1, 3], cb: 0, cr: 2 },
        b"YVYU" => Layout::Packed { luma: [0, 2], cb: 3, cr: 1 },
        b"VYUY" => Layout::Packed { luma: [1, 3], cb: 2, cr: 0 },
        b"NV12" => Layout::Pairs { cb: 0 },
        b"NV21" => Layout::Pairs { cb: 1 },
        b"YU12" => Layout::Planes { cb_first: true },
        b"YV12" => Layout::Planes { cb_first: false },
        b"GREY" => Layout::Grey,
        b"RGB3" => colours(0, 1, 2, 3),
        b"BGR3" => colours(2, 1, 0, 3),
        b"XR24" | b"AR24" | b"BGR4" => colours(2, 1, 0, 4),
        b"XB24" | b"AB24" => colours(0, 1, 2, 4),
        b"BX24" | b"BA24" | b"RGB4" => colours(1, 2, 3, 4),
        _ => return None,
    })
}

/// One frame whose length was checked.
#[derive(Debug)]
pub(in crate::power) struct Frame<'a> {
    layout: Layout,
    size: Size,
    stride: usize,
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Nothing when the bytes are too few for what they are said to be. A `stride` of zero means rows without padding.
    pub(in crate::power) fn new(layout: Layout, size: Size, stride: u32, bytes: &'a [u8]) -> Option<Self> {
        if size.area() == 0 || size.width > LONGEST || size.height > LONGEST {
            return None;
        }
        let (width, height) = (size.width as usize, size.height as usize);
        let row = match layout {
            Layout::Packed { .. } => width.div_ceil(2) * 4,
            Layout::Pairs { .. } | Layout::Planes { .. } => width.next_multiple_of(2),
            Layout::Grey => width,
            Layout::Colours { step, .. } => width * step,
        };
        let stride = (stride as usize).max(row).min(row.saturating_mul(8));
        let needed = match layout {
            Layout::Packed { .. } | Layout::Grey | Layout::Colours { .. } => stride * (height - 1) + row,
            Layout::Pairs { .. } => stride * (height + height.div_ceil(2) - 1) + row,
            Layout::Planes { .. } => stride * height + 2 * (stride / 2) * height.div_ceil(2),
        };
        (bytes.len() >= needed).then_some(Self { layout, size, stride, bytes })
    }

    /// The frame as a JPEG file; else a sentence that says why not.
    pub(in crate::power) fn encode(self, quality: u8) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        Encoder::new(&mut out, quality).encode_image(self).map_err(|source| format!("the picture could not be encoded: {source}"))?;
        Ok(out)
    }

    /// Row `y` as luma, blue and red difference, in JPEG's range.
    fn row(&self, y: usize, mut put: impl FnMut(u8, u8, u8)) {
        let (width, height, stride) = (self.size.width as usize, self.size.height as usize, self.stride);
        let row = &self.bytes[y * stride..];
        match self.layout {
            Layout::Packed { luma, cb, cr } => {
                for x in 0..width {
                    let pair = &row[x / 2 * 4..];
                    put(LUMA[usize::from(pair[luma[x % 2]])], CHROMA[usize::from(pair[cb])], CHROMA[usize::from(pair[cr])]);
                }
            }
            Layout::Pairs { cb } => {
                let chroma = &self.bytes[(height + y / 2) * stride..];
                for (x, &luma) in row[..width].iter().enumerate() {
                    let pair = &chroma[x / 2 * 2..];
                    put(LUMA[usize::from(luma)], CHROMA[usize::from(pair[cb])], CHROMA[usize::from(pair[1 - cb])]);
                }
            }
            Layout::Planes { cb_first } => {
                let (plane, offset) = (stride / 2 * height.div_ceil(2), stride * height + y / 2 * (stride / 2));
                let (first, second) = (&self.bytes[offset..], &self.bytes[offset + plane..]);
                let (cb, cr) = if cb_first { (first, second) } else { (second, first) };
                for (x, &luma) in row[..width].iter().enumerate() {
                    put(LUMA[usize::from(luma)], CHROMA[usize::from(cb[x / 2])], CHROMA[usize::from(cr[x / 2])]);
                }
            }
            Layout::Grey => row[..width].iter().for_each(|&luma| put(luma, 128, 128)),
            Layout::Colours { red, green, blue, step } => {
                for pixel in row.chunks_exact(step).take(width) {
                    let (luma, cb, cr) = rgb_to_ycbcr(pixel[red], pixel[green], pixel[blue]);
                    put(luma, cb, cr);
                }
            }
        }
    }
}

impl ImageBuffer for Frame<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        if self.layout == Layout::Grey { JpegColorType::Luma } else { JpegColorType::Ycbcr }
    }

    fn width(&self) -> u16 {
        u16::try_from(self.size.width).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        u16::try_from(self.size.height).unwrap_or(u16::MAX)
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let [luma, cb, cr, _] = buffers;
        let grey = self.layout == Layout::Grey;
        self.row(usize::from(y), |y, b, r| {
            luma.push(y);
            if !grey {
                cb.push(b);
                cr.push(r);
            }
        });
    }
}

/// Video's luma in JPEG's range.
const LUMA: [u8; 256] = stretched(16, 219, 0);
/// Video's chroma in JPEG's range.
const CHROMA: [u8; 256] = stretched(128, 224, 128);

/// Maps `zero` to `to` and a span of `span` steps to 255.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "clamped to a byte, and a table of 256"
)]
const fn stretched(zero: i32, span: i32, to: i32) -> [u8; 256] {
    let (mut table, mut at) = ([0; 256], 0);
    while at < 256 {
        let scaled = (at as i32 - zero) * 255;
        let half = if scaled < 0 { -span / 2 } else { span / 2 };
        let value = (scaled + half) / span + to;
        table[at] = if value < 0 {
            0
        } else if value > 255 {
            255
        } else {
            value as u8
        };
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(fourcc: &[u8; 4], width: u32, height: u32, stride: u32, bytes: &[u8]) -> Vec<(u8, u8, u8)> {
        let frame = Frame::new(layout(*fourcc).expect("known"), Size { width, height }, stride, bytes).expect("enough bytes");
        let mut out = Vec::new();
        (0..height as usize).for_each(|y| frame.row(y, |luma, cb, cr| out.push((luma, cb, cr))));
        out
    }

    #[test]
    fn black_white_and_red_come_out_right() {
        let (black, white, red) = ((0, 128, 128), (255, 128, 128), (76, 85, 255));
        assert_eq!(pixels(b"YUYV", 2, 1, 0, &[16, 128, 235, 128]), [black, white]);
        assert_eq!(pixels(b"UYVY", 2, 1, 0, &[128, 16, 128, 235]), [black, white]);
        assert_eq!(pixels(b"GREY", 2, 1, 0, &[0, 255]), [black, white]);
        assert_eq!(pixels(b"RGB3", 2, 1, 0, &[255, 0, 0, 255, 255, 255]), [red, white]);
        assert_eq!(pixels(b"BGR3", 1, 1, 0, &[0, 0, 255]), [red]);
        assert_eq!(pixels(b"XR24", 1, 1, 0, &[0, 0, 255, 9]), [red]);
        assert_eq!(pixels(b"BX24", 1, 1, 0, &[9, 255, 0, 0]), [red]);
    }

    #[test]
    fn chroma_is_found_where_each_layout_keeps_it() {
        // Four luma samples, then blue difference 240 (its most) and red difference 16 (its least).
        let wanted = [(0, 255, 0), (255, 255, 0), (255, 255, 0), (0, 255, 0)];
        let luma = [16, 235, 235, 16];
        let planar = |chroma: [u8; 2]| [&luma[..], &chroma].concat();
        assert_eq!(pixels(b"NV12", 2, 2, 0, &planar([240, 16])), wanted);
        assert_eq!(pixels(b"NV21", 2, 2, 0, &planar([16, 240])), wanted);
        assert_eq!(pixels(b"YU12", 2, 2, 0, &planar([240, 16])), wanted);
        assert_eq!(pixels(b"YV12", 2, 2, 0, &planar([16, 240])), wanted);
        assert_eq!(pixels(b"YUYV", 2, 1, 0, &[16, 240, 235, 16])[..], wanted[..2]);
        assert_eq!(pixels(b"YVYU", 2, 1, 0, &[16, 16, 235, 240])[..], wanted[..2]);
        assert_eq!(pixels(b"VYUY", 2, 1, 0, &[16, 16, 240, 235])[..], wanted[..2]);
    }

    #[test]
    fn padding_at_the_end_of_rows_is_skipped() {
        assert_eq!(pixels(b"GREY", 1, 2, 4, &[7, 0, 0, 0, 9]), [(7, 128, 128), (9, 128, 128)]);
        let padded = [16, 128, 16, 128, 99, 99, 99, 99, 235, 128, 235, 128];
        assert_eq!(pixels(b"YUYV", 2, 2, 8, &padded)[2..], [(255, 128, 128); 2]);
    }

    #[test]
    fn odd_sizes_and_short_frames_are_safe() {
        let all =
            [b"YUYV", b"UYVY", b"YVYU", b"VYUY", b"NV12", b"NV21", b"YU12", b"YV12", b"GREY", b"RGB3", b"BGR3", b"XR24", b"XB24", b"BX24"];
        for fourcc in all {
            let layout = layout(*fourcc).expect("known");
            for (width, height, stride) in [(1, 1, 0), (3, 3, 0), (5, 7, 11), (16, 2, 16), (2, 16, 1000), (17, 5, 21)] {
                let (size, bytes) = (Size { width, height }, vec![100; 1 << 16]);
                let enough = (0..bytes.len()).find(|&len| Frame::new(layout, size, stride, &bytes[..len]).is_some()).expect("some length");
                let data = Frame::new(layout, size, stride, &bytes[..enough]).expect("enough").encode(50).expect("encoded");
                let mut decoder = jpeg_decoder::Decoder::new(&data[..]);
                decoder.decode().expect("a whole file");
                let info = decoder.info().expect("a head");
                assert_eq!((u32::from(info.width), u32::from(info.height)), (width, height), "{fourcc:?}");
            }
        }
        assert!(Frame::new(Layout::Grey, Size { width: 0, height: 9 }, 0, &[0; 99]).is_none());
        assert!(Frame::new(Layout::Grey, Size { width: u32::MAX, height: u32::MAX }, u32::MAX, &[0; 99]).is_none());
        assert_eq!(layout(*b"H264"), None);
    }
}
