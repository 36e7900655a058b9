//! Pictures of a real X11 server's screen, painted in known colours.

use anyhow::{Context, Result, ensure};
use jpeg_decoder::Decoder;
use outhaul_tests::seat::XServer;
use outhaul_tests::stage::Stage;
use outhaul_tests::tools::skip;
use serde_json::Value as Json;
use x11rb::connection::Connection as _;
use x11rb::protocol::randr::{ConnectionExt as _, MonitorInfo};
use x11rb::protocol::xproto::{ConnectionExt as _, CreateWindowAux, WindowClass};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use crate::location::{invoke, machine};

const RED: u32 = 0xff_0000;
const BLUE: u32 = 0x00_00ff;

/// Somebody at the screen: paints, and arranges monitors.
struct Painter {
    connection: RustConnection,
    root: u32,
}

impl Painter {
    fn new(server: &XServer) -> Result<Self> {
        let (connection, screen) = RustConnection::connect(Some(&server.display))?;
        let root = connection.setup().roots[screen].root;
        Ok(Painter { connection, root })
    }

    /// A window without a frame; its colour is a number of the screen's own kind.
    fn paint(&self, (x, y): (i16, i16), (width, height): (u16, u16), colour: u32) -> Result<()> {
        let window = self.connection.generate_id()?;
        let looks = CreateWindowAux::new().background_pixel(colour).override_redirect(1);
        self.connection.create_window(0, window, self.root, x, y, width, height, 0, WindowClass::INPUT_OUTPUT, 0, &looks)?;
        self.connection.map_window(window)?;
        Ok(self.connection.sync()?)
    }

    fn monitor(&self, name: &str, primary: bool, (x, y): (i16, i16), (width, height): (u16, u16)) -> Result<()> {
        let name = self.connection.intern_atom(false, name.as_bytes())?.reply()?.atom;
        let (automatic, outputs) = (false, Vec::new());
        let (width_in_millimeters, height_in_millimeters) = (width.into(), height.into());
        let monitor = MonitorInfo { name, primary, automatic, x, y, width, height, width_in_millimeters, height_in_millimeters, outputs };
        self.connection.randr_set_monitor(self.root, monitor)?.check()?;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let name = self.connection.intern_atom(false, name.as_bytes())?.reply()?.atom;
        Ok(self.connection.randr_delete_monitor(self.root, name)?.check()?)
    }
}

/// A picture by the command line: what is said of it, and its pixels.
fn snap(stage: &Stage, parameters: &[&str]) -> Result<(Json, Vec<[u8; 3]>)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("screen.jpg");
    let out = ["--out", path.to_str().context("text")?];
    let said = invoke(stage, &[&["seat.snap"], parameters, &out].concat())?;
    ensure!(said["result"]["media_type"] == "image/jpeg", "{said}");
    let mut decoder = Decoder::new(std::io::BufReader::new(std::fs::File::open(&path)?));
    let pixels = decoder.decode()?;
    let info = decoder.info().context("a size")?;
    let size = &said["result"]["size"];
    ensure!(size["width"] == info.width && size["height"] == info.height, "{}x{} is not {said}", info.width, info.height);
    Ok((said["result"].clone(), pixels.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()))
}

/// The pixel in the middle of a part of a picture, the parts being so many beside each other.
fn middle(picture: &(Json, Vec<[u8; 3]>), part: usize, parts: usize) -> [u8; 3] {
    let size = |side: &str| usize::try_from(picture.0["size"][side].as_u64().unwrap()).unwrap();
    picture.1[size("height") / 2 * size("width") + (2 * part + 1) * size("width") / (2 * parts)]
}

fn is(pixel: [u8; 3], wanted: [u8; 3]) -> bool {
    pixel.iter().zip(wanted).all(|(seen, wanted)| seen.abs_diff(wanted) < 12)
}

