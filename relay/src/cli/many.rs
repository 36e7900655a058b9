//! One call of the agent's own to many nodes at once, over one link: what a deployment asks of a fleet is known when its
//! slowest node has answered, not its last in a row.

use std::sync::Arc;
use std::time::Duration;

use outhaul_link::channel::CallSpec;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::native;
use outhaul_protocol::objects::DeploymentDocument;
use outhaul_protocol::value::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pack::again;
use crate::operator::deployments::Order;
use crate::operator::{Drive, Seen, Session};

/// Calls under way at once: enough to overlap, few enough that a small relay is not flooded.
const AT_ONCE: usize = 64;
/// What is left to the network beyond a call's own time.
const MARGIN: Duration = Duration::from_secs(10);
/// How long a node may hold an answer back until something is decided there.
const HOLD: Duration = Duration::from_secs(20);
/// Between two looks at a node that answers at once without having decided.
const PAUSE: Duration = Duration::from_millis(250);

/// What a node states about one pack. The receipt was verified before this was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    /// of the newest deployment it took
    pub serial: u64,
    /// `applied`, `pending`, `failed`, `not_meant`, `none`
    pub word: String,
    /// Unix seconds
    pub since: Option<u64>,
    /// what is asked of it
    pub version: Option<String>,
    /// why not
    pub failure: Option<Failure>,
    /// another document of this serial
    pub conflict: Option<String>,
    /// the serial of what it did not take, and why
    pub refused: Option<(u64, Failure)>,
    /// what answers
    pub running: Option<Running>,
}

/// What answers on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Running {
    pub version: String,
    pub digest: String,
    /// none where it came with the agent
    pub signature: Option<Vec<u8>>,
    /// why it is out of service, if it is
    pub quarantined: Option<String>,
}

fn text(value: &Value, name: &str) -> Option<String> {
    match value.get(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    }
}

fn figure(value: &Value, name: &str) -> Option<u64> {
    match value.get(name) {
        Some(Value::Int(figure)) => u64::try_from(*figure).ok(),
        _ => None,
    }
}

impl State {
    /// The state of one pack in what `pack.status` gave.
    pub(super) fn of(value: &Value, name: &str) -> State {
        let Value::Array(all) = value else { return State::default() };
        let Some(found) = all.iter().find(|one| text(one, "name").as_deref() == Some(name)) else { return State::default() };
        let why = |value: &Value| {
            let code = Code::parse(&text(value, "code")?).unwrap_or(Code::Internal);
            let failure = Failure::new(code, text(value, "message").unwrap_or_default());
            Some(Failure { hint: text(value, "hint"), ..failure })
        };
        let refused = found.get("refused").and_then(|refused| Some((figure(refused, "serial")?, why(refused)?)));
        let running = found.get("running").and_then(|running| {
            let signature = match running.get("signature") {
                Some(Value::Bytes(bytes)) => Some(bytes.clone()),
                _ => None,
            };
            let quarantined = text(running, "quarantined");
            Some(Running { version: text(running, "version")?, digest: text(running, "digest")?, signature, quarantined })
        });
        State {
            serial: figure(found, "serial").unwrap_or(0),
            word: text(found, "state").unwrap_or_else(|| "none".into()),
            since: figure(found, "since"),
            version: text(found, "version"),
            failure: why(found),
            conflict: text(found, "conflict"),
            refused,
            running,
        }
    }

    /// What became of a deployment on this node; `None` while that is open.
    fn verdict(&self, serial: u64) -> Option<Result<(), Failure>> {
        if let Some((refused, why)) = self.refused.as_ref().filter(|_| self.serial < serial)
            && *refused >= serial
        {
            return Some(Err(why.clone()));
        }
        match (self.word.as_str(), &self.failure) {
            _ if self.serial > serial => {
                let text = format!("the node follows deployment {}, which is newer than {serial}", self.serial);
                Some(Err(Failure::new(Code::Replayed, text).hint("another operator deployed meanwhile: look at `relay pack status`")))
            }
            _ if self.serial < serial => None,
            ("applied", _) => Some(Ok(())),
            ("failed", Some(why)) => Some(Err(why.clone())),
            // It goes on trying, but somebody has to bring the relay what it lacks.
            ("pending", Some(why)) if why.code == Code::DigestMismatch => {
                Some(Err(why.clone().hint("relay pack push FILE; nodes then fetch it by themselves")))
            }
            _ => None,
        }
    }
}

