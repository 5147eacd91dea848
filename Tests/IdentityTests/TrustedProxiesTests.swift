import Primitives
import Testing

@testable import Identity

func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

func proxies(_ blocks: String...) throws -> TrustedProxies {
    TrustedProxies(try blocks.map { try #require(CIDR($0)) })
}

@Suite("Trusted proxies")
struct TrustedProxiesTests {
    @Test("nobody is trusted by default", arguments: ["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:127.0.0.1"])
    func nobody(_ text: String) throws {
        #expect(!TrustedProxies.nobody.contains(try address(text)))
        #expect(!TrustedProxies([]).contains(try address(text)))
    }

    @Test(
        "who is in the blocks",
        arguments: [
            ("10.0.0.0", true), ("10.255.255.255", true), ("11.0.0.0", false), ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false), ("192.0.2.8", false), ("::ffff:10.1.2.3", true), ("::ffff:11.1.2.3", false),
            ("2001:db8::", true), ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true), ("2001:db9::", false),
            ("2001:db7:ffff::", false), ("::a00:1", false), ("0.0.0.0", false), ("255.255.255.255", false),
        ])
    func blocks(_ text: String, _ expected: Bool) throws {
        let trusted = try proxies("192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "10.1.0.0/16", "10.0.0.0/8", "fd00::/8")
        #expect(trusted.contains(try address(text)) == expected)
    }

    @Test("everybody of one family")
    func everybody() throws {
        let trusted = try proxies("0.0.0.0/0")
        #expect(trusted.contains(try address("203.0.113.9")))
        #expect(!trusted.contains(try address("2001:db8::1")))
    }

    @Test("a block of IPv4 addresses in IPv6 form is that block of IPv4")
    func mapped() throws {
        let trusted = try proxies("::/0", "::ffff:10.0.0.0/104")
        #expect(trusted.contains(try address("2001:db8::1")))
        #expect(trusted.contains(try address("10.0.0.1")))
        #expect(!trusted.contains(try address("11.0.0.1")))
    }

    @Test("any set of blocks answers as its blocks one by one do")
    func againstEach() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("trusted proxies: seed \(seed)")
        var random = SplitMix64(seed: seed)
        for _ in 0..<200 {
            let blocks = (0..<Int.random(in: 0...30, using: &random)).compactMap { _ -> CIDR? in
                // Few bits vary, so that blocks nest and touch.
                let length = Int.random(in: 20...32, using: &random)
                let bits = UInt32(0x0a00_0000) | UInt32.random(in: 0...0xfff, using: &random)
                return CIDR("\(IPAddress(v4: bits & (~0 << UInt32(32 - length))))/\(length)")
            }
            let trusted = TrustedProxies(blocks)
            for _ in 0..<100 {
                let address = IPAddress(v4: 0x0a00_0000 | UInt32.random(in: 0...0xfff, using: &random))
                #expect(trusted.contains(address) == blocks.contains { $0.contains(address) }, "seed \(seed)")
            }
        }
    }
}
