import Primitives
import Testing

@Suite("IP addresses")
struct IPAddressTests {
    @Test(
        "dotted decimal is read and written back unchanged",
        arguments: [
            ("0.0.0.0", 0), ("0.0.0.1", 1), ("127.0.0.1", 0x7f00_0001), ("10.20.30.40", 0x0a14_1e28),
            ("192.0.2.255", 0xc000_02ff), ("255.255.255.255", .max), ("1.0.0.0", 0x0100_0000),
            ("9.99.100.199", 0x0963_64c7),
        ] as [(String, UInt32)])
    func readsV4(text: String, bits: UInt32) throws {
        let address = try #require(IPAddress(text))
        #expect(address == IPAddress(v4: bits))
        #expect(address.description == text)
    }

    @Test(
        "what is not wholly an IPv4 address is refused",
        arguments: [
            "", ".", "...", "1", "1.2", "1.2.3", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.4.", "1.2.3.4.5", "256.0.0.1",
            "1.2.3.256", "1.2.3.1000", "1.2.3.99999999999999999999999", "01.2.3.4", "1.2.3.04", "00.0.0.0",
            "0x7f.0.0.1",
            "1.2.3.a", "+1.2.3.4", "-1.2.3.4", " 1.2.3.4", "1.2.3.4 ", "1.2.3.4\n", "1.2.3.4\0", "1.2.3.4:80",
            "1.2.3.4/8", "127.1", "2130706433", "localhost", "1,2,3,4", "\u{661}.2.3.4", "1.2.3.4\u{301}",
        ])
    func refusesV4(text: String) {
        #expect(IPAddress(text) == nil)
    }

