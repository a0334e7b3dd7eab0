//! Requests to Firecracker: [`Api`].

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http::{Incoming, Request};
use super::instance::{Action, InstanceInfo};
use super::socket::JailSocket;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::sys::{self, Errno, Wanted, unix_socket};
use crate::text::quoted;

/// The default time limit of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the answer to `GET /`; Firecracker's has about 100.
const MAX_INFO: usize = 16 << 10;

/// Firecracker's API of one VM.
///
/// The socket was verified when this was made, and its inode is held. Each request is a connection of its own, whose
/// other end is verified to be the VMM (`SO_PEERCRED`) before a byte is sent.
///
/// A hostile VMM can answer anything, slowly or without an end: a request ends at its timeout, connecting included,
/// costs at most 1 MiB, and errors contain at most 256 bytes of the VMM's text, escaped.
#[derive(Debug)]
pub struct Api {
    socket: JailSocket,
    pid: u32,
    limit: Limit,
}

/// The time that requests may take.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Each(Duration),
    All(Deadline),
}

impl Limit {
    fn deadline(self) -> Deadline {
        match self {
            Self::Each(timeout) => Deadline::after(timeout),
            Self::All(deadline) => deadline,
        }
    }
}

/// A request that was sent as far as the VMM reads, and not answered yet.
#[derive(Debug)]
pub(crate) struct Asked {
    request: Request,
    exchange: Exchange,
}

impl Asked {
    /// Sends the request over a verified connection.
    fn new(stream: UnixStream, request: Request, deadline: Deadline) -> Self {
        let mut exchange = Exchange { stream, sent: 0, deadline };
        exchange.send(request.bytes());
        Self { request, exchange }
    }

    /// Waits for the answer.
    fn answer(mut self) -> Result<Response> {
        let operation = || format!("send {} to the API", self.request.line());
        let answer = self.exchange.answer(self.request.bytes());
        let (status, body) = answer.map_err(|error| match error {
            Broken::Late => Error::new(ErrorKind::Timeout, operation())
                .because("Firecracker did not answer in time")
                .hinted("Give requests more time with `Api::timeout`."),
            Broken::Closed => Error::new(ErrorKind::Api, operation())
                .because("Firecracker closed the connection without an answer"),
            Broken::Off(errno) => Error::new(ErrorKind::Api, operation()).source_of(errno),
            Broken::NotHttp(failure) => Error::new(failure.kind(), operation()).source_of(failure),
        })?;
        if (200..300).contains(&status) {
            return Ok(Response { status, body });
        }
        let because = format!("status {status}, {}", fault(&body));
        Err(Error::new(ErrorKind::Api, operation()).because(because))
    }

    /// Waits for the answer; `false` if none comes. A VMM that dies meanwhile closes the connection, which ends the
    /// wait.
    ///
    /// # Errors
    /// [`ErrorKind::Api`] for an answer that is none, or a refusal.
    pub(crate) fn got_answer(mut self) -> Result<bool> {
        match self.exchange.answer(self.request.bytes()) {
            Err(Broken::Late | Broken::Closed | Broken::Off(Errno::CONNRESET)) => Ok(false),
            Ok((200..300, _)) => Ok(true),
            Ok((status, body)) => Err(Error::new(ErrorKind::Api, "ask the API")
                .because(format!("status {status}, {}", fault(&body)))),
            Err(Broken::Off(errno)) => {
                Err(Error::new(ErrorKind::Api, "ask the API").source_of(errno))
            }
            Err(Broken::NotHttp(failure)) => Err(failure),
        }
    }
}

const UNDERSTAND: &str = "understand the API's response";

/// Firecracker's response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status, from 200 to 299.
    pub status: u16,
    /// The body, unchanged; empty with status 204.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Api`] where it is none, or not of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> VmRuntimeResult<T> {
        let failed = || Error::new(ErrorKind::Api, UNDERSTAND);
        serde_json::from_slice(&self.body).map_err(|error| failed().source_of(error).into())
    }
}

