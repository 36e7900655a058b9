//! A guest that asks a host call for four gigabytes is refused before anything of that size is allocated. The allocator of this test
//! program counts, so that it is seen rather than believed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outhaul_host::Grants;
use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::json;

use crate::outside::{Server, answer};
use crate::support::{Caller, Ended, pack};

/// The largest piece of memory anything in this program asked for.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// No test here needs as much at once; a guest's memory is mapped, not allocated.
const FAR_TOO_MUCH: usize = 1 << 30;

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe by its contract; this one only looks at sizes")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(at, layout) }
    }
}

async fn ask(server: &Server, greed: &str) -> Ended {
    let grant = serde_json::from_value(json!({ "hosts": [server.plain()] })).expect("a grant");
    let grants = Arc::new(Grants { http: Some(Arc::new(grant)), ..Grants::default() });
    let authority = format!("127.0.0.1:{}", server.port);
    let request = json!({ "method": "GET", "scheme": "http", "authority": authority, "path": "/", "headers": [], "body": null });
    let params = json!({ "request": request, "greed": greed });
    Caller::new(&pack("web").await, "web.greedy", params, 4).with(|call| call.grants = grants).run().await
}

#[tokio::test]
async fn four_gigabytes_of_a_host_call_are_refused_without_being_allocated() {
    let server = Server::start(answer(&"x".repeat(300_000))).await;
    for greed in ["random", "insecure_random", "zeroes"] {
        let ended = ask(&server, greed).await;
        assert_eq!(ended.code(), Code::Trap, "{greed}: {:?}", ended.result);
    }
    // Streams give what is there, however much is asked for.
    for greed in ["read", "skip", "splice"] {
        let ended = ask(&server, greed).await;
        assert!(matches!(ended.value(), Value::Int(1..=300_000)), "{greed}: {:?}", ended.result);
    }
    let ended = ask(&server, "input").await;
    assert!(ended.failure().message.contains("closed"), "{:?}", ended.result);
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!((300_000..FAR_TOO_MUCH).contains(&largest), "{largest} bytes were asked for at once");
}
