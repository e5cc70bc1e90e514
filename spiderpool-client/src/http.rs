//! HTTP/1.1 as far as one request and its response need it.

use thiserror::Error;

/// A response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// The bytes are not a response.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum HttpError {
    #[error("the connection was closed before the end")]
    Incomplete,
    #[error("it is not HTTP: {0}")]
    Malformed(String),
}

/// The bytes of a request. Those with GET have a body too.
pub(crate) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: spiderpool-agent\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Whether the bytes are a whole response whose end is known by its length.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    matches!(split(bytes), Ok((head, rest)) if match head.framing {
        Framing::Length(length) => rest.len() >= length,
        Framing::Chunked => unchunk(rest).is_ok(),
        Framing::Close => false,
    })
}

impl Response {
    /// Parses all bytes that were received until the connection closed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HttpError> {
        let (head, rest) = split(bytes)?;
        let body = match head.framing {
            Framing::Length(length) => rest.get(..length).ok_or(HttpError::Incomplete)?.to_vec(),
            Framing::Chunked => unchunk(rest)?,
            Framing::Close => rest.to_vec(),
        };
        Ok(Self { status: head.status, body })
    }
}

struct Head {
    status: u16,
    framing: Framing,
}

enum Framing {
    Length(usize),
    Chunked,
    Close,
}

fn split(bytes: &[u8]) -> Result<(Head, &[u8]), HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let malformed = |e: httparse::Error| HttpError::Malformed(e.to_string());
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(malformed)? else {
        return Err(HttpError::Incomplete);
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.and_then(|h| std::str::from_utf8(h.value).ok()).map(str::trim)
    };
    let framing = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        Framing::Chunked
    } else if let Some(text) = header("content-length") {
        let length = text.parse().map_err(|_| HttpError::Malformed(format!("content-length {text:?}")))?;
        Framing::Length(length)
    } else if response.code == Some(204) {
        Framing::Length(0)
    } else {
        Framing::Close
    };
    let status = response.code.ok_or(HttpError::Incomplete)?;
    Ok((Head { status, framing }, &bytes[length..]))
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    loop {
        let status =
            httparse::parse_chunk_size(rest).map_err(|_| HttpError::Malformed("chunk size".to_owned()))?;
        let httparse::Status::Complete((start, size)) = status else { return Err(HttpError::Incomplete) };
        if size == 0 {
            return Ok(body);
        }
        let end =
            usize::try_from(size).ok().and_then(|s| start.checked_add(s)).ok_or(HttpError::Incomplete)?;
        body.extend_from_slice(rest.get(start..end).ok_or(HttpError::Incomplete)?);
        let after = rest.get(end..end.saturating_add(2)).ok_or(HttpError::Incomplete)?;
        if after != b"\r\n" {
            return Err(HttpError::Malformed("chunk without end".to_owned()));
        }
        rest = &rest[end + 2..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: &str, expect: Option<(u16, &str)>) {
        let parsed = Response::parse(bytes.as_bytes()).ok();
        let parsed = parsed.map(|r| (r.status, String::from_utf8(r.body).unwrap()));
        assert_eq!(parsed, expect.map(|(status, body)| (status, body.to_owned())), "{bytes:?}");
    }

    #[test]
    fn bodies_end_by_length_chunks_or_close() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Some((200, "{}")));
        check(
            "HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\"no\r\n1\r\n\"\r\n0\r\n\r\n",
            Some((500, "\"no\"")),
        );
        check("HTTP/1.0 200 OK\r\n\r\nall of it", Some((200, "all of it")));
        check("HTTP/1.1 204 No Content\r\n\r\n", Some((204, "")));
    }

    #[test]
    fn an_incomplete_response_is_none() {
        check("", None);
        check("HTTP/1.1 200 OK\r\nContent-Le", None);
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", None);
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", None);
        check("HTTP/1.1 200 OK\r\nContent-Length: lots\r\n\r\n", None);
        check("SSH-2.0-OpenSSH_9\r\n\r\n", None);
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_input(bytes in prop::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
            let prefix: &[u8] = if head { b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" } else { b"" };
            let bytes = [prefix, &bytes].concat();
            let _ = is_complete(&bytes);
            let _ = Response::parse(&bytes);
        }

        #[test]
        fn a_chunked_body_is_joined(body in prop::collection::vec(any::<u8>(), 0..500), chunk in 1usize..50) {
            let mut chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for part in body.chunks(chunk) {
                chunked.extend(format!("{:x}\r\n", part.len()).bytes());
                chunked.extend(part);
                chunked.extend(b"\r\n");
            }
            prop_assert!(!is_complete(&chunked));
            chunked.extend(b"0\r\n\r\n");
            prop_assert!(is_complete(&chunked));
            prop_assert_eq!(Response::parse(&chunked).unwrap().body, body);
        }
    }
}
