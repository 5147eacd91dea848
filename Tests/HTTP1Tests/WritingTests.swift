import HTTP1
import LinuxIO
import Testing

@Suite("What is written")
struct WritingTests {
    static let request = bytes(
        "GET /api/users?x=1 HTTP/1.1\r\nHost: h\r\nAccept:  a \r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-A: b\r\n"
            + "X-Forwarded-For: 1.2.3.4\r\nTE: trailers\r\nContent-Length: 3\r\nX_Forwarded_For: 6\r\nZ:\r\n\r\nabc")

    static func copy(_ input: [UInt8], dropping: FieldSet) -> String {
        var head = RequestHead()
        _ = head.parse(input.span, limits: HeadLimits())
        var output = ByteBuffer()
        copyFields(of: head, from: input.span, to: &output, dropping: dropping)
        return output.text
    }

    @Test("of a head are its end-to-end fields, byte for byte")
    func fields() {
        #expect(
            Self.copy(Self.request, dropping: [])
                == "Host: h\r\nAccept:  a \r\nX-A: b\r\nX-Forwarded-For: 1.2.3.4\r\nContent-Length: 3\r\nZ:\r\n")
        #expect(
            Self.copy(Self.request, dropping: [.host, .xForwardedFor, .via])
                == "Accept:  a \r\nX-A: b\r\nContent-Length: 3\r\nZ:\r\n")
    }

    @Test(
        "of a head is nothing where nothing is kept",
        arguments: ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"])
    func nothing(_ text: String) {
        #expect(Self.copy(bytes(text), dropping: [.host]) == "")
    }

    @Test("of a response are its end-to-end fields")
    func response() {
        let input = bytes(
            "HTTP/1.0 200 Fine \r\nServer: x\r\nset_cookie: z\r\nKeep-Alive: 5\r\nProxy-Authenticate: y\r\nSet-Cookie: a\r\n"
                + "Set-Cookie: b\r\n\r\n")
        let (head, _) = parse(input, as: ResponseHead.self)
        var output = ByteBuffer()
        output.appendStatusLine(of: head, from: input.span)
        copyFields(of: head, from: input.span, to: &output, dropping: [.server])
        #expect(output.text == "HTTP/1.1 200 Fine \r\nset_cookie: z\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n")
    }

    @Test(
        "as request line is in origin-form, without the prefix",
        arguments: [
            ("GET /api/users?x=1", 0, "GET /api/users?x=1"),
            ("GET /api/users?x=1", 4, "GET /users?x=1"),
            ("GET /api/users?x=1", 10, "GET /?x=1"),
            ("GET /api/users", 10, "GET /"),
            ("GET /api/", 5, "GET /"),
            ("GET /api/users", 5, "GET /users"),
            ("GET /api?x=1", Int.max, "GET /?x=1"),
            ("GET /api", -1, "GET /api"),
            ("GET http://a", 0, "GET /"),
            ("GET http://a?x", 0, "GET /?x"),
            ("GET http://a/b/c?x", 2, "GET /c?x"),
            ("OPTIONS *", 3, "OPTIONS *"),
            ("PROPFIND /", 0, "PROPFIND /"),
        ])
    func requestLine(_ line: String, _ prefix: Int, _ expected: String) {
        let input = bytes("\(line) HTTP/1.1\r\nHost: h\r\n\r\n")
        let (head, _) = parse(input, as: RequestHead.self)
        var output = ByteBuffer()
        appendRequestLine(of: head, from: input.span, strippingPrefix: prefix, to: &output)
        #expect(output.text == expected + " HTTP/1.1\r\n")
    }

    @Test("as chunks is read back")
    func chunks() {
        var output = ByteBuffer()
        output.appendChunk(bytes("Hello, ").span)
        output.appendChunk(Span())
        output.appendChunkHeader(size: 0)
        output.appendChunkHeader(size: 26)
        output.append("abcdefghijklmnopqrstuvwxyz")
        output.appendLineEnd()
        output.appendLastChunk()
        #expect(output.text == "7\r\nHello, \r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n")
        let read = relay(output.array, cuts: [], with: BodyDecoder(RequestFraming.chunked, limits: HeadLimits()))
        #expect(read == Relayed(payload: bytes("Hello, abcdefghijklmnopqrstuvwxyz"), end: output.count))
    }

    /// The body that a response announces, after its head was parsed like a backend's.
    static func body(of response: [UInt8]) -> String? {
        let (head, outcome) = parse(response, as: ResponseHead.self)
        guard case .complete(let length) = outcome,
            head.framing(requestMethod: .get)
                == .length(
                    Int64(response.count - length))
        else { return nil }
        return String(decoding: response[length...], as: UTF8.self)
    }

    @Test("as a response of our own is complete")
    func ownResponse() {
        var output = ByteBuffer()
        output.appendResponse(
            status: 200, reason: "OK", fields: bytes("A: b\r\n").span, body: bytes("Hello").span, options: .keepAlive)
        #expect(output.text == "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nHello")
        output.clear()
        output.appendResponse(
            status: 503, reason: "Service Unavailable", fields: Span(), body: bytes("Hello").span,
            options: [.head, .close])
        #expect(output.text == "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
    }

    @Test("as a problem has the length that it announces")
    func problem() {
        var output = ByteBuffer()
        output.appendProblem(status: 404, title: "Service not found", fields: bytes("A: b\r\n").span)
        #expect(Self.body(of: output.array) == "{\"title\":\"Service not found\",\"status\":404}\n")
        #expect(output.text.contains("HTTP/1.1 404 Not Found\r\nA: b\r\nContent-Type: application/problem+json\r\n"))
        let whole = output.array
        output.clear()
        output.appendProblem(status: 404, title: "Service not found", fields: bytes("A: b\r\n").span, options: .head)
        let head = output.array
        #expect(whole.starts(with: head) && whole.count - head.count == 43)
    }

    @Test("as a refusal names the rule and closes", arguments: Rule.allCases)
    func refusals(_ rule: Rule) {
        var output = ByteBuffer()
        output.appendRefusal(rule)
        #expect(
            Self.body(of: output.array)
                == "{\"title\":\"\(rule.title)\",\"status\":\(rule.status),\"code\":\"\(rule.code)\",\"detail\":\"\(rule.detail)\"}\n"
        )
        #expect(output.text.contains("\r\nConnection: close\r\n"))
    }
}
