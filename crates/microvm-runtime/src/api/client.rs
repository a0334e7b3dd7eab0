//! Requests to Firecracker: [`Api`].

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http::{self, Request};
use super::instance::{Action, InstanceInfo};
use super::socket::JailSocket;
use crate::error::{ErrorKind, Failure, Result, VmRuntimeResult};

/// How long a request may take where no deadline was set.
const PATIENCE: Duration = Duration::from_secs(10);

/// Firecracker's API of one VM.
///
/// The socket was verified when this was made, and its inode is held. Each request is a connection of its own, whose
/// other end is verified to be the VMM (`SO_PEERCRED`) before a byte is sent.
#[derive(Debug)]
pub struct Api {
    socket: JailSocket,
    pid: u32,
    deadline: Option<Instant>,
}

/// A question that was sent, and not answered yet.
#[derive(Debug)]
pub(crate) struct Asked {
    stream: UnixStream,
    request: Request,
    sent: std::result::Result<(), Talk>,
    deadline: Instant,
}

impl Asked {
    /// Sends it, over a connection whose other end was verified.
    fn new(stream: UnixStream, request: Request, deadline: Instant) -> Self {
        let sent = send(&stream, request.bytes(), deadline);
        Self { stream, request, sent, deadline }
    }

    /// Waits for the answer.
    fn answer(self) -> Result<Response> {
        let operation = || format!("send {} to the API", self.request.line());
        let response = self.sent.and_then(|()| receive(&self.stream, self.deadline));
        let response = response.map_err(|error| match error {
            Talk::Broken(error) if error.kind() == io::ErrorKind::TimedOut => {
                Failure::new(ErrorKind::Timeout, operation())
                    .because("Firecracker did not answer in time")
            }
            Talk::Broken(error) => Failure::new(ErrorKind::Api, operation()).source_of(error),
            Talk::NotHttp(failure) => Failure::new(failure.kind(), operation()).source_of(failure),
        })?;
        if (200..300).contains(&response.status) {
            return Ok(response);
        }
        Err(Failure::new(ErrorKind::Api, operation()).because(format!(
            "status {}, {}",
            response.status,
            fault(&response.body)
        )))
    }

    /// Waits for the answer; `false` where there comes none. A VMM that dies meanwhile closes the connection, which ends
    /// the wait.
    ///
    /// # Errors
    /// [`ErrorKind::Api`] for an answer that is none, or a refusal.
    pub(crate) fn got_answer(self) -> Result<bool> {
        match self.answer() {
            Ok(_) => Ok(true),
            Err(failure) if failure.kind() == ErrorKind::Timeout || broke_off(&failure) => {
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// What Firecracker answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status, from 200 to 299.
    pub status: u16,
    /// The body as it came; empty with status 204.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Api`] where it is none, or not of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> VmRuntimeResult<T> {
        let failed = || Failure::new(ErrorKind::Api, "understand the API's response");
        serde_json::from_slice(&self.body).map_err(|error| failed().source_of(error).into())
    }
}

impl Api {
    /// The API at the socket `name` below `root`, served by the process `pid` as `uid`.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] where it is no socket, not `uid`'s, or another process listens there;
    /// [`ErrorKind::NotFound`] where it is gone; [`ErrorKind::Api`] where nobody listens.
    pub(crate) fn connect(root: impl AsFd, name: &str, uid: u32, pid: u32) -> Result<Self> {
        let Some(socket) = JailSocket::open(root, name, uid)? else {
            return Err(Failure::new(ErrorKind::NotFound, "open the API's socket")
                .path(name)
                .hinted("the VM has removed it; kill the VM instead of asking it"));
        };
        let api = Self::over(socket, pid);
        api.dial(api.ends())?;
        Ok(api)
    }

    /// The API at a socket that was verified, served by the process `pid`.
    pub(crate) fn over(socket: JailSocket, pid: u32) -> Self {
        Self { socket, pid, deadline: None }
    }

    /// Asks `GET /` of a VMM that may not listen yet: `None` then.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) fn ask(&self, deadline: Instant) -> Result<Option<Asked>> {
        let Some(stream) = self.socket.connect(self.pid, deadline)? else { return Ok(None) };
        Ok(Some(Asked::new(stream, Request::new("GET", "/", None)?, deadline)))
    }

    /// Ends every request at `deadline`, instead of 10 s after its begin.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Asks what the microVM is and does (`GET /`).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn instance_info(&self) -> VmRuntimeResult<InstanceInfo> {
        self.request("GET", "/", None)?.json()
    }

