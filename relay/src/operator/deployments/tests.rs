use super::*;
use outhaul_protocol::keys::sha256;

fn release(version: &str) -> Release {
    let (component, signature) = (sha256(version.as_bytes()), Blob(vec![1]));
    Release { version: version.into(), component, signature, rotations: vec![], downgrade: false }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn target(nodes: &str, now: Option<&str>, before: Option<&str>) -> Target {
    Target { nodes: words(nodes), release: now.map(release), before: before.map(release) }
}

#[test]
fn a_new_target_comes_first_and_remembers_what_its_nodes_had() {
    let none = |_: &str| false;
    let one = placed(&[], &words("role=edge"), Some(release("1")), none);
    assert_eq!(one, [target("role=edge", Some("1"), None)]);
    let lab = placed(&one, &words("role=lab"), Some(release("2")), none);
    assert_eq!(lab, [target("role=lab", Some("2"), None), target("role=edge", Some("1"), None)]);
    let edge = placed(&lab, &words("role=edge"), Some(release("2")), none);
    assert_eq!(edge, [target("role=edge", Some("2"), Some("1")), target("role=lab", Some("2"), None)]);
    let again = placed(&edge, &words("role=edge"), Some(release("2")), none);
    assert_eq!(again, edge, "the same again loses nothing");
    let out = placed(&edge, &words("role=edge"), None, none);
    assert_eq!(out[0], target("role=edge", None, Some("2")));
    let all = placed(&edge, &words("*"), Some(release("3")), none);
    assert_eq!(all, [target("*", Some("3"), None)]);
    let alternatives = placed(&[target("b a", Some("1"), None)], &words("a b"), Some(release("2")), none);
    assert_eq!(alternatives, [target("a b", Some("2"), Some("1"))]);
}

#[test]
fn targets_of_single_nodes_go_when_all_of_them_are_meant_otherwise() {
    let before = [target("n1 n2", Some("2"), None), target("n3", Some("1"), None), target("role=edge", Some("1"), None)];
    let after = placed(&before, &words("role=edge"), Some(release("2")), |term| ["n1", "n2"].contains(&term));
    assert_eq!(after, [target("role=edge", Some("2"), Some("1")), target("n3", Some("1"), None)]);
}

#[test]
fn a_version_is_found_however_it_is_spelled() {
    let publication = |version: &str| Publication {
        iss: outhaul_protocol::keys::KeyId([1; 32]),
        exp: None,
        iat: Time(1),
        name: "thermal".into(),
        version: version.into(),
        component: sha256(version.as_bytes()),
        manifest: Digest([0; 32]),
    };
    let pushed = [(publication("1.2.0"), vec![7]), (publication("1.3.0"), vec![8])];
    let found =
        |version: &str| find_release(&pushed, &[], "thermal", version).iter().map(|release| release.version.clone()).collect::<Vec<_>>();
    assert_eq!(found("1.2"), ["1.2.0"]);
    assert!(found("1.4").is_empty() && find_release(&pushed, &[], "fans", "1.2").is_empty());
}
