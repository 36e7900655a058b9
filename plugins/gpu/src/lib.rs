//! Pack `gpu`: `gpu.list`, `gpu.metrics`, `gpu.driver`. Hands on what the host reads; decides nothing.
//! Commands and their help: `wit/v0.1/commands/gpu.wit`.

wit_bindgen::generate!({
    path: ["../../wit/v0.1/host", "../../wit/v0.1/commands"],
    world: "outhaul:commands/gpu-pack",
    generate_all,
});

use exports::outhaul::commands::gpu::{Device, DriverInfo, GpuError, Guest, Sample};
use outhaul::host::gpu;

struct Pack;

impl Guest for Pack {
    fn list() -> Result<Vec<Device>, GpuError> {
        gpu::devices()
    }

    fn metrics(uuid: Option<String>) -> Result<Vec<Sample>, GpuError> {
        gpu::samples(uuid.as_deref())
    }

    fn driver() -> Result<DriverInfo, GpuError> {
        gpu::driver()
    }
}

export!(Pack);
