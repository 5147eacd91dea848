import Primitives
import Testing

@testable import Identity

/// `Forwarded` of RFC 7239, by the same walk.
@Suite("Who the client is, by Forwarded")
struct ForwardedTests {
    private func walk(_ lines: [String], _ trusted: TrustedProxies) throws -> ForwardedWalk {
        var walk = ForwardedWalk(peer: try address("10.0.0.1"), trusted: trusted)
        for line in lines.reversed() where walk.step == .more {
            let bytes = Array(line.utf8)
            walk.readForwarded(bytes.span, trusted: trusted)
        }
        return walk
    }

    /// The peer is 10.0.0.1; 10/8 and fd00::/8 are trusted.
    @Test(
        "behind trusted proxies the list is read from the right",
        arguments: [
            ([], "10.0.0.1"), ([""], "10.0.0.1"), ([",, ,"], "10.0.0.1"),
            (["for=198.51.100.7"], "198.51.100.7"),
            (["for=1.1.1.1, for=198.51.100.7"], "198.51.100.7"),
            (["for=198.51.100.7, for=10.0.0.2"], "198.51.100.7"),
            (["for=198.51.100.7,for=10.0.0.3", "for=10.0.0.2"], "198.51.100.7"),
            (["for=10.0.0.4, for=10.0.0.3"], "10.0.0.4"),
            (["for=\"[fd00::4]\", for=\"10.0.0.3:80\""], "fd00::4"),
            (["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (["proto=http;by=203.0.113.43;FOR=192.0.2.60"], "192.0.2.60"),
            (["for=192.0.2.43, for=\"[2001:db8:cafe::17]\""], "2001:db8:cafe::17"),
            // An element without an address ends the walk at the hop that reported it.
            (["for=198.51.100.7, for=unknown, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=\"_SEVKISEK\", for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, proto=https, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=unknown"], "10.0.0.1"),
            // Malformed: the same.
            (["for=198.51.100.7, for, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=1.1.1.1;for=2.2.2.2, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=1.1.1.1;by=a;by=b, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=1.1.1.1;proto=http;proto=http, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=\"1.1.1.1\"x, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=1.1.1.1 x, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for =1.1.1.1, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, 1.1.1.1, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=\"1.1.1.1, for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=1.1.1.1\", for=10.0.0.2"], "10.0.0.2"),
            (["for=198.51.100.7, for=\"\u{1}1.1.1.1\", for=10.0.0.2"], "10.0.0.2"),
            // What a client leaves open swallows nothing that stands behind it.
            (["for=\"", "for=198.51.100.7"], "198.51.100.7"),
            (["for=\", for=198.51.100.7"], "198.51.100.7"),
            (["for=\"1.1.1.1, for=198.51.100.7, for=10.0.0.2"], "198.51.100.7"),
            (["for=\"\\, for=198.51.100.7"], "198.51.100.7"),
            // Delimiters and escapes within quotes are text.
            (["for=198.51.100.7;host=\"a,b;c\", for=10.0.0.2"], "198.51.100.7"),
            (["for=198.51.100.7;ext=\"a\\\",b\\\\\", for=10.0.0.2"], "198.51.100.7"),
            (["for=\"198.51.\\100.7\", for=10.0.0.2"], "198.51.100.7"),
            (["for=\"\\[2001:db8::7\\]\""], "2001:db8::7"),
            // White space, empty elements, empty pairs.
            (["  for=198.51.100.7\t,\t, for=10.0.0.2 ; proto=http ,"], "198.51.100.7"),
            ([";for=198.51.100.7;;"], "198.51.100.7"),
        ] as [([String], String)])
    func walks(_ lines: [String], _ expected: String) throws {
        #expect(try walk(lines, try proxies("10.0.0.0/8", "fd00::/8")).client == address(expected))
    }

    @Test(
        "a value is well formed if all of its elements are, and leaves no quote open",
        arguments: [
            ("", true), ("for=192.0.2.1", true), ("for=192.0.2.1, for=\"[2001:db8::1]:80\";proto=https", true),
            ("for=a;host=\"x, y\\\", z\", by=_b", true), (" , ,for=unknown\t,", true), ("for=192.0.2.1:80", true),
            ("for=\"", false), ("for=\", for=192.0.2.1", false), ("for=\"\\", false), ("for=\"\\\"", false),
            ("for=192.0.2.1\"", false), ("for=a, for", false), ("for=a;for=b, for=c", false), ("for=a b", false),
            ("192.0.2.1, for=a", false), ("for=\"a\"b", false), ("for=\"a\u{1}\"", false), ("for=, for=a", false),
        ] as [(String, Bool)])
    func wellFormed(_ line: String, _ expected: Bool) {
        let bytes = Array(line.utf8)
        #expect(isWellFormedForwarded(bytes.span) == expected)
        // An element behind it changes nothing.
        let joined = Array("\(line), for=192.0.2.9".utf8)
        #expect(isWellFormedForwarded(joined.span) == expected)
    }

    @Test(
        "forms of a node",
        arguments: [
            ("192.0.2.43", "192.0.2.43"), ("\"192.0.2.43:47011\"", "192.0.2.43"),
            ("\"192.0.2.43:_gaz.o-nk\"", "192.0.2.43"),
            ("\"[2001:db8::17]:_x\"", "2001:db8::17"), ("\"[2001:db8::17]\"", "2001:db8::17"),
            ("\"[::ffff:192.0.2.1]\"", "192.0.2.1"), ("192.0.2.43:80", "192.0.2.43"),
            ("[2001:db8::17]", "2001:db8::17"),
            ("unknown", nil), ("UNKNOWN", nil), ("\"unknown:80\"", nil), ("_a", nil), ("\"\"", nil),
            ("\"192.0.2.43:_\"", nil),
            ("\"192.0.2.43:_a b\"", nil), ("\"192.0.2.43:123456\"", nil), ("\"192.0.2.43 \"", nil),
            ("\"[192.0.2.43]\"", nil),
            ("\"[fe80::1%eth0]\"", nil), ("\"" + String(repeating: "\\1", count: 100) + "\"", nil),
        ] as [(String, String?)])
    func nodes(_ node: String, _ expected: String?) {
        let bytes = Array("for=\(node)".utf8)
        let element = ForwardedElement(bytes.span)
        #expect(element != nil)
        #expect(element?.address?.description == expected)
    }

    @Test(
        "the scheme is the outermost believed proxy's",
        arguments: [
            ("for=198.51.100.7;proto=https, for=10.0.0.2;proto=http", ForwardedScheme.https),
            ("for=198.51.100.7;proto=HTTP, for=10.0.0.2;proto=https", .http),
            ("for=198.51.100.7, for=10.0.0.2;proto=https", .https),
            ("for=1.1.1.1;proto=https, for=198.51.100.7;proto=http", .http),
            ("for=1.1.1.1;proto=https, for=198.51.100.7", nil),
            ("for=unknown;proto=https", .https),
            ("for=198.51.100.7;proto=\"https\"", .https),
            ("for=198.51.100.7;proto=gopher", nil),
            ("", nil),
        ] as [(String, ForwardedScheme?)])
    func scheme(_ line: String, _ expected: ForwardedScheme?) throws {
        #expect(try walk([line], try proxies("10.0.0.0/8")).scheme == expected)
    }

    @Test("nothing is read of a peer that is not trusted")
    func untrusted() throws {
        let found = try walk(["for=198.51.100.7;proto=https"], .nobody)
        #expect(found.client == (try address("10.0.0.1")))
        #expect(found.scheme == nil)
    }

    @Test("cut into lines at any comma, a list names the same client")
    func split() throws {
        let trusted = try proxies("10.0.0.0/8")
        let entries = ["for=1.1.1.1", "for=198.51.100.7;host=\"a,b\"", "for=10.0.0.3", "for=\"10.0.0.2:1\""]
        for cut in 0...entries.count {
            let lines = [entries[..<cut].joined(separator: ","), entries[cut...].joined(separator: ", ")]
            #expect(try walk(lines, trusted).client == address("198.51.100.7"))
        }
    }

    @Test("whatever a client writes before them, the elements of its proxies name it")
    func forged() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("Forwarded: seed \(seed)")
        var random = SplitMix64(seed: seed)
        let alphabet = Array("for=10.0\":;,\\[]_ \tproto".utf8)
        let trusted = try proxies("10.0.0.0/8")
        let appended = Array(", for=198.51.100.7;proto=http, for=\"10.0.0.2:80\"".utf8)
        let lone = try proxies("0.0.0.0/0", "::/0")
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in
                alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
            }
            var walk = ForwardedWalk(peer: try address("10.0.0.1"), trusted: trusted)
            let line = bytes + appended
            #expect(walk.readForwarded(line.span, trusted: trusted) == .done, "seed \(seed)")
            #expect(walk.client.description == "198.51.100.7", "seed \(seed)")
            var other = ForwardedWalk(peer: .v4Loopback, trusted: lone)
            other.readForwarded(bytes.span, trusted: lone)
        }
        var longest = ForwardedWalk(peer: .v4Loopback, trusted: lone)
        let quotes = [UInt8](repeating: UInt8(ascii: "\""), count: 100_001)
        #expect(longest.readForwarded(quotes.span, trusted: lone) == .done)
    }
}
