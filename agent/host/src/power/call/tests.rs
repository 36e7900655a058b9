use super::*;

/// Says what it was asked on every lane, then what it is told to say.
#[derive(Debug)]
struct Echo;

impl Others for Echo {
    fn prepare(&self, asked: Asked) -> Result<Work, CallError> {
        let Asked { command, params, output, mut input } = asked;
        if command == "no.such" {
            return Err(CallError::Unknown("no such command".into()));
        }
        Ok(Box::pin(async move {
            let data = |lane, text: &str| Output::Data { lane, bytes: Bytes::copy_from_slice(text.as_bytes()) };
            let says = [
                data(Lane::Result, "data"),
                data(Lane::Stdout, &params),
                Output::Event { name: "tick".into(), json: "{\n\"n\": 1\r\n}".into() },
                data(Lane::Stderr, "err"),
            ];
            for said in says {
                let _ = output.send(said).await;
            }
            while let Some(bytes) = input.recv().await {
                let _ = output.send(Output::Data { lane: Lane::Stdout, bytes }).await;
            }
            match command.as_str() {
                "long.one" => {
                    let piece = Bytes::from(vec![0; 1 << 20]);
                    while output.send(Output::Data { lane: Lane::Stdout, bytes: piece.clone() }).await.is_ok() {}
                    Err(Failure::new(Code::Cancelled, "nobody listens").into())
                }
                "for.ever" => std::future::pending().await,
                _ => Ok("7".into()),
            }
        }))
    }
}

fn grant(commands: &[&str]) -> Grant {
    Grant { commands: commands.iter().map(|command| Commands::parse(command).expect("a pattern")).collect() }
}

fn calls() -> Calls {
    Calls::new(Some(Arc::new(Echo)))
}

#[test]
fn a_pattern_names_commands_of_packs_only() {
    for good in ["gpu.list", "system.*", "*", "node_tools.x"] {
        assert_eq!(Commands::parse(good).expect("good").as_str(), good);
    }
    for bad in ["", "gpu", "gpu.", ".list", "node.ping", "pack.*", "gpu.list x", "GPU.list", "gpu.li*"] {
        assert!(Commands::parse(bad).is_err(), "{bad}");
    }
    let some = grant(&["gpu.list", "system.*"]);
    for (command, allowed) in [("gpu.list", true), ("gpu.lists", false), ("system.run", true), ("systems.run", false), ("system", false)] {
        assert_eq!(some.allows(command), allowed, "{command}");
    }
}

#[tokio::test]
async fn all_that_is_said_is_collected() {
    let answer = calls().invoke("flow", &grant(&["a.b"]), "a.b".into(), "{}".into()).await.expect("answered");
    let events = vec![("tick".to_owned(), "{\n\"n\": 1\r\n}".to_owned())];
    assert_eq!(answer, Answer { value: "7".into(), data: b"data".into(), stdout: b"{}".into(), stderr: b"err".into(), events });
}

#[tokio::test]
async fn what_is_not_granted_is_not_even_asked() {
    let denied = calls().invoke("flow", &grant(&["a.c"]), "a.b".into(), "{}".into()).await.expect_err("refused");
    let sentence = "this machine's policy does not let pack `flow` call `a.b`; on that machine: agent allow flow call a.b";
    assert_eq!(denied, CallError::Denied(sentence.into()));
    assert!(matches!(calls().start("flow", &Grant::default(), "a.b".into(), "{}".into()), Err(CallError::Denied(_))));
    let nobody = Calls::new(None).invoke("flow", &grant(&["*"]), "a.b".into(), "{}".into()).await;
    assert_eq!(nobody, Err(CallError::Unknown("`a.b`: there are no other packs where this one runs".into())));
}

#[tokio::test]
async fn more_than_is_collected_ends_the_call() {
    let over = calls().invoke("flow", &grant(&["*"]), "long.one".into(), "{}".into()).await.expect_err("too much");
    assert_eq!(over, CallError::Limit("`long.one` said more than the 4 MiB that are collected; `start` gives it as streams".into()));
}

#[tokio::test]
async fn so_many_calls_at_once_and_a_place_for_each_that_ends() {
    let (calls, all) = (calls(), grant(&["*"]));
    let start = || calls.start("flow", &all, "for.ever".into(), "{}".into());
    let mut running: Vec<Running> = (0..CALLS_AT_ONCE).map(|_| start().expect("a place")).collect();
    assert!(matches!(start(), Err(CallError::Limit(_))));
    drop(running.pop());
    // The task that was ended gives its place back when it is next looked at.
    while calls.places.available_permits() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(start().is_ok());
    // One that was never begun took none.
    drop(running.pop());
    while calls.places.available_permits() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(calls.start("flow", &all, "no.such".into(), "{}".into()), Err(CallError::Unknown(_))));
    assert!(start().is_ok());
}

#[tokio::test]
async fn what_a_call_left_unread_keeps_its_place() {
    let (calls, all) = (calls(), grant(&["*"]));
    let start = || calls.start("flow", &all, "a.b".into(), "{}".into());
    // Ended, with what they said still in their streams.
    let mut kept = Vec::new();
    for _ in 0..CALLS_AT_ONCE {
        let mut running = start().expect("a place");
        let (input, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut running.input, input));
        assert_eq!(ended(&mut running.work).await, Ok("7".into()));
        kept.push(running);
    }
    assert!(matches!(start(), Err(CallError::Limit(_))));
    kept.pop();
    assert!(start().is_ok());
}

#[tokio::test]
async fn each_lane_has_its_own_and_events_a_line_each() {
    let mut running = calls().start("flow", &grant(&["*"]), "a.b".into(), "{}".into()).expect("started");
    running.input.send(Bytes::from_static(b"told")).await.expect("taken");
    drop(running.input);
    // One that nobody wants is drained.
    drop(running.stderr);
    assert_eq!(running.data.recv().await.expect("data"), "data");
    assert_eq!(running.stdout.recv().await.expect("stdout"), "{}");
    assert_eq!(running.stdout.recv().await.expect("stdout"), "told");
    assert_eq!(running.events.recv().await.expect("an event"), "{\"name\":\"tick\",\"json\":{ \"n\": 1  }}\n");
    assert_eq!(ended(&mut running.work).await, Ok("7".into()));
    assert_eq!((running.data.recv().await, running.stdout.recv().await, running.events.recv().await), (None, None, None));
}
