//! Linux video devices: what is there, and one frame of one of them.
//!
//! Every wait has an end: a frame is asked for only when the kernel says it is ready, and all of it together takes [`PATIENCE`] at most.
//! Two shots of one camera take turns; another program's use is an error at once.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use linuxvideo::format::{Format, FrameSizes, PixFormat, PixelFormat};
use linuxvideo::stream::ReadStream;
use linuxvideo::{BufType, CapabilityFlags, Device as Handle};

use super::{CameraError, Device, Facing, Size, jpeg};
use crate::power::picture::pixels::{self, Frame};

/// From asking to the picture. A camera that wakes up takes one or two seconds, a slow one a frame each second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Cameras start dark and find their exposure over some frames.
const SETTLE: Duration = Duration::from_millis(400);
/// From this quality on a camera's own JPEG is preferred to one made here, which would be slower and hardly better.
const OWN_JPEG_FROM: u8 = 70;
/// Formats and sizes read from one device; real ones have some dozens.
const MODES: usize = 256;

/// Offered where a device takes any size of a range.
#[rustfmt::skip]
const USUAL: [(u32, u32); 10] = [
    (320, 240), (640, 360), (640, 480), (800, 600), (1280, 720), (1280, 960), (1600, 1200), (1920, 1080), (2560, 1440), (3840, 2160),
];

/// The cameras of this machine that `wanted` accepts, by number. One that cannot be opened is left out, unless none is left.
pub(super) fn devices(wanted: impl Fn(&str) -> bool) -> Result<Vec<Device>, CameraError> {
    let (mut found, mut trouble) = (Vec::new(), None);
    for id in ids().into_iter().filter(|id| wanted(id)) {
        match device(&id) {
            Ok(device) => found.extend(device),
            Err(source) => trouble = trouble.or(Some(explain(&id, "be opened", &source))),
        }
    }
    match trouble {
        Some(trouble) if found.is_empty() => Err(trouble),
        _ => Ok(found),
    }
}

/// One picture of about this size: the size it has, and the JPEG.
pub(super) fn shoot(id: &str, size: Size, quality: u8) -> Result<(Size, Vec<u8>), CameraError> {
    let deadline = Instant::now() + PATIENCE;
    let _turn = Turn::take(id, deadline)?;
    let mut modes = modes(&open(id).map_err(|source| explain(id, "be opened", &source))?);
    modes.retain(|mode| mode.size == size);
    modes.sort_by_key(|mode| rank(mode.format.as_fourcc(), quality));
    let mut trouble = CameraError::Failed(format!("`{id}` no longer offers {}x{}", size.width, size.height));
    for mode in modes {
        match shoot_mode(id, mode, quality, deadline) {
            Err(CameraError::Failed(text)) => trouble = CameraError::Failed(text),
            ended => return ended,
        }
    }
    Err(trouble)
}

/// `video0`, `video1`, …, in the order of their numbers.
fn ids() -> Vec<String> {
    let Ok(folder) = fs::read_dir("/dev") else {
        return Vec::new();
    };
    let mut numbers: Vec<u32> =
        folder.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|number| format!("video{number}")).collect()
}

fn open(id: &str) -> io::Result<Handle> {
    Handle::open(Path::new("/dev").join(id))
}

/// Nothing when the device takes no pictures: each camera has companions for metadata, and codecs look alike.
fn device(id: &str) -> io::Result<Option<Device>> {
    let handle = open(id)?;
    if !handle.capabilities()?.device_capabilities().contains(CapabilityFlags::VIDEO_CAPTURE | CapabilityFlags::STREAMING) {
        return Ok(None);
    }
    let mut sizes: Vec<Size> = modes(&handle).into_iter().map(|mode| mode.size).collect::<HashSet<_>>().into_iter().collect();
    sizes.sort_by_key(|size| (size.area(), size.width));
    // From the file system: the name a device tells by itself need not be text.
    let name = fs::read(class(id).join("name")).map(|name| String::from_utf8_lossy(&name).trim().to_owned());
    let name = name.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_owned());
    let facing = facing(&name, attached(id).as_deref());
    Ok(Some(Device { id: id.to_owned(), name, facing, sizes }))
}

