// A credential's name in tables: a keyed hash of it, so that no table holds a secret and nobody can aim for a place.
//
// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein 2012). Who does not know the key cannot find two texts of
// one hash, which would let one token pass for another. SHA-256 was rejected: its 2 µs for a token would be more than all
// else that an identity costs. (For what is stored, SHA-256 is right: its key would have to be stored beside it.)

import LinuxIO

/// The secret of a worker's table.
package struct DigestKey: Sendable {
    let low: UInt64
    let high: UInt64

    package init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }
}

package enum CredentialKind: UInt64, Sendable {
    case token
    case apiKey
}

package struct CredentialDigest: Hashable, Sendable {
    package let low: UInt64
    package let high: UInt64

    /// - Parameter kind: an API key is no token, whatever its text.
    package init(_ bytes: Span<UInt8>, _ kind: CredentialKind, key: DigestKey) {
        self.init(bytes, k0: key.low ^ kind.rawValue &* 0x9e37_79b9_7f4a_7c15, k1: key.high)
    }

    init(_ bytes: Span<UInt8>, k0: UInt64, k1: UInt64) {
        var v0 = k0 ^ 0x736f_6d65_7073_6575
        var v1 = k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee
        var v2 = k0 ^ 0x6c79_6765_6e65_7261
        var v3 = k1 ^ 0x7465_6462_7974_6573

        @inline(__always)
        func round() {
            v0 &+= v1
            v1 = v1 << 13 | v1 >> 51
            v1 ^= v0
            v0 = v0 << 32 | v0 >> 32
            v2 &+= v3
            v3 = v3 << 16 | v3 >> 48
            v3 ^= v2
            v0 &+= v3
            v3 = v3 << 21 | v3 >> 43
            v3 ^= v0
            v2 &+= v1
            v1 = v1 << 17 | v1 >> 47
            v1 ^= v2
            v2 = v2 << 32 | v2 >> 32
        }

        var offset = 0
        while offset &+ 8 <= bytes.count {
            let word = bytes.word(at: offset)
            v3 ^= word
            round()
            round()
            v0 ^= word
            offset &+= 8
        }
        var last = UInt64(truncatingIfNeeded: bytes.count) << 56
        var shift: UInt64 = 0
        while offset < bytes.count {
            last |= UInt64(bytes[offset]) << shift
            shift &+= 8
            offset &+= 1
        }
        v3 ^= last
        round()
        round()
        v0 ^= last
        v2 ^= 0xee
        round()
        round()
        round()
        round()
        low = v0 ^ v1 ^ v2 ^ v3
        v1 ^= 0xdd
        round()
        round()
        round()
        round()
        high = v0 ^ v1 ^ v2 ^ v3
    }
}
