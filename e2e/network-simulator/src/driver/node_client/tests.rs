use super::*;
use crate::event::{Origin, Request};
use tokio::net::TcpListener;

fn call(port: u16, body: Option<&str>) -> Call {
    Call {
        request: Request::Other,
        origin: Origin::Job {
            node_id: "a".to_owned(),
            job: 1,
        },
        host: "127.0.0.1".to_owned(),
        port,
        method: if body.is_some() { "POST" } else { "GET" },
        path: "/v3.0.8/api/v1/state".to_owned(),
        body: body.map(str::to_owned),
        timeout_ms: 500,
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains("\r\n\r\n") {
        let read = stream.read(&mut buffer).await.expect("request");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

#[tokio::test]
async fn a_post_has_exactly_the_recorded_headers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let port = listener.local_addr().expect("address").port();
    let server = async {
        let (mut stream, _) = listener.accept().await.expect("connection");
        let request = read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
            .await
            .expect("answer");
        request
    };
    let client = NodeClient::default();
    let call = call(port, Some("{}"));
    let (request, answer) = tokio::join!(server, client.send(&call));
    let expected = format!(
        "POST /v3.0.8/api/v1/state HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: 2\r\nAccept-Encoding: gzip\r\n\r\n{{}}"
    );
    assert_eq!(request, expected);
    assert_eq!(answer, Ok(Answer::bytes(200, b"{}")));
}

#[tokio::test]
async fn a_connection_is_kept_and_a_dead_one_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let port = listener.local_addr().expect("address").port();
    let client = NodeClient::default();
    let get = call(port, None);
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    let first = async {
        let (mut stream, _) = listener.accept().await.expect("connection");
        for _ in 0..2 {
            read_request(&mut stream).await;
            stream.write_all(answer).await.expect("answer");
        }
    };
    let both = async {
        client.send(&get).await.expect("first");
        client.send(&get).await.expect("second, on the same connection");
    };
    tokio::join!(first, both);
    let command = call(port, Some("{}"));
    let again = async {
        let (mut stream, _) = listener.accept().await.expect("a new connection");
        read_request(&mut stream).await;
        stream.write_all(answer).await.expect("answer");
    };
    let ((), answer) = tokio::join!(again, client.send(&command));
    assert_eq!(answer.map(|answer| answer.status), Ok(204));
}

#[tokio::test]
async fn silence_refusal_and_nonsense_are_errors_in_words() {
    let client = NodeClient::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let port = listener.local_addr().expect("address").port();
    assert_eq!(client.send(&call(port, None)).await, Err("timed out".to_owned()));
    let nonsense = async {
        // The connection of the call that timed out comes first.
        let _first = listener.accept().await.expect("connection");
        let (mut stream, _) = listener.accept().await.expect("connection");
        stream.write_all(b"SSH-2.0\r\n\r\n").await.expect("answer");
        stream
    };
    let get = call(port, None);
    let (_stream, answer) = tokio::join!(nonsense, client.send(&get));
    assert!(answer.expect_err("nonsense").contains("malformed"));
    drop(listener);
    assert!(client.send(&get).await.expect_err("refused").contains("refused"));
}
