//! The `diem` command.
fn main() -> std::process::ExitCode {
    diem::cli::main()
}
