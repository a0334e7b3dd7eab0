//! A command whose output goes to a log, line by line past whoever wants to see it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::progress::Progress;

/// A command that says nothing for so long hangs. Generous: it is no test of speed.
const HANGS: Duration = Duration::from_secs(30 * 60);

/// How a command ended, and all it said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Runs `command` to its end. Its stdout and stderr are merged into `log`; `on_line` sees each line, and may say what the
/// progress line shows.
pub(crate) fn run(
    mut command: Command,
    log: &Path,
    progress: &mut Progress,
    mut on_line: impl FnMut(&str) -> Option<String>,
) -> Result<Finished> {
    let mut log_file = File::create(log).with_context(|| format!("make {}", log.display()))?;
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    // It holds the pipe's writing end: nothing would ever read its end.
    let shown = format!("{command:?}");
    drop(command);

    let lines = read_lines(reader);
    let mut output = String::new();
    let mut last = Instant::now();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                last = Instant::now();
                log_file
                    .write_all(line.as_bytes())
                    .with_context(|| format!("write {}", log.display()))?;
                output.push_str(&line);
                if let Some(detail) = on_line(line.trim_end()) {
                    progress.detail(detail);
                }
            }
            // Everyone who could write has ended.
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                progress.tick();
                // Something it left behind may hold the pipe for ever; it is found by whoever looks after the host.
                if child.try_wait()?.is_some() {
                    break;
                }
                if last.elapsed() > HANGS {
                    child.kill()?;
                    child.wait()?;
                    bail!(
                        "{shown} said nothing for {} min and was killed; see {}",
                        HANGS.as_secs() / 60,
                        log.display()
                    );
                }
            }
        }
    }
    let status = child.wait()?;
    Ok(Finished { status, output })
}

/// The lines that come through the pipe, in a thread of their own, so that their absence can be noticed.
fn read_lines(pipe: PipeReader) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}
