//! Interim answers (RFC 9110, 15.2) beside answers that are still being written.

use crate::harness::{Node, Upstream, Wire, limits, shard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Of an answer: less than hyper holds, and no divisor of what the kernel takes at once.
const BODY: usize = 40_000;
/// As many as make several times what the kernel holds for a client that reads slowly.
const REQUESTS: usize = 400;

/// Answers everything by an interim answer and an answer.
async fn hint_and_answer(mut stream: TcpStream) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
    let answer = [head.as_bytes(), &[b'x'; BODY]].concat();
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n").await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_stay_between_the_answers_of_a_slow_reader() {
    let upstream = Upstream::serve(hint_and_answer).await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut client = Wire { stream: socket.connect(node.address()).await.unwrap(), read: Vec::new() };
    client.send(&"GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n".repeat(REQUESTS)).await;
    let mut interims = 0;
    for answer in 0..REQUESTS {
        let mut head = client.head().await;
        if head.status == 103 {
            assert_eq!(head.header("link"), ["</x>"]);
            interims += 1;
            head = client.head().await;
        }
        assert_eq!(head.status, 200, "answer {answer}");
        let body = client.exactly(BODY).await;
        let wrong = body.iter().position(|byte| *byte != b'x');
        assert_eq!(wrong, None, "answer {answer} is not what the shard sent");
        // Slower than the node: else nothing ever waits to be written.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(interims > 0, "the first has nothing before it");
    node.stop().await;
}
