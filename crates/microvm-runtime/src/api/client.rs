//! Requests to Firecracker: [`Api`].

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http;
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
        let Some(api) = Self::open(root, name, uid, pid)? else {
            return Err(Failure::new(ErrorKind::NotFound, "open the API's socket")
                .path(name)
                .hinted("the VM has removed it; kill the VM instead of asking it"));
        };
        api.dial(api.until())?;
        Ok(api)
    }

    /// As [`connect`](Self::connect), without a connection; `None` while there is no socket.
    pub(crate) fn open(root: impl AsFd, name: &str, uid: u32, pid: u32) -> Result<Option<Self>> {
        Ok(JailSocket::open(root, name, uid)?.map(|socket| Self { socket, pid, deadline: None }))
    }

    /// Whether someone listens yet. Firecracker binds its socket and then listens: in between, and only then, it is there
    /// and refuses.
    pub(crate) fn listens(&self) -> Result<bool> {
        Ok(self.socket.connect(self.pid, self.until())?.is_some())
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
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> VmRuntimeResult<Response> {
        Ok(self.exchange(method, path, body)?)
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        let request = http::request(method, path, body)?;
        let deadline = self.until();
        let stream = self.dial(deadline)?;
        let operation = || format!("send {method} {path} to the API");
        let response = talk(&stream, &request, deadline).map_err(|error| match error {
            Talk::Broken(error) if error.kind() == io::ErrorKind::TimedOut => {
                Failure::new(ErrorKind::Timeout, operation()).because("Firecracker did not answer in time")
            }
            Talk::Broken(error) => Failure::new(ErrorKind::Api, operation()).source_of(error),
            Talk::NotHttp(failure) => Failure::new(failure.kind(), operation()).source_of(failure),
        })?;
        if (200..300).contains(&response.status) {
            return Ok(response);
        }
        Err(Failure::new(ErrorKind::Api, operation())
            .because(format!("status {}, {}", response.status, fault(&response.body))))
    }

    fn dial(&self, deadline: Instant) -> Result<UnixStream> {
        self.socket.connect(self.pid, deadline)?.ok_or_else(|| {
            Failure::new(ErrorKind::Api, "connect to the API").because("nobody listens on its socket")
        })
    }

    fn until(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + PATIENCE)
    }
}

/// Why an exchange failed.
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

fn talk(mut stream: &UnixStream, request: &[u8], deadline: Instant) -> std::result::Result<Response, Talk> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request)?;
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
            return Err(Talk::NotHttp(Failure::new(ErrorKind::Api, "read the API's response").because(because)));
        }
        // Each read anew: a byte now and then must not outlive the deadline.
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
