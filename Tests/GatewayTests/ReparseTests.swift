import Configuration
import HTTP1
import Identity
import LinuxIO
import Primitives
import Testing

@testable import Gateway

/// Whatever a node accepts, the next hop reads as the same one message: no smuggling, whatever the bytes were.
@Suite("What is passed on reads as what was accepted")
struct ReparseTests {
    private static let seed: UInt64 = {
        let seed = UInt64.random(in: .min ... .max)
        print("ReparseTests: seed \(seed)")
        return seed
    }()

    /// Numbers on which arithmetic and conversions break.
    static let numbers = [
        "0", "1", "5", "007", "010", "255", "256", "65535", "65536", "2147483647", "2147483648", "4294967296",
        "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
        "99999999999999999999999", "0000000000000000005", "00000000000000000000000005", "-1", "-0", "+5", "0x10", "1e3",
        "5.0", "5,5", "5 5", "", " ", "\u{0}", "\u{b}5", "\u{ff}", "NaN", "٣",
    ]
    private static let methods = [
        "GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "CONNECT", "get", "X!#$%&'*+-.^_`|~", "P",
    ]
    private static let targets = [
        "/", "/a", "/a/b?c=d", "/a%2fb", "//a", "/a//", "*", "http://h", "http://h/", "http://h:80/a?b", "https://h/a",
        "http://h?x", "h:80", "/?", "/a?%", "http://[::1]:8080/a", "HTTP://H/a", "/\u{e9}", "/a b",
    ]
    private static let versions = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.\u{0}"]
    private static let lines = [
        "Host: h", "Host: h:80", "Host: [::1]", "Transfer-Encoding: chunked", "Transfer-Encoding: Chunked",
        "Transfer-Encoding: gzip, chunked", "Connection: close", "Connection: keep-alive, X",
        "Connection: Host, Content-Length",
        "Connection: upgrade", "Upgrade: websocket", "TE: trailers", "Trailer: X", "X: 1", "x: \u{e9}", "X:",
        "X:\t 1 \t",
        "Content_Length: 5", "Transfer_Encoding: chunked", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=1", "Via: 1.1 a",
        "Expect: 100-continue", "Cookie: a=b", "Authorization: x", "Keep-Alive: 5", "Proxy-Connection: close",
        "Host: g",
    ]

    private static func pick<T>(_ list: [T], _ random: inout SplitMix64) -> T {
        list[Int.random(in: 0..<list.count, using: &random)]
    }

    private static func fields(_ random: inout SplitMix64) -> String {
        var text = ""
        for _ in 0..<Int.random(in: 0...5, using: &random) {
            switch Int.random(in: 0..<6, using: &random) {
            case 0: text += "Content-Length: \(pick(numbers, &random))\r\n"
            case 1: text += "Max-Forwards: \(pick(numbers, &random))\r\n"
            case 2: text += "Host: h:\(pick(numbers, &random))\r\n"
            default: text += pick(lines, &random) + "\r\n"
            }
        }
        return text
    }

