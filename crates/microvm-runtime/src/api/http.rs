//! As much of HTTP/1.1 as Firecracker's server speaks: one request, one response with a known length.

use serde_json::Value;

use crate::error::{ErrorKind, Failure, Result};

/// Headers a response may have; Firecracker sends five.
const MAX_HEADERS: usize = 32;

/// Largest head of a response, in bytes; it is read anew with each piece that comes.
const MAX_HEAD: usize = 64 << 10;

/// Largest response, head and body, in bytes.
pub(super) const MAX_RESPONSE: usize = 16 << 20;

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
        let refused =
            |because| Failure::invalid(format!("send {method:?} {path:?} to the API"), because);
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

/// A response's status and where its body is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Offset of the body.
    pub(super) body: usize,
    /// Length of the body, in bytes.
    pub(super) length: usize,
}

impl Head {
    /// Head and body together, in bytes.
    pub(super) fn total(&self) -> usize {
        self.body.saturating_add(self.length)
    }
}

/// Reads the head of a response; `None` while there is not all of it.
///
/// # Errors
/// [`ErrorKind::Api`] for what is not HTTP, has a body of unknown length or one that is too long.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let failed = || Failure::new(ErrorKind::Api, "read the API's response");
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) =
        response.parse(bytes).map_err(|error| failed().source_of(error))?
    else {
        if bytes.len() > MAX_HEAD {
            return Err(failed().because(format!("its head has more than {MAX_HEAD} bytes")));
        }
        return Ok(None);
    };
    let status = response.code.ok_or_else(|| failed().because("it has no status"))?;
    let mut length = None;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(failed().because("it comes in pieces of unknown length"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = String::from_utf8_lossy(header.value);
            let value = text.trim().parse::<usize>().map_err(|error| {
                failed().because(format!("its length is {text:?}")).source_of(error)
            })?;
            if length.replace(value).is_some_and(|earlier| earlier != value) {
                return Err(failed().because("it has two lengths"));
            }
        }
    }
    let head = Head { status, body, length: length.unwrap_or(0) };
    if head.total() > MAX_RESPONSE {
        return Err(
            failed().because(format!("it has {} bytes, {MAX_RESPONSE} are allowed", head.total()))
        );
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_what_firecracker_expects() {
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
    fn a_request_line_cannot_be_split() {
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
    fn a_head_is_read_once_it_is_whole() {
        let response = b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}";
        let whole = head(response).unwrap().unwrap();
        assert_eq!((whole.status, whole.total()), (200, response.len()));
        for cut in 0..whole.body {
            assert_eq!(head(&response[..cut]).unwrap(), None, "after {cut} bytes");
        }
        assert_eq!(head(b"HTTP/1.1 204 \r\n\r\n").unwrap().unwrap().length, 0);
    }

    #[test]
    fn what_is_not_a_response_of_known_length_is_refused() {
        for bad in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
        ] {
            assert_eq!(head(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Api, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = head(&bytes);
        }

        #[test]
        fn no_headers_make_it_panic(text in "HTTP/1.[01] [0-9]{0,4} [a-z]{0,4}\r\n(Content-Length: [0-9]{0,22}\r\n){0,3}\r\n") {
            if let Ok(Some(head)) = head(text.as_bytes()) {
                prop_assert!(head.total() <= MAX_RESPONSE);
            }
        }
    }
}
