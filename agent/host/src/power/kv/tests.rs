//! What a pack may rely on, and what another must not get at.

use super::*;

fn grant(owner: &str) -> Grant {
    Grant { max_kib: 4, owner: owner.into() }
}

fn store(dir: &tempfile::TempDir) -> Store {
    Store::new(Some(dir.path().join("kv")))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn values_are_there_when_the_agent_comes_back() {
    let dir = folder();
    let (one, keys) = (grant("name-one"), ["a", "b/../c", "ä \n", &"k".repeat(KEY)]);
    for key in keys {
        store(&dir).set(&one, key, key.as_bytes()).expect("kept");
    }
    let again = store(&dir);
    for key in keys {
        assert_eq!(again.get(&one, key).expect("read").as_deref(), Some(key.as_bytes()), "{key}");
    }
    assert_eq!(again.list(&one, "").expect("listed").len(), 4);
    assert_eq!(again.list(&one, "b").expect("listed"), ["b/../c"]);
    assert_eq!((again.delete(&one, "a"), again.delete(&one, "a")), (Ok(true), Ok(false)));
    assert_eq!(store(&dir).get(&one, "a"), Ok(None));
}

#[test]
fn nobody_sees_what_another_keeps() {
    let dir = folder();
    let store = store(&dir);
    store.set(&grant("name-one"), "a", b"1").expect("kept");
    assert_eq!(store.get(&grant("name-two"), "a"), Ok(None));
    assert_eq!(store.list(&grant("name-two"), ""), Ok(Vec::new()));
    for owner in ["", "..", "../name-one", "a/b", "A"] {
        assert!(matches!(store.get(&grant(owner), "a"), Err(KvError::Failed(_))), "{owner}");
    }
}

#[test]
fn a_quota_counts_keys_values_and_the_entries_themselves() {
    let dir = folder();
    let (store, one) = (store(&dir), grant("name-one"));
    let mut number = 0;
    let refused = loop {
        match store.set(&one, &format!("key-{number:04}"), b"") {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, KvError::Quota(text) if text.contains("4 KiB are all")), "{refused:?}");
    assert_eq!(number, 4096 / (8 + ENTRY));
    store.set(&one, "key-0000", b"").expect("the same again is no more");
    assert!(matches!(store.set(&one, "key-0000", &[0; 100]), Err(KvError::Quota(_))));
    store.delete(&one, "key-0001").expect("gone");
    store.set(&one, "key-0000", &[0; 64]).expect("there is room again");
    let narrowed = Grant { max_kib: 1, ..one.clone() };
    store.set(&narrowed, "key-0000", &[0; 8]).expect("less is always taken");
    assert!(store.set(&narrowed, "key-0000", &[0; 9]).is_err());
}

#[test]
fn sizes_have_ends() {
    let dir = folder();
    let (store, one) = (store(&dir), Grant { max_kib: MOST_KIB, ..grant("name-one") });
    for key in ["", &"k".repeat(KEY + 1)] {
        assert!(matches!(store.set(&one, key, b""), Err(KvError::Quota(_))) && store.get(&one, key).is_err());
    }
    store.set(&one, "a", &vec![7; VALUE]).expect("the largest");
    assert!(matches!(store.set(&one, "a", &vec![7; VALUE + 1]), Err(KvError::Quota(_))));
    assert_eq!(store.get(&one, "a").expect("read").map(|value| value.len()), Some(VALUE));
}

#[test]
fn a_swap_loses_no_count() {
    let dir = folder();
    let (store, one) = (store(&dir), grant("name-one"));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..5 {
                    loop {
                        let before = store.get(&one, "n").expect("read");
                        let next = before.as_ref().map_or(0, |bytes| bytes[0]) + 1;
                        if store.swap(&one, "n", before.as_deref(), &[next]).expect("asked") {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(store.get(&one, "n"), Ok(Some(vec![20])));
    assert_eq!(store.swap(&one, "n", None, &[1]), Ok(false));
}

#[test]
fn what_a_cut_write_left_is_no_value_and_takes_no_room() {
    let dir = folder();
    let one = grant("name-one");
    store(&dir).set(&one, "a", b"old").expect("kept");
    let path = dir.path().join("kv/name-one");
    fs::write(path.join(format!(".{}.1.0.tmp", file_of("a"))), "okv1 half").expect("written");
    fs::write(path.join(file_of("b")), "not a value").expect("written");
    fs::copy(path.join(file_of("a")), path.join(file_of("c"))).expect("a value under another key's name");
    let store = store(&dir);
    assert_eq!(store.get(&one, "a"), Ok(Some(b"old".to_vec())));
    assert_eq!(store.list(&one, ""), Ok(vec!["a".to_owned()]));
    assert_eq!(
        fs::read_dir(&path)
            .expect("folder")
            .filter(|entry| entry.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with('.')))
            .count(),
        0
    );
    fs::write(path.join(file_of("a")), "torn").expect("written");
    assert!(matches!(store.get(&one, "a"), Err(KvError::Failed(_))));
    fs::remove_file(path.join(file_of("a"))).expect("removed by hand");
    assert_eq!(store.get(&one, "a"), Ok(None));
}

#[test]
fn without_a_folder_nothing_is_kept() {
    assert!(matches!(Store::new(None).set(&grant("name-one"), "a", b""), Err(KvError::Failed(_))));
}