/// The parameters of `pack.status` for one pack; with a serial it waits for the outcome.
fn asking(name: &str, serial: Option<(u64, Duration)>) -> CallSpec {
    let mut params = vec![("name".to_owned(), Value::from(name))];
    let mut deadline = MARGIN;
    if let Some((serial, wait)) = serial {
        let wait_ms = wait.as_millis().min(HOLD.as_millis());
        params.push(("serial".to_owned(), Value::Int(serial.into())));
        params.push(("wait_ms".to_owned(), Value::Int(i128::try_from(wait_ms).unwrap_or(0))));
        deadline += wait.min(HOLD);
    }
    CallSpec { deadline: Some(deadline), ..CallSpec::new(native::DEPLOYED, Value::Map(params)) }
}

/// One call to one node; a deployment goes with it where one is given. A node that has just been asked too much is asked
/// again: the call changes nothing.
async fn one(session: Session, seen: Seen, spec: CallSpec, hand: Option<Arc<DeploymentDocument>>) -> Result<Value, Failure> {
    let limit = spec.deadline.unwrap_or(HOLD) + MARGIN;
    let work = async {
        loop {
            match once(again(&session)?, &seen, &spec, hand.as_deref()).await {
                Err(failure) if failure.code == Code::Busy => tokio::time::sleep(PAUSE).await,
                answered => return answered,
            }
        }
    };
    let late = || Failure::new(Code::Deadline, format!("`{}` did not answer", seen.known.node.name));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

async fn once(session: Session, seen: &Seen, spec: &CallSpec, hand: Option<&DeploymentDocument>) -> Result<Value, Failure> {
    let drive = Drive::start(session, seen, spec).await?;
    if let Some(document) = hand {
        drive.hand(document).await;
    }
    drive.finish(|_, _| ()).await?.result
}

/// Runs something for each node, so many at once; outcomes are told as they come and returned in the nodes' order.
pub(super) async fn each<T, F>(
    nodes: &[Seen],
    work: impl Fn(Seen) -> Result<F, Failure>,
    mut told: impl FnMut(&Seen, &Result<T, Failure>),
) -> Vec<Result<T, Failure>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut done: Vec<Option<Result<T, Failure>>> = nodes.iter().map(|_| None).collect();
    for (at, seen) in nodes.iter().enumerate() {
        match work(seen.clone()) {
            Err(failure) => done[at] = Some(Err(failure)),
            Ok(work) => {
                let places = places.clone();
                tasks.spawn(async move {
                    let _place = places.acquire_owned().await;
                    (at, work.await)
                });
            }
        }
    }
    for (seen, failed) in nodes.iter().zip(&done) {
        if let Some(failed) = failed {
            told(seen, failed);
        }
    }
    while let Some(joined) = tasks.join_next().await {
        if let Ok((at, outcome)) = joined {
            told(&nodes[at], &outcome);
            done[at] = Some(outcome);
        }
    }
    let lost = || Err(Failure::new(Code::Internal, "the call was given up"));
    done.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
}

/// What each of these nodes states about a pack now.
pub(super) async fn states(session: &Session, nodes: &[Seen], name: &str) -> Vec<Result<State, Failure>> {
    let ask = |seen: Seen| {
        let (session, spec, name) = (again(session)?, asking(name, None), name.to_owned());
        Ok(async move { Ok(State::of(&one(session, seen, spec, None).await?, &name)) })
    };
    each(nodes, ask, |_, _| ()).await
}

