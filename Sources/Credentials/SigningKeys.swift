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
    /// Keys of a set that cannot be used, and why: RFC 7517 §5 has them ignored.
    let ignored: [String]

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
        var ignored: [String] = []
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
                for member in set.keys.prefix(Self.keysMax) {
                    let (made, reason) = member.keys(issuer.algorithms)
                    keys += made
                    if let reason { ignored.append("\(path): \(reason)") }
                }
            } catch {
                throw KeyError(description: "\(path) is no JWK Set (RFC 7517 §5)")
            }
            // An empty set says that no key counts any more. One without a key that could be used is a mistake in the set
            // or in `algorithms`.
            if keys.isEmpty, !isWithdrawn {
                let names = issuer.algorithms.map(\.rawValue).joined(separator: ", ")
                let reasons = ignored.isEmpty ? "" : " (\(ignored.joined(separator: "; ")))"
                throw KeyError(description: "\(path) holds no key for \(names)\(reasons)")
            }
        }
        self.keys = keys
        self.ignored = ignored
    }

    /// Those that a token may have been signed with.
    func candidates(_ token: ParsedToken) -> [SigningKey] {
        Array(
            keys.filter { key in
                key.algorithm.name == token.algorithm && (token.keyID == nil || key.id == nil || key.id == token.keyID)
            }.prefix(Self.triesMax))
    }

    // MARK: Making them

    static func hmac(
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
    static func made(
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