    /// RFC 4291 §2.2 and RFC 5952 §1 to §5: what may be written, and the one form in which it is shown.
    @Test(
        "every form of an IPv6 address is read, and shown in the canonical one",
        arguments: [
            ("::", 0, 0, "::"),
            ("0:0:0:0:0:0:0:0", 0, 0, "::"),
            ("::1", 0, 1, "::1"),
            ("1::", 0x0001_0000_0000_0000, 0, "1::"),
            ("0:0:0:0:0:0:0:1", 0, 1, "::1"),
            ("FF01::101", 0xff01_0000_0000_0000, 0x101, "ff01::101"),
            ("1:2:3:4:5:6:7:8", 0x0001_0002_0003_0004, 0x0005_0006_0007_0008, "1:2:3:4:5:6:7:8"),
            // "::" may stand for one group (RFC 4291), but is not written for one (RFC 5952 §4.2.2).
            ("1:2:3:4:5:6:7::", 0x0001_0002_0003_0004, 0x0005_0006_0007_0000, "1:2:3:4:5:6:7:0"),
            ("::2:3:4:5:6:7:8", 0x0000_0002_0003_0004, 0x0005_0006_0007_0008, "0:2:3:4:5:6:7:8"),
            ("1:2:3::5:6:7:8", 0x0001_0002_0003_0000, 0x0005_0006_0007_0008, "1:2:3:0:5:6:7:8"),
            ("2001:db8::1:1:1:1:1", 0x2001_0db8_0000_0001, 0x0001_0001_0001_0001, "2001:db8:0:1:1:1:1:1"),
            // §4.1: no leading zeros. §4.3: lower case.
            ("2001:0db8:0000:0000:0000:0000:0000:0001", 0x2001_0db8_0000_0000, 1, "2001:db8::1"),
            ("2001:DB8::00aB", 0x2001_0db8_0000_0000, 0xab, "2001:db8::ab"),
            // §4.2.1: as short as possible. §4.2.3: the longest run, of equals the first.
            ("2001:db8:0:0:0:0:2:1", 0x2001_0db8_0000_0000, 0x0000_0000_0002_0001, "2001:db8::2:1"),
            ("2001:0:0:1:0:0:0:1", 0x2001_0000_0000_0001, 1, "2001:0:0:1::1"),
            ("2001:db8:0:0:1:0:0:1", 0x2001_0db8_0000_0000, 0x0001_0000_0000_0001, "2001:db8::1:0:0:1"),
            ("0:0:1:2:3:0:0:0", 0x0000_0000_0001_0002, 0x0003_0000_0000_0000, "0:0:1:2:3::"),
            ("0:0:0:2:3:0:0:0", 0x0000_0000_0000_0002, 0x0003_0000_0000_0000, "::2:3:0:0:0"),
            ("fe80::", 0xfe80_0000_0000_0000, 0, "fe80::"),
            // §5: IPv4-mapped addresses show their IPv4 address; other prefixes are not known to hold one.
            ("::ffff:192.0.2.1", 0, 0xffff_c000_0201, "::ffff:192.0.2.1"),
            ("::FFFF:c000:201", 0, 0xffff_c000_0201, "::ffff:192.0.2.1"),
            ("0:0:0:0:0:ffff:255.255.255.255", 0, 0xffff_ffff_ffff, "::ffff:255.255.255.255"),
            ("::ffff:0:0", 0, 0xffff_0000_0000, "::ffff:0.0.0.0"),
            ("::13.1.68.3", 0, 0x0d01_4403, "::d01:4403"),
            ("64:ff9b::192.0.2.33", 0x0064_ff9b_0000_0000, 0xc000_0221, "64:ff9b::c000:221"),
            ("1:2:3:4:5:6:7.8.9.10", 0x0001_0002_0003_0004, 0x0005_0006_0708_090a, "1:2:3:4:5:6:708:90a"),
            ("1:2:3:4:5::7.8.9.10", 0x0001_0002_0003_0004, 0x0005_0000_0708_090a, "1:2:3:4:5:0:708:90a"),
            (
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", .max, .max, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            ),
        ] as [(String, UInt64, UInt64, String)])
    func readsV6(text: String, high: UInt64, low: UInt64, canonical: String) throws {
        let address = try #require(IPAddress(text))
        #expect(address == IPAddress(v6High: high, low: low))
        #expect(address.description == canonical)
        #expect(IPAddress(canonical) == address)
    }

    @Test(
        "what is not wholly an IPv6 address is refused",
        arguments: [
            ":", ":::", "::::", "1:", ":1", "1:::2", "1::2::3", "::1::", "::1:", ":1::", "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:",
            ":2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8",
            "1:2:3:4::5:6:7:8", "12345::", "::12345", "00001::", "::g", "::-1", "::+1", "::1%eth0", "fe80::1%1",
            "[::1]",
            "::1/64", " ::1", "::1 ", "::1\0", "::\u{661}", "::1.2.3", "::1.2.3.", "::1.2.3.4.5", "::.1.2.3.4",
            "::1.2.3.256", "::01.2.3.4", "::1.2.3.4:5", "::1.2.3.4::", "1.2.3.4::", "::a.2.3.4", "::ffff:1.2.3",
            "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4", "::1:2:3:4:5:6:7.8.9.10:1", "1:2:3:4:5:6::1.2.3.4",
            "::ffff:0x7f.0.0.1", "::ffff:1..2.3",
        ])
    func refusesV6(text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test("a random address survives being written and read", arguments: seeds)
    func roundTrips(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for _ in 0..<2_000 {
            let v4 = IPAddress(v4: UInt32(truncatingIfNeeded: random.next()))
            #expect(IPAddress(v4.description) == v4, "seed \(seed)")
            let v6 = IPAddress.randomV6(using: &random)
            #expect(IPAddress(v6.description) == v6, "\(v6), seed \(seed)")
        }
    }

    @Test("leading zeros and upper case make no difference to an IPv6 address", arguments: seeds)
    func readsLongForms(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for _ in 0..<1_000 {
            let address = IPAddress.randomV6(using: &random)
            var groups: [String] = []
            for half in [address.high, address.low] {
                for shift in [48, 32, 16, 0] as [UInt64] {
                    let digits = String(half >> shift & 0xffff, radix: 16, uppercase: Bool.random(using: &random))
                    let width = Int.random(in: digits.count...4, using: &random)
                    groups.append(String(repeating: "0", count: width - digits.count) + digits)
                }
            }
            let text = groups.joined(separator: ":")
            #expect(IPAddress(text) == address, "\(text), seed \(seed)")
        }
    }

    @Test("a part of a larger text is read by itself")
    func readsSlices() {
        let line = Array("for=192.0.2.7, ::1".utf8)
        #expect(IPAddress(ascii: line.span.extracting(4..<13)) == IPAddress(v4: 0xc000_0207))
        #expect(IPAddress(ascii: line.span.extracting(15..<18)) == .v6Loopback)
        #expect(IPAddress(ascii: line.span.extracting(4..<4)) == nil)
        #expect(IPAddress("x::1x".dropFirst().dropLast()) == .v6Loopback)
    }

    @Test(
        "an IPv4-mapped address is unmapped, any other stays",
        arguments: [
            ("::ffff:203.0.113.7", "203.0.113.7"), ("::ffff:0:0", "0.0.0.0"), ("203.0.113.7", "203.0.113.7"),
            ("::", "::"),
            ("::203.0.113.7", "::203.0.113.7"), ("::fffe:203.0.113.7", "::fffe:203.0.113.7"),
            ("::1:ffff:203.0.113.7", "::1:ffff:203.0.113.7"), ("1::ffff:203.0.113.7", "1::ffff:203.0.113.7"),
            ("::ffff:0:203.0.113.7", "::ffff:0:203.0.113.7"),
        ])
    func unmaps(text: String, expected: String) throws {
        #expect(try #require(IPAddress(text)).unmapped == #require(IPAddress(expected)))
    }

    @Test(
        "a subscriber is an IPv4 address or an IPv6 /64",
        arguments: [
            ("203.0.113.7", "203.0.113.7"), ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("2001:db8:1:2::", "2001:db8:1:2::"), ("::1", "::"),
            ("2001:db8:1:3:3:4:5:6", "2001:db8:1:3::"),
        ])
    func namesSubscribers(text: String, expected: String) throws {
        #expect(try #require(IPAddress(text)).subscriber == #require(IPAddress(expected)))
    }

    @Test("families differ even where the bits are equal")
    func tellsFamiliesApart() {
        #expect(IPAddress(v4: 0) != .v6Any)
        #expect(IPAddress(v4: 1) != .v6Loopback)
        #expect(IPAddress.v4Any.isUnspecified && IPAddress.v6Any.isUnspecified)
        #expect(!IPAddress.v4Loopback.isUnspecified && !IPAddress.v6Loopback.isUnspecified)
        #expect(!IPAddress(v6High: 1, low: 0).isUnspecified)
    }

    @Test(
        "a socket address reads what it shows, and nothing else",
        arguments: [
            ("127.0.0.1:80", true), ("[::1]:65535", true), ("[::ffff:127.0.0.1]:0", true), ("::1:80", false),
            ("[127.0.0.1]:80", false), ("127.0.0.1", false), ("127.0.0.1:", false), ("127.0.0.1:65536", false),
            ("127.0.0.1:+80", false), ("127.0.0.1: 80", false), ("host:80", false), (":80", false), ("", false),
            ("[]:80", false), ("[::1:80", false),
        ])
    func readsSocketAddresses(text: String, isOne: Bool) {
        #expect(SocketAddress(text)?.description == (isOne ? text : nil))
    }

    @Test("a socket address shows its port, behind brackets for IPv6")
    func describesSocketAddresses() {
        #expect(SocketAddress(ip: .v4Loopback, port: 80).description == "127.0.0.1:80")
        #expect(SocketAddress(ip: .v6Loopback, port: 65_535).description == "[::1]:65535")
        #expect(
            SocketAddress(ip: IPAddress(v6High: 0, low: 0xffff_7f00_0001), port: 0).description
                == "[::ffff:127.0.0.1]:0")
    }

    @Test("a byte is a hexadecimal digit exactly where Swift says so", arguments: UInt8.min ... .max)
    func readsHexadecimalDigits(byte: UInt8) {
        let expected = byte < 0x80 ? Character(Unicode.Scalar(byte)).hexDigitValue : nil
        #expect(hexValue(byte).map(Int.init) == expected)
    }
}

extension IPAddress {
    /// Any IPv6 address, half of its groups zero, so that runs of zeros of every length and place come up.
    static func randomV6(using random: inout SplitMix64) -> IPAddress {
        var halves: [UInt64] = [0, 0]
        for index in 0..<8 {
            let group = random.next()
            // The uppermost bit says whether the group is zero, the next two how many hexadecimal digits it has.
            let widest: UInt64 = 0xffff >> (4 * (group >> 61 & 3))
            let bits = group >> 63 == 0 ? 0 : group & widest
            halves[index / 4] = halves[index / 4] << 16 | bits
        }
        return random.next() % 16 == 0
            ? IPAddress(v6High: 0, low: 0xffff_0000_0000 | halves[1] & 0xffff_ffff)
            : IPAddress(v6High: halves[0], low: halves[1])
    }
}
