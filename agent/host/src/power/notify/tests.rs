//! Sessions that are not there or do not answer. Real ones are in the end-to-end tests.

use super::*;

fn message() -> Message {
    Message { title: "Backup".into(), body: "is done".into(), urgency: Urgency::Low }
}

fn notifier(socket: &std::path::Path) -> Notifier {
    let bus = Address::try_from(format!("unix:path={}", socket.display())).expect("an address");
    Notifier::new(Config { bus: Some(bus), patience: Some(Duration::from_millis(200)) })
}

#[tokio::test]
async fn without_a_session_the_way_out_is_said_and_nothing_is_used_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let notifier = notifier(&dir.path().join("no-bus"));
    for _ in 0..2 * AT_ONCE {
        let error = notifier.show("p", &message()).await.expect_err("no session");
        assert!(matches!(&error, NotifyError::Unavailable(why) if why.contains("service of the user")), "{error}");
    }
}

#[tokio::test]
async fn a_bus_that_never_answers_is_given_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bus");
    let _silent = tokio::net::UnixListener::bind(&path).expect("bound");
    let error = notifier(&path).show("p", &message()).await.expect_err("silence");
    assert_eq!(error, NotifyError::Failed("the desktop did not take the message within 0.2 s".into()));
}

#[test]
fn each_pack_has_a_few_at_once_then_slowly_more() {
    let notifier = Notifier::new(Config::default());
    for _ in 0..AT_ONCE {
        notifier.take("p").expect("has one");
    }
    assert!(matches!(notifier.take("p"), Err(NotifyError::Limit(why)) if why.contains("the next in 30 s")));
    notifier.take("q").expect("another pack's are its own");

    let start = Instant::now();
    let mut allowance = Allowance::whole(start);
    let mut taken = |at: Duration| (0..).take_while(|_| allowance.take(start + at).is_ok()).count();
    assert_eq!(taken(Duration::ZERO), AT_ONCE as usize);
    assert_eq!([taken(EVERY / 2), taken(EVERY), taken(EVERY * 3)], [0, 1, 2]);
    assert_eq!(taken(EVERY * 1000), AT_ONCE as usize, "no more are saved up");
}
