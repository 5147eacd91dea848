// Whom a limit counts, as a value of a few words: to look up in a table without an allocation, and to write into a
// Redis key.

public import Primitives

/// The subject of a limit, and which policy counts it: a subject has a window of its own in each policy.
///
/// Three words without a reference, so that tables of them cost no reference counting. What does not fit is digested: a
/// text of more than 16 bytes stands for itself by 128 bits of hash. Who wanted to share another's window would have to
/// know the other's text, and could send that itself.
public struct SubjectKey: Hashable, Sendable {
    /// What kinds of subject there are. Each has its own prefix in Redis, so that none can be taken for another.
    private enum Kind: UInt8, Sendable {
        /// An IPv4 address, or the /64 of an IPv6 address.
        case ip
        /// One service, by its number.
        case service
        /// Everyone together.
        case global
        /// A header's value.
        case text
        /// The hash of a longer one.
        case digest
    }

    @usableFromInline let bits: IPAddress
    private let kind: Kind
    /// Bytes of a text.
    private let length: UInt8
    /// The number of the policy that counts.
    package let policy: UInt8
    /// All that is not in the bits of the address: compared at once.
    @usableFromInline let tag: UInt32

    /// Bytes of a text that is kept as it is.
    package static let textBytesMax = 16

    private init(_ bits: IPAddress, _ kind: Kind, length: UInt8 = 0, policy: UInt8) {
        self.bits = bits
        self.kind = kind
        self.length = length
        self.policy = policy
        tag =
            UInt32(bits.family.rawValue) << 24 | UInt32(kind.rawValue) << 16 | UInt32(length) << 8 | UInt32(policy)
    }

    @inlinable
    public static func == (left: SubjectKey, right: SubjectKey) -> Bool {
        left.bits.low == right.bits.low && left.bits.high == right.bits.high && left.tag == right.tag
    }

    /// The client behind an address: an IPv6 client owns a /64 at least and could take a fresh address for each
    /// request.
    package init(_ address: IPAddress, policy: UInt8 = 0) {
        self.init(address.subscriber, .ip, policy: policy)
    }

    /// Everyone who asks for one service.
    package init(service index: Int, policy: UInt8) {
        self.init(IPAddress(v6High: 0, low: UInt64(index)), .service, policy: policy)
    }

    /// Everyone.
    package init(globalOf policy: UInt8) {
        self.init(IPAddress(v6High: 0, low: 0), .global, policy: policy)
    }

    /// All who send one value of a header.
    package init(text: Span<UInt8>, policy: UInt8) {
        guard text.count <= Self.textBytesMax else {
            let digest = IPAddress(v6High: stableHash(text), low: stableHash(text, seed: 0x736c_7569_6365))
            self.init(digest, .digest, policy: policy)
            return
        }
        var (high, low) = (UInt64(0), UInt64(0))
        for i in 0..<text.count {
            if i < 8 {
                high |= UInt64(text[i]) << UInt64(56 - 8 * i)
            } else {
                low |= UInt64(text[i]) << UInt64(120 - 8 * i)
            }
        }
        let length = UInt8(truncatingIfNeeded: text.count)
        self.init(IPAddress(v6High: high, low: low), .text, length: length, policy: policy)
    }

    /// The same subject in a window of another policy.
    package func counted(by policy: UInt8) -> SubjectKey { SubjectKey(bits, kind, length: length, policy: policy) }

    /// The address that stands for the client, for IPv6 that of its /64; `nil` for other subjects.
    package var address: IPAddress? {
        switch kind {
        case .ip: bits
        case .service, .global, .text, .digest: nil
        }
    }

    /// The number of the service.
    package var service: Int? { kind == .service ? Int(truncatingIfNeeded: bits.low) : nil }

    /// A hash that differs from seed to seed. Clients choose their addresses: with a secret `seed` they can not aim
    /// for one bucket of a table. The same on every node for the same seed.
    package func hash(seed: UInt64) -> UInt64 {
        // Both steps are bijections: two subscribers of one family never share a hash.
        mix64(mix64(bits.high &+ seed &+ UInt64(tag) << 40) ^ bits.low)
    }

    /// Appends what stands in logs, and in Redis keys behind what the policy knows: `ip:203.0.113.7`,
    /// `ip:2001:db8:1:2::/64`, `global`, `text:acme%20co`, `text:~0123…` for a digest.
    package func appendText(to bytes: inout [UInt8]) {
        switch kind {
        case .ip:
            bytes += Array("ip:".utf8)
            switch bits.family {
            case .v4: Self.appendV4(bits.low, to: &bytes)
            case .v6: Self.appendPrefix64(bits.high, to: &bytes)
            }
        case .service: bytes += Array("service:\(bits.low)".utf8)
        case .global: bytes += Array("global".utf8)
        case .text, .digest:
            bytes += Array("text:".utf8)
            appendValue(to: &bytes)
        }
    }

    /// Appends a header's value: letters, digits, `-`, `_` and `.` as they are, other bytes as `%20`; a digest as `~` and
    /// 32 digits. At most 48 bytes, none of which means anything to Redis or to a terminal.
    package func appendValue(to bytes: inout [UInt8]) {
        switch kind {
        case .ip, .service, .global: return
        case .digest:
            bytes.append(UInt8(ascii: "~"))
            for word in [bits.high, bits.low] {
                for shift in stride(from: 60, through: 0, by: -4) { bytes.append(Self.digit(word >> UInt64(shift))) }
            }
        case .text:
            for i in 0..<Int(length) {
                let word = i < 8 ? bits.high >> UInt64(56 - 8 * i) : bits.low >> UInt64(120 - 8 * i)
                let byte = UInt8(truncatingIfNeeded: word)
                switch byte {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f: bytes.append(byte)
                default: bytes += [UInt8(ascii: "%"), Self.digit(UInt64(byte >> 4)), Self.digit(UInt64(byte))]
                }
            }
        }
    }

    private static func digit(_ value: UInt64) -> UInt8 {
        let digit = UInt8(truncatingIfNeeded: value & 15)
        return digit < 10 ? 0x30 + digit : 0x61 + digit - 10
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
    public var description: String {
        var bytes: [UInt8] = []
        appendText(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }
}
