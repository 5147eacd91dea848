import HTTP1
import Testing

@Suite("The head of a response")
struct ResponseHeadTests {
    @Test("is read into version, status, reason and fields")
    func whole() {
        let input = bytes(
            "HTTP/1.1 404 Not \u{e9} Found\r\nContent-Length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nabc")
        let (head, outcome) = parse(input, as: ResponseHead.self)
        #expect(outcome == .complete(length: input.count - 3))
        #expect(head.length == input.count - 3)
        #expect(head.status == 404)
        #expect(Array(input[head.reason]) == bytes("Not \u{e9} Found"))
        #expect(head.version == .http11)
        #expect(head.keepAlive)
        #expect(head.fields.map(\.id) == [.contentLength, .setCookie, .setCookie])
        #expect(head.framing(requestMethod: .get) == .length(3))
        expectSameHoweverCut(input, as: ResponseHead.self)
    }

    @Test(
        "may leave out the reason, and the space before it",
        arguments: [
            "HTTP/1.1 200 \r\n\r\n", "HTTP/1.1 200\r\n\r\n", "HTTP/1.0 999 \r\n\r\n", "HTTP/1.1 100 \t\r\n\r\n",
        ])
    func reasons(_ text: String) {
        let input = bytes(text)
        #expect(parse(input, as: ResponseHead.self).1 == .complete(length: input.count))
        expectSameHoweverCut(input, as: ResponseHead.self)
    }

    struct Framing: Sendable, CustomTestStringConvertible {
        let method: HTTP1.Method
        let head: String
        let framing: ResponseFraming
        let isReusable: Bool
        var testDescription: String { "\(method) \(head.debugDescription)" }

        init(_ method: HTTP1.Method, _ head: String, _ framing: ResponseFraming, reusable: Bool) {
            self.method = method
            self.head = head
            self.framing = framing
            isReusable = reusable
        }
    }

