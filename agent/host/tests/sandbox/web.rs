//! The power `http`: what is granted works, what is not is denied whatever the pack makes of it, and the ways around it are shut.

use std::sync::Arc;
use std::time::Duration;

use outhaul_host::power::http;
use outhaul_host::{Grants, Power};
use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use crate::outside::{SECURE, Server, Step, TOKEN, answer, asked, name, redirect};
use crate::support::{Caller, Ended, pack};

/// A grant as it stands in `agent.toml`.
fn grants(http: Json) -> Grants {
    let grant: http::Grant = serde_json::from_value(http).expect("a grant");
    Grants { http: Some(Arc::new(grant)), ..Grants::default() }
}

/// A request to a URL.
fn get(url: &str) -> Json {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    json!({ "method": "GET", "scheme": scheme, "authority": authority, "path": format!("/{path}"), "headers": [], "body": null })
}

fn with(mut request: Json, key: &str, value: Json) -> Json {
    request[key] = value;
    request
}

async fn call(grants: &Grants, command: &str, params: Json) -> Ended {
    let grants = Arc::new(grants.clone());
    Caller::new(&pack("web").await, command, params, 4).with(|request| request.grants = grants).run().await
}

async fn fetch(grants: &Grants, request: Json) -> Ended {
    call(grants, "web.fetch", json!({ "request": request, "redirects": 5 })).await
}

/// What the pack says went wrong.
fn error(ended: &Ended) -> String {
    assert_eq!(ended.code(), Code::CommandFailed, "{:?}", ended.result);
    ended.failure().message.clone()
}

fn denied(ended: &Ended) -> String {
    assert_eq!(ended.code(), Code::Denied, "{:?}", ended.result);
    ended.failure().message.clone()
}