/// Waits until a deployment is dealt with on each of these nodes, which are handed it also past the relay.
pub(super) async fn follow(
    session: &Session,
    nodes: &[Seen],
    order: &Order,
    patience: Duration,
    told: impl FnMut(&Seen, &Result<State, Failure>),
) -> Vec<Result<State, Failure>> {
    let (deadline, document) = (Instant::now() + patience, Arc::new(order.document.clone()));
    let (name, serial) = (order.said.name.clone(), order.said.serial);
    let ask = |seen: Seen| {
        let (session, document, name) = (again(session)?, document.clone(), name.clone());
        Ok(until_decided(session, seen, name, serial, document, deadline))
    };
    each(nodes, ask, told).await
}

async fn until_decided(
    session: Session,
    seen: Seen,
    name: String,
    serial: u64,
    document: Arc<DeploymentDocument>,
    deadline: Instant,
) -> Result<State, Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let value = one(again(&session)?, seen.clone(), asking(&name, Some((serial, left))), Some(document.clone())).await?;
        let state = State::of(&value, &name);
        match state.verdict(serial) {
            Some(Ok(())) => return Ok(state),
            Some(Err(failure)) => return Err(failure),
            None if Instant::now() >= deadline => return Err(undecided(&state, &seen)),
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn undecided(state: &State, seen: &Seen) -> Failure {
    let name = &seen.known.node.name;
    let text = match &state.failure {
        _ if state.word == "not_meant" => format!("`{name}` does not count itself among those meant: its certificate there may be older"),
        Some(why) => format!("it is not done yet: {}", why.message),
        None => "it is not done yet".to_owned(),
    };
    Failure::new(Code::Deadline, text).hint("it goes on by itself; `relay pack status` tells how far it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(serial: u64, word: &str) -> State {
        State { serial, word: word.into(), ..State::default() }
    }

    #[test]
    fn only_the_deployment_that_is_meant_is_judged() {
        assert_eq!(state(3, "applied").verdict(3), Some(Ok(())));
        let why = |code| Some(Failure::new(code, "a sentence").hint("a way out"));
        let lacking = State { failure: why(Code::DigestMismatch), ..state(3, "pending") };
        assert!(lacking.verdict(3).expect("told").expect_err("lacking").hint.is_some_and(|hint| hint.contains("push")));
        for open in [state(2, "applied"), state(3, "pending"), state(0, "none"), state(3, "not_meant")] {
            assert_eq!(open.verdict(3), None, "{open:?}");
        }
        let newer = state(4, "applied").verdict(3).expect("decided").expect_err("another's");
        assert_eq!(newer.code, Code::Replayed);
        let failed = State { failure: why(Code::BadKey), ..state(3, "failed") };
        assert_eq!(failed.verdict(3).expect("decided").err(), why(Code::BadKey));
        let refused = |serial| State { refused: why(Code::Expired).map(|why| (serial, why)), ..state(2, "applied") };
        assert_eq!(refused(3).verdict(3).expect("decided").expect_err("refused").code, Code::Expired);
        assert_eq!(refused(1).verdict(3), None, "an older one's refusal says nothing");
    }

    #[test]
    fn a_nodes_statement_is_read_as_far_as_it_goes() {
        let map = |fields: Vec<(&str, Value)>| Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let running = map(vec![("version", "1.2.0".into()), ("digest", "ab".into()), ("signature", Value::Bytes(vec![1]))]);
        let one = map(vec![("name", "thermal".into()), ("serial", Value::Int(7)), ("state", "applied".into()), ("running", running)]);
        let read = State::of(&Value::Array(vec![one]), "thermal");
        assert_eq!((read.serial, read.word.as_str()), (7, "applied"));
        assert_eq!(read.running.expect("runs").signature, Some(vec![1]));
        assert_eq!(State::of(&Value::Null, "thermal"), State::default());
    }
}