    /// Has Firecracker do something (`PUT /actions`).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn action(&self, action: Action) -> VmRuntimeResult<()> {
        self.request("PUT", "/actions", Some(&json!({ "action_type": action })))?;
        Ok(())
    }

    /// Holds the guest (`PATCH /vm`).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn pause(&self) -> VmRuntimeResult<()> {
        self.request("PATCH", "/vm", Some(&json!({ "state": "Paused" })))?;
        Ok(())
    }

    /// Lets a held guest go on (`PATCH /vm`).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn resume(&self) -> VmRuntimeResult<()> {
        self.request("PATCH", "/vm", Some(&json!({ "state": "Resumed" })))?;
        Ok(())
    }

    /// Sends a request, for all that has no method here: `api.request("PUT", "/drives/data", Some(&json!({…})))`.
    ///
    /// # Errors
    /// [`Api`](ErrorKind::Api) with Firecracker's `fault_message` for a status that is not 2xx, for what is not HTTP, and
    /// for more than 16 MiB; [`Timeout`](ErrorKind::Timeout) at the deadline; [`Identity`](ErrorKind::Identity) where the
    /// VM has put another listener in Firecracker's place; [`InvalidInput`](ErrorKind::InvalidInput) for a path with
    /// blanks or control characters.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> VmRuntimeResult<Response> {
        Ok(self.send(method, path, body)?)
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        let request = Request::new(method, path, body)?;
        let deadline = self.ends();
        Asked::new(self.dial(deadline)?, request, deadline).answer()
    }

    fn dial(&self, deadline: Instant) -> Result<UnixStream> {
        self.socket.connect(self.pid, deadline)?.ok_or_else(|| {
            Failure::new(ErrorKind::Api, "connect to the API")
                .because("nobody listens on its socket")
        })
    }

    fn ends(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + PATIENCE)
    }

    /// As [`deadline`](Self::deadline), for the verbs of this crate.
    pub(crate) fn until(self, deadline: crate::deadline::Deadline) -> Self {
        let left = deadline.left().unwrap_or(PATIENCE);
        self.deadline(Instant::now() + left)
    }
}

/// Whether the other side went away, as a VMM that dies does.
fn broke_off(failure: &Failure) -> bool {
    use std::error::Error as _;
    let cause = failure.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        )
    })
}

/// Why a request or its answer did not get through.
#[derive(Debug)]
enum Talk {
    Broken(io::Error),
    NotHttp(Failure),
}

impl From<io::Error> for Talk {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // What a socket's timeout answers.
            io::ErrorKind::WouldBlock => Self::Broken(io::ErrorKind::TimedOut.into()),
            _ => Self::Broken(error),
        }
    }
}