    @Test(
        "says how the body is framed and whether the connection can go on",
        arguments: [
            Framing(.get, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n", .length(7), reusable: true),
            Framing(.get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", .length(0), reusable: true),
            Framing(.get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", .chunked, reusable: true),
            Framing(.get, "HTTP/1.1 200 OK\r\n", .untilClose, reusable: false),
            Framing(.get, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n", .length(7), reusable: false),
            Framing(.get, "HTTP/1.0 200 OK\r\nContent-Length: 7\r\n", .length(7), reusable: false),
            Framing(
                .get, "HTTP/1.0 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive\r\n", .length(7), reusable: true),
            Framing(.head, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n", .none, reusable: true),
            Framing(.head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", .none, reusable: true),
            Framing(.head, "HTTP/1.1 200 OK\r\n", .none, reusable: true),
            Framing(.get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n", .none, reusable: true),
            Framing(.get, "HTTP/1.1 204 No Content\r\n", .none, reusable: true),
            Framing(.get, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", .none, reusable: true),
            Framing(.get, "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n", .none, reusable: false),
            Framing(.get, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", .none, reusable: false),
            Framing(.get, "HTTP/1.1 100 Continue\r\n", .none, reusable: true),
            Framing(.get, "HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n", .none, reusable: false),
            Framing(.get, "HTTP/1.1 101 Switching Protocols\r\n", .none, reusable: false),
            Framing(.connect, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n", .none, reusable: true),
            Framing(.connect, "HTTP/1.1 300 X\r\nContent-Length: 7\r\n", .length(7), reusable: true),
        ])
    func framing(_ row: Framing) {
        let input = bytes(row.head + "\r\n")
        let (head, outcome) = parse(input, as: ResponseHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(head.framing(requestMethod: row.method) == row.framing)
        #expect(head.isReusable(requestMethod: row.method) == row.isReusable)
        expectSameHoweverCut(input, as: ResponseHead.self)
    }

    @Test(
        "is refused when it is not what it should be",
        arguments: [
            (.malformedStatusLine, "‸\u{15}\u{3}\u{3}"),
            (.malformedStatusLine, "‸\r\nHTTP/1.1 200 OK\r\n"),
            (.malformedStatusLine, "‸http/1.1 200 OK\r\n"),
            (.malformedStatusLine, "HTTP‸ 200 OK\r\n"),
            (.malformedStatusLine, "HTTP/1.1‸\r\n"),
            (.malformedStatusLine, "HTTP/1.1 ‸ 200 OK\r\n"),
            (.malformedStatusLine, "HTTP/1.1 20‸ OK\r\n"),
            (.malformedStatusLine, "HTTP/1.1 ‸099 OK\r\n"),
            (.malformedStatusLine, "HTTP/1.1 ‸+20 OK\r\n"),
            (.malformedStatusLine, "HTTP/1.1 200‸0 OK\r\n"),
            (.malformedStatusLine, "HTTP/1.1 200 O‸\u{0}K\r\n"),
            (.malformedStatusLine, "HTTP/1.1 200‸\tOK\r\n"),
            (.bareLineFeed, "HTTP/1.1 200‸\n\n"),
            (.bareLineFeed, "HTTP/1.1 200 OK‸\nA: b\n\n"),
            (.bareCarriageReturn, "HTTP/1.1 200 OK‸\rA: b\r\n\r\n"),
            (.unsupportedVersion, "‸HTTP/2.0 200 OK\r\n"),
            (.foldedLine, "HTTP/1.1 200 OK\r\nA: b\r\n‸ c\r\n\r\n"),
            (.malformedContentLength, "HTTP/1.1 200 OK\r\nContent-Length: ‸7, 7\r\n\r\n"),
            (.repeatedContentLength, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: ‸7\r\n\r\n"),
            (.chunkedNotFinal, "HTTP/1.1 200 OK\r\n‸Transfer-Encoding: gzip\r\n\r\n"),
            (.unknownTransferCoding, "HTTP/1.1 200 OK\r\n‸Transfer-Encoding: gzip, chunked\r\n\r\n"),
            (.transferEncodingInHTTP10, "HTTP/1.0 200 OK\r\n‸Transfer-Encoding: chunked\r\n\r\n"),
            (
                .transferEncodingWithContentLength,
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n‸Transfer-Encoding: chunked\r\n\r\n"
            ),
        ] as [(Rule, String)])
    func refused(_ rule: Rule, _ text: String) {
        let row = Marked(text)
        #expect(parse(row.bytes, as: ResponseHead.self).1 == .malformed(Violation(rule, at: row.offset)))
        expectSameHoweverCut(row.bytes, as: ResponseHead.self)
    }

    @Test("may hold what only a request is asked about")
    func requestFields() {
        let input = bytes("HTTP/1.1 200 OK\r\nHost: a b\r\nHost: c\r\nExpect: x\r\n\r\n")
        #expect(parse(input, as: ResponseHead.self).1 == .complete(length: input.count))
    }

    @Test("is bounded like a request")
    func limits() {
        let limits = HeadLimits(requestLineBytes: 15, headerBytes: 10, headerCount: 1)
        let row = { (text: String) in parse(bytes(text), as: ResponseHead.self, limits: limits).1 }
        #expect(row("HTTP/1.1 200 OK\r\nA: 45678\r\n\r\n") == .complete(length: 29))
        #expect(row("HTTP/1.1 200 OK!\r\n\r\n") == .malformed(Violation(.startLineTooLong, at: 17)))
        #expect(row("HTTP/1.1 200 OK\r\nA: 456789abcd") == .malformed(Violation(.headerBytes, at: 29)))
        #expect(row("HTTP/1.1 200 OK\r\nA:\r\nB:\r\n\r\n") == .malformed(Violation(.headerCount, at: 21)))
    }

    @Test("switches protocols only with the option")
    func upgrade() {
        let input = bytes("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        let (head, _) = parse(input, as: ResponseHead.self)
        #expect(text(input, head.upgrade) == "websocket")
        let without = bytes("HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n")
        #expect(parse(without, as: ResponseHead.self).0.upgrade == nil)
    }
}
