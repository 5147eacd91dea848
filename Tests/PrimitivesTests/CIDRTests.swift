import Primitives
import Testing

@Suite("Address blocks")
struct CIDRTests {
    @Test(
        "a block is read and shown in its canonical form",
        arguments: [
            ("10.0.0.0/8", "10.0.0.0/8"), ("0.0.0.0/0", "0.0.0.0/0"), ("192.0.2.1/32", "192.0.2.1/32"),
            ("192.0.2.1", "192.0.2.1/32"), ("128.0.0.0/1", "128.0.0.0/1"), ("192.0.2.254/31", "192.0.2.254/31"),
            ("::/0", "::/0"), ("2001:db8::/32", "2001:db8::/32"), ("2001:DB8:0:0::/64", "2001:db8::/64"),
            ("2001:db8:0:0:8000::/65", "2001:db8:0:0:8000::/65"), ("::1", "::1/128"), ("::1/128", "::1/128"),
            ("fe80::/10", "fe80::/10"), ("ffff:ffff:ffff:ffff::/64", "ffff:ffff:ffff:ffff::/64"),
            // What a dual-stack socket shows as mapped is asked about unmapped.
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:0:0/96", "0.0.0.0/0"), ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ])
    func reads(text: String, canonical: String) throws {
        let block = try #require(CIDR(text))
        #expect(block.description == canonical)
        #expect(CIDR(canonical) == block)
    }

    @Test(
        "what is no block is refused",
        arguments: [
            "", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/256", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8 ",
            "10.0.0.0/ 8", "10.0.0.0/8/8", "10.0.0.0//8", "10.0.0.0/0x8", "10.0.0.0/a", "10.0.0.0/\u{668}",
            "10.0.0.0/18446744073709551624", "10.0.0.0/255.0.0.0", "10.0.0.0/08", "10.0.0.0/008", "0.0.0.0/00", "10/8",
            "010.0.0.0/8", "::/129", "::/0128", "2001:db8::/999", "[::]/0", "fe80::1%eth0/128", "localhost/8",
        ])
    func refuses(text: String) {
        #expect(CIDR(text) == nil)
    }

    @Test(
        "bits behind the prefix are refused: the block would not be the one that was meant",
        arguments: [
            "10.0.0.1/8", "10.0.0.0/6", "0.0.0.1/0", "255.255.255.255/31", "2001:db8::1/64", "2001:db8::/28", "::1/0",
            "::1/127", "0:0:0:1::/63", "::8000:0:0:0/64", "::ffff:10.0.0.1/104", "::ffff:0:0/95",
        ])
    func refusesHostBits(text: String) {
        #expect(CIDR(text) == nil)
    }

    @Test(
        "a block holds its first and its last address and not their neighbours",
        arguments: [
            (
                "10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"],
                ["9.255.255.255", "11.0.0.0", "::a00:1"]
            ),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::", "::1"]),
            ("192.0.2.7", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8", "::192.0.2.7"]),
            ("192.0.2.6/31", ["192.0.2.6", "192.0.2.7"], ["192.0.2.5", "192.0.2.8"]),
            (
                "2001:db8::/32", ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
                ["2001:db7:ffff::", "2001:db9::"]
            ),
            ("2001:db8::/64", ["2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"], ["2001:db8:0:1::", "2001:db7::"]),
            (
                "2001:db8:0:0:8000::/65", ["2001:db8::8000:0:0:0", "2001:db8::ffff:ffff:ffff:ffff"],
                ["2001:db8::7fff:ffff:ffff:ffff", "2001:db8:0:1:8000::"]
            ),
            ("::1", ["::1"], ["::", "::2", "0.0.0.1"]),
            ("::/0", ["::", "ffff::", "::1.2.3.4"], ["1.2.3.4", "::ffff:1.2.3.4"]),
            ("::ffff:10.0.0.0/104", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["11.0.0.0", "9.255.255.255"]),
        ] as [(String, [String], [String])])
    func holds(text: String, inside: [String], outside: [String]) throws {
        let block = try #require(CIDR(text))
        for address in inside { #expect(block.contains(try #require(IPAddress(address))), "\(address)") }
        for address in outside { #expect(!block.contains(try #require(IPAddress(address))), "\(address)") }
    }

    @Test("a block holds exactly the addresses that share its first bits", arguments: seeds)
    func comparesPrefixes(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        for length in 0...128 {
            for _ in 0..<8 {
                let bits = UInt128(random.next()) << 64 | UInt128(random.next())
                let base = length == 0 ? 0 : (bits >> UInt128(128 - length)) << UInt128(128 - length)
                // One bit flipped, before the prefix ends or behind it.
                let flipped = Int.random(in: 0..<128, using: &random)
                let other = bits ^ (1 << UInt128(127 - flipped))
                let block = try #require(CIDR("\(address(base))/\(length)"), "seed \(seed)")
                let context: Comment = "\(block), bit \(flipped), seed \(seed)"
                #expect(block.prefixLength == length, context)
                #expect(block.contains(address(bits)), context)
                #expect(block.contains(address(other)) == (flipped >= length), context)
            }
        }
        for length in 0...32 {
            let bits = UInt32(truncatingIfNeeded: random.next())
            let base = length == 0 ? 0 : (bits >> UInt32(32 - length)) << UInt32(32 - length)
            let block = try #require(CIDR("\(IPAddress(v4: base))/\(length)"), "seed \(seed)")
            for flipped in 0..<32 {
                let other = IPAddress(v4: bits ^ 1 << UInt32(31 - flipped))
                #expect(block.contains(other) == (flipped >= length), "\(block), bit \(flipped), seed \(seed)")
            }
        }
    }

    private func address(_ bits: UInt128) -> IPAddress {
        IPAddress(v6High: UInt64(truncatingIfNeeded: bits >> 64), low: UInt64(truncatingIfNeeded: bits))
    }
}
