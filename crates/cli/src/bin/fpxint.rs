//! The command `fpxint`; see the library.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    fpxint_cli::main()
}
