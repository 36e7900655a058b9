//! The X11 server's side of a picture: its monitors, and what one of them shows. All of it blocks, until a deadline and no longer: a
//! server that hangs is waited for as long as one that is slow.

use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use x11rb::connection::Connection as _;
use x11rb::errors::{ConnectError, ReplyError};
use x11rb::protocol::randr::ConnectionExt as _;
use x11rb::protocol::xproto::{ConnectionExt as _, ImageFormat, ImageOrder, Screen, VisualClass};
use x11rb::reexports::x11rb_protocol::xauth;
use x11rb::rust_connection::{DefaultStream, PollMode, RustConnection, Stream};
use x11rb::utils::RawFdContainer;

use super::place::{Place, WAYLAND};
use super::{Display, ScreenError, Size};
use crate::limits::SCREEN_PIXELS as PIXELS;
use crate::power::picture::shrink::RGB;
use crate::power::shown;

/// The whole of a server's screen, where it has no monitors.
const WHOLE: &str = "screen";
/// What the server for X11 programs on a Wayland desktop says that it has, since 2022, and how its monitors are called.
const XWAYLAND: &str = "XWAYLAND";

/// A connection to a server.
pub(super) struct Server {
    connection: RustConnection<Timed>,
    screen: Screen,
}

impl Server {
    /// Begins to talk to the server at the other end of a socket.
    pub(super) fn open(place: &Place, socket: UnixStream, deadline: Instant) -> Result<Self, ScreenError> {
        let (stream, (family, address)) =
            DefaultStream::from_unix_stream(socket).map_err(|error| ScreenError::Failed(format!("the socket is of no use: {error}")))?;
        // Without a key it may still do: servers know who is at the other end of a socket.
        let (name, key) = xauth::get_auth(family, &address, place.number).ok().flatten().unwrap_or_default();
        let stream = Timed { stream, deadline };
        let connection = RustConnection::connect_to_stream_with_auth_info(stream, place.screen, name, key).map_err(refused)?;
        let screen = connection.setup().roots.get(place.screen).cloned();
        let screen = screen.ok_or_else(|| ScreenError::Unavailable("the X11 server has no such screen".into()))?;
        Ok(Server { connection, screen })
    }

    /// The displays as they are now.
    pub(super) fn displays(&self) -> Result<Vec<Display>, ScreenError> {
        let known = self.connection.query_extension(XWAYLAND.as_bytes()).map_err(|error| failed(error.into()))?;
        if known.reply().map_err(failed)?.present {
            return Err(ScreenError::Unavailable(WAYLAND.into()));
        }
        let displays = self.monitors().map_err(failed)?;
        if displays.iter().any(|display| display.id.starts_with(XWAYLAND)) {
            return Err(ScreenError::Unavailable(WAYLAND.into()));
        }
        Ok(displays)
    }

    fn monitors(&self) -> Result<Vec<Display>, ReplyError> {
        let size = |width: u16, height: u16| Size { width: width.into(), height: height.into() };
        let whole = || {
            let size = size(self.screen.width_in_pixels, self.screen.height_in_pixels);
            vec![Display { id: WHOLE.into(), size, primary: true, corner: (0, 0) }]
        };
        // Monitors came with 1.5.
        let randr = self.connection.query_extension(b"RANDR")?.reply()?.present;
        let version = if randr { Some(self.connection.randr_query_version(1, 5)?.reply()?) } else { None };
        if version.is_none_or(|version| (version.major_version, version.minor_version) < (1, 5)) {
            return Ok(whole());
        }
        let found = self.connection.randr_get_monitors(self.screen.root, true)?.reply()?.monitors;
        let mut displays = Vec::with_capacity(found.len());
        for monitor in found.iter().filter(|monitor| monitor.width > 0 && monitor.height > 0) {
            let name = self.connection.get_atom_name(monitor.name)?.reply()?.name;
            displays.push(Display {
                id: String::from_utf8_lossy(&name).into_owned(),
                size: size(monitor.width, monitor.height),
                primary: monitor.primary,
                corner: (monitor.x, monitor.y),
            });
        }
        Ok(displays)
    }

    /// What a display shows: red, green and blue of each pixel, row by row.
    pub(super) fn pixels(&self, display: &Display) -> Result<Vec<u8>, ScreenError> {
        let Size { width, height } = display.size;
        let sides = u16::try_from(width).ok().zip(u16::try_from(height).ok()).filter(|_| display.size.area() <= PIXELS);
        let Some((across, down)) = sides else {
            return Err(ScreenError::Failed(format!("display `{}` is too large for a picture: {width}x{height}", shown(&display.id))));
        };
        let (x, y) = display.corner;
        let asked = self.connection.get_image(ImageFormat::Z_PIXMAP, self.screen.root, x, y, across, down, u32::MAX);
        let image = asked.map_err(|error| failed(error.into()))?.reply().map_err(|error| match error {
            // What was asked for lies outside of the screen: it became smaller since.
            ReplyError::X11Error(_) => ScreenError::NoneFound(format!("display `{}` went away", shown(&display.id))),
            error => failed(error),
        })?;
        let layout = self.layout(image.depth, image.visual, width);
        let layout = layout.ok_or_else(|| ScreenError::Failed(format!("a screen with {} bits of colour cannot be read", image.depth)))?;
        layout
            .rgb(&image.data, width as usize, height as usize)
            .ok_or_else(|| ScreenError::Failed("the X11 server cut the picture short".into()))
    }