/// With what time is left for each write, as for each read: a byte now and then must not outlive the deadline.
fn send(
    mut stream: &UnixStream,
    request: &[u8],
    deadline: Instant,
) -> std::result::Result<(), Talk> {
    let mut unsent = request;
    while !unsent.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(unsent) {
            Ok(count) => unsent = &unsent[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn receive(mut stream: &UnixStream, deadline: Instant) -> std::result::Result<Response, Talk> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(head) = http::head(&bytes).map_err(Talk::NotHttp)?
            && bytes.len() >= head.total()
        {
            bytes.truncate(head.total());
            return Ok(Response { status: head.status, body: bytes.split_off(head.body) });
        }
        if bytes.len() > http::MAX_RESPONSE {
            let because = format!("it has more than {} bytes", http::MAX_RESPONSE);
            return Err(Talk::NotHttp(
                Failure::new(ErrorKind::Api, "read the API's response").because(because),
            ));
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        let mut chunk = [0; 8192];
        match stream.read(&mut chunk) {
            Ok(0) => return Err(Talk::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Firecracker's own words.
fn fault(body: &[u8]) -> String {
    let told = serde_json::from_slice::<Value>(body).ok();
    match told.as_ref().and_then(|told| told.get("fault_message")).and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufRead as _;
    use std::io::BufReader;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::error::VmRuntimeError;

    /// A server in this process that answers each connection with the next of `answers`, and what it was sent.
    struct Server {
        dir: tempfile::TempDir,
        thread: thread::JoinHandle<Vec<String>>,
    }

    impl Server {
        fn answering(answers: &[&'static [u8]]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
            let answers = answers.to_vec();
            let thread = thread::spawn(move || {
                answers.into_iter().map(|answer| serve(&listener, answer)).collect()
            });
            Self { dir, thread }
        }

        fn api(&self) -> Api {
            #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
            let root = File::open(self.dir.path()).unwrap();
            let uid = rustix::process::geteuid().as_raw();
            let socket = JailSocket::open(&root, "api.sock", uid).unwrap().unwrap();
            Api::over(socket, std::process::id())
        }
    }

    fn serve(listener: &UnixListener, answer: &[u8]) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut said = String::new();
        let mut length = 0;
        while !said.ends_with("\r\n\r\n") {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap() == 0 {
                return said;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            said.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        said.push_str(&String::from_utf8(body).unwrap());
        // In pieces, as a stream may deliver it.
        let piece = if answer.len() < 1000 { 7 } else { 1 << 16 };
        for piece in answer.chunks(piece) {
            let _ = stream.write_all(piece);
        }
        if answer.is_empty() {
            // Until the client has given up.
            let _ = reader.read_line(&mut String::new());
        }
        said
    }

    fn kind(error: &VmRuntimeError) -> ErrorKind {
        error.kind()
    }

    #[test]
    fn requests_are_sent_and_answers_read() {
        let info =
            br#"{"id":"vm","state":"Running","vmm_version":"1.16.1","app_name":"Firecracker"}"#;
        let answer: &'static [u8] = Box::leak(
            format!(
                "HTTP/1.1 200 \r\nContent-Length: {}\r\n\r\n{}",
                info.len(),
                String::from_utf8_lossy(info)
            )
            .into_bytes()
            .into_boxed_slice(),
        );
        let server =
            Server::answering(&[answer, b"HTTP/1.1 204 \r\n\r\n", b"HTTP/1.1 204 \r\n\r\n"]);
        let api = server.api();
        assert_eq!(api.instance_info().unwrap().id, "vm");
        api.action(Action::SendCtrlAltDel).unwrap();
        api.pause().unwrap();
        let said = server.thread.join().unwrap();
        assert!(said[0].starts_with("GET / HTTP/1.1\r\n"), "{said:?}");
        assert!(
            said[1].starts_with("PUT /actions ")
                && said[1].ends_with(r#"{"action_type":"SendCtrlAltDel"}"#),
            "{said:?}"
        );
        assert!(
            said[2].starts_with("PATCH /vm ") && said[2].ends_with(r#"{"state":"Paused"}"#),
            "{said:?}"
        );
    }

    #[test]
    fn a_refusal_carries_firecrackers_words() {
        let server = Server::answering(&[
            b"HTTP/1.1 400 \r\nContent-Length: 35\r\n\r\n{\"fault_message\":\"no such action.\"}",
            b"HTTP/1.1 500 \r\nContent-Length: 4\r\n\r\noops",
        ]);
        let api = server.api();
        let error = api.action(Action::InstanceStart).unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Api);
        assert!(error.to_string().contains("status 400, no such action."), "{error}");
        let error = api.resume().unwrap_err();
        assert!(error.to_string().contains("status 500, oops"), "{error}");
        server.thread.join().unwrap();
    }

    #[test]
    fn a_server_that_is_silent_breaks_off_or_talks_for_ever_is_left() {
        let endless: &'static [u8] = Box::leak(
            [&b"HTTP/1.1 200 \r\nX: "[..], &vec![b'x'; 17 << 20]].concat().into_boxed_slice(),
        );
        let server = Server::answering(&[
            b"",
            b"HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{}",
            b"220 smtp\r\n\r\n",
            endless,
        ]);
        let api = server.api().deadline(Instant::now() + Duration::from_millis(50));
        assert_eq!(kind(&api.instance_info().unwrap_err()), ErrorKind::Timeout);
        let api = server.api();
        for _ in 0..3 {
            assert_eq!(kind(&api.instance_info().unwrap_err()), ErrorKind::Api);
        }
        server.thread.join().unwrap();
    }

    #[test]
    fn a_deadline_that_has_passed_sends_nothing() {
        let server = Server::answering(&[b""]);
        let api = server.api().deadline(Instant::now());
        assert_eq!(kind(&api.pause().unwrap_err()), ErrorKind::Timeout);
        assert_eq!(server.thread.join().unwrap(), [""]);
    }
}