fn text(ended: &Ended, field: &str) -> String {
    match ended.value().get(field) {
        Some(Value::Text(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_granted_host_hears_what_was_sent_and_is_heard() {
    let mut server = Server::start(answer("hello")).await;
    let granted = grants(json!({ "hosts": [server.plain()], "methods": ["GET", "POST"] }));
    let url = format!("{}/path?q=1", server.plain());
    let ended = fetch(&granted, with(get(&url), "headers", json!([["x-mark", "yes"]]))).await;
    assert_eq!((text(&ended, "body").as_str(), ended.value().get("status")), ("hello", Some(&Value::Int(200))));
    let heard = server.heard().await;
    assert!(heard.head.starts_with("get /path?q=1 http/1.1\r\n"), "{}", heard.head);
    for line in [format!("host: 127.0.0.1:{}", server.port), "x-mark: yes".into(), "connection: close".into()] {
        assert!(heard.head.contains(&format!("\r\n{line}\r\n")), "{line} of {}", heard.head);
    }
    let post = with(with(get(&url), "method", json!("POST")), "body", json!("some text"));
    assert!(fetch(&granted, post).await.result.is_ok());
    assert!(String::from_utf8_lossy(&server.heard().await.body).contains("some text"));
    let ended = call(&granted, "web.upload", json!({ "request": with(get(&url), "method", json!("POST")), "bytes": 200_000 })).await;
    assert_eq!(ended.value(), &Value::Int(200));
    assert!(server.heard().await.body.len() >= 200_000);
}

#[tokio::test]
async fn without_a_grant_a_pack_loads_and_its_requests_are_denied() {
    let mut server = Server::start(answer("hello")).await;
    let (request, plain) = (get(&server.plain()), server.plain());
    assert_eq!(pack("web").await.powers(), [Power::Http, Power::Files], "WASI's libraries ask for folders, used or not");
    let sentence = format!("this machine's policy does not let pack `web` reach `{plain}`; on that machine: agent allow web http {plain}");
    assert_eq!(denied(&fetch(&Grants::default(), request.clone()).await), sentence);
    // A pack that does not even look at what came of its request.
    assert_eq!(denied(&call(&Grants::default(), "web.try_it", json!({ "request": request })).await), sentence);
    let granted = Arc::new(grants(json!({ "hosts": [plain] })));
    let unsigned = Caller::new(&pack("web").await, "web.try_it", json!({ "request": request }), 4)
        .with(|call| (call.grants, call.shared_only) = (granted, true))
        .run()
        .await;
    assert!(denied(&unsigned).contains("for signed calls only"));
    assert!(server.is_quiet());
}

#[tokio::test]
async fn another_port_scheme_method_or_host_is_denied() {
    let mut server = Server::start(answer("hello")).await;
    let other = Server::start(answer("hello")).await;
    let granted = grants(json!({ "hosts": [server.plain()] }));
    name("plain.test", &[&["127.0.0.1"]]);
    for (request, what) in [
        (get(&other.plain()), format!("reach `{}`", other.plain())),
        (get(&server.plain().replace("http:", "https:")), format!("reach `127.0.0.1:{}`", server.port)),
        (with(get(&server.plain()), "method", json!("POST")), format!("send POST to `{}`", server.plain())),
        (get(&format!("http://plain.test:{}", server.port)), format!("reach `http://plain.test:{}`", server.port)),
        // Nothing said is TLS, not the clear.
        (with(get(&server.plain()), "scheme", json!("")), format!("reach `127.0.0.1:{}`", server.port)),
    ] {
        let sentence = denied(&fetch(&granted, request).await);
        assert!(sentence.contains(&what), "{sentence}");
    }
    for method in ["TRACE", "CONNECT"] {
        assert!(denied(&fetch(&granted, with(get(&server.plain()), "method", json!(method))).await).ends_with("no policy grants that"));
    }
    assert!(server.is_quiet() && asked("plain.test") == 0, "what is not granted is not even looked up");
}

#[tokio::test]
async fn odd_spellings_of_a_host_are_denied() {
    let mut server = Server::start(answer("hello")).await;
    let granted = grants(json!({ "hosts": [server.plain()], "private": ["127.0.0.0/8", "::/0"] }));
    for host in ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "user@127.0.0.1", "127.0.0.1%2f", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}", server.port);
        let ended = fetch(&granted, get(&url)).await;
        let said = ended.failure();
        assert!(said.code == Code::Denied || said.message == "the authority is refused", "{host}: {said:?}");
    }
    assert!(server.is_quiet());
}

#[tokio::test]
async fn a_redirect_is_a_request_of_its_own() {
    let mut inner = Server::start(answer("inner")).await;
    name("inner.test", &[&["127.0.0.2"]]);
    name("allowed.test", &[&["127.0.0.1"]]);
    let lead = |location: String| Server::start(redirect(&location));
    // To a host that is not granted, to a granted name with a private address, and to a granted one.
    let first = lead(format!("{}/x", inner.plain())).await;
    let sentence = denied(&fetch(&grants(json!({ "hosts": [first.plain()] })), get(&first.plain())).await);
    assert!(sentence.contains(&format!("reach `{}`", inner.plain())), "{sentence}");
    let target = format!("http://inner.test:{}", inner.port);
    let second = lead(format!("{target}/x")).await;
    let sentence = denied(&fetch(&grants(json!({ "hosts": [second.plain(), target] })), get(&second.plain())).await);
    assert!(sentence.contains(&format!("`{target}` leads to 127.0.0.2, this machine's own address")), "{sentence}");
    assert!(sentence.ends_with(&format!("agent allow web http {target} --private 127.0.0.2")), "{sentence}");
    assert!(inner.is_quiet());
    let allowed = format!("http://allowed.test:{}", inner.port);
    let third = lead(format!("{allowed}/x")).await;
    let granted = grants(json!({ "hosts": [third.plain(), allowed], "private": ["127.0.0.1"] }));
    let ended = fetch(&granted, get(&third.plain())).await;
    assert_eq!((text(&ended, "body").as_str(), ended.value().get("hops")), ("inner", Some(&Value::Int(1))));
}

#[tokio::test]
async fn a_name_that_changes_its_mind_reaches_only_what_was_judged() {
    let mut server = Server::start(answer("hello")).await;
    let url = format!("http://rebind.test:{}", server.port);
    // Good when it is judged, bad whenever it is asked again.
    name("rebind.test", &[&["127.0.0.1"], &["127.0.0.2"]]);
    let granted = grants(json!({ "hosts": [url], "private": ["127.0.0.1"] }));
    assert_eq!(text(&fetch(&granted, get(&url)).await, "body"), "hello");
    assert_eq!(asked("rebind.test"), 1, "one look-up a request");
    assert!(server.heard().await.head.contains(&format!("host: rebind.test:{}", server.port)));
    assert!(denied(&fetch(&granted, get(&url)).await).contains("leads to 127.0.0.2"));
    assert_eq!(asked("rebind.test"), 2);
    // One bad address among good ones.
    name("mixed.test", &[&["127.0.0.1", "127.0.0.2"]]);
    let url = format!("http://mixed.test:{}", server.port);
    assert!(denied(&fetch(&grants(json!({ "hosts": [url], "private": ["127.0.0.1"] })), get(&url)).await).contains("leads to 127.0.0.2"));
    assert!(server.is_quiet());
}

#[tokio::test]
async fn metadata_and_carried_addresses_are_refused_however_wide_the_grant() {
    let wide = |host: &str| grants(json!({ "hosts": [host], "private": ["0.0.0.0/0", "::/0"] }));
    for (host, address, why) in [
        ("meta4.test", "169.254.169.254", "leads to 169.254.169.254, the address of a cloud's metadata service"),
        ("meta6.test", "fd00:ec2::254", "leads to fd00:ec2::254, the address of a cloud's metadata service"),
        ("mapped.test", "::ffff:169.254.169.254", "leads to 169.254.169.254, the address of a cloud's metadata service"),
        ("nat64.test", "64:ff9b::a9fe:a9fe", "leads to 169.254.169.254, the address of a cloud's metadata service"),
    ] {
        name(host, &[&[address]]);
        let sentence = denied(&fetch(&wide(&format!("http://{host}")), get(&format!("http://{host}"))).await);
        assert!(sentence.contains(why), "{sentence}");
    }
    let sentence = denied(&fetch(&wide("http://*.google.internal"), get("http://metadata.google.internal")).await);
    assert!(sentence.contains("does not let pack `web` reach `http://metadata.google.internal`"), "{sentence}");
    // Mapped IPv6 for a machine of the house, without a word of it in the grant.
    name("house.test", &[&["::ffff:127.0.0.1"]]);
    let granted = grants(json!({ "hosts": ["http://house.test"], "private": ["127.0.0.1"] }));
    assert!(
        denied(&fetch(&granted, get("http://house.test")).await).contains("leads to ::ffff:127.0.0.1, an IPv4 address in IPv6's clothes")
    );
}

#[tokio::test]
async fn nothing_can_be_smuggled_into_a_head() {
    let mut server = Server::start(answer("hello")).await;
    let granted = grants(json!({ "hosts": [server.plain()] }));
    for (headers, said) in [
        (json!([["x", "a\r\ny: b"]]), "invalid-syntax"),
        (json!([["x\r\ny", "a"]]), "invalid-syntax"),
        (json!([["host", "other.test"]]), "forbidden"),
        (json!([["Connection", "keep-alive"]]), "forbidden"),
        (json!([["transfer-encoding", "chunked"]]), "forbidden"),
        (json!([["content-length", "5"], ["content-length", "6"]]), "invalid-syntax"),
    ] {
        let said_by = error(&fetch(&granted, with(get(&server.plain()), "headers", headers)).await);
        assert!(said_by.contains(said), "{said_by}");
    }
    // The host keeps them, so that there is a ceiling; a pack that reaches it is broken.
    let long = json!([["x", "y".repeat(40_000)]]);
    assert_eq!(fetch(&granted, with(get(&server.plain()), "headers", long)).await.code(), Code::Trap);
    for path in ["/a b", "/a\r\nx: y", "http://other.test/", "*"] {
        assert_eq!(error(&fetch(&granted, with(get(&server.plain()), "path", json!(path))).await), "the path is refused", "{path:?}");
    }
    assert!(server.is_quiet());
}

#[tokio::test]
async fn endless_and_oversized_bodies_are_cut() {
    let mebibyte = 1 << 20;
    let grant = |server: &Server| grants(json!({ "hosts": [server.plain()], "methods": ["GET", "POST"], "max_mib": 1 }));
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let endless = Server::start(vec![Step::Say(head), Step::Repeat(chunk)]).await;
    // WASI has no code for a body that fails half way, only a text.
    let over = format!("HTTP response body size exceeds limit: {mebibyte} bytes");
    assert_eq!(error(&call(&grant(&endless), "web.drain", json!({ "request": get(&endless.plain()) })).await), over);
    let mut announced = Server::start(vec![Step::Say("HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n".into()), Step::Hold]).await;
    let over = format!("HTTP-response-body-size({mebibyte})");
    assert_eq!(error(&fetch(&grant(&announced), get(&announced.plain())).await), over);
    announced.left().await;
    let full = Server::start(answer(&"x".repeat(mebibyte))).await;
    let ended = call(&grant(&full), "web.drain", json!({ "request": get(&full.plain()) })).await;
    assert_eq!(ended.value(), &Value::Int(mebibyte as i128));
    let mut server = Server::start(answer("hello")).await;
    let post = with(get(&server.plain()), "method", json!("POST"));
    let granted = grant(&server);
    let upload = async |bytes: usize, request: &Json| call(&granted, "web.upload", json!({ "request": request, "bytes": bytes })).await;
    let said = error(&upload(mebibyte + 4096, &post).await);
    assert!(said.contains("HTTP-request-body-size") || said.contains("closed"), "{said}");
    let announced = with(post.clone(), "headers", json!([["content-length", (mebibyte + 1).to_string()]]));
    assert!(upload(mebibyte + 1, &announced).await.result.is_err());
    assert!(server.is_quiet(), "neither came whole");
    assert_eq!(upload(mebibyte, &post).await.value(), &Value::Int(200));
    server.heard().await;
}

#[tokio::test]
async fn slow_answers_end_at_the_owners_time_and_at_the_calls() {
    let silent = Server::start(vec![Step::Hold]).await;
    let stuck = Server::start(vec![Step::Say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".into()), Step::Hold]).await;
    for (server, said) in [(&silent, "HTTP-response-timeout"), (&stuck, "HTTP response timeout")] {
        let granted = grants(json!({ "hosts": [server.plain()], "timeout_secs": 1 }));
        assert_eq!(error(&fetch(&granted, get(&server.plain())).await), said);
    }
    let mut server = Server::start(vec![Step::Hold]).await;
    let granted = Arc::new(grants(json!({ "hosts": [server.plain()], "timeout_secs": 3600 })));
    let params = json!({ "request": get(&server.plain()), "redirects": 0 });
    let caller = Caller::new(&pack("web").await, "web.fetch", params, 4);
    let ended = caller.with(|call| (call.grants, call.deadline) = (granted, Some(Duration::from_millis(200)))).run().await;
    assert_eq!(ended.code(), Code::Deadline);
    server.heard().await;
    server.left().await;
}

#[tokio::test]
async fn a_bomb_of_headers_is_cut() {
    let begin = || Step::Say("HTTP/1.1 200 OK\r\n".into());
    let many = Server::start(vec![begin(), Step::Repeat("x: y\r\n".into())]).await;
    let long = Server::start(vec![begin(), Step::Say("x: ".into()), Step::Repeat("y".repeat(4096))]).await;
    for server in [many, long] {
        let said = error(&fetch(&grants(json!({ "hosts": [server.plain()] })), get(&server.plain())).await);
        assert!(said.starts_with("HTTP-response-header-section-size"), "{said}");
    }
    let garbage = Server::start(vec![Step::Say("SSH-2.0-OpenSSH_9.2\r\n\r\n".into())]).await;
    assert_eq!(error(&fetch(&grants(json!({ "hosts": [garbage.plain()] })), get(&garbage.plain())).await), "HTTP-protocol-error");
    let cut = Server::start(vec![Step::Say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".into())]).await;
    assert_eq!(error(&fetch(&grants(json!({ "hosts": [cut.plain()] })), get(&cut.plain())).await), "connection terminated");
}

#[tokio::test]
async fn only_so_many_requests_of_a_call_are_under_way() {
    let server = Server::start(answer("hello")).await;
    let granted = grants(json!({ "hosts": [server.plain()], "concurrent": 2 }));
    let hoard = async |count: u32| call(&granted, "web.hoard", json!({ "request": get(&server.plain()), "count": count })).await;
    assert_eq!(hoard(2).await.value(), &Value::Int(2));
    assert_eq!(error(&hoard(3).await), "connection-limit-reached");
}

#[tokio::test]
async fn a_name_nobody_knows_and_a_port_nobody_has_are_errors_of_the_packs() {
    let granted = grants(json!({ "hosts": ["http://nowhere.test", "http://127.0.0.1:1"] }));
    assert!(error(&fetch(&granted, get("http://nowhere.test")).await).starts_with("DNS-error"));
    assert_eq!(error(&fetch(&granted, get("http://127.0.0.1:1")).await), "connection-refused");
}

fn bound(origin: &str) -> Json {
    json!({ origin: { "authorization": "Bearer {secret:token}" } })
}

#[tokio::test]
async fn a_secret_goes_to_its_host_over_tls_and_nowhere_else() {
    name(SECURE, &[&["127.0.0.1"]]);
    name("stranger.test", &[&["127.0.0.1"]]);
    let mut stranger = Server::start(answer("stranger")).await;
    let mut home = Server::secure(redirect(&format!("{}/took", stranger.plain()))).await;
    let origin = format!("{SECURE}:{}", home.port);
    let granted = grants(json!({ "hosts": [origin, stranger.plain()], "private": ["127.0.0.1"], "headers": bound(&origin) }));
    // What the pack says in the header's place is replaced, not joined.
    let forged = with(get(&format!("https://{origin}/me")), "headers", json!([["authorization", "Bearer forged"]]));
    let ended = fetch(&granted, forged).await;
    assert_eq!((text(&ended, "body").as_str(), ended.value().get("hops")), ("stranger", Some(&Value::Int(1))));
    let heard = home.heard().await.head;
    assert!(heard.contains(&format!("\r\nauthorization: bearer {TOKEN}\r\n")) && !heard.contains("forged"), "{heard}");
    // The redirect carried on what the pack had, and that was no secret.
    let carried = stranger.heard().await.head;
    assert!(carried.contains("bearer forged") && !carried.contains(TOKEN), "{carried}");
    assert!(!format!("{ended:?}").contains(TOKEN));
    // Another server in that host's place is not told.
    let origin = format!("stranger.test:{}", home.port);
    let granted = grants(json!({ "hosts": [origin], "private": ["127.0.0.1"], "headers": bound(&origin) }));
    assert_eq!(error(&fetch(&granted, get(&format!("https://{origin}"))).await), "TLS-certificate-error");
    assert!(home.is_quiet());
}

#[tokio::test]
async fn a_secret_goes_in_the_clear_only_where_the_entry_says_so() {
    let mut server = Server::start(answer("hello")).await;
    let (plain, sealed) = (server.plain(), server.plain().replace("http://", ""));
    let granted = grants(json!({ "hosts": [plain, sealed], "headers": bound(&sealed) }));
    assert!(fetch(&granted, get(&plain)).await.result.is_ok());
    assert!(!server.heard().await.head.contains("authorization"));
    let granted = grants(json!({ "hosts": [plain], "headers": bound(&plain) }));
    assert!(fetch(&granted, get(&plain)).await.result.is_ok());
    assert!(server.heard().await.head.contains(TOKEN));
}

#[tokio::test]
async fn a_secret_without_a_value_stops_the_request_and_says_so() {
    let mut server = Server::start(answer("hello")).await;
    let plain = server.plain();
    let headers = json!({ plain.clone(): { "x-api-key": "{secret:unset}" } });
    let sentence = denied(&fetch(&grants(json!({ "hosts": [plain], "headers": headers })), get(&plain)).await);
    let wanted = format!("requests to `{plain}` need a secret: secret `unset` is not set; on that machine: agent secret set unset");
    assert_eq!(sentence, wanted);
    assert!(server.is_quiet());
}

#[tokio::test]
async fn secrets_are_told_by_granted_name_only() {
    let pack = pack("secretive").await;
    assert_eq!(pack.powers(), [Power::Secrets]);
    let granted = |names: Json| Arc::new(Grants { secrets: serde_json::from_value(names).expect("names"), ..Grants::default() });
    let tell = async |grants: &Arc<Grants>, command: &str, name: &str, shared_only: bool| {
        let caller = Caller::new(&pack, command, json!({ "name": name }), 4);
        caller.with(|call| (call.grants, call.shared_only) = (Arc::clone(grants), shared_only)).run().await
    };
    let some = granted(json!(["token", "unset"]));
    assert_eq!(tell(&some, "secretive.tell", "token", false).await.value(), &Value::Bytes(TOKEN.as_bytes().to_vec()));
    let unset = tell(&some, "secretive.tell", "unset", false).await;
    assert_eq!(error(&unset), "not_set: secret `unset` is not set; on that machine: agent secret set unset");
    let none = granted(json!([]));
    for command in ["secretive.tell", "secretive.try_it"] {
        let sentence = denied(&tell(&none, command, "token", false).await);
        assert!(sentence.ends_with("agent allow secretive secrets token"), "{sentence}");
        assert!(denied(&tell(&some, command, "token", true).await).contains("for signed calls only"));
    }
}