    /// Most stay as they are; some lose, gain or change a byte.
    private static func bytes(_ text: String, _ random: inout SplitMix64) -> [UInt8] {
        var bytes = text.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }
        guard Int.random(in: 0..<4, using: &random) == 0, !bytes.isEmpty else { return bytes }
        let at = Int.random(in: 0..<bytes.count, using: &random)
        let byte = pick([0, 9, 10, 13, 32, 44, 58, 0x7f, 0x80, 0xff] as [UInt8], &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: bytes[at] = byte
        case 1: bytes.insert(byte, at: at)
        default: bytes.remove(at: at)
        }
        return bytes
    }

    private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self).debugDescription }

    private static let unlimited = HeadLimits(requestLineBytes: 0, headerBytes: 0, headerCount: 0)

    @Test("a request")
    func requests() {
        var random = SplitMix64(seed: Self.seed)
        var accepted = 0
        for _ in 0..<6_000 {
            let line =
                "\(Self.pick(Self.methods, &random)) \(Self.pick(Self.targets, &random)) \(Self.pick(Self.versions, &random))\r\n"
            let host = Bool.random(using: &random) ? "Host: h\r\n" : ""
            let input = Self.bytes(line + host + Self.fields(&random) + "\r\n", &random)
            var head = RequestHead()
            guard case .complete(let length) = head.parse(input.span, limits: HeadLimits()) else { continue }
            #expect(length <= input.count, "\(Self.text(input))")
            accepted += 1
            Self.check(head, input, &random)
        }
        // Else the test would hold for a parser that takes nothing.
        #expect(accepted > 500, "seed \(Self.seed)")
    }

    private static func check(_ head: RequestHead, _ input: [UInt8], _ random: inout SplitMix64) {
        var rewrite = RequestRewrite(
            stripped: 0,
            identity: ClientIdentity(
                peer: .v4Loopback, peerTrusted: Bool.random(using: &random), client: .v6Loopback, scheme: .https),
            believed: Bool.random(using: &random) ? .forwarded : .xForwardedFor,
            replacesHost: Bool.random(using: &random))
        switch head.maxForwards(in: input.span) {
        case .hops(let hops): rewrite.hopsLeft = max(0, hops - 1)
        case .absent, .malformed: break
        }
        var output = ByteBuffer()
        rewrite.write(head, input.span, via: Array("us".utf8), to: &output)
        output.append("X-Origin-Host: b\r\n")
        let hasHost = head.form == .absolute || head.fields.contains(.host)
        if rewrite.replacesHost || !hasHost { output.append("Host: b\r\n") }
        output.append("\r\n")
        let written = output.array
        var again = RequestHead()
        let outcome = again.parse(written.span, limits: unlimited)
        #expect(outcome == .complete(length: written.count), "\(text(input)) became \(text(written))")
        guard case .complete = outcome else { return }
        #expect(input[head.methodBytes] == written[again.methodBytes], "\(text(input))")
        #expect(head.framing == again.framing, "\(text(input)) became \(text(written))")
        #expect(again.version == .http11 && again.keepAlive && again.respelledLength < 0, "\(text(written))")
        let path = input[head.pathAndQuery]
        #expect(Array(written[again.target]) == (path.first == 0x2f || head.form == .asterisk ? [] : [0x2f]) + path)
        for name in [FieldName.connection, .te, .trailer, .keepAlive, .proxyConnection, .upgrade] {
            #expect(!again.fields.contains(name), "\(text(written))")
        }
        #expect(again.fields.contains(.transferEncoding) == (head.framing == .chunked))
        if !rewrite.identity.peerTrusted {
            #expect(again.fields.contains(.forwarded) == (rewrite.believed == .forwarded))
            let repeated = again.fields.repeated
            #expect(!repeated.contains(.forwarded) && !repeated.contains(.xForwardedFor))
        }
    }

    @Test("an answer")
    func answers() {
        var random = SplitMix64(seed: Self.seed ^ 1)
        var accepted = 0
        let statuses = [
            "100", "101", "103", "200", "204", "205", "206", "304", "404", "426", "500", "999", "099", "20", "2000",
        ]
        for _ in 0..<6_000 {
            let line =
                "\(Self.pick(Self.versions, &random)) \(Self.pick(statuses, &random)) \(Self.pick(["OK", "", "\u{e9}", "a\tb"], &random))\r\n"
            let input = Self.bytes(line + Self.fields(&random) + "\r\n", &random)
            var head = ResponseHead()
            guard case .complete(let length) = head.parse(input.span, limits: HeadLimits()) else { continue }
            #expect(length <= input.count, "\(Self.text(input))")
            accepted += 1
            for method in [HTTP1.Method.get, .head] { Self.check(head, input, method, &random) }
        }
        #expect(accepted > 500, "seed \(Self.seed)")
    }

    private static func check(
        _ head: ResponseHead, _ input: [UInt8], _ method: HTTP1.Method, _ random: inout SplitMix64
    ) {
        let framing = head.framing(requestMethod: method)
        let delivery: ResponseDelivery =
            switch framing {
            case .none, .length: .asAnnounced
            case .chunked, .untilClose: .chunked
            }
        let rewrite = ResponseRewrite(
            delivery: delivery, keepAlive: Bool.random(using: &random), clientVersion: .http11)
        var output = ByteBuffer()
        rewrite.write(
            head, input.span, via: Array("us".utf8), date: Array("Date: x\r\n".utf8), to: &output)
        let written = output.array
        var again = ResponseHead()
        let outcome = again.parse(written.span, limits: unlimited)
        #expect(outcome == .complete(length: written.count), "\(text(input)) became \(text(written))")
        guard case .complete = outcome else { return }
        #expect(again.status == head.status)
        let expected: ResponseFraming =
            switch framing {
            case .none, .length: framing
            case .chunked, .untilClose: .chunked
            }
        #expect(again.framing(requestMethod: method) == expected, "\(text(input)) became \(text(written))")
        #expect(again.respelledLength < 0)
        if head.status >= 200 { #expect(again.keepAlive == rewrite.keepAlive, "\(text(written))") }
        for name in [FieldName.te, .trailer, .keepAlive, .proxyConnection, .upgrade, .proxyAuthenticate] {
            #expect(!again.fields.contains(name), "\(text(written))")
        }
        // RFC 9112 §6.1, §6.3: what has no body by its status announces none by its fields.
        if head.status < 200 || head.status == 204 {
            #expect(!again.fields.contains(.contentLength) && !again.fields.contains(.transferEncoding))
        }
    }

    @Test("numbers on which arithmetic breaks end no process, wherever they stand and however they are cut")
    func hostileNumbers() {
        let places = [
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: #\r\n\r\nabc", "GET / HTTP/1.1\r\nHost: h:#\r\n\r\n",
            "GET http://h:#/ HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/#\r\nHost: h\r\n\r\n",
            "GET /%# HTTP/1.1\r\nHost: h\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: #\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n#\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 # OK\r\nContent-Length: #\r\n\r\nabc", "HTTP/# 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: #\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n#;a=#\r\nabc\r\n#\r\nA: #\r\n\r\n",
        ]
        let limits = [
            HeadLimits(), Self.unlimited, HeadLimits(requestLineBytes: 1, headerBytes: 1, headerCount: 1),
            HeadLimits(requestLineBytes: .max, headerBytes: .max, headerCount: .max),
            HeadLimits(requestLineBytes: .min, headerBytes: .min, headerCount: .min),
        ]
        var decided = 0
        for place in places {
            for number in Self.numbers + ["ffffffffffffffff", "7fffffffffffffff", "8000000000000000"] {
                let input = place.replacing("#", with: number).unicodeScalars.map {
                    UInt8(truncatingIfNeeded: $0.value)
                }
                for limits in limits {
                    for length in 0...input.count { decided += Self.read(Array(input[..<length]), limits) }
                }
            }
        }
        #expect(decided > 10_000)
    }

    /// Takes bytes through all that reads them; returns how much of it came to a verdict.
    private static func read(_ input: [UInt8], _ limits: HeadLimits) -> Int {
        var decided = 0
        var request = RequestHead()
        if case .complete(let length) = request.parse(input.span, limits: limits) {
            decided += 1
            _ = request.maxForwards(in: input.span)
            for bytesMax in [0, 1, Int64.max] {
                decode(input, from: length, BodyDecoder(request.framing, limits: limits, bytesMax: bytesMax))
            }
        }
        var response = ResponseHead()
        if case .complete(let length) = response.parse(input.span, limits: limits) {
            decided += 1
            for bytesMax in [0, 1, Int64.max] {
                let framing = response.framing(requestMethod: .get)
                decode(input, from: length, BodyDecoder(framing, limits: limits, bytesMax: bytesMax))
            }
        }
        return decided
    }

    private static func decode(_ input: [UInt8], from start: Int, _ decoder: BodyDecoder) {
        var decoder = decoder
        var offset = start
        while true {
            switch decoder.next(input.span, at: offset) {
            case .data(let range):
                #expect(range.lowerBound >= offset && range.upperBound <= input.count)
                offset = range.upperBound
            case .needMore(let consumed), .end(let consumed):
                #expect(consumed <= input.count)
                return
            case .malformed(let violation):
                #expect(violation.offset <= input.count)
                return
            }
        }
    }
}
