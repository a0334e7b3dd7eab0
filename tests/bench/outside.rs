//! A rival as a program that times itself. The program is in a workspace of its own, so that its dependencies stay out of
//! our lock file.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use testkit::build;

/// Builds the package in the folder `<name>` with optimisation, and returns the path of the program.
pub(super) fn build(name: &str) -> Result<PathBuf> {
    let output = Command::new(build::tool("CARGO", "cargo"))
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--message-format=json-render-diagnostics", "--manifest-path"])
        .arg(build::workspace().join("tests/bench").join(name).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(build::target()?.join("bench").join(name))
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("build {name}"))?;
    ensure!(output.status.success(), "failed to build {name}: {}", output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    messages.lines().filter_map(executable).next_back().with_context(|| format!("no {name}"))
}

/// A process of the rival: each request is one round, each answer the time of the round.
pub(super) struct Outside {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Outside {
    pub(super) fn start(program: &Path, arguments: &[&Path]) -> Result<Self> {
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let ask = process.stdin.take().context("the rival has no stdin")?;
        let answers = BufReader::new(process.stdout.take().context("the rival has no stdout")?);
        Ok(Self { process, ask, answers })
    }

    pub(super) fn call(&mut self, request: &str) -> Result<Duration> {
        #[derive(serde::Deserialize)]
        struct Answer {
            ns: u64,
        }
        writeln!(self.ask, "{request}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Answer = serde_json::from_str(&line).with_context(|| request.to_owned())?;
        Ok(Duration::from_nanos(answer.ns))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
