import Primitives
import Testing

@testable import Identity

@Suite("Who the client is")
struct ForwardedWalkTests {
    /// The client for a peer and its field lines, first line first.
    private func client(_ peer: String, _ lines: [String], _ trusted: TrustedProxies) throws -> String {
        var walk = ForwardedWalk(peer: try address(peer), trusted: trusted)
        for line in lines.reversed() where walk.step == .more {
            let bytes = Array(line.utf8)
            walk.readForwardedFor(bytes.span, trusted: trusted)
        }
        return walk.client.description
    }

    @Test(
        "a peer that is not trusted is the client, whatever it claims",
        arguments: [
            ("203.0.113.9", "203.0.113.9"), ("::ffff:203.0.113.9", "203.0.113.9"), ("2001:db8::9", "2001:db8::9"),
        ])
    func untrustedPeer(_ peer: String, _ expected: String) throws {
        let lines = ["1.2.3.4", "10.0.0.1"]
        #expect(try client(peer, lines, try proxies("10.0.0.0/8")) == expected)
        #expect(try client(peer, lines, .nobody) == expected)
    }

    /// The peer is 10.0.0.1; 10/8 and fd00::/8 are trusted.
    @Test(
        "behind trusted proxies the list is read from the right",
        arguments: [
            ([], "10.0.0.1"),
            ([""], "10.0.0.1"),
            (["198.51.100.7"], "198.51.100.7"),
            (["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            (["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            (["1.1.1.1, 198.51.100.7, 10.0.0.3, 10.0.0.2"], "198.51.100.7"),
            // Several lines are one list in their order.
            (["1.1.1.1", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
            (["198.51.100.7, 10.0.0.3", "10.0.0.2"], "198.51.100.7"),
            (["198.51.100.7", "", " , ,"], "198.51.100.7"),
            // All trusted: the left-most.
            (["10.0.0.4, 10.0.0.3", "10.0.0.2"], "10.0.0.4"),
            (["fd00::4, 10.0.0.3"], "fd00::4"),
            // An entry that is no address ends the walk at the hop that reported it.
            (["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (["198.51.100.7, _hidden, 10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (["198.51.100.7", "garbage", "10.0.0.2"], "10.0.0.2"),
            (["198.51.100.7, unknown"], "10.0.0.1"),
            (["1.1.1.1, 10.0.0.256, 10.0.0.2"], "10.0.0.2"),
            // White space, empty elements.
            (["  198.51.100.7\t,\t10.0.0.2  "], "198.51.100.7"),
            (["198.51.100.7,,10.0.0.2,"], "198.51.100.7"),
            ([",,,"], "10.0.0.1"),
            // IPv4 in IPv6 form is IPv4.
            (["198.51.100.7, ::ffff:10.0.0.2"], "198.51.100.7"),
            (["::ffff:198.51.100.7"], "198.51.100.7"),
        ] as [([String], String)])
    func walks(_ lines: [String], _ expected: String) throws {
        #expect(try client("10.0.0.1", lines, try proxies("10.0.0.0/8", "fd00::/8")) == expected)
        #expect(try client("::ffff:10.0.0.1", lines, try proxies("10.0.0.0/8", "fd00::/8")) == expected)
    }

    @Test(
        "forms of an entry",
        arguments: [
            ("192.0.2.1", "192.0.2.1"), ("192.0.2.1:4711", "192.0.2.1"), ("192.0.2.1:0", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"), ("[2001:db8::1]:4711", "2001:db8::1"),
            ("\"192.0.2.1\"", "192.0.2.1"), ("\"[2001:db8::1]:80\"", "2001:db8::1"), ("::", "::"),
            ("[::ffff:192.0.2.1]:1", "192.0.2.1"), ("2001:DB8::A", "2001:db8::a"),
        ])
    func forms(_ entry: String, _ expected: String) {
        let bytes = Array(entry.utf8)
        #expect(forwardedAddress(bytes.span)?.description == expected)
    }

    @Test(
        "what is no entry",
        arguments: [
            "", "unknown", "_x", "\"", "\"\"", "\"192.0.2.1", "192.0.2.1\"", "192.0.2.1:", "192.0.2.1:x",
            "192.0.2.1:123456",
            "192.0.2.1:80:80", "192.0.2.1 80", "[192.0.2.1]", "[2001:db8::1", "2001:db8::1]", "[2001:db8::1]80", "[]",
            "[",
            "[2001:db8::1]:", "[2001:db8::1]:x", "[::1]x:1", "fe80::1%eth0", "192.0.2", "192.0.2.01", "192.0.2.1/24",
            "for=192.0.2.1", "1.1.1.1;2.2.2.2", ":80", "::1::", "\u{0}", "١٩٢.0.2.1", "'192.0.2.1'", "0x7f.0.0.1",
            "2130706433",
        ])
    func noForms(_ entry: String) {
        let bytes = Array(entry.utf8)
        #expect(forwardedAddress(bytes.span) == nil)
    }

    @Test("once done, nothing more is read")
    func done() throws {
        let trusted = try proxies("10.0.0.0/8")
        var walk = ForwardedWalk(peer: try address("10.0.0.1"), trusted: trusted)
        let first = Array("198.51.100.7".utf8)
        let second = Array("203.0.113.1".utf8)
        #expect(walk.readForwardedFor(first.span, trusted: trusted) == .done)
        #expect(walk.readForwardedFor(second.span, trusted: trusted) == .done)
        #expect(walk.client == (try address("198.51.100.7")))
    }

    @Test("cut into lines at any comma, a list names the same client")
    func split() throws {
        let trusted = try proxies("10.0.0.0/8")
        let entries = ["1.1.1.1", "198.51.100.7", "10.0.0.4", "10.0.0.3", "10.0.0.2"]
        for cut in 0...entries.count {
            let lines = [entries[..<cut].joined(separator: ","), entries[cut...].joined(separator: ", ")]
            #expect(try client("10.0.0.1", lines, trusted) == "198.51.100.7")
        }
    }

    @Test("random bytes never crash, and never make a client that no text names")
    func noise() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("forwarded entries: seed \(seed)")
        var random = SplitMix64(seed: seed)
        let alphabet = Array("10.:[]\", \t,fa%_/x\u{0}".utf8)
        let trusted = try proxies("0.0.0.0/0", "::/0")
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...40, using: &random)).map { _ in
                alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
            }
            var walk = ForwardedWalk(peer: .v4Loopback, trusted: trusted)
            walk.readForwardedFor(bytes.span, trusted: trusted)
            if bytes.isEmpty { #expect(walk.client == .v4Loopback, "seed \(seed)") }
        }
        var longest = ForwardedWalk(peer: .v4Loopback, trusted: trusted)
        let commas = [UInt8](repeating: UInt8(ascii: ","), count: 100_000)
        #expect(longest.readForwardedFor(commas.span, trusted: trusted) == .more)
    }
}
