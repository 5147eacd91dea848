// The conformance table: what backends send.

extension ConformanceTests {
    private static let get = "GET /t HTTP/1.1\r\nHost: h\r\n\r\n"
    private static let gotten = "GET / HTTP/1.1\r\nHost: h\r\n{added}{end}"
    /// Not sent twice, whatever becomes of it.
    private static let post = "POST /t HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
    private static let posted = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n{added}{end}"
    private static func fine(_ fields: String, _ body: String = "") -> String {
        "HTTP/1.1 200 OK\r\nDate: x\r\n\(fields)\r\n\(body)"
    }
    private static func passed(_ kept: String, _ own: String = "", _ body: String = "") -> String {
        "HTTP/1.1 200 OK\r\nDate: x\r\n\(kept)Via: 1.1 sluice\r\n\(own)\r\n\(body)"
    }
    private static let chunkedField = "Transfer-Encoding: chunked\r\n"

    static var answers: [Conformance] { heads + bodies + interims }

    /// Answers that are 502, whatever comes behind them.
    private static let malformed: [(String, String)] = [
        ("RFC 9112 §4: no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("RFC 9112 §4: two digits", "HTTP/1.1 20 OK\r\n\r\n"),
        ("RFC 9112 §4: four digits", "HTTP/1.1 2000 OK\r\n\r\n"),
        ("RFC 9110 §15: class 0", "HTTP/1.1 000 OK\r\n\r\n"),
        ("RFC 9110 §2.5: another version", "HTTP/2.0 200 OK\r\n\r\n"),
        ("RFC 9112 §2.2: bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        ("RFC 9112 §5.2: obs-fold", fine("A: b\r\n c\r\nContent-Length: 0\r\n")),
        ("RFC 9112 §5.1: before the colon", fine("Content-Length : 0\r\n")),
        ("RFC 9110 §5.5: NUL", fine("A: \u{0}\r\nContent-Length: 0\r\n")),
        ("RFC 9112 §2.2: bare CR, response splitting", fine("A: b\rSet-Cookie: c\r\nContent-Length: 0\r\n")),
        ("RFC 9112 §5: no colon", fine("abc\r\nContent-Length: 0\r\n")),
        ("RFC 9112 §6.3: both framings", fine("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("RFC 9112 §6.3: two lengths", fine("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd")),
        ("RFC 9112 §6.3: a list", fine("Content-Length: 3, 3\r\n", "abc")),
        ("RFC 9110 §8.6: a sign", fine("Content-Length: +3\r\n", "abc")),
        ("RFC 9110 §8.6: too long", fine("Content-Length: 99999999999999999999\r\n", "abc")),
        ("RFC 9112 §6.1: not final", fine("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n")),
        ("RFC 9112 §6.1: unknown", fine("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("RFC 9112 §6.1: in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a flood of fields", fine(String(repeating: "A: b\r\n", count: 101) + "Content-Length: 0\r\n")),
        ("a flood of bytes", fine("A: \(String(repeating: "a", count: 33_000))\r\nContent-Length: 0\r\n")),
        (
            "RFC 9110 §7.8: an unexpected switch",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        ),
    ]

    private static let heads: [Conformance] =
        malformed.map {
            .init($0.0, get, forwarded: gotten, answer: $0.1, .declined(502, "backend-malformed"))
        } + [
            .init(
                "nothing at all", post, forwarded: posted, answer: "", closes: true, .declined(502, "backend-failed")),
            .init(
                "half a head", post, forwarded: posted, answer: "HTTP/1.1 200 OK\r\nContent-Le", closes: true,
                .declined(502, "backend-failed")),
            .init(
                "RFC 9112 §4: no reason", get, forwarded: gotten,
                answer: "HTTP/1.1 200\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
                .bytes("HTTP/1.1 200 \r\nDate: x\r\nContent-Length: 0\r\nVia: 1.1 sluice\r\n\r\n")),
            .init(
                "RFC 9110 §7.6.1: fields of one hop", get, forwarded: gotten,
                answer: fine(
                    "Connection: a\r\nA: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nTrailer: x\r\nProxy-Authenticate: b\r\nContent-Length: 0\r\n"
                ), .bytes(passed("Content-Length: 0\r\n"))),
            .init(
                "RFC 9110 §7.6.1: but not what others rely on", get, forwarded: gotten,
                answer: fine("Connection: Content-Length, Set-Cookie\r\nContent-Length: 1\r\nSet-Cookie: a\r\n", "x"),
                .bytes(passed("Content-Length: 1\r\nSet-Cookie: a\r\n", "", "x"))),
            .init(
                "RFC 9110 §8.6: leading zeros", get, forwarded: gotten,
                answer: fine("Content-Length: 08\r\n", "01234567"),
                .bytes(passed("", "Content-Length: 8\r\n", "01234567"))),
        ]

    private static let bodies: [Conformance] = [
        .init(
            "RFC 9112 §7.1: chunks", get, forwarded: gotten, answer: fine(chunkedField, "3;a=b\r\nabc\r\n0\r\n\r\n"),
            .chunks(passed("", chunkedField), "abc")),
        .init(
            "RFC 9110 §6.5.1: trailers for a client that wants them",
            "GET /t HTTP/1.1\r\nHost: h\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
            forwarded: "GET / HTTP/1.1\r\nHost: h\r\n{added}TE: trailers\r\nConnection: TE\r\n{end}",
            answer: fine(
                chunkedField, "1\r\nx\r\n0\r\nA: b\r\nSet-Cookie: c\r\nContent-Length: 9\r\nServer-Timing: d\r\n\r\n"),
            .bytes(passed("", chunkedField, "1\r\nx\r\n0\r\nA: b\r\nServer-Timing: d\r\n\r\n"))),
        .init(
            "RFC 9110 §6.5.1: and for no other", get, forwarded: gotten,
            answer: fine(chunkedField, "1\r\nx\r\n0\r\nA: b\r\n\r\n"),
            .bytes(passed("", chunkedField, "1\r\nx\r\n0\r\n\r\n"))),
        .init(
            "RFC 9112 §6.3: to the end", get, forwarded: gotten, answer: fine("", "abc"), closes: true,
            .chunks(passed("", chunkedField), "abc")),
        .init(
            "RFC 9112 §6.3: surplus bytes go with their connection", get, forwarded: gotten,
            answer: fine("Content-Length: 1\r\n", "xHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            .bytes(passed("Content-Length: 1\r\n", "", "x"))),
        .init(
            "RFC 9110 §9.3.2: a body for HEAD", "HEAD /t HTTP/1.1\r\nHost: h\r\n\r\n",
            forwarded: "HEAD / HTTP/1.1\r\nHost: h\r\n{added}{end}", answer: fine("Content-Length: 4\r\n", "evil"),
            .bytes(passed("Content-Length: 4\r\n"))),
        .init(
            "RFC 9110 §15.3.5: a body for 204", get, forwarded: gotten,
            answer: "HTTP/1.1 204 No Content\r\nDate: x\r\nContent-Length: 4\r\n\r\nevil",
            .bytes("HTTP/1.1 204 No Content\r\nDate: x\r\nVia: 1.1 sluice\r\n\r\n")),
        .init(
            "RFC 9110 §15.4.5: a body for 304", get, forwarded: gotten,
            answer: "HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 4\r\n\r\nevil",
            .bytes("HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 4\r\nVia: 1.1 sluice\r\n\r\n")),
        .init(
            "RFC 9112 §8: less than announced", get, forwarded: gotten, answer: fine("Content-Length: 9\r\n", "abc"),
            closes: true, .broken),
        .init(
            "RFC 9112 §8: chunks without their end", get, forwarded: gotten, answer: fine(chunkedField, "3\r\nabc\r\n"),
            closes: true, .broken),
        .init(
            "RFC 9112 §8: a last chunk without its end", get, forwarded: gotten,
            answer: fine(chunkedField, "3\r\nabc\r\n0\r\n"), closes: true, .broken),
        .init(
            "RFC 9112 §8: chunks without their end, for HTTP/1.0", "GET /t HTTP/1.0\r\nHost: h\r\n\r\n",
            forwarded: "GET / HTTP/1.1\r\nHost: h\r\n{added10}{end}", answer: fine(chunkedField, "3\r\nabc\r\n"),
            closes: true, .broken),
        .init(
            "RFC 9112 §9.6: the backend ends its connection, and the client's lives", get, forwarded: gotten,
            answer: fine("Connection: close\r\nContent-Length: 1\r\n", "x"), closes: true,
            .bytes(passed("Content-Length: 1\r\n", "", "x"))),
        .init(
            "RFC 9110 §15.5.22: what is wanted instead", get, forwarded: gotten,
            answer: "HTTP/1.1 426 Upgrade Required\r\nDate: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                + "Content-Length: 0\r\n\r\n",
            .bytes(
                "HTTP/1.1 426 Upgrade Required\r\nDate: x\r\nContent-Length: 0\r\nVia: 1.1 sluice\r\n"
                    + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")),
        .init(
            "RFC 9112 §7.1: a chunk that lies", get, forwarded: gotten,
            answer: fine(chunkedField, "3\r\nabcd\r\n0\r\n\r\n"),
            .brokenUnlessDeclined(502, "backend-malformed")),
        .init(
            "RFC 9112 §7.1: an overflow", get, forwarded: gotten,
            answer: fine(chunkedField, "fffffffffffffffff\r\nabc"),
            .brokenUnlessDeclined(502, "backend-malformed")),
        .init(
            "RFC 9112 §7.1.2: a flood of trailers", get, forwarded: gotten,
            answer: fine(chunkedField, "1\r\nx\r\n0\r\n\(String(repeating: "A: b\r\n", count: 101))\r\n"),
            .brokenUnlessDeclined(502, "backend-malformed")),
        .init(
            "RFC 9112 §9.6: an early answer ends the connection",
            "POST /t HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab",
            forwarded: "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n{added}{end}ab", early: true,
            .lastBytes(passed("Content-Length: 2\r\n", "Connection: close\r\n", "ok"))),
    ]

    private static let interims: [Conformance] = [
        .init(
            "RFC 9110 §15.2: interim answers pass", get, forwarded: gotten,
            answer: "HTTP/1.1 103 Early Hints\r\nLink: a\r\nContent-Length: 3\r\n\r\nHTTP/1.1 102 P\r\n\r\n\(ok)",
            .bytes(
                "HTTP/1.1 103 Early Hints\r\nLink: a\r\nVia: 1.1 sluice\r\n\r\nHTTP/1.1 102 P\r\nVia: 1.1 sluice\r\n\r\n{OK}"
            )),
        .init(
            "RFC 9110 §15.2: but not to HTTP/1.0", "GET /t HTTP/1.0\r\nHost: h\r\n\r\n",
            forwarded: "GET / HTTP/1.1\r\nHost: h\r\n{added10}{end}", answer: "HTTP/1.1 103 Early Hints\r\n\r\n\(ok)",
            .lastBytes(passed("Content-Length: 2\r\n", "Connection: close\r\n", "ok"))),
        .init(
            "a flood of interim answers", get, forwarded: gotten,
            answer: String(repeating: "HTTP/1.1 103 Early\r\n\r\n", count: 33) + ok,
            .interimsThenDeclined(502, "backend-malformed")),
    ]
}
