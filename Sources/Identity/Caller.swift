// Who asks, as a verified credential says: everything that a request needs of it, made once and then only read.

import Primitives

/// A verified identity. Immutable: requests share it.
package final class Caller: Sendable {
    /// Whom policies count; without a policy's number. `nil` where the credential does not say.
    package let user: SubjectKey?
    package let org: SubjectKey?
    package let key: SubjectKey?
    /// The place of the tier among those of the configuration; -1 for none of them.
    package let tier: Int
    package let scopes: [String]
    /// Whole lines for the backend.
    package let forwardLines: [UInt8]
    /// `user:42`, or `key:…` where there is no user: for logs, in printable ASCII without spaces.
    package let logName: [UInt8]
    /// The same as they stand in the credential, empty where it does not say: for headers and logs.
    package let names: CallerNames
    /// For consistent hashing; `nil` without a user.
    package let userHash: UInt64?

    package init(_ claims: CallerClaims, tiers: [String], forward: ForwardNames) {
        func subject(_ text: String?) -> SubjectKey? {
            guard let bytes = text.map({ Array($0.utf8) }) else { return nil }
            return SubjectKey(text: bytes.span, policy: 0)
        }
        user = subject(claims.user)
        org = subject(claims.org)
        key = subject(claims.keyID)
        tier = claims.tier.flatMap { tiers.firstIndex(of: $0) } ?? -1
        scopes = claims.scopes
        var lines: [UInt8] = []
        func line(_ name: String?, _ value: String?) {
            if let name, let value { lines += Array("\(name): \(value)\r\n".utf8) }
        }
        line(forward.user, claims.user)
        line(forward.org, claims.org)
        line(forward.tier, claims.tier)
        line(forward.key, claims.keyID)
        forwardLines = lines
        logName = Self.logName(claims)
        names = CallerNames(claims)
        userHash = claims.user.map { stableHash($0) }
    }

    private static func logName(_ claims: CallerClaims) -> [UInt8] {
        let (kind, text) =
            claims.user.map { ("user:", $0) } ?? claims.keyID.map { ("key:", $0) } ?? ("org:", claims.org ?? "-")
        var name = Array(kind.utf8)
        for byte in text.utf8 {
            switch byte {
            case 0x22, 0x25, 0x5c: name += Array("%\(String(byte, radix: 16))".utf8)
            case 0x21...0x7e: name.append(byte)
            default: name += Array("%\(byte < 16 ? "0" : "")\(String(byte, radix: 16))".utf8)
            }
        }
        return name
    }

    /// Whether every one of them was granted.
    package func has(scopes wanted: [String]) -> Bool {
        for scope in wanted where !scopes.contains(scope) { return false }
        return true
    }
}

/// In bytes that can stand in a header field (`CallerClaims.isUsable`).
package struct CallerNames: Sendable {
    package let user: [UInt8]
    package let org: [UInt8]
    package let tier: [UInt8]
    package let key: [UInt8]

    init(_ claims: CallerClaims) {
        user = Array((claims.user ?? "").utf8)
        org = Array((claims.org ?? "").utf8)
        tier = Array((claims.tier ?? "").utf8)
        key = Array((claims.keyID ?? "").utf8)
    }
}

/// What a credential says of its owner, checked by `isUsable`.
package struct CallerClaims: Equatable, Sendable {
    package var user: String?
    package var org: String?
    package var tier: String?
    /// Names an API key without being one.
    package var keyID: String?
    package var scopes: [String] = []

    package init(
        user: String? = nil, org: String? = nil, tier: String? = nil, keyID: String? = nil, scopes: [String] = []
    ) {
        self.user = user
        self.org = org
        self.tier = tier
        self.keyID = keyID
        self.scopes = scopes
    }

    /// Bytes of a user, an organisation or a tier: room for any identifier in use, and within what a header may hold.
    package static let valueBytesMax = 256

    /// Whether a text can stand in a header field. RFC 9110 §5.5: a control character in it would end the field, and what
    /// follows would be one of the claim's own making.
    package static func isUsable(_ text: String) -> Bool {
        let bytes = text.utf8
        guard let first = bytes.first, let last = bytes.last, bytes.count <= valueBytesMax, first != 0x20, last != 0x20
        else { return false }
        return bytes.allSatisfy { $0 >= 0x20 && $0 != 0x7f }
    }
}

/// The names of the headers that tell a backend who asks; `nil`: it is not told.
package struct ForwardNames: Equatable, Sendable {
    package var user: String?
    package var org: String?
    package var tier: String?
    package var key: String?

    package init(user: String? = nil, org: String? = nil, tier: String? = nil, key: String? = nil) {
        self.user = user
        self.org = org
        self.tier = tier
        self.key = key
    }

    package var all: [String] { [user, org, tier, key].compactMap { $0 } }
}

/// What became of a credential.
package enum CredentialOutcome: Sendable {
    case verified(Caller)
    case refused(CredentialFault)
    /// Nobody can tell now: too many wait to be looked at, or the store of keys is out of reach.
    case unavailable
}

/// Why a credential does not hold.
package enum CredentialFault: CaseIterable, Equatable, Sendable {
    /// No token of three parts, of this encoding, or of this shape.
    case malformed
    /// Its algorithm is none of those that its issuer uses.
    case algorithm
    /// No key that it could have been signed with is known.
    case unknownSigningKey
    case signature
    case expired
    /// It has no `exp`, and has to.
    case endless
    case notYetValid
    case issuer
    case audience
    /// A claim that names the caller is of another type, or cannot stand in a header.
    case unusableClaim
    case unknownAPIKey

    /// RFC 6750 §3: for people, without quotes and backslashes.
    package var description: StaticString {
        switch self {
        case .malformed: "the token is malformed"
        case .algorithm: "the token's algorithm is not accepted"
        case .unknownSigningKey: "the token was signed with a key that is not known here"
        case .signature: "the token's signature does not hold"
        case .expired: "the token has expired"
        case .endless: "the token has no exp claim"
        case .notYetValid: "the token is not valid yet"
        case .issuer: "the token's issuer is not accepted"
        case .audience: "the token is for another audience"
        case .unusableClaim: "a claim of the token cannot be used"
        case .unknownAPIKey: "the API key is not known"
        }
    }
}