impl Api {
    /// The API at the socket `name` below `root`, served by the process `pid` as `uid`; somebody must listen by
    /// `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] if it is no socket, not `uid`'s, or another process listens there;
    /// [`ErrorKind::NotFound`] if it is gone; [`ErrorKind::Api`] if nobody listens; [`ErrorKind::Timeout`] at the
    /// deadline.
    pub(crate) fn connect(
        root: impl AsFd,
        name: &str,
        uid: u32,
        pid: u32,
        deadline: Deadline,
    ) -> Result<Self> {
        let Some(socket) = JailSocket::open(root, name, uid)? else {
            return Err(Error::new(ErrorKind::NotFound, "open the API's socket")
                .path(name)
                .because("it does not exist")
                .hinted("The VM has removed the socket: kill the VM instead of asking it."));
        };
        let api = Self::over(socket, pid);
        api.dial(deadline)?;
        Ok(api)
    }

    /// The API at a socket that was verified, served by the process `pid`.
    pub(crate) fn over(socket: JailSocket, pid: u32) -> Self {
        Self { socket, pid, limit: Limit::Each(REQUEST_TIMEOUT) }
    }

    /// Asks `GET /` of a VMM that may not listen yet: `None` then.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) fn ask(&self, deadline: impl Into<Deadline>) -> Result<Option<Asked>> {
        let deadline = deadline.into();
        let Some(stream) = self.socket.connect(self.pid, deadline)? else { return Ok(None) };
        Ok(Some(Asked::new(stream, Request::new("GET", "/", None)?, deadline)))
    }

    /// Sets the time limit of each request, 10 s by default. `Duration::MAX` waits for ever.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limit = Limit::Each(timeout);
        self
    }

    /// Ends every request at `deadline`.
    pub(crate) fn until(mut self, deadline: Deadline) -> Self {
        self.limit = Limit::All(deadline);
        self
    }

    /// Asks what the microVM is and does (`GET /`).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn instance_info(&self) -> VmRuntimeResult<InstanceInfo> {
        let response = self.send("GET", "/", None)?;
        if response.body.len() > MAX_INFO {
            let because = format!("it has {} bytes, {MAX_INFO} are allowed", response.body.len());
            return Err(Error::new(ErrorKind::Api, UNDERSTAND).because(because).into());
        }
        response.json()
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
    /// [`Api`](ErrorKind::Api) with Firecracker's `fault_message` for a status that is not 2xx, for what is not HTTP,
    /// and for a body of more than 1 MiB; [`Timeout`](ErrorKind::Timeout) at the deadline;
    /// [`Identity`](ErrorKind::Identity) where the VM has put another listener in Firecracker's place;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a path with blanks or control characters.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> VmRuntimeResult<Response> {
        Ok(self.send(method, path, body)?)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        let request = Request::new(method, path, body)?;
        let deadline = self.limit.deadline();
        Asked::new(self.dial(deadline)?, request, deadline).answer()
    }

    fn dial(&self, deadline: Deadline) -> Result<UnixStream> {
        self.socket.connect(self.pid, deadline)?.ok_or_else(|| {
            Error::new(ErrorKind::Api, "connect to the API").because("nobody listens on its socket")
        })
    }
}

/// The reason why an exchange failed.
#[derive(Debug)]
enum Broken {
    Late,
    Closed,
    Off(Errno),
    NotHttp(Error),
}

/// A request and the response, over one connection. The client writes and reads at the same time: Firecracker may
/// refuse a long request before it has read all of that request.
#[derive(Debug)]
struct Exchange {
    stream: UnixStream,
    /// Bytes of the request that were sent.
    sent: usize,
    deadline: Deadline,
}

impl Exchange {
    /// Sends the bytes that the peer accepts without waiting. A peer that accepts no more may have answered already, so
    /// a failure is not an error here: the response decides.
    fn send(&mut self, request: &[u8]) {
        while self.sent < request.len() && !self.deadline.has_passed() {
            match unix_socket::send_now(&self.stream, &request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.sent = request.len(),
            }
        }
    }

