//! Servers that are not there or mean no good, and what is decided without one. A real one is in the end-to-end tests.

use std::io::{Read as _, Write as _};

use super::*;

fn all() -> Grant {
    Grant { all: true, displays: Vec::new() }
}

fn only(id: &str) -> Grant {
    Grant { all: false, displays: vec![id.into()] }
}

fn shot(display: Option<&str>) -> Shot {
    Shot { display: display.map(Into::into), max_width: None, quality: 85 }
}

fn screens(socket: &std::path::Path) -> Screens {
    let place = Place::try_from(socket.display().to_string()).expect("a path");
    Screens::new(Config { display: Some(place), patience: Some(Duration::from_millis(300)) })
}

fn display(id: &str, primary: bool) -> Display {
    Display { id: id.into(), size: Size { width: 8, height: 4 }, primary, corner: (0, 0) }
}

#[tokio::test]
async fn without_a_grant_every_question_is_denied_with_the_way_out() {
    let screens = screens(std::path::Path::new("/nowhere/X0"));
    let sentence = "this machine's policy does not let pack `p` see the screen; on that machine: agent allow p screen";
    assert_eq!(screens.displays("p", &Grant::default()).await, Err(ScreenError::Denied(sentence.into())));
    assert_eq!(screens.snap("p", &Grant::default(), shot(None)).await, Err(ScreenError::Denied(sentence.into())));
    let refused = screens.snap("p", &only("HDMI-1"), shot(Some("HDMI 2"))).await.expect_err("not granted");
    assert!(matches!(&refused, ScreenError::Denied(why) if why.ends_with("agent allow p screen 'HDMI 2'")), "{refused}");
}

#[tokio::test]
async fn nonsense_is_refused_before_anybody_is_asked() {
    let screens = screens(std::path::Path::new("/nowhere/X0"));
    for wrong in [Shot { quality: 0, ..shot(None) }, Shot { quality: 101, ..shot(None) }, Shot { max_width: Some(0), ..shot(None) }] {
        assert!(matches!(screens.snap("p", &all(), wrong).await, Err(ScreenError::Failed(_))));
    }
    assert!(matches!(screens.snap("p", &all(), shot(None)).await, Err(ScreenError::Unavailable(why)) if why.contains("/nowhere/X0")));
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_gives_its_turn_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("X7");
    let _silent = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let screens = screens(&path);
    for _ in 0..2 * AT_ONCE {
        let error = screens.displays("p", &all()).await.expect_err("silence");
        assert!(matches!(&error, ScreenError::Failed(why) if why.contains("timed out")), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_talks_nonsense_is_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("X7");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let talks = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody");
        let mut hello = [0; 12];
        stream.read_exact(&mut hello).expect("a greeting");
        // Whoever hangs up before the end is right to do so.
        let _ = stream.write_all(&[0x55; 4096]);
    });
    let error = screens(&path).displays("p", &all()).await.expect_err("nonsense");
    assert!(matches!(error, ScreenError::Failed(_)), "{error}");
    talks.join().expect("no panic");
}

#[test]
fn the_primary_display_is_the_usual_one() {
    let chosen = |displays: &[(&str, bool)], wanted: Option<&str>| {
        choose(displays.iter().map(|(id, primary)| display(id, *primary)).collect(), wanted).map(|display| display.id)
    };
    assert_eq!(chosen(&[("a", false), ("b", true)], None).as_deref(), Ok("b"));
    assert_eq!(chosen(&[("a", false), ("b", false)], None).as_deref(), Ok("a"));
    assert_eq!(chosen(&[("a", false), ("b", true)], Some("a")).as_deref(), Ok("a"));
    assert!(matches!(chosen(&[("a", true)], Some("c")), Err(ScreenError::NoneFound(why)) if why.contains("there is `a`")));
    assert!(matches!(chosen(&[], None), Err(ScreenError::NoneFound(_))));
}

#[test]
fn a_picture_is_scaled_down_and_never_up() {
    let taken = |max_width| picture(display("a", true), vec![200; 8 * 4 * RGB], &Shot { max_width, ..shot(None) }).expect("a picture").size;
    assert_eq!([taken(None), taken(Some(100))], [Size { width: 8, height: 4 }; 2]);
    assert_eq!(taken(Some(3)), Size { width: 3, height: 1 });
    assert!(picture(display("a", true), vec![0; 5], &shot(None)).is_err());
}