fn class(id: &str) -> PathBuf {
    Path::new("/sys/class/video4linux").join(id)
}

/// `fixed` or `removable`, where the bus knows.
fn attached(id: &str) -> Option<String> {
    let interface = fs::canonicalize(class(id).join("device")).ok()?;
    let text = fs::read_to_string(interface.parent()?.join("removable")).ok()?;
    Some(text.trim().to_owned())
}

fn facing(name: &str, attached: Option<&str>) -> Facing {
    let name = name.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if says(&["rear", "back", "world"]) {
        Facing::Back
    } else if says(&["front", "user", "integrated", "built-in", "facetime"]) {
        Facing::Front
    } else {
        match attached {
            Some("fixed") => Facing::Front,
            Some("removable") => Facing::External,
            _ => Facing::Unknown,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mode {
    format: PixelFormat,
    size: Size,
}

/// Compressed by the camera itself.
fn is_jpeg(fourcc: [u8; 4]) -> bool {
    matches!(&fourcc, b"MJPG" | b"JPEG")
}

/// The combinations this agent can turn into a JPEG.
fn modes(handle: &Handle) -> Vec<Mode> {
    let formats = handle.formats(BufType::VIDEO_CAPTURE).map_while(Result::ok).take(MODES).map(|format| format.pixel_format());
    let readable = formats.filter(|format| is_jpeg(format.as_fourcc()) || pixels::layout(format.as_fourcc()).is_some());
    readable.flat_map(|format| sizes(handle, format).into_iter().map(move |size| Mode { format, size })).take(MODES).collect()
}

fn sizes(handle: &Handle, format: PixelFormat) -> Vec<Size> {
    match handle.frame_sizes(format) {
        Ok(FrameSizes::Discrete(sizes)) => sizes.iter().map(|size| Size { width: size.width(), height: size.height() }).collect(),
        Ok(FrameSizes::Stepwise(range) | FrameSizes::Continuous(range)) => {
            let span = Span { least: range.min_width(), most: range.max_width(), step: range.step_width() };
            within(span, Span { least: range.min_height(), most: range.max_height(), step: range.step_height() })
        }
        // A driver without that list has one size, the present one.
        Err(_) => match handle.format(BufType::VIDEO_CAPTURE) {
            Ok(Format::VideoCapture(present)) => vec![Size { width: present.width(), height: present.height() }],
            _ => Vec::new(),
        },
    }
}

#[derive(Debug, Clone, Copy)]
struct Span {
    least: u32,
    most: u32,
    step: u32,
}

impl Span {
    fn holds(self, length: u32) -> bool {
        (self.least..=self.most).contains(&length) && (length - self.least).is_multiple_of(self.step.max(1))
    }
}

fn within(width: Span, height: Span) -> Vec<Size> {
    let usual = USUAL.into_iter().filter(|&(w, h)| width.holds(w) && height.holds(h));
    let mut sizes: Vec<Size> = usual.chain([(width.most, height.most)]).map(|(width, height)| Size { width, height }).collect();
    sizes.dedup();
    sizes
}

/// Which format to try first: lower is earlier.
fn rank(fourcc: [u8; 4], quality: u8) -> u8 {
    match (is_jpeg(fourcc), &fourcc) {
        (true, _) if quality >= OWN_JPEG_FROM => 0,
        (true, _) => 4,
        (_, b"GREY") => 3,
        (_, b"YUYV" | b"UYVY" | b"YVYU" | b"VYUY" | b"NV12" | b"NV21" | b"YU12" | b"YV12") => 1,
        _ => 2,
    }
}

fn shoot_mode(id: &str, mode: Mode, quality: u8, deadline: Instant) -> Result<(Size, Vec<u8>), CameraError> {
    let failed = |source: io::Error| explain(id, "take a picture", &source);
    let asked = PixFormat::new(mode.size.width, mode.size.height, mode.format);
    let capture = open(id).map_err(failed)?.video_capture(asked).map_err(failed)?;
    let given = capture.format();
    let reader = Reader {
        fourcc: given.pixel_format().as_fourcc(),
        size: Size { width: given.width(), height: given.height() },
        stride: given.bytes_per_line(),
    };
    let frame = settled_frame(capture.into_stream().map_err(failed)?, &reader, deadline).map_err(failed)?;
    let frame = frame.ok_or_else(|| CameraError::Failed(format!("`{id}` gave no whole picture within {} s", PATIENCE.as_secs())))?;
    reader.picture(&frame, quality)?.ok_or_else(|| CameraError::Failed(format!("`{id}` gave a picture this agent cannot read")))
}

/// The first whole frame after the camera had time to settle, or the last there was.
fn settled_frame(mut stream: ReadStream, reader: &Reader, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let (began, mut kept) = (Instant::now(), None);
    while is_ready(stream.as_raw_fd(), deadline)? {
        let settled = began.elapsed() >= SETTLE;
        let taken = stream.dequeue(|view| Ok((!view.is_error() && reader.is_whole(&view)).then(|| view.to_vec())));
        match taken {
            Ok(Some(frame)) if settled => return Ok(Some(frame)),
            Ok(Some(frame)) => kept = Some(frame),
            Ok(None) => {}
            // One lost frame; the next may come.
            Err(source) if matches!(source.raw_os_error(), Some(libc::EIO | libc::EAGAIN | libc::EINTR)) => {}
            Err(source) => return Err(source),
        }
    }
    Ok(kept)
}

/// How the frames of one capture are read.
struct Reader {
    fourcc: [u8; 4],
    size: Size,
    stride: u32,
}

impl Reader {
    fn is_whole(&self, frame: &[u8]) -> bool {
        if is_jpeg(self.fourcc) { jpeg::complete(frame).is_some() } else { self.frame(frame).is_some() }
    }

    fn frame<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        Frame::new(pixels::layout(self.fourcc)?, self.size, self.stride, bytes)
    }

    fn picture(&self, bytes: &[u8], quality: u8) -> Result<Option<(Size, Vec<u8>)>, CameraError> {
        if is_jpeg(self.fourcc) {
            return Ok(jpeg::complete(bytes));
        }
        self.frame(bytes).map(|frame| Ok((self.size, frame.encode(quality).map_err(CameraError::Failed)?))).transpose()
    }
}

/// Waits until a frame is there; `false` when the time is over. To dequeue without asking could block for ever.
#[expect(unsafe_code, reason = "waiting for one descriptor without a runtime")]
fn is_ready(descriptor: RawFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let mut wait = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid `pollfd`, alive for the whole call.
        match unsafe { libc::poll(&raw mut wait, 1, millis) } {
            0 => return Ok(false),
            1.. if wait.revents & libc::POLLIN != 0 => return Ok(true),
            1.. => return Err(io::Error::from_raw_os_error(libc::ENODEV)),
            _ => {
                let source = io::Error::last_os_error();
                if source.kind() != io::ErrorKind::Interrupted {
                    return Err(source);
                }
            }
        }
    }
}

fn explain(id: &str, what: &str, source: &io::Error) -> CameraError {
    match source.raw_os_error() {
        Some(libc::EBUSY) => CameraError::Busy(format!("`{id}` is in use by another program")),
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => CameraError::NoneFound(format!("`{id}` is not there (any more): {source}")),
        Some(libc::EACCES | libc::EPERM) => CameraError::Failed(format!(
            "`{id}` cannot {what}: the agent's user may not open /dev/{id}, which usually takes the group `video`"
        )),
        _ => CameraError::Failed(format!("`{id}` cannot {what}: {source}")),
    }
}

/// The right to use one camera: our own calls wait for each other instead of finding it busy.
struct Turn {
    id: String,
}

static TAKEN: LazyLock<(Mutex<HashSet<String>>, Condvar)> = LazyLock::new(Default::default);

impl Turn {
    fn take(id: &str, deadline: Instant) -> Result<Self, CameraError> {
        let (taken, freed) = &*TAKEN;
        let left = deadline.saturating_duration_since(Instant::now());
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) = freed.wait_timeout_while(taken, left, |taken| taken.contains(id)).unwrap_or_else(PoisonError::into_inner);
        if taken.insert(id.to_owned()) {
            return Ok(Self { id: id.to_owned() });
        }
        Err(CameraError::Busy(format!("`{id}` is busy with other calls to this agent")))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (taken, freed) = &*TAKEN;
        taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_this_machine_is_honest() {
        match devices(|_| true) {
            Ok(list) => assert!(list.iter().all(|device| device.id.starts_with("video") && !device.name.is_empty())),
            Err(refusal) => assert!(!ids().is_empty(), "{refusal}"),
        }
        assert_eq!(devices(|_| false), Ok(Vec::new()));
        assert!(matches!(shoot("video-nobody", Size { width: 1, height: 1 }, 85), Err(CameraError::NoneFound(_))));
    }

    #[test]
    fn ranges_offer_usual_sizes_and_their_largest() {
        let sizes = within(Span { least: 320, most: 1300, step: 2 }, Span { least: 180, most: 1000, step: 2 });
        let pairs: Vec<_> = sizes.iter().map(|size| (size.width, size.height)).collect();
        assert_eq!(pairs, [(320, 240), (640, 360), (640, 480), (800, 600), (1280, 720), (1280, 960), (1300, 1000)]);
        assert_eq!(within(Span { least: 9, most: 9, step: 0 }, Span { least: 9, most: 9, step: 0 }).len(), 1);
    }

    #[test]
    fn a_cameras_own_jpeg_is_preferred_when_quality_matters() {
        let order = |quality| {
            let mut formats = [*b"GREY", *b"RGB3", *b"MJPG", *b"YUYV"];
            formats.sort_by_key(|&fourcc| rank(fourcc, quality));
            formats
        };
        assert_eq!(order(85), [*b"MJPG", *b"YUYV", *b"RGB3", *b"GREY"]);
        assert_eq!(order(40), [*b"YUYV", *b"RGB3", *b"GREY", *b"MJPG"]);
    }

    #[test]
    fn facing_comes_from_name_and_bus() {
        assert_eq!(facing("Integrated Camera: Front", Some("fixed")), Facing::Front);
        assert_eq!(facing("HD Rear Cam", Some("fixed")), Facing::Back);
        assert_eq!(facing("C920", Some("removable")), Facing::External);
        assert_eq!(facing("vivid", None), Facing::Unknown);
    }

    #[test]
    fn each_refusal_of_the_system_has_its_own_answer() {
        let told = |number| explain("video0", "take a picture", &io::Error::from_raw_os_error(number));
        assert!(matches!(told(libc::EBUSY), CameraError::Busy(_)));
        assert!(matches!(told(libc::ENODEV), CameraError::NoneFound(_)));
        assert!(matches!(told(libc::EACCES), CameraError::Failed(text) if text.contains("group `video`")));
        assert!(matches!(told(libc::EINVAL), CameraError::Failed(_)));
    }

    #[test]
    fn shots_of_one_camera_take_turns_and_give_up_in_time() {
        let first = Turn::take("video-turn", Instant::now()).expect("free");
        assert!(matches!(Turn::take("video-turn", Instant::now()), Err(CameraError::Busy(_))));
        assert!(Turn::take("video-other", Instant::now()).is_ok());
        let second = std::thread::spawn(|| Turn::take("video-turn", Instant::now() + PATIENCE).is_ok());
        drop(first);
        assert!(second.join().expect("no panic"), "the second is let in");
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_at_a_frame() {
        let (read, write) = io::pipe().expect("pipe");
        assert!(!is_ready(read.as_raw_fd(), Instant::now()).expect("poll"));
        io::Write::write_all(&mut &write, b"x").expect("write");
        assert!(is_ready(read.as_raw_fd(), Instant::now()).expect("poll"));
        drop((io::Read::read(&mut &read, &mut [0]), write));
        assert!(is_ready(read.as_raw_fd(), Instant::now()).is_err(), "hung up");
    }
}