    fn answer(&mut self, request: &[u8]) -> std::result::Result<(u16, Vec<u8>), Broken> {
        let mut incoming = Incoming::default();
        let mut chunk = [0; 8192];
        loop {
            // Before each read: a response that drips must not outlive the deadline.
            if self.deadline.has_passed() {
                return Err(Broken::Late);
            }
            let wanted = match self.sent < request.len() {
                true => Wanted::ReadableOrWritable,
                false => Wanted::Readable,
            };
            match sys::poll([(&self.stream, wanted)], self.deadline) {
                Ok([true]) => {}
                Ok([false]) => continue,
                Err(errno) => return Err(Broken::Off(errno)),
            }
            self.send(request);
            match unix_socket::receive_now(&self.stream, &mut chunk) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => {
                    if let Some(response) =
                        incoming.take(&chunk[..count]).map_err(Broken::NotHttp)?
                    {
                        return Ok(response);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(Broken::Off(errno)),
            }
        }
    }
}

/// Firecracker's reason for a refusal, quoted.
fn fault(body: &[u8]) -> String {
    let answer = serde_json::from_slice::<Value>(body).ok();
    match answer.as_ref().and_then(|answer| answer.get("fault_message")).and_then(Value::as_str) {
        Some(message) => quoted(message),
        None => quoted(body),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufRead as _;
    use std::io::BufReader;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::error::VmRuntimeError;

    /// A server in this process: each connection gets the next of `answers`; the thread returns the received requests.
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
            let uid = sys::process::effective_uid();
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
    fn requests_and_answers_match() {
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
        assert!(error.to_string().contains("status 400, \"no such action.\""), "{error}");
        let error = api.resume().unwrap_err();
        assert!(error.to_string().contains("status 500, \"oops\""), "{error}");
        server.thread.join().unwrap();
    }

    #[test]
    fn bad_servers_are_left() {
        let endless: &'static [u8] = Box::leak(
            [&b"HTTP/1.1 200 \r\nX: "[..], &vec![b'x'; 17 << 20]].concat().into_boxed_slice(),
        );
        let server = Server::answering(&[
            b"",
            b"HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{}",
            b"220 smtp\r\n\r\n",
            endless,
        ]);
        let api = server.api().timeout(Duration::from_millis(50));
        assert_eq!(kind(&api.instance_info().unwrap_err()), ErrorKind::Timeout);
        let api = server.api();
        for _ in 0..3 {
            assert_eq!(kind(&api.instance_info().unwrap_err()), ErrorKind::Api);
        }
        server.thread.join().unwrap();
    }

    #[test]
    fn passed_deadline_sends_nothing() {
        let server = Server::answering(&[b""]);
        let api = server.api().timeout(Duration::ZERO);
        assert_eq!(kind(&api.pause().unwrap_err()), ErrorKind::Timeout);
        assert_eq!(server.thread.join().unwrap(), [""]);
    }

    /// Returns a listener, and the API over the listener's socket.
    fn listen() -> (tempfile::TempDir, UnixListener, Api) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
        let root = File::open(dir.path()).unwrap();
        let uid = sys::process::effective_uid();
        let socket = JailSocket::open(&root, "api.sock", uid).unwrap().unwrap();
        (dir, listener, Api::over(socket, std::process::id()))
    }

    /// The request is longer than the socket's buffer, and the server reads nothing.
    #[test]
    fn an_early_refusal_is_read() {
        let (_dir, listener, api) = listen();
        let server = thread::spawn(move || {
            for close in [false, true] {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"HTTP/1.1 400 \r\nContent-Length: 8\r\n\r\ntoo long").unwrap();
                if !close {
                    // Until the client has gone.
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            }
        });
        let body = json!({ "text": "x".repeat(1 << 20) });
        for _ in 0..2 {
            let error = api.request("PUT", "/mmds", Some(&body)).unwrap_err();
            assert!(error.to_string().contains("status 400, \"too long\""), "{error}");
        }
        server.join().unwrap();
    }

    #[test]
    fn row_47_hostile_answers_stay_small() {
        let (_dir, listener, api) = listen();
        let server = thread::spawn(move || {
            let nested = format!("{{\"fault_message\":{}", "[".repeat(16 << 20));
            let escapes = "\u{1b}]0;owned\u{7}\u{202e}".repeat(1 << 20);
            for body in [escapes, nested] {
                let (mut stream, _) = listener.accept().unwrap();
                let head = format!("HTTP/1.1 400 \r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(body.as_bytes());
            }
        });
        for _ in 0..2 {
            let text = api.pause().unwrap_err().to_string();
            assert!(text.len() < 1024 && text.contains("status 400"), "{}", text.len());
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text}");
        }
        server.join().unwrap();
    }

    #[test]
    fn row_47_drips_end_in_time() {
        let (_dir, listener, api) = listen();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut dripped = 0_u32;
            while stream.write_all(b"H").is_ok() {
                dripped += 1;
                thread::sleep(Duration::from_millis(1));
            }
            dripped
        });
        let begun = std::time::Instant::now();
        let error = api.timeout(Duration::from_millis(20)).pause().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Api), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(60), "the drip kept it");
        server.join().unwrap();
    }
}
