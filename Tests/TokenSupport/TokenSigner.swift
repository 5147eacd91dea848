// Tokens for tests: any header and any claims, signed as an identity provider would, or as an attacker.

import FoundationEssentials
import JWTKit
import LinuxIO
import Synchronization
import TestSupport

import struct Crypto.SHA256

/// A private key with one algorithm.
package final class TokenSigner: Sendable {
    package let algorithm: String
    /// What verifies: PEM, or the secret itself.
    package let publicKey: String
    private let signer: any JWTAlgorithm

    private init(_ algorithm: String, publicKey: String, _ signer: any JWTAlgorithm) {
        self.algorithm = algorithm
        self.publicKey = publicKey
        self.signer = signer
    }

    /// 64 bytes, enough for every HS algorithm.
    package static let secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

    /// A new key for an algorithm of RFC 7518 or RFC 8037; for `HS…` the given secret.
    package static func make(_ algorithm: String, secret: String = secret) async throws -> TokenSigner {
        let digest: DigestAlgorithm =
            algorithm.hasSuffix("384") ? .sha384 : algorithm.hasSuffix("512") ? .sha512 : .sha256
        switch algorithm {
        case "HS256", "HS384", "HS512":
            return TokenSigner(
                algorithm, publicKey: secret,
                try await collected { await $0.add(hmac: HMACKey(from: secret), digestAlgorithm: digest) })
        case "RS256", "RS384", "RS512":
            let (text, key) = try rsa()
            return TokenSigner(
                algorithm, publicKey: text,
                try await collected { await $0.add(rsa: key, digestAlgorithm: digest) })
        case "PS256", "PS384", "PS512":
            let (text, key) = try rsa()
            return TokenSigner(
                algorithm, publicKey: text,
                try await collected { await $0.add(pss: key, digestAlgorithm: digest) })
        case "ES256":
            let key = ES256PrivateKey()
            return TokenSigner(
                algorithm, publicKey: key.publicKey.pemRepresentation,
                try await collected { await $0.add(ecdsa: key) })
        case "ES384":
            let key = ES384PrivateKey()
            return TokenSigner(
                algorithm, publicKey: key.publicKey.pemRepresentation,
                try await collected { await $0.add(ecdsa: key) })
        case "ES512":
            let key = ES512PrivateKey()
            return TokenSigner(
                algorithm, publicKey: key.publicKey.pemRepresentation,
                try await collected { await $0.add(ecdsa: key) })
        case "EdDSA":
            let key = try EdDSA.PrivateKey()
            return TokenSigner(
                algorithm, publicKey: key.publicKey.pemRepresentation,
                try await collected { await $0.add(eddsa: key) })
        default: throw ProcessError("no algorithm \(algorithm)")
        }
    }

    /// The library makes no RSA keys; openssl takes a moment for one, so all tests share it.
    private static let sharedRSA = Mutex<String?>(nil)

    private static func rsa() throws -> (String, Insecure.RSA.PrivateKey) {
        let pem = try sharedRSA.withLock { shared in
            if let shared { return shared }
            let openssl = try ChildProcess("/usr/bin/openssl", ["genrsa", "2048"])
            guard try openssl.waitForExit() == 0 else { throw ProcessError("openssl: \(openssl.errors)") }
            let made = openssl.output
            shared = made
            return made
        }
        let key = try Insecure.RSA.PrivateKey(pem: pem)
        return (key.publicKey.pemRepresentation, key)
    }

    private static func collected(
        _ add: @Sendable (JWTKeyCollection) async throws -> Void
    ) async throws -> any JWTAlgorithm {
        let collection = JWTKeyCollection()
        try await add(collection)
        return try await collection.getKey()
    }

    // MARK: Signing

    /// - Parameters:
    ///   - claims: JSON text.
    ///   - header: JSON text; by default what belongs to the key.
    package func sign(_ claims: String, header: String? = nil) throws -> String {
        let header = header ?? "{\"alg\":\"\(algorithm)\",\"typ\":\"JWT\"}"
        let text = "\(Self.encoded(Array(header.utf8))).\(Self.encoded(Array(claims.utf8)))"
        return "\(text).\(Self.encoded(try signer.sign(Array(text.utf8))))"
    }

    /// RFC 7515 §2.
    package static func encoded(_ bytes: [UInt8]) -> String {
        Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }

    /// SHA-256 of a text, in hexadecimal.
    package static func hash(_ text: String) -> String {
        SHA256.hash(data: Array(text.utf8)).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// Runs what blocks on a thread of its own: tests run on the threads that tasks need, and two of them that wait for a task
/// would wait for ever.
package func onThread<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        _ = OSThread(name: "test") { continuation.resume(with: Result { try body() }) }
    }
}
