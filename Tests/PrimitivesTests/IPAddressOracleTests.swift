// The C library reads the same two grammars, independently written. Random near-addresses find the corners that a table
// forgets: both must agree on every one of them.

import Glibc
import Primitives
import Testing

@Suite("IP addresses beside the C library's")
struct IPAddressOracleTests {
    private static let texts = [
        "192.0.2.1", "255.255.255.255", "::", "::1", "1::", "1:2:3:4:5:6:7:8", "2001:db8::a:b", "::ffff:192.0.2.1",
        "1:2:3:4:5:6:7.8.9.10", "fe80::1234:5678:9ABC:def0", "1::8", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7::",
    ]

    @Test("an address cut or changed at any place is read alike by both", arguments: texts)
    func agreesOnNeighbours(text: String) {
        let bytes = Array(text.utf8)
        for end in 0...bytes.count {
            for start in 0...end { check(Array(bytes[start..<end]), "cut") }
        }
        for place in bytes.indices {
            for byte in UInt8(0x01)...0x7f {
                var changed = bytes
                changed[place] = byte
                check(changed, "byte changed")
                changed = bytes
                changed.insert(byte, at: place)
                check(changed, "byte inserted")
            }
        }
    }

    @Test("random texts of an address's characters are read alike by both", arguments: seeds)
    func agreesOnRandomTexts(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        // Colons and dots come often enough to give addresses, zeros to give leading ones.
        let alphabet = Array("::::....00123459afF".utf8)
        for _ in 0..<20_000 {
            var bytes = Array(try #require(Self.texts.randomElement(using: &random)).utf8)
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0...bytes.count, using: &random)
                let end = Int.random(in: place...min(place + 2, bytes.count), using: &random)
                let piece = (0..<Int.random(in: 0...3, using: &random)).map { _ in
                    alphabet[Int(random.next() % UInt64(alphabet.count))]
                }
                bytes.replaceSubrange(place..<end, with: piece)
            }
            check(bytes, "seed \(seed)")
        }
    }

    @Test("random IPv6 addresses are written alike by both", arguments: seeds)
    func agreesOnCanonicalForms(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for _ in 0..<2_000 {
            let address = IPAddress.randomV6(using: &random)
            // The C library also shows ::a.b.c.d in dotted decimal, a form that RFC 4291 §2.5.5.1 deprecates.
            if address.high == 0, address.low >> 32 == 0 { continue }
            #expect(address.description == written(address), "seed \(seed)")
        }
    }

    private func check(_ bytes: [UInt8], _ context: Comment) {
        let ours = IPAddress(ascii: bytes.span)
        let theirs = read(bytes)
        // Compared before #expect, which would otherwise describe every one of several 10,000 addresses.
        if ours != theirs { Issue.record("\(String(decoding: bytes, as: UTF8.self).debugDescription): \(context)") }
    }

    /// What inet_pton(3) makes of the text.
    private func read(_ bytes: [UInt8]) -> IPAddress? {
        let text = bytes.map { CChar(bitPattern: $0) } + [0]
        var form = [UInt8](repeating: 0, count: 16)
        if unsafe inet_pton(AF_INET, text, &form) == 1 {
            return IPAddress(v4: form[0..<4].reduce(0) { $0 << 8 | UInt32($1) })
        }
        guard unsafe inet_pton(AF_INET6, text, &form) == 1 else { return nil }
        func half(_ range: Range<Int>) -> UInt64 { form[range].reduce(0) { $0 << 8 | UInt64($1) } }
        return IPAddress(v6High: half(0..<8), low: half(8..<16))
    }

    /// How inet_ntop(3) shows the address.
    private func written(_ address: IPAddress) -> String? {
        let form = [address.high, address.low].flatMap { half in
            stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: half >> UInt64($0)) }
        }
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        guard unsafe inet_ntop(AF_INET6, form, &text, socklen_t(text.count)) != nil else { return nil }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
