import Primitives
import Testing

@testable import ProxyProtocol

@Suite("PROXY headers")
struct ProxyHeaderTests {
    private static func parse(_ bytes: [UInt8]) -> ProxyHeader.Progress { ProxyHeader.parse(bytes.span) }

    private static func client(_ text: String, _ port: UInt16) -> ProxyHeader.Source {
        .client(SocketAddress(ip: IPAddress(text) ?? .v4Any, port: port))
    }

    /// A header of version 2.
    private static func binary(
        command: UInt8 = 0x21, family: UInt8 = 0x11, _ payload: [UInt8], announced: Int? = nil
    ) -> [UInt8] {
        let length = announced ?? payload.count
        return [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, command, family]
            + [UInt8(length >> 8), UInt8(length & 0xff)] + payload
    }

    private static let v4: [UInt8] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb]
    private static let v6: [UInt8] =
        [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
        + [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] + [0x12, 0x67, 0x01, 0xbb]
    private static let mapped: [UInt8] =
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7]
        + [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1] + [0x12, 0x67, 0x01, 0xbb]
    /// Two TLVs: an ALPN, and a name.
    private static let extensions: [UInt8] = [0x01, 0, 2, 0x68, 0x32, 0x02, 0, 1, 0x61]

    /// One extension that means nothing, so many bytes long.
    private static func noise(_ count: Int) -> [UInt8] {
        [4, UInt8((count - 3) >> 8), UInt8((count - 3) & 0xff)] + [UInt8](repeating: 0, count: count - 3)
    }

    static let whole: [(String, [UInt8], ProxyHeader.Source)] = [
        ("TCP4", Array("PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".utf8), client("203.0.113.7", 4711)),
        ("TCP6", Array("PROXY TCP6 2001:db8::7 2001:DB8::1 4711 443\r\n".utf8), client("2001:db8::7", 4711)),
        ("TCP6 with IPv4 in it", Array("PROXY TCP6 ::ffff:203.0.113.7 ::1 0 65535\r\n".utf8), client("203.0.113.7", 0)),
        (
            "the longest line",
            Array(
                ("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                    + "65535 65535\r\n").utf8),
            client("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
        ),
        ("UNKNOWN", Array("PROXY UNKNOWN\r\n".utf8), .connection),
        ("UNKNOWN with more", Array("PROXY UNKNOWN ffff::1 whatever 1 2\r\n".utf8), .connection),
        ("binary IPv4", binary(v4), client("203.0.113.7", 4711)),
        ("binary IPv6", binary(family: 0x21, v6), client("2001:db8::7", 4711)),
        ("binary IPv4 in IPv6", binary(family: 0x21, mapped), client("203.0.113.7", 4711)),
        ("with extensions", binary(v4 + extensions), client("203.0.113.7", 4711)),
        ("LOCAL", binary(command: 0x20, family: 0x00, []), .connection),
        ("LOCAL with addresses", binary(command: 0x20, v4), .connection),
        ("LOCAL with too few bytes for addresses", binary(command: 0x20, [1, 2]), .connection),
        ("no family", binary(family: 0x00, []), .connection),
        ("no family, extensions", binary(family: 0x00, extensions), .connection),
        ("no family, whatever is behind", binary(family: 0x00, [1, 2]), .connection),
        ("LOCAL of an unknown family", binary(command: 0x20, family: 0x77, v4), .connection),
        ("a Unix socket's", binary(family: 0x31, [UInt8](repeating: 0x61, count: 216)), .connection),
        (
            "a Unix socket's with extensions",
            binary(family: 0x31, [UInt8](repeating: 0x61, count: 216) + extensions), .connection
        ),
        ("an empty extension", binary(v4 + [4, 0, 0]), client("203.0.113.7", 4711)),
        (
            "as many extensions as are read", binary(v4 + noise(ProxyHeader.headerBytesMax - 16 - 12)),
            client("203.0.113.7", 4711)
        ),
    ]

    @Test("a whole header names the client, however it is cut, and takes no byte of what follows", arguments: whole)
    func complete(row: (name: String, bytes: [UInt8], source: ProxyHeader.Source)) {
        let expected = ProxyHeader.Progress.complete(row.source, length: row.bytes.count)
        for length in 0..<row.bytes.count { #expect(Self.parse(Array(row.bytes[..<length])) == .needMore) }
        #expect(Self.parse(row.bytes) == expected)
        #expect(Self.parse(row.bytes + Array("GET / HTTP/1.1\r\n".utf8)) == expected)
        #expect(Self.parse(row.bytes + row.bytes) == expected)
    }

    static let broken: [(String, [UInt8], ProxyHeader.Violation)] =
        ([
            ("GET / HTTP/1.1\r\n", .noHeader), ("proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", .noHeader),
            ("\r\nGET / HTTP/1.1\r\n", .noHeader), (" PROXY UNKNOWN\r\n", .noHeader), ("PROXYUNKNOWN\r\n", .noHeader),
            ("PROXY\tUNKNOWN\r\n", .noHeader), ("\u{0}", .noHeader),
            ("PROXY UNKNOWN\n", .malformedLine), ("PROXY UNKNOWN\rX", .malformedLine), ("PROXY \r\n", .malformedLine),
            ("PROXY unknown\r\n", .malformedLine), ("PROXY  UNKNOWN\r\n", .malformedLine),
            ("PROXY UNKNOWNS\r\n", .malformedLine), ("PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", .malformedLine),
            ("PROXY TCP4\r\n", .malformedLine), ("PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", .malformedLine),
            ("PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1\t2.2.2.2 1 2\r\n", .malformedLine),
            ("PROXY TCP4 ::1 ::2 1 2\r\n", .malformedLine), ("PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 ::2 1 2\r\n", .malformedLine), ("PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", .malformedLine),
            ("PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", .malformedLine),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 99999999999999999999\r\n", .malformedLine),
            ("PROXY TCP4 evil.test 2.2.2.2 1 2\r\n", .malformedLine),
            ("PROXY UNKNOWN " + String(repeating: "x", count: 92) + "\r\n", .lineTooLong),
            ("PROXY UNKNOWN " + String(repeating: "x", count: 500), .lineTooLong),
        ] as [(String, ProxyHeader.Violation)]).map { ($0.0.debugDescription, Array($0.0.utf8), $0.1) }
        + [
            ("version 1 in binary", binary(command: 0x11, v4), .unknownVersion),
            ("version 3", binary(command: 0x31, v4), .unknownVersion),
            ("command 2", binary(command: 0x22, v4), .unknownCommand),
            ("family 4", binary(family: 0x41, v4), .unknownFamily),
            ("transport 3", binary(family: 0x13, v4), .unknownFamily),
            ("IPv4 without a transport", binary(family: 0x10, v4), .unknownFamily),
            ("a transport without a family", binary(family: 0x01, v4), .unknownFamily),
            ("a datagram over IPv4", binary(family: 0x12, v4), .datagram),
            ("a datagram over IPv6", binary(family: 0x22, v6), .datagram),
            (
                "a datagram of a Unix socket", binary(family: 0x32, [UInt8](repeating: 0x61, count: 216)), .datagram
            ),
            ("an extension that is longer than the header", binary(v4 + [4, 0, 2, 1]), .extensionsCut),
            ("an extension of another length of the same", binary(v4 + [4, 2, 0, 1, 1]), .extensionsCut),
            ("the second is longer", binary(family: 0x21, v6 + extensions.dropLast()), .extensionsCut),
            ("an extension without its length", binary(v4 + [4, 0]), .extensionsCut),
            ("a byte behind the extensions", binary(v4 + extensions + [0]), .extensionsCut),
            ("IPv4 cut", binary(Array(v4.dropLast())), .addressesCut),
            ("IPv6 cut", binary(family: 0x21, Array(v6.dropLast())), .addressesCut),
            ("a Unix path cut", binary(family: 0x31, [UInt8](repeating: 0, count: 215)), .addressesCut),
            ("nothing for IPv4", binary([]), .addressesCut),
            ("a length beyond all use", binary(v4, announced: 65_535), .tooLong),
            ("one byte too many", binary(v4, announced: ProxyHeader.headerBytesMax - 15), .tooLong),
            ("a signature that turns", Array("\r\n\r\n\u{0}\r\nQUIZ\n".utf8), .noHeader),
        ]

    @Test("what is no header is refused, however it is cut, and never taken for one", arguments: broken)
    func malformed(row: (name: String, bytes: [UInt8], violation: ProxyHeader.Violation)) {
        var refused = false
        for length in 0...row.bytes.count {
            switch Self.parse(Array(row.bytes[..<length])) {
            case .needMore: #expect(!refused, "\(length) bytes")
            case .malformed(let violation):
                refused = true
                #expect(violation == row.violation, "\(length) bytes")
            case .complete: Issue.record("\(length) bytes are taken for a header")
            }
        }
        #expect(refused)
    }

    @Test("random bytes, and headers with random faults, never trap, and are decided within the bound")
    func noise() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("PROXY headers: seed \(seed)")
        var random = SplitMix64(seed: seed)
        for round in 0..<20_000 {
            var bytes: [UInt8]
            if round % 4 == 0 {
                bytes = (0..<Int.random(in: 0...40, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
            } else {
                bytes = Self.whole[Int.random(in: 0..<Self.whole.count, using: &random)].1
                if bytes.count > 300 { bytes.removeLast(bytes.count - 300) }
                for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
                    let place = Int.random(in: 0..<bytes.count, using: &random)
                    switch Int.random(in: 0..<3, using: &random) {
                    case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                    case 1: bytes.remove(at: place)
                    default: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
                    }
                }
            }
            let verdict = Self.parse(bytes)
            if case .complete(_, let length) = verdict { #expect(length <= bytes.count, "seed \(seed)") }
            // What was decided stays decided, whatever follows.
            let padded = Self.parse(bytes + [UInt8](repeating: 0x78, count: ProxyHeader.headerBytesMax))
            if verdict != .needMore { #expect(padded == verdict, "seed \(seed)") }
            #expect(padded != .needMore, "seed \(seed)")
        }
    }
}
