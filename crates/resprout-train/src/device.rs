//! Training devices.

use crate::error::option;
use burn_core::tensor::Device;
use resprout::Result;
use resprout::table::{self, Entry};

/// Opens a device.
pub type Open = fn() -> Device;

/// All devices of this build.
pub static DEVICES: &[Entry<Open>] = &[
    Entry {
        name: "cpu",
        about: "this machine's processor: convolutions and normalisations by resprout's kernels, the rest by Burn's flex",
        paper: "",
        options: &[],
        build: Device::flex,
    },
    #[cfg(feature = "wgpu")]
    Entry {
        name: "wgpu",
        about: "a graphics processor through Vulkan, Metal, DirectX or WebGPU",
        paper: "",
        options: &[],
        build: || Device::wgpu(burn_core::tensor::DeviceKind::DefaultDevice),
    },
];

/// Opens the device of that name.
pub fn open(name: &str) -> Result<Device> {
    find(name).map(|open| open())
}

/// Finds the row of that name without opening the device.
pub fn find(name: &str) -> Result<Open> {
    let row = table::find(DEVICES, "device", name).map_err(|e| match name {
        "wgpu" => option("device wgpu: this program was built without it; build with the feature wgpu"),
        _ => e,
    })?;
    Ok(row.0.build)
}
