//! What the user should know.

pub fn warnings(warnings: &[String]) {
    if !warnings.is_empty() {
        outln!();
    }
    warnings.iter().for_each(|warning| outln!("  note: {warning}"));
}
