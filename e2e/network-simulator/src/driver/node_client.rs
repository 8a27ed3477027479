//! HTTP/1.1 to ML nodes, byte for byte as the DAPI's Go client writes it: four headers at most and no Content-Type,
//! connections kept and used again.

use crate::event::{Answer, Call};
use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// Largest answer that is read.
const MAX_BODY: usize = 16 << 20;
const MAX_HEADERS: usize = 64 << 10;
/// Idle connections kept per node, as Go does.
const MAX_IDLE: usize = 2;

/// Why there is no answer.
#[derive(Debug, Error)]
enum Error {
    #[error("timed out")]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
}

/// Connections to nodes.
#[derive(Debug, Default)]
pub struct NodeClient {
    idle: Mutex<HashMap<String, Vec<BufReader<TcpStream>>>>,
}

impl NodeClient {
    /// Sends a call and waits for its answer, no longer than the call allows.
    pub async fn send(&self, call: &Call) -> Result<Answer, String> {
        let limit = Duration::from_millis(call.timeout_ms);
        match timeout(limit, self.exchange(call)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(Error::Timeout.to_string()),
        }
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, Error> {
        let address = format!("{}:{}", call.host, call.port);
        let request = request(call, &address);
        if let Some(connection) = self.reuse(&address) {
            match self.exchange_on(connection, &address, &request).await {
                Ok(answer) => return Ok(answer),
                // Go repeats a request without a body when a kept connection turns out to be dead.
                Err(Error::Io(_)) if call.body.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        let connection = BufReader::new(TcpStream::connect(&address).await?);
        self.exchange_on(connection, &address, &request).await
    }

    async fn exchange_on(
        &self,
        mut connection: BufReader<TcpStream>,
        address: &str,
        request: &[u8],
    ) -> Result<Answer, Error> {
        connection.get_mut().write_all(request).await?;
        let (answer, keep) = read_answer(&mut connection).await?;
        if keep {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = idle.entry(address.to_owned()).or_default();
            if kept.len() < MAX_IDLE {
                kept.push(connection);
            }
        }
        Ok(answer)
    }

    /// A kept connection whose other end has neither closed nor spoken.
    fn reuse(&self, address: &str) -> Option<BufReader<TcpStream>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(address)?;
        while let Some(connection) = kept.pop() {
            let mut probe = [0];
            let quiet = matches!(
                connection.get_ref().try_read(&mut probe),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock
            );
            if quiet && connection.buffer().is_empty() {
                return Some(connection);
            }
        }
        None
    }
}

fn request(call: &Call, address: &str) -> Vec<u8> {
    let Call { method, path, body, .. } = call;
    let length = body
        .as_ref()
        .map(|body| format!("Content-Length: {}\r\n", body.len()))
        .unwrap_or_default();
    let body = body.as_deref().unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Go-http-client/1.1\r\n");
    format!("{head}{length}Accept-Encoding: gzip\r\n\r\n{body}").into_bytes()
}

/// An answer and whether its connection may be used again.
async fn read_answer(connection: &mut BufReader<TcpStream>) -> Result<(Answer, bool), Error> {
    loop {
        let head = read_head(connection).await?;
        // 1xx are not the answer yet.
        if !(100..200).contains(&head.status) {
            let body = read_body(connection, &head).await?;
            let keep = !head.close && head.length != Length::UntilClose;
            return Ok((Answer::bytes(head.status, body), keep));
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

#[derive(Debug)]
struct Head {
    status: u16,
    length: Length,
    close: bool,
}

async fn read_line(connection: &mut BufReader<TcpStream>, left: &mut usize) -> Result<String, Error> {
    let mut line = Vec::new();
    let read = connection.take(*left as u64).read_until(b'\n', &mut line).await?;
    *left -= read;
    if !line.ends_with(b"\n") {
        return Err(if *left == 0 {
            Error::Malformed("headers too long")
        } else {
            io::Error::from(io::ErrorKind::UnexpectedEof).into()
        });
    }
    let text = String::from_utf8(line).map_err(|_| Error::Malformed("headers are not text"))?;
    Ok(text.trim_end().to_owned())
}

async fn read_head(connection: &mut BufReader<TcpStream>) -> Result<Head, Error> {
    let mut left = MAX_HEADERS;
    let first = read_line(connection, &mut left).await?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or(Error::Malformed("no status"))?;
    let mut head = Head {
        status,
        length: Length::UntilClose,
        close: first.starts_with("HTTP/1.0"),
    };
    if matches!(status, 100..=199 | 204 | 304) {
        head.length = Length::Known(0);
    }
    loop {
        let line = read_line(connection, &mut left).await?;
        if line.is_empty() {
            return Ok(head);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or(Error::Malformed("a header without a colon"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let length = value.parse().map_err(|_| Error::Malformed("content-length"))?;
                head.length = Length::Known(length);
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => head.length = Length::Chunked,
            "connection" if value.eq_ignore_ascii_case("close") => head.close = true,
            "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                return Err(Error::Malformed("an encoded body: this client reads plain ones only"));
            }
            _ => {}
        }
    }
}

async fn read_body(connection: &mut BufReader<TcpStream>, head: &Head) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    match head.length {
        Length::Known(length) => append(connection, length, &mut body).await?,
        Length::UntilClose => {
            connection.take(MAX_BODY as u64 + 1).read_to_end(&mut body).await?;
        }
        Length::Chunked => loop {
            let mut left = MAX_HEADERS;
            let line = read_line(connection, &mut left).await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| Error::Malformed("chunk size"))?;
            append(connection, size, &mut body).await?;
            read_line(connection, &mut left).await?;
            if size == 0 {
                break;
            }
        },
    }
    if body.len() > MAX_BODY {
        Err(Error::Malformed("body too long"))
    } else {
        Ok(body)
    }
}

async fn append(connection: &mut BufReader<TcpStream>, length: usize, body: &mut Vec<u8>) -> Result<(), Error> {
    let start = body.len();
    if start.saturating_add(length) > MAX_BODY {
        return Err(Error::Malformed("body too long"));
    }
    body.resize(start + length, 0);
    connection.read_exact(&mut body[start..]).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
