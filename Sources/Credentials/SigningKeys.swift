// The keys of an issuer. Each is bound to the algorithms that its kind is for when it is loaded, and a token's `alg` only
// chooses among those: the text of a public key can never be the secret of an HS token (RFC 8725 §3.1).

import Configuration
import FoundationEssentials
import JWTKit
import LinuxIO
import Synchronization

/// Why keys cannot be used.
package struct KeyError: Error, CustomStringConvertible {
    package let description: String
}

/// One key with one algorithm.
struct SigningKey: Sendable {
    /// `nil`: for tokens of any.
    let id: String?
    let algorithm: any JWTAlgorithm

    func verify(_ token: ParsedToken) -> Bool {
        (try? algorithm.verify(token.signature, signs: token.signed)) ?? false
    }
}

struct SigningKeys: Sendable {
    let keys: [SigningKey]

    /// Keys of one issuer: providers publish two or three.
    private static let keysMax = 64
    /// Of a file of keys.
    static let fileBytesMax = 1 << 20
    /// Keys that one token is tried with: a set without names would make each bad token cost as many signatures.
    private static let triesMax = 8

    /// - Parameter file: what stands in the issuer's file, where it has one.
    /// - Throws: `KeyError`.
    init(_ issuer: Configuration.TokenIssuer, file: [UInt8]?) throws {
        var keys: [SigningKey] = []
        var isWithdrawn = false
        switch issuer.key {
        case .secret(let secret):
            for algorithm in issuer.algorithms {
                keys.append(SigningKey(id: nil, algorithm: try Self.hmac(Array(secret.utf8), algorithm)))
            }
        case .keyFile(let path):
            let pem = String(decoding: file ?? [], as: UTF8.self)
            for algorithm in issuer.algorithms {
                do {
                    keys.append(SigningKey(id: nil, algorithm: try Self.publicKey(pem, algorithm)))
                } catch {
                    throw KeyError(
                        description: "\(path) holds no public key for \(algorithm.rawValue) in PEM: \(error)")
                }
            }
        case .jwksFile(let path):
            do {
                let set = try JSONDecoder().decode(KeySet.self, from: Data(file ?? []))
                isWithdrawn = set.keys.isEmpty
                for entry in set.keys.prefix(Self.keysMax) {
                    for algorithm in issuer.algorithms where entry.isFor(algorithm) {
                        keys.append(SigningKey(id: entry.id, algorithm: try entry.key(algorithm)))
                    }
                }
            } catch let error as KeyError {
                throw KeyError(description: "\(path): \(error)")
            } catch {
                throw KeyError(description: "\(path) is no JWK Set (RFC 7517 §5)")
            }
            // An empty set says that no key counts any more. One without a key that could be used is a mistake in the set
            // or in `algorithms`.
            if keys.isEmpty, !isWithdrawn {
                let names = issuer.algorithms.map(\.rawValue).joined(separator: ", ")
                throw KeyError(description: "\(path) holds no key for \(names)")
            }
        }
        self.keys = keys
    }

    /// Those that a token may have been signed with.
    func candidates(_ token: ParsedToken) -> [SigningKey] {
        Array(
            keys.filter { key in
                key.algorithm.name == token.algorithm && (token.keyID == nil || key.id == nil || key.id == token.keyID)
            }.prefix(Self.triesMax))
    }

    // MARK: Making them

    fileprivate static func hmac(
        _ secret: [UInt8], _ algorithm: Configuration.TokenAlgorithm
    ) throws -> any JWTAlgorithm {
        guard secret.count >= algorithm.secretBytesMin else {
            throw KeyError(description: "a secret of \(secret.count) bytes is too short for \(algorithm.rawValue)")
        }
        let digest: DigestAlgorithm =
            switch algorithm {
            case .hs384: .sha384
            case .hs512: .sha512
            case .hs256, .rs256, .rs384, .rs512, .ps256, .ps384, .ps512, .es256, .es384, .es512, .eddsa: .sha256
            }
        return try made { await $0.add(hmac: HMACKey(from: secret), digestAlgorithm: digest) }
    }

