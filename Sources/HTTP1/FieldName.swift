import Primitives

/// The header fields that a gateway looks at or changes.
package enum FieldName: UInt8, Sendable, CaseIterable {
    case other
    case host, connection, contentLength, transferEncoding
    case te, trailer, upgrade, keepAlive, proxyConnection, proxyAuthenticate, proxyAuthorization, proxyAuthenticationInfo
    case expect, via, maxForwards
    case forwarded, xForwardedFor, xForwardedHost, xForwardedProto, xForwardedPort, xRealIP, xOriginHost
    case authorization, cookie, date, server, contentType

    private var text: String {
        switch self {
        case .other: ""
        case .host: "host"
        case .connection: "connection"
        case .contentLength: "content-length"
        case .transferEncoding: "transfer-encoding"
        case .te: "te"
        case .trailer: "trailer"
        case .upgrade: "upgrade"
        case .keepAlive: "keep-alive"
        case .proxyConnection: "proxy-connection"
        case .proxyAuthenticate: "proxy-authenticate"
        case .proxyAuthorization: "proxy-authorization"
        case .proxyAuthenticationInfo: "proxy-authentication-info"
        case .expect: "expect"
        case .via: "via"
        case .maxForwards: "max-forwards"
        case .forwarded: "forwarded"
        case .xForwardedFor: "x-forwarded-for"
        case .xForwardedHost: "x-forwarded-host"
        case .xForwardedProto: "x-forwarded-proto"
        case .xForwardedPort: "x-forwarded-port"
        case .xRealIP: "x-real-ip"
        case .xOriginHost: "x-origin-host"
        case .authorization: "authorization"
        case .cookie: "cookie"
        case .date: "date"
        case .server: "server"
        case .contentType: "content-type"
        }
    }

    /// Known names in an open-addressed table, found by a hash that the parser computes while it checks the letters.
    private struct Table: Sendable {
        /// Hash, name and lower-case letters by slot; an empty slot has no letters.
        var slots: [(hash: UInt64, name: FieldName, letters: [UInt8])]

        init() {
            slots = Array(repeating: (0, .other, []), count: 128)
            for name in FieldName.allCases where name != .other {
                let letters = Array(name.text.utf8)
                let hash = letters.reduce(FieldName.hashSeed) { FieldName.hashStep($0, $1) }
                var slot = Int(truncatingIfNeeded: hash >> 32) & 127
                while !slots[slot].letters.isEmpty { slot = (slot + 1) & 127 }
                slots[slot] = (hash, name, letters)
            }
        }
    }

    private static let table = Table()

    static let hashSeed: UInt64 = 0xcbf2_9ce4_8422_2325

    /// Adds a letter, upper case counting as lower.
    @inline(__always)
    static func hashStep(_ hash: UInt64, _ byte: UInt8) -> UInt64 {
        let lower = byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte
        return (hash ^ UInt64(lower)) &* 0x0000_0100_0000_01b3
    }

    /// The name that the bytes spell, in any case. `hash` is `hashStep` over all of them.
    @inline(__always)
    static func classify(_ bytes: Span<UInt8>, _ range: Range<Int>, hash: UInt64) -> FieldName {
        var slot = Int(truncatingIfNeeded: hash >> 32) & 127
        while !table.slots[slot].letters.isEmpty {
            if table.slots[slot].hash == hash, equalsIgnoringCase(bytes, range, table.slots[slot].letters) {
                return table.slots[slot].name
            }
            slot = (slot + 1) & 127
        }
        return .other
    }

    static func classify(_ bytes: Span<UInt8>, _ range: Range<Int>) -> FieldName {
        var hash = hashSeed
        for i in range { hash = hashStep(hash, bytes[i]) }
        return classify(bytes, range, hash: hash)
    }

    /// Fields that concern one connection only and are never passed on (RFC 9110 §7.6.1), whether `Connection` names
    /// them or not. `Transfer-Encoding` is written anew by whoever frames the message.
    static let hopByHop: FieldSet = [
        .connection, .transferEncoding, .te, .trailer, .upgrade, .keepAlive, .proxyConnection, .proxyAuthenticate,
        .proxyAuthorization, .proxyAuthenticationInfo,
    ]

    /// Fields that naming them in `Connection` does not remove. An attacker could otherwise take away what the backend
    /// needs to tell messages, hosts or clients apart ("hop-by-hop header abuse").
    static let endToEnd: FieldSet = [
        .host, .contentLength, .transferEncoding, .via, .forwarded, .xForwardedFor, .xForwardedHost, .xForwardedProto,
        .xForwardedPort, .xRealIP, .xOriginHost, .authorization, .cookie, .contentType, .date,
    ]
}

/// A set of field names.
package struct FieldSet: Sendable, ExpressibleByArrayLiteral {
    private var bits: UInt64 = 0

    package init(arrayLiteral names: FieldName...) { for name in names { insert(name) } }

    private static func bit(_ name: FieldName) -> UInt64 { 1 << UInt64(name.rawValue) }

    @inline(__always)
    package func contains(_ name: FieldName) -> Bool { bits & Self.bit(name) != 0 }

    package mutating func insert(_ name: FieldName) { bits |= Self.bit(name) }
}
