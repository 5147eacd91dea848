// Field names that the gateway acts upon, as one byte each.
//
// A name is classified by exact comparison of its lower-cased bytes, packed into three words; an open-addressed table of
// 128 slots finds the candidate. Rejected: a perfect hash and a nested switch over
// length and bytes, which are to be redone for every new name.

import LinuxIO

/// A field name that the gateway cares about; every other one is `other`. At most 64 cases: `FieldSet` is one word.
public enum FieldName: UInt8, CaseIterable, Sendable {
    case other
    case host, connection, contentLength, transferEncoding, te, trailer, upgrade, keepAlive
    case proxyConnection, proxyAuthenticate, proxyAuthorization
    case expect, forwarded, via, maxForwards
    case xForwardedFor, xForwardedHost, xForwardedProto, xForwardedPort, xForwardedPrefix, xRealIP, xOriginHost
    case xForwardedServer, xForwardedScheme, xForwardedSsl, xClientIP, trueClientIP
    case authorization, cookie, setCookie, xAPIKey, xRequestID, userAgent
    case date, server, contentType, location, cacheControl
    case retryAfter, rateLimit, rateLimitPolicy

    /// The name as it is usually written; empty for `other`.
    public var spelling: StaticString {
        switch self {
        case .other: ""
        case .host: "Host"
        case .connection: "Connection"
        case .contentLength: "Content-Length"
        case .transferEncoding: "Transfer-Encoding"
        case .te: "TE"
        case .trailer: "Trailer"
        case .upgrade: "Upgrade"
        case .keepAlive: "Keep-Alive"
        case .proxyConnection: "Proxy-Connection"
        case .proxyAuthenticate: "Proxy-Authenticate"
        case .proxyAuthorization: "Proxy-Authorization"
        case .expect: "Expect"
        case .forwarded: "Forwarded"
        case .via: "Via"
        case .maxForwards: "Max-Forwards"
        case .xForwardedFor: "X-Forwarded-For"
        case .xForwardedHost: "X-Forwarded-Host"
        case .xForwardedProto: "X-Forwarded-Proto"
        case .xForwardedPort: "X-Forwarded-Port"
        case .xForwardedPrefix: "X-Forwarded-Prefix"
        case .xRealIP: "X-Real-IP"
        case .xOriginHost: "X-Origin-Host"
        case .xForwardedServer: "X-Forwarded-Server"
        case .xForwardedScheme: "X-Forwarded-Scheme"
        case .xForwardedSsl: "X-Forwarded-Ssl"
        case .xClientIP: "X-Client-IP"
        case .trueClientIP: "True-Client-IP"
        case .authorization: "Authorization"
        case .cookie: "Cookie"
        case .setCookie: "Set-Cookie"
        case .xAPIKey: "X-API-Key"
        case .xRequestID: "X-Request-ID"
        case .userAgent: "User-Agent"
        case .date: "Date"
        case .server: "Server"
        case .contentType: "Content-Type"
        case .location: "Location"
        case .cacheControl: "Cache-Control"
        case .retryAfter: "Retry-After"
        case .rateLimit: "RateLimit"
        case .rateLimitPolicy: "RateLimit-Policy"
        }
    }

    /// The name of these bytes, whatever their case.
    public init(_ bytes: Span<UInt8>) {
        var key = NameKey()
        for i in bytes.indices {
            guard isToken(bytes[i]) else {
                self = .other
                return
            }
            key.push(bytes[i])
        }
        self = FieldNameTable.shared.name(for: key)
    }
}

/// A set of known field names, written `[.host, .forwarded]`. One word; sets that are used for every request are best
/// kept in a `static let`.
public struct FieldSet: Equatable, Sendable, ExpressibleByArrayLiteral {
    @usableFromInline var rawValue: UInt64

    @inline(__always)
    init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The empty set; a literal makes an array on its way.
    @inlinable @inline(__always)
    public init() { rawValue = 0 }

    public init(arrayLiteral names: FieldName...) {
        rawValue = 0
        for name in names { insert(name) }
    }

    @inlinable @inline(__always)
    public func contains(_ name: FieldName) -> Bool { rawValue & (1 &<< UInt64(name.rawValue)) != 0 }
    @inlinable @inline(__always)
    public mutating func insert(_ name: FieldName) { rawValue |= 1 &<< UInt64(name.rawValue) }
    public mutating func remove(_ name: FieldName) { rawValue &= ~(1 &<< UInt64(name.rawValue)) }
    public func union(_ other: FieldSet) -> FieldSet { FieldSet(rawValue: rawValue | other.rawValue) }
    public func subtracting(_ other: FieldSet) -> FieldSet { FieldSet(rawValue: rawValue & ~other.rawValue) }
    public var isEmpty: Bool { rawValue == 0 }
}

extension FieldSet {
    /// Fields that concern one connection and are never passed on: those of RFC 9110 §7.6.1 and, because they are
    /// meant for the next proxy alone (§11.7), the two of proxy authentication. `Trailer` goes because trailers do.
    public static let hopByHop: FieldSet = [
        .connection, .keepAlive, .proxyConnection, .te, .trailer, .transferEncoding, .upgrade,
        .proxyAuthenticate, .proxyAuthorization,
    ]

