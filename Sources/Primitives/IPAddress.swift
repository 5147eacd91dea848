// IP addresses as values of 17 bytes, so that naming a client costs no allocation.

/// An IPv4 or IPv6 address.
public struct IPAddress: Hashable, Sendable {
    public enum Family: UInt8, Sendable { case v4, v6 }

    public let family: Family
    /// The upper 64 bits of an IPv6 address; 0 for IPv4.
    public let high: UInt64
    /// The lower 64 bits of an IPv6 address; the 32 bits of an IPv4 address.
    public let low: UInt64

    public init(v4 bits: UInt32) {
        family = .v4
        high = 0
        low = UInt64(bits)
    }

    public init(v6High high: UInt64, low: UInt64) {
        family = .v6
        self.high = high
        self.low = low
    }

    public static let v4Loopback = IPAddress(v4: 0x7f00_0001)
    public static let v4Any = IPAddress(v4: 0)
    public static let v6Any = IPAddress(v6High: 0, low: 0)
    public static let v6Loopback = IPAddress(v6High: 0, low: 1)

    /// The IPv4 address inside an IPv4-mapped one (RFC 4291 §2.5.5.2), which is how a dual-stack socket shows IPv4
    /// peers; itself otherwise.
    public var unmapped: IPAddress {
        guard family == .v6, high == 0, low >> 32 == 0xffff else { return self }
        return IPAddress(v4: UInt32(truncatingIfNeeded: low))
    }

    /// Whom a limit counts: the unmapped address, and for IPv6 its /64, since one customer owns at least that much.
    public var subscriber: IPAddress {
        let address = unmapped
        return address.family == .v4 ? address : IPAddress(v6High: address.high, low: 0)
    }

    public var isUnspecified: Bool { high == 0 && low == 0 }

    /// Whether only this machine reaches it: 127.0.0.0/8 (RFC 1122 §3.2.1.3), ::1.
    public var isLoopback: Bool {
        let address = unmapped
        return address.family == .v4 ? address.low >> 24 & 0xff == 127 : address.high == 0 && address.low == 1
    }

    /// Reads an address as RFC 4291 §2.2 or dotted decimal writes it, without brackets, zone or port.
    /// Leading zeros in dotted decimal are refused: `010` is 8 to some readers and 10 to others.
    public init?(_ text: some StringProtocol) {
        self.init(ascii: Array(text.utf8).span)
    }

    /// The same from bytes. `nil` for anything that is not wholly an address.
    public init?(ascii bytes: Span<UInt8>) {
        var hasColon = false
        for i in bytes.indices where bytes[i] == UInt8(ascii: ":") { hasColon = true }
        if hasColon {
            guard let (high, low) = Self.parseV6(bytes) else { return nil }
            self.init(v6High: high, low: low)
        } else {
            guard let bits = Self.parseV4(bytes, from: 0) else { return nil }
            self.init(v4: bits)
        }
    }

    private static func parseV4(_ bytes: Span<UInt8>, from start: Int) -> UInt32? {
        var bits: UInt32 = 0
        var octets = 0
        var value = 0
        var digits = 0
        var i = start
        while true {
            if i < bytes.count, bytes[i] >= 0x30, bytes[i] <= 0x39 {
                if digits > 0 && value == 0 { return nil }
                value = value * 10 + Int(bytes[i] - 0x30)
                digits += 1
                if value > 255 { return nil }
            } else if i == bytes.count || bytes[i] == UInt8(ascii: ".") {
                guard digits > 0, octets < 4 else { return nil }
                bits = bits << 8 | UInt32(value)
                octets += 1
                value = 0
                digits = 0
                if i == bytes.count { return octets == 4 ? bits : nil }
            } else {
                return nil
            }
            i += 1
        }
    }

    private static func parseV6(_ bytes: Span<UInt8>) -> (UInt64, UInt64)? {
        // Eight groups in a fixed pair of words; `gap` is where "::" stands, in groups from the left.
        var groups: (UInt64, UInt64) = (0, 0)
        var count = 0
        var gap: Int? = nil
        func put(_ value: UInt64, _ index: Int) {
            if index < 4 {
                groups.0 |= value << UInt64(48 - 16 * index)
            } else {
                groups.1 |= value << UInt64(48 - 16 * (index - 4))
            }
        }
        var i = 0
        if bytes.count >= 2, bytes[0] == 0x3a, bytes[1] == 0x3a {
            gap = 0
            i = 2
        }
        while i < bytes.count {
            var value: UInt64 = 0
            var digits = 0
            let start = i
            while i < bytes.count, let nibble = hexValue(bytes[i]) {
                value = value << 4 | UInt64(nibble)
                digits += 1
                i += 1
                if digits > 4 { return nil }
            }
            if i < bytes.count, bytes[i] == UInt8(ascii: ".") {
                guard count <= 6, let v4 = parseV4(bytes, from: start) else { return nil }
                put(UInt64(v4 >> 16), count)
                put(UInt64(v4 & 0xffff), count + 1)
                count += 2
                i = bytes.count
                break
            }
            guard digits > 0, count < 8 else { return nil }
            put(value, count)
            count += 1
            if i == bytes.count { break }
            guard bytes[i] == 0x3a else { return nil }
            i += 1
            if i == bytes.count { return nil }
            if bytes[i] == 0x3a {
                guard gap == nil else { return nil }
                gap = count
                i += 1
            }
        }
        guard let gap else { return count == 8 ? groups : nil }
        guard count < 8 else { return nil }
        // Move the groups after the gap to the right end.
        let all = UInt128(groups.0) << 64 | UInt128(groups.1)
        let tailBits = 16 * (count - gap)
        let headMask: UInt128 = gap == 0 ? 0 : ~UInt128(0) << UInt128(128 - 16 * gap)
        let head = all & headMask
        let tail = tailBits == 0 ? 0 : (all << UInt128(16 * gap)) >> UInt128(128 - tailBits)
        let joined = head | tail
        return (UInt64(truncatingIfNeeded: joined >> 64), UInt64(truncatingIfNeeded: joined))
    }
}