#[test]
fn a_picture_shows_what_is_on_the_display_that_is_granted() -> Result<()> {
    let mut server = match XServer::start("640x400x24")? {
        Ok(server) => server,
        Err(missing) => return skip("a_picture_shows_what_is_on_the_display", &missing),
    };
    let painter = Painter::new(&server)?;
    painter.paint((0, 0), (320, 400), RED)?;
    painter.paint((320, 0), (320, 400), BLUE)?;
    let (stage, mut node) = machine(&format!("[screen]\ndisplay = \"{}\"", server.display), &[])?;
    let denied = invoke(&stage, &["seat.displays"])?;
    assert_eq!(denied["error"]["code"], "denied", "{denied}");

    node.run(&["allow", "seat", "screen"])?.ok()?;
    let displays = invoke(&stage, &["seat.displays"])?;
    assert_eq!(
        (displays["result"].as_array().map(Vec::len), &displays["result"][0]["size"]["width"]),
        (Some(1), &640.into()),
        "{displays}"
    );
    let whole = snap(&stage, &[])?;
    assert_eq!((&whole.0["size"]["width"], &whole.0["size"]["height"]), (&640.into(), &400.into()));
    ensure!(is(middle(&whole, 0, 2), [255, 0, 0]) && is(middle(&whole, 1, 2), [0, 0, 255]), "{:?}", [0, 1].map(|n| middle(&whole, n, 2)));
    let small = snap(&stage, &["max_width=100"])?;
    assert_eq!((&small.0["size"]["width"], &small.0["size"]["height"]), (&100.into(), &62.into()));
    ensure!(is(middle(&small, 0, 2), [255, 0, 0]) && is(middle(&small, 1, 2), [0, 0, 255]));
    ensure!(snap(&stage, &["max_width=5000"])?.0["size"]["width"] == 640, "never larger");

    // Two monitors; only the right one is granted.
    painter.monitor("left", true, (0, 0), (320, 400))?;
    painter.monitor("right", false, (320, 0), (320, 400))?;
    node.run(&["deny", "seat", "screen"])?.ok()?;
    node.run(&["allow", "seat", "screen", "right"])?.ok()?;
    let granted = invoke(&stage, &["seat.displays"])?;
    assert_eq!((granted["result"].as_array().map(Vec::len), &granted["result"][0]["id"]), (Some(1), &"right".into()), "{granted}");
    let right = snap(&stage, &[])?;
    assert_eq!((&right.0["display"], &right.0["size"]["width"]), (&"right".into(), &320.into()));
    ensure!(is(middle(&right, 0, 1), [0, 0, 255]));
    let left = invoke(&stage, &["seat.snap", "display=left"])?;
    assert_eq!(left["error"]["code"], "denied");
    assert!(left.to_string().contains("agent allow seat screen left"), "{left}");

    // A monitor that is pulled out, then a session that ends.
    painter.remove("right")?;
    for parameters in [&["seat.snap", "display=right"][..], &["seat.snap"]] {
        let gone = invoke(&stage, parameters)?;
        ensure!(gone["error"]["message"].as_str().is_some_and(|why| why.starts_with("none_found: ")), "{gone}");
    }
    drop(painter);
    server.stop()?;
    let over = invoke(&stage, &["seat.snap"])?;
    ensure!(over["error"]["message"].as_str().is_some_and(|why| why.starts_with("unavailable: ")), "{over}");
    node.agent()?.wait_for("a pack takes a picture of this machine's screen")?;
    Ok(())
}

#[test]
fn a_screen_of_sixteen_bits_has_its_colours_too() -> Result<()> {
    let server = match XServer::start("64x48x16")? {
        Ok(server) => server,
        Err(missing) => return skip("a_screen_of_sixteen_bits_has_its_colours_too", &missing),
    };
    let painter = Painter::new(&server)?;
    painter.paint((0, 0), (32, 48), 0xf800)?;
    painter.paint((32, 0), (32, 48), 0xffff)?;
    let (stage, _node) = machine(&format!("[screen]\ndisplay = \"{}\"", server.display), &["screen"])?;
    let picture = snap(&stage, &[])?;
    ensure!(
        is(middle(&picture, 0, 2), [255, 0, 0]) && is(middle(&picture, 1, 2), [255; 3]),
        "{:?}",
        [0, 1].map(|n| middle(&picture, n, 2))
    );
    Ok(())
}