    /// Fields that a `Connection` option cannot take away. Framing and routing are ours to decide, and a client that
    /// has `Connection: X-Forwarded-For` or `Connection: Authorization` strip what a gateway in front has set or
    /// checked reaches a backend under a false name (CVE-2022-31813, CVE-2022-1388).
    public static let connectionProof: FieldSet = [
        .host, .contentLength, .expect, .forwarded, .via, .maxForwards,
        .xForwardedFor, .xForwardedHost, .xForwardedProto, .xForwardedPort, .xForwardedPrefix, .xRealIP, .xOriginHost,
        .xForwardedServer, .xForwardedScheme, .xForwardedSsl, .xClientIP, .trueClientIP,
        .authorization, .cookie, .setCookie, .xAPIKey, .xRequestID, .userAgent,
        .date, .server, .contentType, .location, .cacheControl, .retryAfter, .rateLimit, .rateLimitPolicy,
    ]
}

/// The last 24 bytes of a token, in lower case, as one number; exact for tokens up to 24 bytes, as no token holds a
/// zero byte. Setting bit 5 lower-cases letters and leaves `-` and digits; of the other characters of a token it
/// changes only `^` to `~` and `_` to 0x7f, and no known name has these.
struct NameKey: Equatable, Sendable {
    private var low: UInt64 = 0
    private var middle: UInt64 = 0
    private var high: UInt64 = 0

    @inline(__always)
    init() {}

    @inline(__always)
    init(_ bytes: Span<UInt8>, _ range: Range<Int>) {
        self.init()
        let length = range.upperBound &- range.lowerBound
        // Eight bytes at a time, where as many lie before the end of the name: all but the first bytes of a message.
        guard length > 0, range.upperBound >= 24 else {
            for i in range { push(bytes[i]) }
            return
        }
        low = Self.word(bytes, endingAt: range.upperBound, length)
        if length > 8 { middle = Self.word(bytes, endingAt: range.upperBound &- 8, length &- 8) }
        if length > 16 { high = Self.word(bytes, endingAt: range.upperBound &- 16, length &- 16) }
    }

    /// The last bytes before `end`, at most `length` (at least 1) and at most eight of them, in lower case.
    @inline(__always)
    private static func word(_ bytes: Span<UInt8>, endingAt end: Int, _ length: Int) -> UInt64 {
        let word = bytes.word(at: end &- 8).byteSwapped | 0x2020_2020_2020_2020
        return length >= 8 ? word : word & ((1 &<< UInt64(truncatingIfNeeded: 8 &* length)) &- 1)
    }

    @inline(__always)
    mutating func push(_ byte: UInt8) {
        high = high << 8 | middle >> 56
        middle = middle << 8 | low >> 56
        low = low << 8 | UInt64(byte | 0x20)
    }

    /// The connection option that is no field name.
    static var close: NameKey { NameKey(0, 0x63_6c_6f_73_65) }
    static var keepAlive: NameKey { NameKey(0x6b_65, 0x65_70_2d_61_6c_69_76_65) }
    static var chunked: NameKey { NameKey(0, 0x63_68_75_6e_6b_65_64) }
    static var trailers: NameKey { NameKey(0, 0x74_72_61_69_6c_65_72_73) }
    static var continue100: NameKey { NameKey(0x31_30_30_2d, 0x63_6f_6e_74_69_6e_75_65) }

    private init(_ middle: UInt64, _ low: UInt64) {
        self.middle = middle
        self.low = low
    }

    /// The name with `-` for every byte that is neither letter nor digit.
    @inline(__always)
    var hyphenated: NameKey {
        var key = self
        key.low = Self.hyphenated(low)
        key.middle = Self.hyphenated(middle)
        key.high = Self.hyphenated(high)
        return key
    }

    /// No byte exceeds 0x7f, so the sums carry into no neighbour: the highest bit of each tells whether it is at least so
    /// much. Bytes of zero are none of the name.
    @inline(__always)
    private static func hyphenated(_ word: UInt64) -> UInt64 {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let highs: UInt64 = 0x8080_8080_8080_8080
        let digits = (word &+ ones &* (0x80 - 0x30)) & ~(word &+ ones &* (0x80 - 0x3a))
        let letters = (word &+ ones &* (0x80 - 0x61)) & ~(word &+ ones &* (0x80 - 0x7b))
        let others = (word &+ ones &* 0x7f) & ~digits & ~letters & highs
        // One bit a byte becomes the whole byte.
        let mask = (others &>> 7) &* 0xff
        return word & ~mask | (ones &* 0x2d) & mask
    }

    @inline(__always)
    var slot: Int {
        let mixed = (low ^ middle &* 0x9e37_79b9_7f4a_7c15 ^ high) &* 0xff51_afd7_ed55_8ccd
        return Int(truncatingIfNeeded: mixed >> 57)
    }
}

struct FieldNameTable: Sendable {
    private struct Slot {
        var key = NameKey()
        var name = FieldName.other
    }

    static let shared = FieldNameTable()

    private var slots: [Slot]

    private init() {
        slots = [Slot](repeating: Slot(), count: 128)
        for name in FieldName.allCases where name != .other {
            var key = NameKey()
            for byte in name.spelling.description.utf8 { key.push(byte) }
            var slot = key.slot
            while slots[slot].name != .other { slot = (slot + 1) & 127 }
            slots[slot] = Slot(key: key, name: name)
        }
    }

    @inline(__always)
    func name(for key: NameKey) -> FieldName {
        var slot = key.slot
        while true {
            let candidate = slots[slot]
            if candidate.key == key || candidate.name == .other { return candidate.name }
            slot = (slot + 1) & 127
        }
    }
}
