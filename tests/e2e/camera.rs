//! Cameras, for real: V4L2 capture from the kernel's virtual camera `vivid`, by the real binaries, in a small virtual
//! machine; asked for by an operator over the relay, like any other command. Skipped, loudly, where qemu is missing.

use anyhow::{Context, Result, ensure};
use jpeg_decoder::{Decoder, PixelFormat};
use outhaul_tests::vm::{Machine, Parts};
use outhaul_tests::{binary, tools};
use serde_json::Value as Json;

/// Width and height.
type Size = (u16, u16);

/// A machine with a virtual camera, a relay, and an agent that is paired and connected.
fn machine_with_camera(parts: &Parts) -> Result<Machine> {
    let mut machine = Machine::boot(parts, &[binary("relay")?, binary("agent")?])?;
    // 0x1: a camera and none of its other faces, such as outputs, tuners and radios.
    machine.load("vivid", "node_types=0x1")?;
    machine.run("export OUTHAUL_HOME=/outhaul")?;
    machine.begin("listens on", "relay serve")?;
    let shown = machine.begin("code", "relay --json pair new")?;
    let line = shown.stdout.lines().find(|line| line.contains("code")).context("a code")?;
    let shown: Json = serde_json::from_str(line)?;
    let code = shown["code"].as_str().context("a code")?;
    machine.run(&format!("agent pair --relay $(cat /outhaul/relay/address) --code {code} --name cam-1"))?.ok()?;
    machine.begin("connected", "agent run")?;
    Ok(machine)
}

/// A photo by the command line, with what it says of it; the picture is decoded.
fn snap(machine: &mut Machine, parameters: &str) -> Result<(Json, Vec<u8>, Size)> {
    let said = machine.run(&format!("relay --json invoke cam-1 camera.snap {parameters} --out /photo.jpg"))?.ok()?.json()?;
    let photo = machine.run("cat /photo.jpg")?.ok()?.bytes;
    let size = picture(&photo).with_context(|| format!("the photo of `{parameters}`"))?;
    let result = &said["result"];
    ensure!(result["device"] == "video0" && result["media_type"] == "image/jpeg", "{said}");
    ensure!(result["size"]["width"] == size.0 && result["size"]["height"] == size.1, "{size:?} is not {said}");
    ensure!(result["data"]["bytes"] == photo.len(), "{} bytes are not {said}", photo.len());
    Ok((said, photo, size))
}

/// The bars this camera shows, from left to right: whether there is red, green and blue in them.
const BARS: [[bool; 3]; 8] = {
    const O: bool = false;
    const X: bool = true;
    [[X, X, X], [X, X, O], [O, X, X], [O, X, O], [X, O, X], [X, O, O], [O, O, X], [O, O, O]]
};

/// The size of a whole JPEG that shows the camera's bars, each in its colour.
fn picture(bytes: &[u8]) -> Result<Size> {
    ensure!(bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]), "it does not begin and end as a JPEG does");
    let mut decoder = Decoder::new(bytes);
    let pixels = decoder.decode()?;
    let info = decoder.info().context("a size")?;
    ensure!(info.pixel_format == PixelFormat::RGB24, "it has no colours");
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    for (bar, colours) in BARS.iter().enumerate() {
        // In the middle of the bar, below the text that the camera writes over it.
        let at = (height * 3 / 4 * width + (2 * bar + 1) * width / 16) * 3;
        let seen: [bool; 3] = std::array::from_fn(|channel| pixels[at + channel] > 96);
        ensure!(seen == *colours, "bar {bar} is {:?}, not {colours:?}", &pixels[at..at + 3]);
    }
    Ok((info.width, info.height))
}

#[test]
fn a_kernel_camera_is_listed_and_photographed_only_when_granted() -> Result<()> {
    let parts = match Parts::find(&["vivid"]) {
        Ok(parts) => parts,
        Err(missing) => return tools::skip("the camera test in a virtual machine", &missing),
    };
    let mut machine = machine_with_camera(&parts)?;

    // The pack is there, its power is not granted yet.
    for command in ["camera.list", "camera.snap --out /denied.jpg"] {
        let denied = machine.run(&format!("relay --json invoke cam-1 {command}"))?.exits(3)?.json()?;
        assert_eq!(denied["error"]["code"], "denied", "{denied}");
        assert!(denied["error"].to_string().contains("agent allow camera camera"), "{denied}");
    }
    machine.run("ls /denied.jpg")?.exits(1)?;

    machine.run("agent allow camera camera")?.ok()?;
    let listed = machine.run("relay --json invoke cam-1 camera.list")?.ok()?.json()?;
    let devices = listed["result"].as_array().context("a list")?;
    assert_eq!(devices.len(), 1, "{listed}");
    assert_eq!(devices[0]["id"], "video0", "{listed}");
    assert!(devices[0]["name"].as_str().is_some_and(|name| name.contains("vivid")), "{listed}");
    let widths: Vec<u64> = devices[0]["sizes"].as_array().context("sizes")?.iter().filter_map(|size| size["width"].as_u64()).collect();
    assert!(widths.contains(&640) && widths.contains(&1280), "{listed}");

    let (said, fine, size) = snap(&mut machine, "max_width=640 quality=90")?;
    assert_eq!(size.0, 640, "{said}");
    assert_eq!(said["receipt"]["outcome"], "done", "{said}");
    let (_, coarse, size) = snap(&mut machine, "device=video0 max_width=700 quality=20")?;
    assert_eq!(size.0, 640, "the largest size not wider than asked for");
    assert!(coarse.len() < fine.len(), "quality 20 took {} bytes, quality 90 took {}", coarse.len(), fine.len());
    // The camera shows a running clock: no two pictures are the same.
    let (_, later, _) = snap(&mut machine, "max_width=640 quality=90")?;
    assert_ne!(later, fine);

    let failed = machine.run("relay --json invoke cam-1 camera.snap max_width=10 --out /failed.jpg")?.exits(1)?.json()?;
    assert_eq!(failed["error"]["code"], "command_failed", "{failed}");
    let absent = machine.run("relay --json invoke cam-1 camera.snap device=video7 --out /absent.jpg")?.exits(1)?.json()?;
    assert!(absent["error"].to_string().contains("video0"), "names the cameras there are: {absent}");

    // Granted for another camera only, then not at all.
    for (change, hint) in
        [("allow camera camera video1", "agent allow camera camera video0"), ("deny camera camera", "agent allow camera camera")]
    {
        machine.run("agent deny camera camera")?.ok()?;
        machine.run(&format!("agent {change}"))?.ok()?;
        let denied = machine.run("relay --json invoke cam-1 camera.snap device=video0 --out /denied.jpg")?.exits(3)?.json()?;
        assert!(denied["error"].to_string().contains(hint), "after `agent {change}`: {denied}");
    }
    machine.run("ls /denied.jpg")?.exits(1)?;
    machine.off()
}
