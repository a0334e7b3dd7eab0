//! The vsock device: Firecracker's side on the host, and a guest with two services.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

/// The guest's port that sends everything back.
const ECHO: u32 = 52;

/// The guest's port that reads the number of a port of the host, calls it, and sends everything back there.
const CALL_BACK: u32 = 53;

/// The first port that Firecracker gives to a connection from the host.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// Serves connections from the host, each in a separate thread, until the process exits.
pub(crate) fn serve(listener: UnixListener, path: String) {
    thread::spawn(move || {
        for (stream, number) in listener.incoming().flatten().zip(FIRST_HOST_PORT..) {
            let path = path.clone();
            thread::spawn(move || connect(stream, number, &path));
        }
    });
}

/// Connects the host to a port of the guest. Like Firecracker, closes the connection if nothing listens there.
fn connect(stream: UnixStream, number: u32, path: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let port: u32 = line(&mut reader)?.strip_prefix("CONNECT ")?.parse().ok()?;
    if ![ECHO, CALL_BACK].contains(&port) {
        return None;
    }
    (&stream).write_all(format!("OK {number}\n").as_bytes()).ok()?;
    if port == ECHO {
        return echo(reader, &stream);
    }
    let port: u32 = line(&mut reader)?.parse().ok()?;
    let host = UnixStream::connect(format!("{path}_{port}")).ok()?;
    echo(BufReader::new(host.try_clone().ok()?), &host)
}

fn line(reader: &mut BufReader<UnixStream>) -> Option<String> {
    let mut line = String::new();
    reader.by_ref().take(64).read_line(&mut line).ok()?;
    Some(line.strip_suffix('\n')?.to_owned())
}

fn echo(mut from: BufReader<UnixStream>, mut to: &UnixStream) -> Option<()> {
    let mut bytes = [0; 4096];
    loop {
        let count = from.read(&mut bytes).ok().filter(|count| *count > 0)?;
        to.write_all(bytes.get(..count)?).ok()?;
    }
}
