import HTTP1
import LinuxIO
import Testing

@Suite("Trailers")
struct TrailerTests {
    /// The bytes that a decoder tells apart as trailers, when its body is given in pieces that end at `cuts`.
    private static func trailers(of input: [UInt8], cuts: [Int]) -> [UInt8] {
        var decoder = BodyDecoder(RequestFraming.chunked, limits: HeadLimits())
        var collected: [UInt8] = []
        var start = 0
        for cut in cuts + [input.count] where cut >= start {
            let piece = Array(input[start..<cut])
            var offset = 0
            events: while true {
                switch decoder.next(piece.span, at: offset) {
                case .data(let range):
                    #expect(decoder.trailer.isEmpty)
                    offset = range.upperBound
                case .needMore, .end:
                    collected += piece[decoder.trailer]
                    break events
                case .malformed(let violation):
                    Issue.record("\(violation)")
                    return []
                }
            }
            start = cut
        }
        #expect(decoder.isComplete)
        return collected
    }

    @Test(
        "are told apart from all that is around them, however it is cut",
        arguments: [
            ("0\r\n\r\n", ""), ("1\r\nx\r\n0\r\nA: b\r\n\r\n", "A: b\r\n"),
            ("0;x\r\nA:\r\nB: \u{e9}\r\n\r\n", "A:\r\nB: \u{e9}\r\n"),
        ])
    func apart(_ body: String, _ lines: String) {
        let input = bytes(body)
        for next in ["", "GET / HTTP/1.1\r\nA: b\r\n\r\n"] {
            let input = input + bytes(next)
            #expect(Self.trailers(of: input, cuts: []) == bytes(lines))
            for cut in 0..<bytes(body).count {
                #expect(Self.trailers(of: input, cuts: [cut]) == bytes(lines), "\(cut)")
            }
            #expect(Self.trailers(of: input, cuts: Array(0..<input.count)) == bytes(lines))
        }
    }

    private static func passed(_ lines: String) -> String {
        let input = bytes(lines)
        var output = ByteBuffer()
        copyTrailers(input.span, to: &output)
        return output.text
    }

    @Test(
        "that may not be any are left out",
        arguments: [
            "Content-Length", "content_length", "TRANSFER-ENCODING", "Transfer_Encoding", "Host", "Connection",
            "Trailer",
            "TE", "Cookie", "Set-Cookie", "Set_Cookie", "Authorization", "X-Forwarded-For", "X_Forwarded_Whatever",
            "Forwarded", "Expect", "Max-Forwards", "If-None-Match", "Range", "Content-Range", "Content-Encoding",
            "Cache-Control", "Age", "Vary", "WWW-Authenticate", "Proxy-Anything", "Access-Control-Allow-Origin", "Date",
            "Location", "X-HTTP-Method-Override", "Sec-WebSocket-Key", "Origin",
        ])
    func forbidden(_ name: String) {
        #expect(Self.passed("\(name): x\r\n") == "")
        #expect(Self.passed("A: b\r\n\(name):x\r\nC:\r\n") == "A: b\r\nC:\r\n")
    }

    @Test(
        "of all other names pass as they are",
        arguments: [
            "Server-Timing", "Content-Digest", "ETag", "grpc-status", "Ages", "If", "X-Forward", "Ranges", "_", "O",
        ])
    func allowed(_ name: String) {
        #expect(Self.passed("\(name):  x \r\n\(name):\r\n") == "\(name):  x \r\n\(name):\r\n")
    }

    @Test(
        "are wanted where TE says so and Connection names it",
        arguments: [
            ("Connection: TE\r\nTE: trailers\r\n", true), ("TE: deflate, TRAILERS\r\nConnection: close, te\r\n", true),
            ("Connection: TE\r\nTE: gzip\r\nTE: trailers\r\n", true), ("TE: trailers\r\n", false),
            ("Connection: TE\r\nTE: trailers;q=0\r\n", false), ("Connection: TE\r\n", false),
            ("Connection: TE\r\nTE: xtrailers\r\n", false),
        ])
    func wanted(_ fields: String, _ expected: Bool) {
        let input = bytes("GET / HTTP/1.1\r\nHost: h\r\n\(fields)\r\n")
        #expect(parse(input, as: RequestHead.self).0.acceptsTrailers == expected)
        let old = bytes("GET / HTTP/1.0\r\n\(fields)\r\n")
        #expect(!parse(old, as: RequestHead.self).0.acceptsTrailers)
    }
}
