//! The Rust types of `outhaul:host`, made from its WIT. Only the types are used: functions are linked by hand in the module of their
//! version, because the synchronous engine takes no streams and would refuse an interface linked as a whole.

/// Version 0.1.
#[allow(dead_code, unused_imports, unreachable_pub, missing_debug_implementations, reason = "made by a macro, and not all of it is used")]
#[allow(clippy::all, reason = "made by a macro")]
pub(crate) mod v0_1 {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1/host",
        inline: "
            package outhaul:agent;
            world offer {
                import outhaul:host/output@0.1.0;
                import outhaul:host/log@0.1.0;
                import outhaul:host/process@0.1.0;
                import outhaul:host/gpu@0.1.0;
                import outhaul:host/system@0.1.0;
                import outhaul:host/camera@0.1.0;
                import outhaul:host/kv@0.1.0;
                import outhaul:host/secrets@0.1.0;
                import outhaul:host/call@0.1.0;
                import outhaul:host/location@0.1.0;
                import outhaul:host/notify@0.1.0;
                import outhaul:host/screen@0.1.0;
                import outhaul:host/containers@0.1.0;
            }
        ",
        with: {
            "outhaul:host/process.child": crate::host_v0_1::process::ChildHandle,
            "outhaul:host/call.ongoing": crate::host_v0_1::call::OngoingHandle,
            "outhaul:host/containers.attached": crate::host_v0_1::containers::AttachedHandle,
        },
    });

    pub(crate) use outhaul::host::{call, camera, containers, gpu, kv, location, log, notify, output, process, screen, secrets, system};
}