    /// How the pixels of an image lie in memory.
    fn layout(&self, depth: u8, visual: u32, width: u32) -> Option<InMemory> {
        let setup = self.connection.setup();
        let format = setup.pixmap_formats.iter().find(|format| format.depth == depth)?;
        let visuals = self.screen.allowed_depths.iter().flat_map(|depth| &depth.visuals);
        let visual =
            visuals.into_iter().find(|known| known.visual_id == visual || visual == 0 && known.visual_id == self.screen.root_visual)?;
        let has_masks = matches!(visual.class, VisualClass::TRUE_COLOR | VisualClass::DIRECT_COLOR);
        let (bits, pad) = (usize::from(format.bits_per_pixel), usize::from(format.scanline_pad).max(8));
        if !has_masks || !matches!(bits, 16 | 24 | 32) {
            return None;
        }
        Some(InMemory {
            step: bits / 8,
            stride: (width as usize * bits).next_multiple_of(pad) / 8,
            most_first: setup.image_byte_order == ImageOrder::MSB_FIRST,
            masks: [visual.red_mask, visual.green_mask, visual.blue_mask],
        })
    }
}

/// How the pixels of an image lie in memory: numbers of some bytes, with each colour in some of their bits.
#[derive(Debug)]
struct InMemory {
    step: usize,
    stride: usize,
    most_first: bool,
    masks: [u32; 3],
}

impl InMemory {
    /// The colours of all pixels; none where there are too few bytes.
    fn rgb(&self, bytes: &[u8], width: usize, height: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(width * height * RGB);
        for row in 0..height {
            let row = bytes.get(row * self.stride..)?.get(..width * self.step)?;
            for pixel in row.chunks_exact(self.step) {
                let add = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
                let number = if self.most_first { pixel.iter().fold(0, add) } else { pixel.iter().rev().fold(0, add) };
                out.extend(self.masks.map(|mask| colour(number, mask)));
            }
        }
        Some(out)
    }
}

/// The bits of a colour as a byte; five of them make as bright a white as eight.
fn colour(number: u32, mask: u32) -> u8 {
    let most = u64::from(mask >> mask.trailing_zeros().min(31));
    let value = u64::from((number & mask) >> mask.trailing_zeros().min(31));
    u8::try_from((value * 255 + most / 2).checked_div(most).unwrap_or_default()).unwrap_or(u8::MAX)
}

/// A stream that ends at a deadline. Nothing else would end a wait for a server that hangs.
#[derive(Debug)]
struct Timed {
    stream: DefaultStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Timespec> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut.into())
    }
}

impl Stream for Timed {
    fn poll(&self, mode: PollMode) -> io::Result<()> {
        let wanted = [(mode.readable(), PollFlags::IN), (mode.writable(), PollFlags::OUT)];
        let flags = wanted.into_iter().filter(|(wanted, _)| *wanted).fold(PollFlags::empty(), |all, (_, flag)| all | flag);
        loop {
            let left = self.left()?;
            match poll(&mut [PollFd::from_borrowed_fd(self.stream.as_fd(), flags)], Some(&left)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&self, buffer: &mut [u8], descriptors: &mut Vec<RawFdContainer>) -> io::Result<usize> {
        // Here too: one that talks without end is never waited for.
        self.left()?;
        self.stream.read(buffer, descriptors)
    }

    fn write(&self, buffer: &[u8], descriptors: &mut Vec<RawFdContainer>) -> io::Result<usize> {
        self.stream.write(buffer, descriptors)
    }

    fn write_vectored(&self, buffers: &[IoSlice<'_>], descriptors: &mut Vec<RawFdContainer>) -> io::Result<usize> {
        self.stream.write_vectored(buffers, descriptors)
    }
}

/// The server did not let us in.
fn refused(error: ConnectError) -> ScreenError {
    match error {
        ConnectError::SetupFailed(_) | ConnectError::SetupAuthenticate(_) => ScreenError::Unavailable(
            "the X11 server does not let this agent in: it must run as the user whose screen it is, with XAUTHORITY set where the desktop \
             sets it"
                .into(),
        ),
        ConnectError::InvalidScreen => ScreenError::Unavailable("the X11 server has no such screen".into()),
        error => broken(&error.to_string()),
    }
}

fn failed(error: ReplyError) -> ScreenError {
    broken(&error.to_string())
}

fn broken(why: &str) -> ScreenError {
    ScreenError::Failed(format!("the X11 server failed: {}", shown(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_found_by_their_masks() {
        let usual = InMemory { step: 4, stride: 8, most_first: false, masks: [0xff_0000, 0xff00, 0xff] };
        assert_eq!(usual.rgb(&[1, 2, 3, 9, 4, 5, 6, 9], 2, 1), Some(vec![3, 2, 1, 6, 5, 4]));
        assert_eq!(InMemory { most_first: true, ..usual }.rgb(&[9, 1, 2, 3, 9, 4, 5, 6], 2, 1), Some(vec![1, 2, 3, 4, 5, 6]));
        let sixteen = InMemory { step: 2, stride: 4, most_first: false, masks: [0xf800, 0x07e0, 0x001f] };
        let red_then_white_then_half = [0x00, 0xf8, 0xff, 0xff, 0x10, 0x84, 0, 0];
        assert_eq!(sixteen.rgb(&red_then_white_then_half, 1, 2), Some(vec![255, 0, 0, 132, 130, 132]));
        assert_eq!(sixteen.rgb(&red_then_white_then_half[..5], 1, 2), None);
        assert_eq!((colour(u32::MAX, 0), colour(u32::MAX, u32::MAX), colour(0, 1)), (0, 255, 0));
    }
}
