import HTTP1
import Testing

@Suite("The head of a request")
struct RequestHeadTests {
    static let host = "Host: a.example\r\n"

    @Test("is read into method, target, version and fields")
    func whole() throws {
        let input = bytes(
            "POST /api/users/7?x=1&y=2 HTTP/1.1\r\nHost: a.example:8080\r\nX-Empty:\r\nx-mixed:  two words\t \r\n"
                + "Content-Length: 12\r\n\r\nHello World!")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count - 12))
        #expect(head.length == input.count - 12)
        #expect(head.method == .post)
        #expect(text(input, head.methodBytes) == "POST")
        #expect(text(input, head.target) == "/api/users/7?x=1&y=2")
        #expect(head.form == .origin)
        #expect(text(input, head.path) == "/api/users/7")
        #expect(text(input, head.pathAndQuery) == "/api/users/7?x=1&y=2")
        #expect(text(input, head.authority) == "a.example:8080")
        #expect(head.version == .http11)
        #expect(head.framing == .length(12))
        #expect(head.keepAlive)
        #expect(!head.expectsContinue)
        #expect(head.upgrade == nil)
        #expect(head.fields.map { text(input, $0.name) } == ["Host", "X-Empty", "x-mixed", "Content-Length"])
        #expect(head.fields.map { text(input, $0.value) } == ["a.example:8080", "", "two words", "12"])
        #expect(
            head.fields.map { text(input, $0.line) } == [
                "Host: a.example:8080\r\n", "X-Empty:\r\n", "x-mixed:  two words\t \r\n", "Content-Length: 12\r\n",
            ])
        #expect(head.fields.map(\.id) == [.host, .other, .other, .contentLength])
    }

    @Test("forgets the head before it")
    func reuse() {
        var head = RequestHead()
        let first = bytes(
            "OPTIONS http://b.example?q HTTP/1.1\r\nHost: a\r\nHost-Other: b\r\nExpect: 100-continue\r\n"
                + "Connection: upgrade, close\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n")
        let firstOutcome = head.parse(first.span, limits: HeadLimits())
        #expect(firstOutcome == .complete(length: first.count))
        let second = bytes("GET / HTTP/1.0\r\n\r\n")
        let secondOutcome = head.parse(second.span, limits: HeadLimits())
        #expect(secondOutcome == .complete(length: second.count))
        #expect(head.fields.isEmpty)
        #expect(head.fields.present.isEmpty)
        #expect(head.form == .origin)
        #expect(head.authority.isEmpty)
        #expect(head.framing == .none)
        #expect(head.upgrade == nil)
        #expect(!head.expectsContinue)
        #expect(!head.keepAlive)
    }

    struct Target: Sendable {
        let line: String
        let form: TargetForm
        let path: String
        let pathAndQuery: String
        let authority: String
    }

    @Test(
        "has a target of one of three forms",
        arguments: [
            Target(line: "GET /", form: .origin, path: "/", pathAndQuery: "/", authority: "h"),
            Target(line: "GET /a?", form: .origin, path: "/a", pathAndQuery: "/a?", authority: "h"),
            Target(line: "GET /a?b?c/d", form: .origin, path: "/a", pathAndQuery: "/a?b?c/d", authority: "h"),
            Target(line: "GET //a", form: .origin, path: "//a", pathAndQuery: "//a", authority: "h"),
            Target(line: "GET /|^{}\"<>", form: .origin, path: "/|^{}\"<>", pathAndQuery: "/|^{}\"<>", authority: "h"),
            Target(line: "OPTIONS *", form: .asterisk, path: "", pathAndQuery: "*", authority: "h"),
            Target(line: "GET http://x", form: .absolute, path: "", pathAndQuery: "", authority: "x"),
            Target(line: "GET http://x?q", form: .absolute, path: "", pathAndQuery: "?q", authority: "x"),
            Target(line: "GET HTTPS://x:1/p?q", form: .absolute, path: "/p", pathAndQuery: "/p?q", authority: "x:1"),
            Target(line: "GET http://[::1]:8/", form: .absolute, path: "/", pathAndQuery: "/", authority: "[::1]:8"),
            Target(line: "GET http://x?a/b", form: .absolute, path: "", pathAndQuery: "?a/b", authority: "x"),
        ])
    func targets(_ row: Target) {
        let input = bytes("\(row.line) HTTP/1.1\r\nHost: h\r\n\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(head.form == row.form)
        #expect(text(input, head.path) == row.path)
        #expect(text(input, head.pathAndQuery) == row.pathAndQuery)
        #expect(text(input, head.authority) == row.authority)
        expectSameHoweverCut(input, as: RequestHead.self)
    }

    @Test(
        "with a good host is taken",
        arguments: [
            "a", "a.example", "A-b_c~d.example:0", "a:65535", "a:", "127.0.0.1:80", "[::1]", "[2001:db8::1]:8080",
            "[::ffff:1.2.3.4]",
        ])
    func goodHosts(_ host: String) {
        let input = bytes("GET / HTTP/1.1\r\nHost: \(host)\r\n\r\n")
        #expect(parse(input, as: RequestHead.self).1 == .complete(length: input.count))
        let absolute = bytes("GET http://\(host)/ HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(parse(absolute, as: RequestHead.self).1 == .complete(length: absolute.count))
    }

    @Test(
        "with a bad host is refused, in the field and in the target",
        arguments: [
            "", ":80", "a:65536", "a:123456", "a:000080", "a:8x", "a b", "user@a", "a/b", "a,b", "a;b", "a#b", "a%41",
            "[", "[]",
            "[::1", "[::1]x", "[::g]", "[::1%25eth0]", "a]", "é", "a:80:80",
        ])
    func badHosts(_ host: String) {
        let input = bytes("GET / HTTP/1.1\r\nHost: \(host)\r\n\r\n")
        #expect(parse(input, as: RequestHead.self).1 == .malformed(Violation(.malformedHost, at: 22)))
        expectSameHoweverCut(input, as: RequestHead.self)
        guard !host.contains(where: { " /#é".contains($0) }) else { return }
        let absolute = bytes("GET http://\(host)/ HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(parse(absolute, as: RequestHead.self).1 == .malformed(Violation(.malformedHost, at: 11)))
    }

    struct Framing: Sendable {
        let fields: String
        let expected: RequestFraming
    }

    @Test(
        "says how the body is framed",
        arguments: [
            Framing(fields: "", expected: .none),
            Framing(fields: "Content-Length: 0\r\n", expected: .length(0)),
            Framing(fields: "content-length:\t007 \r\n", expected: .length(7)),
            Framing(fields: "Content-Length: 9223372036854775807\r\n", expected: .length(.max)),
            Framing(fields: "Transfer-Encoding: chunked\r\n", expected: .chunked),
            Framing(fields: "TRANSFER-ENCODING: \tChUnKeD \r\n", expected: .chunked),
            Framing(fields: "X-Content-Length: 5\r\nContent-Lengths: 6\r\n", expected: .none),
        ])
    func framings(_ row: Framing) {
        let input = bytes("POST / HTTP/1.1\r\n\(Self.host)\(row.fields)\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(head.framing == row.expected)
        expectSameHoweverCut(input, as: RequestHead.self)
    }

    @Test(
        "says whether the connection stays open",
        arguments: [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: close\r\n", false),
            ("HTTP/1.1", "Connection: CLOSE\r\n", false),
            ("HTTP/1.1", "Connection: foo , close\r\n", false),
            ("HTTP/1.1", "Connection: foo\r\nConnection: close\r\n", false),
            ("HTTP/1.1", "Connection: closed, xclose\r\n", true),
            ("HTTP/1.1", "Connection: keep-alive, close\r\n", false),
            ("HTTP/1.1", "Connection: ,, ,\r\n", true),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
            ("HTTP/1.0", "Proxy-Connection: keep-alive\r\n", false),
        ])
    func persistence(_ version: String, _ fields: String, _ expected: Bool) {
        let input = bytes("GET / \(version)\r\n\(Self.host)\(fields)\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(head.keepAlive == expected)
    }

    @Test(
        "asks for an upgrade only with HTTP/1.1 and the option",
        arguments: [
            ("HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "websocket"),
            ("HTTP/1.1", "Upgrade: websocket\r\nConnection: keep-alive, UPGRADE\r\n", "websocket"),
            ("HTTP/1.1", "Upgrade: websocket\r\n", nil),
            ("HTTP/1.1", "Connection: upgrade\r\n", nil),
            ("HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", "h2c"),
            ("HTTP/1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", nil),
        ] as [(String, String, String?)])
    func upgrades(_ version: String, _ fields: String, _ expected: String?) {
        let input = bytes("GET / \(version)\r\n\(Self.host)\(fields)\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(text(input, head.upgrade) == expected)
    }

    @Test("expects 100 only in HTTP/1.1", arguments: [("HTTP/1.1", true), ("HTTP/1.0", false)])
    func expectation(_ version: String, _ expected: Bool) {
        let input = bytes("PUT / \(version)\r\n\(Self.host)Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(head.expectsContinue == expected)
    }

    @Test(
        "knows the fields that stay on this connection",
        arguments: [
            ("", []),
            ("Keep-Alive: 5\r\nTE: trailers\r\n", ["Keep-Alive", "TE"]),
            ("Trailer: X\r\nUpgrade: a\r\n", ["Trailer", "Upgrade"]),
            ("Proxy-Connection: x\r\nProxy-Authorization: y\r\n", ["Proxy-Connection", "Proxy-Authorization"]),
            ("X-A: 1\r\nConnection: x-a,X-B\r\nx-b: 2\r\nX-A: 3\r\nX-C: 4\r\n", ["X-A", "Connection", "x-b", "X-A"]),
            ("Connection: X-A\r\nX-A: 1\r\nConnection: close\r\n", ["Connection", "X-A", "Connection"]),
            ("X_Forwarded_For: a\r\nCONTENT_LENGTH: 3\r\nmy_name: b\r\n", ["X_Forwarded_For", "CONTENT_LENGTH"]),
            ("Transfer_Encoding: chunked\r\nproxy-authorizatio_: x\r\n", ["Transfer_Encoding"]),
            // What a Connection option may not take away.
            ("Connection: host, content-length\r\nContent-Length: 3\r\n", ["Connection"]),
            (
                "Connection: X-Forwarded-For, authorization, cookie\r\nX-Forwarded-For: a\r\nAuthorization: b\r\n",
                ["Connection"]
            ),
        ] as [(String, [String])])
    func hopByHop(_ fields: String, _ expected: [String]) {
        let input = bytes("GET / HTTP/1.1\r\n\(Self.host)\(fields)\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(head.fields.filter(\.hopByHop).map { text(input, $0.name) } == expected)
        expectSameHoweverCut(input, as: RequestHead.self)
    }

    @Test("may follow one empty line")
    func emptyLine() {
        let input = bytes("\r\nGET /x HTTP/1.1\r\n\(Self.host)\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(text(input, head.methodBytes) == "GET")
        #expect(text(input, head.path) == "/x")
        expectSameHoweverCut(input, as: RequestHead.self)
    }

    @Test("finds fields by name")
    func lookup() throws {
        let input = bytes("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant: a\r\nCookie: 1\r\nx-tenant: b\r\nCookie: 2\r\n\r\n")
        let (head, _) = parse(input, as: RequestHead.self)
        #expect(text(input, head.fields.first(.cookie)?.value) == "1")
        #expect(head.fields.first(.authorization) == nil)
        #expect(head.fields.first(.other) == nil)
        #expect(head.fields.contains(.cookie))
        #expect(head.fields.repeated == [.cookie])
        let first = try #require(head.fields.position(of: "x-tenant", in: input))
        let second = try #require(head.fields.position(of: "X-TENANT", in: input, from: first + 1))
        #expect([first, second] == [1, 3])
        #expect(head.fields.position(of: "x-tenant", in: input, from: 4) == nil)
        #expect(head.fields.position(of: "x-tenant", in: input, from: -1) == nil)
        #expect(head.fields.position(of: "x-tenan", in: input) == nil)
    }
}
