//! Where training runs.

use resprout::Result;
use resprout::table::{self, Entry};

/// All devices of this build.
pub static DEVICES: &[Entry<()>] =
    &[Entry { name: "cpu", about: "this machine's processor, by resprout's kernels", paper: "", options: &[], build: () }];

/// Fails if there is no device of that name.
///
/// # Errors
/// Of kind `Option`.
pub fn check(name: &str) -> Result<()> {
    table::find(DEVICES, "device", name).map(|_| ())
}
