// Whom a limit counts, as a value of a few words: to look up in a table without an allocation, and to write into a
// Redis key.

package import Primitives

/// The subject of a limit.
package struct SubjectKey: Hashable, Sendable {
    /// What kinds of subject there are. Each has its own prefix in Redis, so that none can be taken for another.
    private enum Kind: Hashable, Sendable {
        /// An IPv4 address, or the /64 of an IPv6 address.
        case ip(IPAddress)
    }

    private let kind: Kind

    /// The client behind an address: an IPv6 client owns a /64 at least and could take a fresh address for each
    /// request.
    package init(_ address: IPAddress) {
        kind = .ip(address.subscriber)
    }

    /// The address that stands for the client; for IPv6 that of its /64.
    package var address: IPAddress {
        switch kind {
        case .ip(let address): address
        }
    }

    /// A hash that differs from seed to seed. Clients choose their addresses: with a secret `seed` they can not aim
    /// for one bucket of a table. The same on every node for the same seed.
    package func hash(seed: UInt64) -> UInt64 {
        switch kind {
        case .ip(let address):
            // Both steps are bijections: two subscribers of one family never share a hash.
            mix64(mix64(address.high &+ seed) ^ address.low)
        }
    }

    /// Appends what stands in Redis keys and logs: `ip:203.0.113.7`, `ip:2001:db8:1:2::/64`.
    package func appendText(to bytes: inout [UInt8]) {
        switch kind {
        case .ip(let address):
            bytes.append(UInt8(ascii: "i"))
            bytes.append(UInt8(ascii: "p"))
            bytes.append(UInt8(ascii: ":"))
            switch address.family {
            case .v4: Self.appendV4(address.low, to: &bytes)
            case .v6: Self.appendPrefix64(address.high, to: &bytes)
            }
        }
    }

    private static func appendV4(_ bits: UInt64, to bytes: inout [UInt8]) {
        for octet in 0..<4 {
            if octet > 0 { bytes.append(UInt8(ascii: ".")) }
            let value = UInt8(truncatingIfNeeded: bits >> UInt64(24 - 8 * octet))
            if value >= 100 { bytes.append(0x30 + value / 100) }
            if value >= 10 { bytes.append(0x30 + value / 10 % 10) }
            bytes.append(0x30 + value % 10)
        }
    }

    /// RFC 5952: the four zero groups on the right are always part of the longest run, which "::" replaces.
    private static func appendPrefix64(_ high: UInt64, to bytes: inout [UInt8]) {
        let groups = (64 - high.trailingZeroBitCount + 15) / 16
        for group in 0..<groups {
            if group > 0 { bytes.append(UInt8(ascii: ":")) }
            appendHexadecimal(UInt16(truncatingIfNeeded: high >> UInt64(48 - 16 * group)), to: &bytes)
        }
        bytes.append(UInt8(ascii: ":"))
        bytes.append(UInt8(ascii: ":"))
        bytes.append(UInt8(ascii: "/"))
        bytes.append(UInt8(ascii: "6"))
        bytes.append(UInt8(ascii: "4"))
    }

    private static func appendHexadecimal(_ value: UInt16, to bytes: inout [UInt8]) {
        var shift = 12
        while shift > 0, value >> UInt16(shift) == 0 { shift -= 4 }
        while shift >= 0 {
            let digit = UInt8(truncatingIfNeeded: value >> UInt16(shift) & 15)
            bytes.append(digit < 10 ? 0x30 + digit : 0x61 + digit - 10)
            shift -= 4
        }
    }
}

extension SubjectKey: CustomStringConvertible {
    package var description: String {
        var bytes: [UInt8] = []
        appendText(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }
}