    private static func publicKey(
        _ pem: String, _ algorithm: Configuration.TokenAlgorithm
    ) throws -> any JWTAlgorithm {
        switch algorithm {
        case .rs256: try rsa(pem) { await $0.add(rsa: $1, digestAlgorithm: .sha256) }
        case .rs384: try rsa(pem) { await $0.add(rsa: $1, digestAlgorithm: .sha384) }
        case .rs512: try rsa(pem) { await $0.add(rsa: $1, digestAlgorithm: .sha512) }
        case .ps256: try rsa(pem) { await $0.add(pss: $1, digestAlgorithm: .sha256) }
        case .ps384: try rsa(pem) { await $0.add(pss: $1, digestAlgorithm: .sha384) }
        case .ps512: try rsa(pem) { await $0.add(pss: $1, digestAlgorithm: .sha512) }
        case .es256: try made { await $0.add(ecdsa: try ES256PublicKey(pem: pem)) }
        case .es384: try made { await $0.add(ecdsa: try ES384PublicKey(pem: pem)) }
        case .es512: try made { await $0.add(ecdsa: try ES512PublicKey(pem: pem)) }
        case .eddsa: try made { await $0.add(eddsa: try EdDSA.PublicKey(pem: pem)) }
        case .hs256, .hs384, .hs512: throw KeyError(description: "a public key is no secret")
        }
    }

    private static func rsa(
        _ pem: String,
        _ add: @escaping @Sendable (JWTKeyCollection, Insecure.RSA.PublicKey) async throws -> Void
    ) throws -> any JWTAlgorithm {
        let key = try Insecure.RSA.PublicKey(pem: pem)
        return try made { try await add($0, key) }
    }

    /// The library's verifiers are made by its collection of keys alone, which is an actor. What comes out is a value:
    /// verifying needs no actor.
    fileprivate static func made(
        algorithm: String? = nil, _ add: @escaping @Sendable (JWTKeyCollection) async throws -> Void
    ) throws -> any JWTAlgorithm {
        let result = Mutex<Result<any JWTAlgorithm, any Error>?>(nil)
        let box = Box(result)
        let done = Waiter()
        Task {
            do {
                let collection = JWTKeyCollection()
                try await add(collection)
                let key = try await collection.getKey(alg: algorithm)
                box.result.withLock { $0 = .success(key) }
            } catch {
                box.result.withLock { $0 = .failure(error) }
            }
            done.signal()
        }
        done.wait()
        guard let outcome = box.result.withLock({ $0 }) else { throw KeyError(description: "no key") }
        return try outcome.get()
    }

    private final class Box: Sendable {
        let result: Mutex<Result<any JWTAlgorithm, any Error>?>
        init(_ result: consuming Mutex<Result<any JWTAlgorithm, any Error>?>) { self.result = result }
    }
}

/// RFC 7517 §5. Keys of kinds that are not known are skipped, as it says; so are those that are not for signatures.
private struct KeySet: Decodable {
    var keys: [Entry]

    struct Entry: Decodable {
        private enum Key: String, CodingKey { case kty, use, alg, kid, k, crv }
        var type: String
        var use: String?
        var algorithm: String?
        var id: String?
        var curve: String?
        private var secret: String?
        private var jwk: JWK?

        init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: Key.self)
            type = try values.decode(String.self, forKey: .kty)
            use = try values.decodeIfPresent(String.self, forKey: .use)
            algorithm = try values.decodeIfPresent(String.self, forKey: .alg)
            id = try values.decodeIfPresent(String.self, forKey: .kid)
            curve = try values.decodeIfPresent(String.self, forKey: .crv)
            secret = try values.decodeIfPresent(String.self, forKey: .k)
            jwk = type == "oct" ? nil : try? JWK(from: decoder)
        }

        func isFor(_ wanted: Configuration.TokenAlgorithm) -> Bool {
            if use == "enc" { return false }
            // RFC 7517 §4.4: a key that names its algorithm is for no other.
            if let algorithm, algorithm != wanted.rawValue { return false }
            return switch wanted.family {
            case .hmac: type == "oct"
            case .rsa: type == "RSA"
            case .p256: type == "EC" && curve == "P-256"
            case .p384: type == "EC" && curve == "P-384"
            case .p521: type == "EC" && curve == "P-521"
            case .ed25519: type == "OKP" && curve == "Ed25519"
            }
        }

        func key(_ wanted: Configuration.TokenAlgorithm) throws -> any JWTAlgorithm {
            if wanted.family == .hmac {
                guard let bytes = secret.flatMap({ base64URL(Array($0.utf8)[...]) }) else {
                    throw KeyError(description: "the key \(id ?? "without a kid") has no secret")
                }
                return try SigningKeys.hmac(bytes, wanted)
            }
            guard var jwk, let algorithm = JWK.Algorithm(rawValue: wanted.rawValue) else {
                throw KeyError(description: "the key \(id ?? "without a kid") cannot be read")
            }
            // The library wants a name; ours decides which token it is for.
            jwk.keyIdentifier = JWKIdentifier(string: "key")
            jwk.algorithm = algorithm
            let copy = jwk
            do {
                return try SigningKeys.made(algorithm: wanted.rawValue) { try await $0.add(jwk: copy) }
            } catch {
                throw KeyError(description: "the key \(id ?? "without a kid") cannot be used: \(error)")
            }
        }
    }
}
