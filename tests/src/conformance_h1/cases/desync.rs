//! Request smuggling by all else: lengths that one side overlooks (CL.0, 0.CL, TE.0), chunk lines that two parsers end
//! differently (TERM.EXT and its kin, "Funky chunks"), trailers, hosts, lone line feeds.

use super::super::case::{After, Case, Step, breaks, passes, refused, seen};
use super::{HOST, SMUGGLED, chunked, get};

const CONTENT: &[u8] = b"GET /TAG/smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn request(method: &str, lines: &str, body: &str) -> Vec<u8> {
    format!("{method} /TAG HTTP/1.1\r\n{HOST}{lines}\r\n{body}").into_bytes()
}

pub(super) fn cases() -> Vec<Case> {
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let hidden_length =
        |line: &str| request("GET", &line.replace("LENGTH", &SMUGGLED.len().to_string()), SMUGGLED);
    let chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let coding = "Transfer-Encoding: chunked\r\n";
    let as_trailer = |line: &str| {
        request("POST", &format!("{coding}Trailer: X-Probe\r\n"), &format!("0\r\n{line}\r\n\r\n"))
    };
    let content = |method: &'static str| seen(method, "/TAG", CONTENT);
    let head_first = |case: Case| Case {
        steps: vec![
            Step::Send(request("POST", &length, "")),
            Step::Send(SMUGGLED.as_bytes()[..9].to_vec()),
            Step::Send(SMUGGLED.as_bytes()[9..].to_vec()),
        ],
        ..case
    };
    vec![
        passes("desync CL.0 post", &request("POST", &length, SMUGGLED), content("POST")),
        passes("desync CL.0 get", &request("GET", &length, SMUGGLED), content("GET")),
        passes("desync CL.0 options", &request("OPTIONS", &length, SMUGGLED), content("OPTIONS")),
        passes("desync CL.0 delete", &request("DELETE", &length, SMUGGLED), content("DELETE")),
        passes("desync CL.0 head", &request("HEAD", &length, SMUGGLED), content("HEAD")).asked_by_head(),
        passes(
            "desync CL.0 connection-names-content-length",
            &request("POST", &format!("Connection: keep-alive, Content-Length\r\n{length}"), SMUGGLED),
            content("POST"),
        ),
        head_first(passes("desync CL.0 in-pieces", b"", content("POST"))),
        refused("desync 0.CL space-before-colon", 400, &hidden_length("Content-Length : LENGTH\r\n")),
        refused("desync 0.CL space-before-name", 400, &hidden_length(" Content-Length: LENGTH\r\n")),
        refused("desync 0.CL folded", 400, &hidden_length("Content-Length:\r\n LENGTH\r\n")),
        refused("desync 0.CL lf-before-name", 400, &hidden_length("X: y\nContent-Length: LENGTH\r\n")),
        refused("desync 0.CL plus-sign", 400, &hidden_length("Content-Length: +LENGTH\r\n")),
        refused("desync 0.CL vertical-tab", 400, &hidden_length("Content-Length: \x0bLENGTH\r\n")),
        refused("desync 0.CL nul", 400, &hidden_length("Content-Length: LENGTH\0\r\n")),
        refused("desync 0.CL list-with-space", 400, &hidden_length("Content-Length: LENGTH , LENGTH\r\n")),
        refused("desync 0.CL in-quotes", 400, &hidden_length("Content-Length: \"LENGTH\"\r\n")),
        refused(
            "desync 0.CL expectation-hidden",
            417,
            &hidden_length("Expect: y 100-continue\r\nContent-Length: LENGTH\r\n"),
        ),
        refused(
            "desync 0.CL expectation-folded",
            417,
            &hidden_length("Expect:\r\n 100-continue\r\nContent-Length: LENGTH\r\n"),
        ),
        passes("desync TE.0 post", &request("POST", coding, &chunk), content("POST")),
        passes("desync TE.0 options", &request("OPTIONS", coding, &chunk), content("OPTIONS")),
        passes("desync TE.0 get", &request("GET", coding, &chunk), content("GET")),
        passes(
            "desync TE.0 connection-names-transfer-encoding",
            &request("POST", &format!("Connection: keep-alive, Transfer-Encoding\r\n{coding}"), &chunk),
            content("POST"),
        ),
        breaks("desync TERM.EXT", &chunked(&format!("2;\nxx\r\n4c\r\n0\r\n\r\n{SMUGGLED}"))),
        breaks("desync EXT.TERM", &chunked(&format!("4c;\rx\r\n0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n"))),
        breaks("desync TERM.SPILL", &chunked(&format!("5\r\nAAAAAXX2\r\n45\r\n0\r\n\r\n{SMUGGLED}"))),
        breaks("desync SPILL.TERM", &chunked(&format!("5\r\nAAAAAX\r\n2\r\n45\r\n0\r\n\r\n{SMUGGLED}"))),
        breaks("desync ONE.TWO", &chunked(&format!("2\r\nxx\n4c\r\n0\r\n\r\n{SMUGGLED}"))),
        breaks("desync TWO.ONE", &chunked(&format!("2\r\nxx\r4c\r\n0\r\n\r\n{SMUGGLED}"))),
        breaks("desync ZERO.TWO", &chunked(&format!("2\r\nxx4c\r\n0\r\n\r\n{SMUGGLED}"))),
        breaks("desync TWO.ZERO", &chunked(&format!("2\r\nxx\r\n\r\n4c\r\n0\r\n\r\n{SMUGGLED}"))),
        breaks(
            "desync chunk-size overflows-32-bits",
            &chunked(&format!("100000000000000000\r\n0\r\n\r\n{SMUGGLED}")),
        ),
        breaks("desync chunk-size semicolon-and-lf", &chunked(&format!("0;\n\r\n{SMUGGLED}"))),
        breaks("desync chunk-size underscore", &chunked(&format!("0_2e\r\n\r\n{SMUGGLED}"))),
        breaks("desync chunk-size empty-is-zero", &chunked(&format!("\r\n\r\n{SMUGGLED}"))),
        breaks("desync trailer content-length", &as_trailer("Content-Length: 50")),
        breaks("desync trailer transfer-encoding", &as_trailer("Transfer-Encoding: chunked")),
        breaks("desync trailer host", &as_trailer("Host: b.example")),
        breaks(
            "desync trailer lone-lf-then-a-request",
            &request("POST", coding, &format!("0\r\nX: y\n\n{SMUGGLED}")),
        ),
        passes(
            "desync trailer is-not-merged",
            &as_trailer("X-Probe: evil"),
            seen("POST", "/TAG", b"").without("x-probe"),
        ),
        refused("desync host twice", 400, &get("Host: b.example\r\n")),
        refused("desync host with-another-folded", 400, &get(" Host: b.example\r\n")),
        refused(
            "desync host in-absolute-target",
            400,
            format!("GET http://b.example/TAG HTTP/1.1\r\n{HOST}\r\n").as_bytes(),
        )
        .then(After::Open),
        refused(
            "desync host of-another-port",
            400,
            format!("GET http://a.example:8080/TAG HTTP/1.1\r\n{HOST}\r\n").as_bytes(),
        )
        .then(After::Open),
        refused(
            "desync host behind-user",
            400,
            format!("GET http://a.example@b.example/TAG HTTP/1.1\r\n{HOST}\r\n").as_bytes(),
        )
        .then(After::Open),
        refused(
            "desync lf ends-the-head",
            400,
            format!("GET /TAG HTTP/1.1\r\n{HOST}X: y\n\n{SMUGGLED}").as_bytes(),
        ),
        refused("desync lf in-a-value", 400, &get("X: y\n\nGET /TAG/smuggled HTTP/1.1\nHost: a.example\n\n")),
        refused(
            "desync cr ends-the-head",
            400,
            format!("GET /TAG HTTP/1.1\r\n{HOST}X: y\r\r{SMUGGLED}").as_bytes(),
        ),
        passes(
            "desync http-1.0 with-a-request-behind-it",
            format!("GET /TAG HTTP/1.0\r\n{HOST}\r\n{SMUGGLED}").as_bytes(),
            seen("GET", "/TAG", b""),
        )
        .then(After::Closed),
    ]
}
