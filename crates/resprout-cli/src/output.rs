//! Lines on standard output.

/// As `println!`, but a reader that has had enough (`| head`) ends the program without a panic.
macro_rules! outln {
    () => { $crate::output::print_line(format_args!("")) };
    ($($text:tt)+) => { $crate::output::print_line(format_args!($($text)+)) };
}

/// Prints one line. A closed pipe ends the program with exit code 1.
pub fn print_line(text: std::fmt::Arguments) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(1);
    }
}
