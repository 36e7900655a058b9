//! Each kind of signed object, its bundles, and what a forger can do with them: nothing verifies by chance.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::keys::SecretKey;
use outhaul_protocol::objects::{
    Announce, Call, Certificate, Control, Deployment, DeploymentDocument, Grant, Link, Node, Opening, Pair, Prekey, Publication, Receipt,
    Relays, RevocationList, Revocations, Rotation, Succession,
};
use outhaul_protocol::signed::Signed;

fuzz_target!(|data: &[u8]| {
    let key = SecretKey::from_bytes(&[7; 32]).public();
    macro_rules! kinds {
        ($($kind:ident),*) => { $(
            if let Ok(signed) = Signed::<$kind>::from_bytes(data) {
                assert!(signed.verify(&key).is_err(), "a signature came out of the fuzzer");
            }
        )* };
    }
    kinds!(
        Grant,
        Node,
        Revocations,
        Relays,
        Prekey,
        Announce,
        Opening,
        Call,
        Receipt,
        Pair,
        Link,
        Control,
        Publication,
        Succession,
        Deployment
    );
    let _ = Certificate::decode(data);
    let _ = RevocationList::decode(data);
    let _ = Rotation::decode(data);
    let _ = DeploymentDocument::decode(data);
});
