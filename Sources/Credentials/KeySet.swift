// RFC 7517 §5: a set of keys as identity providers publish it. Keys of kinds that are not known are passed over, and so are
// those that are not for signatures. One that cannot be used is left out by itself: what else the set says, such as that a
// key has been withdrawn, holds all the same.

import Configuration
import JWTKit

struct KeySet: Decodable {
    var keys: [Member]

    struct Member: Decodable {
        private var entry: Entry?

        /// Never throws: what is no key at all takes none of the others with it.
        init(from decoder: any Decoder) throws { entry = try? Entry(from: decoder) }

        /// The keys that it holds for these algorithms, or why there is none; neither where it is for others.
        func keys(_ algorithms: [Configuration.TokenAlgorithm]) -> (made: [SigningKey], reason: String?) {
            guard let entry else { return ([], "a key without a kty, or with a member of another type") }
            var made: [SigningKey] = []
            var reason: String?
            for algorithm in algorithms where entry.isFor(algorithm) {
                do {
                    made.append(SigningKey(id: entry.id, algorithm: try entry.key(algorithm)))
                } catch {
                    reason = reason ?? "the key \(entry.name): \(error)"
                }
            }
            // A secret may be long enough for one algorithm and too short for another.
            return (made, made.isEmpty ? reason : nil)
        }
    }

    fileprivate struct Entry: Decodable {
        private enum Key: String, CodingKey { case kty, use, alg, kid, k, crv, n, e, x, y }
        private var type: String
        private var use: String?
        private var algorithm: String?
        var id: String?
        private var curve: String?
        private var secret: String?
        private var modulus: String?
        /// Members that this kind of key must have, and has not.
        private var missing: [String]
        private var jwk: JWK?

        /// RFC 7518 §3.3, §3.5.
        private static let rsaBitsMin = 2_048
        /// Of a name in a log.
        private static let nameBytesMax = 64

        init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: Key.self)
            type = try values.decode(String.self, forKey: .kty)
            use = try values.decodeIfPresent(String.self, forKey: .use)
            algorithm = try values.decodeIfPresent(String.self, forKey: .alg)
            id = try values.decodeIfPresent(String.self, forKey: .kid)
            curve = try values.decodeIfPresent(String.self, forKey: .crv)
            secret = try values.decodeIfPresent(String.self, forKey: .k)
            modulus = try values.decodeIfPresent(String.self, forKey: .n)
            let needed: [Key] =
                switch type {
                case "RSA": [.n, .e]
                case "EC": [.crv, .x, .y]
                case "OKP": [.crv, .x]
                case "oct": [.k]
                default: []
                }
            missing = needed.filter { !values.contains($0) }.map(\.rawValue)
            jwk = type == "oct" ? nil : try? JWK(from: decoder)
        }

        func isFor(_ wanted: Configuration.TokenAlgorithm) -> Bool {
            if use == "enc" { return false }
            // RFC 7517 §4.4: a key that names its algorithm is for no other.
            if let algorithm, algorithm != wanted.rawValue { return false }
            // Whether it lacks its curve is for `key` to say.
            let curve = curve ?? wanted.curve
            return switch wanted.family {
            case .hmac: type == "oct"
            case .rsa: type == "RSA"
            case .p256, .p384, .p521: type == "EC" && curve == wanted.curve
            case .ed25519: type == "OKP" && curve == wanted.curve
            }
        }

        func key(_ wanted: Configuration.TokenAlgorithm) throws -> any JWTAlgorithm {
            if let obstacle { throw KeyError(description: obstacle) }
            if wanted.family == .hmac {
                guard let bytes = secret.flatMap({ base64URL(Array($0.utf8)[...]) }) else {
                    throw KeyError(description: "its secret is no base64url")
                }
                return try SigningKeys.hmac(bytes, wanted)
            }
            guard var jwk, let algorithm = JWK.Algorithm(rawValue: wanted.rawValue) else {
                throw KeyError(description: "it cannot be read")
            }
            // The library wants a name; ours decides which token it is for.
            jwk.keyIdentifier = JWKIdentifier(string: "key")
            jwk.algorithm = algorithm
            let copy = jwk
            do {
                return try SigningKeys.made(algorithm: wanted.rawValue) { try await $0.add(jwk: copy) }
            } catch {
                throw KeyError(description: "its numbers are no key for \(wanted.rawValue): \(error)")
            }
        }

        // MARK: For people

        /// Its `kid`, fit to print.
        var name: String {
            guard let id else { return "without a kid" }
            let bytes = id.utf8.prefix(Self.nameBytesMax)
            return String(decoding: bytes.map { (0x21...0x7e).contains($0) ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
        }

        /// Why it cannot be used, where that is plain.
        private var obstacle: String? {
            if !missing.isEmpty { return "\(kind) without \(missing.joined(separator: " and "))" }
            guard type == "RSA", let bits, bits < Self.rsaBitsMin else { return nil }
            return "\(kind) of \(grouped(bits)) bits; at least \(grouped(Self.rsaBitsMin))"
        }

        private var kind: String {
            switch type {
            case "RSA": "an RSA key"
            case "EC": "an EC key"
            case "OKP": "an OKP key"
            default: "a key"
            }
        }

        private var bits: Int? {
            guard let modulus, let bytes = base64URL(Array(modulus.utf8)[...]) else { return nil }
            let digits = bytes.drop { $0 == 0 }
            return digits.count * 8 - (digits.first?.leadingZeroBitCount ?? 0)
        }

        /// `2,048`.
        private func grouped(_ number: Int) -> String {
            number < 1_000 ? "\(number)" : "\(number / 1_000),\("\(1_000 + number % 1_000)".dropFirst())"
        }
    }
}

extension Configuration.TokenAlgorithm {
    /// As a key names it (`crv`); `nil` for algorithms without one.
    fileprivate var curve: String? {
        switch family {
        case .hmac, .rsa: nil
        case .p256: "P-256"
        case .p384: "P-384"
        case .p521: "P-521"
        case .ed25519: "Ed25519"
        }
    }
}
