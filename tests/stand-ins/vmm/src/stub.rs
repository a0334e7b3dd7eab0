//! The stub for tests of the jailer itself: prints its arguments and surroundings, and exits 7.
//!
//! | after `--` | |
//! |---|---|
//! | `--exit N` | exits N instead |
//! | `--hold` | waits for the end of its stdin first |
//! | `--open FILE` | tries to open FILE for reading and writing, and prints the result |

use std::fs::OpenOptions;
use std::io::Read as _;
use std::process::exit;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    println!("stub: {}", args.join(" "));
    eprintln!("stub: on stderr");
    if let Some(file) = value(&args, "--open") {
        match OpenOptions::new().read(true).write(true).open(file) {
            Ok(_) => println!("stub: {file} opens"),
            Err(err) => println!("stub: {file} does not open: {err}"),
        }
    }
    if args.iter().any(|arg| arg == "--hold") {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
    exit(value(&args, "--exit").and_then(|code| code.parse().ok()).unwrap_or(7));
}

fn value<'a>(args: &'a [String], flag: &str) -> Option<&'a String> {
    let at = args.iter().position(|arg| arg == flag)?;
    args.get(at + 1)
}
