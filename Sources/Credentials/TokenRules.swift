// What a token must say, as a rule without keys and clocks: claims and the time go in, a verdict comes out.

import Configuration
import Identity
import Primitives

/// A token as it was written, before anybody believes it.
struct ParsedToken: Sendable {
    var algorithm: String
    /// Which key it says that it was signed with.
    var keyID: String?
    var claims: [String: JSONValue]
    /// What is signed: the first two parts and the point between them.
    var signed: [UInt8]
    var signature: [UInt8]

    /// Bytes of a token: what identity providers put into one fits four times over.
    static let bytesMax = 8 << 10
    private static let keyIDBytesMax = 256

    init(_ bytes: [UInt8]) throws(TokenRefusal) {
        guard bytes.count <= Self.bytesMax else { throw TokenRefusal(.malformed) }
        let parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        // Five parts are encrypted (RFC 7516); no key for that is here.
        guard parts.count == 3, let head = base64URL(parts[0]), let payload = base64URL(parts[1]),
            let signature = base64URL(parts[2]), let header = JSONValue.object(head),
            let claims = JSONValue.object(payload), let algorithm = header["alg"]?.text
        else { throw TokenRefusal(.malformed) }
        // RFC 7515 §4.1.11: what must be understood and is not makes the token invalid.
        if header["crit"] != nil { throw TokenRefusal(.malformed) }
        if let value = header["kid"] {
            guard let text = value.text, text.utf8.count <= Self.keyIDBytesMax else { throw TokenRefusal(.malformed) }
            keyID = text
        }
        // `jwk`, `jku`, `x5c` and `x5u` name keys of the token's own choice: whoever followed them would believe anybody
        // (RFC 8725 §3.10).
        self.algorithm = algorithm
        self.claims = claims
        self.signed = Array(bytes[..<parts[1].endIndex])
        self.signature = signature
    }
}

struct TokenRefusal: Error, Equatable {
    let fault: CredentialFault
    /// When the same token might pass, in seconds since 1970.
    var retryAt: Int64?

    init(_ fault: CredentialFault, retryAt: Int64? = nil) {
        self.fault = fault
        self.retryAt = retryAt
    }
}

/// Whom a token names, and until when it holds.
struct TokenGrant: Equatable {
    var claims: CallerClaims
    /// Seconds since 1970, leeway included; `nil`: it says no end.
    var until: Int64?
}

struct TokenRules: Sendable {
    let settings: Configuration.TokenIssuer
    private let leeway: Int64

    init(_ settings: Configuration.TokenIssuer) {
        self.settings = settings
        leeway = settings.leeway.nanoseconds / 1_000_000_000
    }

    /// Whether a token may be of this issuer, as far as it says.
    func mayHaveIssued(_ claims: [String: JSONValue]) -> Bool {
        guard let issuer = settings.issuer else { return true }
        return claims["iss"]?.text == issuer
    }

    /// Checks what a token says.
    ///
    /// - Parameter now: seconds since 1970.
    func check(_ claims: [String: JSONValue], now: Int64) throws(TokenRefusal) -> TokenGrant {
        guard mayHaveIssued(claims) else { throw TokenRefusal(.issuer) }
        var until: Int64?
        if let value = claims["exp"] {
            guard let time = Self.time(value) else { throw TokenRefusal(.malformed) }
            // RFC 7519 §4.1.4: on or after it the token must not be accepted.
            let end = saturatingAdd(time, leeway)
            guard now < end else { throw TokenRefusal(.expired) }
            until = end
        } else if settings.requiresExpiry {
            throw TokenRefusal(.endless)
        }
        for name in ["nbf", "iat"] {
            guard let value = claims[name] else { continue }
            guard let time = Self.time(value) else { throw TokenRefusal(.malformed) }
            let start = saturatingSubtract(time, leeway)
            // `iat` in the future is no reason to refuse by itself (RFC 7519 §4.1.6): it only has to be a time.
            if name == "nbf", now < start { throw TokenRefusal(.notYetValid, retryAt: start) }
        }
        if !settings.audience.isEmpty {
            guard Self.texts(claims["aud"]).contains(where: settings.audience.contains) else {
                throw TokenRefusal(.audience)
            }
        }
        let names = settings.claims
        return TokenGrant(
            claims: CallerClaims(
                user: try Self.name(Self.find(names.user, claims)), org: try Self.name(Self.find(names.org, claims)),
                tier: try Self.name(Self.find(names.tier, claims)), scopes: Self.scopes(Self.find(names.scope, claims))),
            until: until)
    }

    /// A claim by its name, or else by the way to it through objects.
    static func find(_ name: String, _ claims: [String: JSONValue]) -> JSONValue? {
        if let value = claims[name] { return value }
        var members = claims
        let steps = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard steps.count > 1 else { return nil }
        for step in steps.dropLast() {
            guard case .object(let inner)? = members[step] else { return nil }
            members = inner
        }
        return members[steps[steps.count - 1]]
    }

    /// A user, an organisation or a tier. Numbers are written out: identifiers often are.
    private static func name(_ value: JSONValue?) throws(TokenRefusal) -> String? {
        switch value {
        case nil, .null: return nil
        case .string(let text):
            guard CallerClaims.isUsable(text) else { throw TokenRefusal(.unusableClaim) }
            return text
        case .integer(let number): return "\(number)"
        // A list of organisations is no organisation: whom would it be counted for?
        case .bool, .number, .array, .object: throw TokenRefusal(.unusableClaim)
        }
    }

    /// A text, or a list of them (RFC 7519 §4.1.3).
    private static func texts(_ value: JSONValue?) -> [String] {
        switch value {
        case .string(let text): [text]
        case .array(let values): values.compactMap(\.text)
        case nil, .null, .bool, .integer, .number, .object: []
        }
    }

    /// Scopes between spaces (RFC 8693 §4.2), or a list of them.
    private static func scopes(_ value: JSONValue?) -> [String] {
        Array(texts(value).flatMap { $0.split(separator: " ").map(String.init) }.prefix(256))
    }

    /// RFC 7519 §2: seconds, perhaps with a fraction.
    private static func time(_ value: JSONValue) -> Int64? {
        switch value {
        case .integer(let seconds): seconds
        case .number(let seconds): seconds.isFinite ? Int64(clamping: seconds) : nil
        case .null, .bool, .string, .array, .object: nil
        }
    }
}

extension Int64 {
    fileprivate init(clamping value: Double) {
        self = Int64(exactly: value.rounded(.down)) ?? (value < 0 ? .min : .max)
    }
}

/// RFC 7515 §2: no padding, no white space, and no bits left over, so that one token has one spelling.
func base64URL(_ text: ArraySlice<UInt8>) -> [UInt8]? {
    guard text.count % 4 != 1 else { return nil }
    var output: [UInt8] = []
    output.reserveCapacity(text.count / 4 * 3 + 2)
    var bits: UInt32 = 0
    var count = 0
    for byte in text {
        let value: UInt32
        switch byte {
        case 0x41...0x5a: value = UInt32(byte) - 0x41
        case 0x61...0x7a: value = UInt32(byte) - 0x61 + 26
        case 0x30...0x39: value = UInt32(byte) - 0x30 + 52
        case UInt8(ascii: "-"): value = 62
        case UInt8(ascii: "_"): value = 63
        default: return nil
        }
        bits = bits << 6 | value
        count += 6
        if count >= 8 {
            count -= 8
            output.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
            bits &= (1 << UInt32(count)) - 1
        }
    }
    return bits == 0 ? output : nil
}
