//! The part of HTTP/1.1 that Firecracker's API uses.

use std::io::{self, Read, Write};

use serde_json::{Value, json};

/// A request with the whole body.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// Reads the next request; `None` when the peer is done or talks something else.
pub(crate) fn read(
    stream: &mut impl Read,
    held: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Option<Request>> {
    let mut chunk = [0; 4096];
    loop {
        if let Some((mut request, head, length)) = parse_head(held) {
            if length > limit {
                return Ok(None);
            }
            while held.len() < head + length {
                match stream.read(&mut chunk)? {
                    0 => return Ok(None),
                    n => held.extend_from_slice(&chunk[..n]),
                }
            }
            request.body = held.drain(..head + length).skip(head).collect();
            return Ok(Some(request));
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            _ if held.len() > limit => return Ok(None),
            n => held.extend_from_slice(&chunk[..n]),
        }
    }
}

/// Parses a complete head: the request without the body, the length of the head, the length of the body.
fn parse_head(held: &[u8]) -> Option<(Request, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = parsed.parse(held) else {
        return None;
    };
    let length = parsed
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok())
        .unwrap_or(0);
    let request = Request {
        method: parsed.method?.to_owned(),
        path: parsed.path?.to_owned(),
        body: Vec::new(),
    };
    Some((request, head, length))
}

/// Answers: a document, nothing, or Firecracker's `fault_message`.
pub(crate) fn answer(
    stream: &mut impl Write,
    outcome: &Result<Option<Value>, String>,
) -> io::Result<()> {
    let (status, body) = match outcome {
        Ok(Some(value)) => (200, value.to_string()),
        Ok(None) => (204, String::new()),
        Err(fault) => (400, json!({ "fault_message": fault }).to_string()),
    };
    let mut text =
        format!("HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n");
    if !body.is_empty() {
        text += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += &body;
    stream.write_all(text.as_bytes())
}
