//! Runs a command, writes the output to a log and passes each line to a callback.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::progress::Progress;

/// The time without output after which a command is killed. The time is generous, because a slow command is not an
/// error.
const HANGS: Duration = Duration::from_secs(30 * 60);

/// The exit status and the whole output of a command.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Runs `command` and waits for the exit. Writes stdout and stderr to `log`. Calls `on_line` for each line; the text
/// that `on_line` returns is shown on the progress line.
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
    // `command` holds a writing end of the pipe: the reader would never see the end of the file.
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
            // Every process that held the writing end has exited.
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                progress.tick();
                // A process left behind may hold the pipe for ever; the search for orphans reports such a process.
                if child.try_wait()?.is_some() {
                    break;
                }
                if last.elapsed() > HANGS {
                    child.kill()?;
                    child.wait()?;
                    bail!(
                        "{shown} printed nothing for {} min and was killed; see {}",
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

/// Starts a thread that sends each line of the pipe, so that the caller can wait with a timeout.
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