extension IPAddress: CustomStringConvertible {
    /// Dotted decimal, or the canonical text form of RFC 5952.
    public var description: String {
        if family == .v4 {
            return "\(low >> 24 & 255).\(low >> 16 & 255).\(low >> 8 & 255).\(low & 255)"
        }
        if unmapped.family == .v4 { return "::ffff:\(unmapped)" }
        let groups = (0..<8).map { (index: Int) -> UInt64 in
            let half = index < 4 ? high : low
            return half >> UInt64(48 - 16 * (index % 4)) & 0xffff
        }
        // RFC 5952 §4.2: "::" stands for the longest run of at least two zero groups, the first of equals.
        var best = 0..<0
        var start = 0
        while start < 8 {
            var end = start
            while end < 8, groups[end] == 0 { end += 1 }
            if end - start > best.count, end - start >= 2 { best = start..<end }
            start = max(end, start + 1)
        }
        func text(_ range: Range<Int>) -> String { groups[range].map { String($0, radix: 16) }.joined(separator: ":") }
        return best.isEmpty ? text(0..<8) : "\(text(0..<best.lowerBound))::\(text(best.upperBound..<8))"
    }
}

/// The value of a hexadecimal digit, either case.
@inline(__always)
public func hexValue(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x41...0x46: byte - 0x41 + 10
    case 0x61...0x66: byte - 0x61 + 10
    default: nil
    }
}

/// A block of addresses in CIDR notation (RFC 4632): `10.0.0.0/8`, `2001:db8::/32`, or one address.
public struct CIDR: Hashable, Sendable, CustomStringConvertible {
    public let base: IPAddress
    /// 0...32 for IPv4, 0...128 for IPv6.
    public let prefixLength: Int

    /// `nil` where the text is no address, the length is out of range or has a leading zero, or bits are set behind the
    /// prefix. A block of IPv4-mapped addresses (`::ffff:10.0.0.0/104`) is the IPv4 block that it maps, because
    /// `contains` unmaps what it is asked about.
    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = IPAddress(parts[0]) else { return nil }
        let width = address.family == .v4 ? 32 : 128
        var length = width
        if parts.count == 2 {
            let digits = parts[1].utf8
            guard digits.count <= 3, digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let n = Int(parts[1]), n <= width,
                digits.count == 1 || digits.first != 0x30
            else { return nil }
            length = n
        }
        guard Self.masked(address, length) == address else { return nil }
        // A mapped base has bit 95 set, so a length that passed the mask is 96 or more.
        base = address.unmapped
        prefixLength = base.family == address.family ? length : length - 96
    }

    /// Whether the block holds the address. IPv4-mapped addresses are unmapped first.
    public func contains(_ address: IPAddress) -> Bool {
        let address = address.unmapped
        guard address.family == base.family else { return false }
        return Self.masked(address, prefixLength) == base
    }

    private static func masked(_ address: IPAddress, _ length: Int) -> IPAddress {
        if address.family == .v4 {
            let mask: UInt32 = length == 0 ? 0 : ~0 << UInt32(32 - length)
            return IPAddress(v4: UInt32(truncatingIfNeeded: address.low) & mask)
        }
        let high = length >= 64 ? ~0 : (length == 0 ? 0 : ~UInt64(0) << UInt64(64 - length))
        let low = length <= 64 ? 0 : ~UInt64(0) << UInt64(128 - length)
        return IPAddress(v6High: address.high & high, low: address.low & low)
    }

    public var description: String { "\(base)/\(prefixLength)" }
}

/// An address and a TCP port.
public struct SocketAddress: Hashable, Sendable, CustomStringConvertible {
    public var ip: IPAddress
    public var port: UInt16

    public init(ip: IPAddress, port: UInt16) {
        self.ip = ip
        self.port = port
    }

    /// Reads what `description` writes; names are none.
    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        var host = text[..<colon]
        let isBracketed = host.first == "[" && host.last == "]"
        if isBracketed { host = host.dropFirst().dropLast() }
        guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = UInt16(digits),
            let ip = IPAddress(host), isBracketed == (ip.family == .v6)
        else { return nil }
        self.init(ip: ip, port: port)
    }

    public var description: String { ip.family == .v4 ? "\(ip):\(port)" : "[\(ip)]:\(port)" }
}
