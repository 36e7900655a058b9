//! `relay run`: a program's own words and status, and ours when it cannot be run.

use anyhow::Result;
use outhaul_tests::stage::Stage;

use super::page::{Page, configure};

#[test]
fn a_program_s_status_is_its_own_and_255_is_ours() -> Result<()> {
    let mut stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    let mut page = Page::of("programs", &stage);
    page.head("nobody allowed it yet");
    assert_eq!(page.both(&stage, "run bench-1 -- uname -s")?.code, 255);
    page.agent(&node, "allow system process uname")?;
    page.relay(&stage, "run bench-1 -- uname -s")?;
    page.relay(&stage, "run bench-1 -- sh -c true")?;
    for line in ["run bench-1 -- ./uname", "run bench-1 -- ''", "run bench-1 --cwd /root -- uname", "run bench-1 --cwd root -- uname"] {
        page.relay(&stage, line)?;
    }
    for line in ["run bench-1 --env LANG=C -- uname", "run bench-1 --env PATH=/tmp -- uname", "run bench-1 --env LANG -- uname"] {
        page.both(&stage, line)?;
    }

    page.head("what a program says and how it ends");
    node.run(&["allow", "system", "process", "sh", "sleep", "no-such-program", "--cwd", "/srv-of-nobody"])?.ok()?;
    page.both(&stage, "run bench-1 -- sh -c 'echo out; echo err >&2; exit 7'")?;
    page.relay(&stage, "run bench-1 -- sh -c 'kill -TERM $$'")?;
    page.relay(&stage, "--json run bench-1 -- sh -c 'kill -TERM $$'")?;
    page.relay(&stage, "--json run bench-1 -- sh -c 'printf \"\\377\"'")?;
    page.both(&stage, "run bench-1 -- no-such-program")?;
    page.relay(&stage, "run bench-1 --cwd /srv-of-nobody -- sh")?;
    page.both(&stage, "--timeout 300ms run bench-1 -- sleep 60")?;
    page.relay(&stage, "--json run bench-1 -- sh -c 'head -c 30000000 /dev/zero'")?;
    let before = std::fs::read_to_string(node.file("agent.toml"))?;
    configure(&node, "\n[limits]\noutput_mib = 1\n")?;
    page.relay(&stage, "--json run bench-1 -- sh -c 'head -c 3000000 /dev/zero'")?;
    std::fs::write(node.file("agent.toml"), before)?;

    page.head("Ctrl-C");
    let line = "run bench-1 -- sh -c 'echo begun; sleep 60'";
    let run = page.begin_until(&stage, line, "begun")?;
    run.signal(libc::SIGINT);
    assert_eq!(page.ended("relay", line, run)?.code, 130);

    page.head("the link is lost, and the call is taken up again");
    let line = "run bench-1 -- sh -c 'echo begun; read line; echo $line'";
    let mut run = page.begin_until(&stage, line, "begun")?;
    stage.restart_relay()?;
    run.wait_for("the link is back")?;
    run.say("on")?;
    assert_eq!(page.ended("relay", line, run)?.code, 0);

    page.head("the machine is gone");
    node.stop()?;
    assert_eq!(page.both(&stage, "run bench-1 -- uname")?.code, 255);
    page.done();
    Ok(())
}
