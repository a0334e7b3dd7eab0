//! As much of HTTP/1.1 as Firecracker's server speaks: one request, one response with a known length.

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::text::quoted;

/// Headers a response may have; Firecracker sends five.
const MAX_HEADERS: usize = 32;

/// Largest head of a response, in bytes; Firecracker's has 150.
const MAX_HEAD: usize = 16 << 10;

/// Largest body, in bytes: the guest's metadata (MMDS) is the largest that Firecracker sends, 50 KiB by default.
pub(super) const MAX_BODY: usize = 1 << 20;

/// Bytes of a refusal's body that are read.
pub(super) const MAX_REFUSAL: usize = 4 << 10;

/// A request, ready to be sent.
#[derive(Debug)]
pub(super) struct Request {
    line: String,
    bytes: Vec<u8>,
}

impl Request {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where the method or the path could end the request line.
    pub(super) fn new(method: &str, path: &str, body: Option<&Value>) -> Result<Self> {
        let refused = |because| {
            Error::invalid(format!("send {method:?} {path:?} to the API"), because).hinted(
                "Use a method such as `GET` and a path such as `/mmds`, with blanks as `%20`.",
            )
        };
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(refused("the method is not made of capital letters"));
        }
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused(
                "the path does not begin with `/`, or has a blank or a control character",
            ));
        }
        let line = format!("{method} {path}");
        let mut text =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
        if let Some(body) = body {
            let body = body.to_string();
            let length = body.len();
            text += &format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        } else {
            text += "\r\n";
        }
        Ok(Self { line, bytes: text.into_bytes() })
    }

    /// Method and path, for a message.
    pub(super) fn line(&self) -> &str {
        &self.line
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A response that arrives in pieces. At most a head and a body of the allowed sizes is kept.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    head: Option<Head>,
}

/// A response's status, and the position of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Offset of the body.
    body: usize,
    /// Bytes of the body that are read.
    length: usize,
}

impl Incoming {
    /// Takes the next piece; returns status and body once the response is complete. Of a refusal's body the first 4 KiB are
    /// enough.
    ///
    /// # Errors
    /// [`ErrorKind::Api`] for bytes that are not HTTP, for a body of unknown length and for one that is too long.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Option<(u16, Vec<u8>)>> {
        self.bytes.extend_from_slice(piece);
        // A head ends with a line: without a new one there is nothing to look for.
        if self.head.is_none() && piece.contains(&b'\n') {
            self.head = head(&self.bytes)?;
        }
        let Some(head) = self.head else {
            if self.bytes.len() > MAX_HEAD {
                return Err(failed().because(format!("its head has more than {MAX_HEAD} bytes")));
            }
            return Ok(None);
        };
        let end = head.body + head.length;
        if self.bytes.len() < end {
            return Ok(None);
        }
        self.bytes.truncate(end);
        Ok(Some((head.status, self.bytes.split_off(head.body))))
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Api, "read the API's response")
}

/// Reads the head of a response; `None` while there is not all of it.
fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) =
        response.parse(bytes).map_err(|error| failed().source_of(error))?
    else {
        return Ok(None);
    };
    let status = response.code.ok_or_else(|| failed().because("it has no status"))?;
    let mut length = None;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(failed().because("it comes in pieces of unknown length"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or_default().trim();
            let value = text.parse::<u64>().map_err(|error| {
                let length = quoted(header.value);
                failed().because(format!("its length is {length}")).source_of(error)
            })?;
            if length.replace(value).is_some_and(|earlier| earlier != value) {
                return Err(failed().because("it has two lengths"));
            }
        }
    }
    let length = usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX);
    let is_refusal = !(200..300).contains(&status);
    if !is_refusal && length > MAX_BODY {
        return Err(
            failed().because(format!("its body has {length} bytes, {MAX_BODY} are allowed"))
        );
    }
    let length = if is_refusal { length.min(MAX_REFUSAL) } else { length };
    Ok(Some(Head { status, body, length }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_have_firecrackers_form() {
        let text = |request: Request| String::from_utf8(request.bytes().to_vec()).unwrap();
        assert_eq!(
            text(Request::new("GET", "/", None).unwrap()),
            "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
        );
        let put = text(
            Request::new("PUT", "/actions", Some(&json!({"action_type": "InstanceStart"})))
                .unwrap(),
        );
        assert!(
            put.ends_with("Content-Length: 31\r\n\r\n{\"action_type\":\"InstanceStart\"}"),
            "{put}"
        );
    }

    #[test]
    fn request_lines_cannot_be_split() {
        for (method, path) in [
            ("GET", ""),
            ("GET", "x"),
            ("GET", "/ HTTP/1.1\r\nX: y"),
            ("GET", "/\u{e9}"),
            ("GET /", "/"),
            ("", "/"),
            ("get", "/"),
        ] {
            assert_eq!(
                Request::new(method, path, None).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn a_response_comes_in_pieces() {
        let response = b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..response.len() {
            let mut incoming = Incoming::default();
            assert_eq!(incoming.take(&response[..cut]).unwrap(), None, "after {cut} bytes");
            let whole = incoming.take(&response[cut..]).unwrap().unwrap();
            assert_eq!(whole, (200, b"{}".to_vec()));
        }
        let empty = Incoming::default().take(b"HTTP/1.1 204 \r\n\r\n").unwrap().unwrap();
        assert_eq!(empty, (204, Vec::new()));
    }

    #[test]
    fn strange_responses_are_refused() {
        for bad in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        ] {
            let error = Incoming::default().take(bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Api, "{bad}");
        }
    }

    #[test]
    fn an_endless_head_is_refused() {
        for line in ["x".repeat(1000), "X: y\r\n".repeat(100)] {
            let mut incoming = Incoming::default();
            incoming.take(b"HTTP/1.1 200 \r\n").unwrap();
            let refused = (0..100).find_map(|_| incoming.take(line.as_bytes()).err());
            assert_eq!(refused.unwrap().kind(), ErrorKind::Api);
            assert!(incoming.bytes.len() < 2 * MAX_HEAD);
        }
    }

    #[test]
    fn a_refusal_is_cut() {
        let mut incoming = Incoming::default();
        let head = b"HTTP/1.1 400 \r\nContent-Length: 18446744073709551615\r\n\r\n";
        assert_eq!(incoming.take(head).unwrap(), None);
        let (status, body) = incoming.take(&[b'x'; 64 << 10]).unwrap().unwrap();
        assert_eq!((status, body.len()), (400, MAX_REFUSAL));
    }
}
